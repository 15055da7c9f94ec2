"""Starting a script's processes: by torchrun, by --device 0,1, or only this one."""

import contextlib
import datetime
import importlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

import torch
import torch.distributed as dist

from utils.distributed import Processes, ProcessLost, reason, resolve_device, tell_of_cpu
from utils.errors import UserError, launched
from utils.interrupts import ending_signals, handling

LAUNCHER_HOLDS_STDIN = "STIG_LAUNCHER_HOLDS_STDIN"  # environment variable of the processes that `start` starts
GRACE = 30  # seconds that the other processes have to end by themselves once one has failed


def run_processes(work, options, script, argv):
    """Call `work(options, processes)` in this process, as one of torchrun's, or in one new process per device of --device.

    Args:
        work: the script's work. options: has device and timeout (minutes). script: the script's `__file__`.
        argv: its arguments, None = those of the command line.
    Returns: what `work` returns; None where new processes did it.
    """
    devices = options.device.split(",")
    if launched():
        return _joined(work, options, devices)
    if len(devices) == 1:
        device = resolve_device(options.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return work(options, Processes(device))
    _distinct(devices)
    code = supervise(*start([script, *(sys.argv[1:] if argv is None else argv)], len(devices)))
    if code:
        sys.exit(code)
    return None


def _distinct(names):
    """The devices of a list in --device; UserError if one is not there, or two processes would share a GPU."""
    devices = [resolve_device(name) for name in names]
    if any(device.type != "cpu" and devices.count(device) > 1 for device in devices):
        raise UserError(f"--device {','.join(names)} names a GPU twice; give each process its own")
    return devices


def _device_of(devices):
    """This process's device from the list in --device; UserError if the launcher's processes and the list do not fit."""
    local, count = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if devices == ["auto"]:
        if not torch.cuda.is_available():
            tell_of_cpu()
            return torch.device("cpu")
        if count > torch.cuda.device_count():
            raise UserError(
                f"{count} processes were started on a host with {torch.cuda.device_count()} GPUs; give torchrun "
                f"--nproc_per_node={torch.cuda.device_count()}"
            )
        return torch.device(f"cuda:{local}")
    if devices == ["cpu"]:
        return torch.device("cpu")
    if len(devices) != count:
        raise UserError(
            f"--device {','.join(devices)} does not name one device for each of the {count} processes on this host; "
            "leave the option out, and each takes its own GPU"
        )
    return _distinct(devices)[local]


def _agreed_device(devices, processes):
    """This process's device; UserError, in all of them, if one cannot have its own, or they are of several kinds."""
    try:
        device, problem = _device_of(devices), None
    except UserError as error:
        device, problem = None, str(error)
    gathered = processes.gather((device and device.type, problem))
    found = processes.once(lambda: gathered)
    told = problem or next((text for _, text in found if text), None)
    if told:
        raise UserError(told)
    if len(set(found)) > 1:
        kinds = ", ".join(kind for kind, _ in found)
        raise UserError(
            f"the processes do not compute on one kind of device ({kinds}): name it by --device, or look for a driver that is too "
            "old"
        )
    return device


def _rank_and_world():
    """Number of this process and of all, as its launcher says; UserError if these are not a launcher's words."""
    try:
        found = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return found
    except (KeyError, ValueError) as error:
        why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        told = "RANK and WORLD_SIZE are set in the environment, and not as a launcher sets them"
        raise UserError(f"{told} ({why}); start with torchrun, or unset them") from error


def _join(rank, world, timeout):
    """Join the group in which all processes of the run send each other objects; returns the store by which they have met."""
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=timeout))
        store.set_timeout(timeout)
        dist.init_process_group("gloo", store=dist.PrefixStore("group", store), rank=rank, world_size=world, timeout=timeout)
        store.set(f"joined {rank}", "")
        return store
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {rank} of {world} did not find the others ({reason(error)}); check the address given, name the network by "
            "GLOO_SOCKET_IFNAME (docs/cluster.md), or raise --timeout"
        ) from error


def _joined(work, options, devices):
    """What `work` returns in this process, one of a launcher's, whose group ends before the interpreter does.

    A thread of the group that outlives the interpreter now and then aborts the process.
    """
    # If first imported when there is a group (Adam does), its functions' defaults keep the group and its threads for ever.
    importlib.import_module("torch.distributed.nn")
    rank, world = _rank_and_world()
    if LAUNCHER_HOLDS_STDIN in os.environ:
        _end_with_launcher()
    advice = "start the command again"
    if hasattr(options, "resume"):
        whole = "if a checkpoint was written, it is whole"
        advice = f"{whole}: the same command with --resume goes on from it, on any number of processes"
    timeout = datetime.timedelta(minutes=options.timeout)
    store = _join(rank, world, timeout)
    hangs, tensors = False, None  # whether to end the group would wait for others
    try:
        device = _agreed_device(devices, Processes(None, rank, world, None, advice))
        if device.type == "cuda":
            torch.cuda.set_device(device)
            # twice as patient as the other group, which finds each loss: NCCL's own way to tell one is to abort the process
            tensors = dist.new_group(backend="nccl", timeout=2 * timeout)
        return work(options, Processes(device, rank, world, tensors, advice))
    except BaseException as error:
        hangs = _fails_alone(error, tensors)
        if isinstance(error, UserError) and not _first_to_say(store, error, world):
            sys.exit(error.exit_code)
        raise
    finally:
        if not hangs:
            dist.destroy_process_group()


def _fails_alone(error, tensors):
    """Whether other processes may go on when this one fails, so that its group does not end in all of them at once.

    What was sent to a lost process may never arrive. NCCL's group (`tensors`, None without it) ends where all of them end it, and
    as long as this process stays, the others wait for its next message.
    """
    in_all = isinstance(error, SystemExit | KeyboardInterrupt)  # where one is asked to stop, all do
    return isinstance(error, ProcessLost) or (tensors is not None and not in_all)


def _end_with_launcher():
    """Let this process be asked to end as soon as its launcher is gone, with which the other end of its standard input closes."""

    def wait():
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _first_to_say(store, error, world):
    """Whether this process is to tell the error: nobody has said the same, and no other process's mistake has caused it.

    A mistake waits until all processes have joined: one that still does would take the end of this one for a fault of the network.
    """
    try:
        if not isinstance(error, ProcessLost):
            store.wait([f"joined {rank}" for rank in range(world)])
            return store.add(f"said {error}", 1) == 1 and store.add("failed", 1) > 0
        return store.add("failed", 0) == 0 and store.add("lost", 1) == 1
    except RuntimeError:  # the process that kept the store is the one that was lost
        return True


def _cores():
    """CPU cores that this process may use, which on a cluster are not all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(command, count):
    """Start `python command` in `count` processes of this host that find each other.

    Returns: the processes, in order of rank, and the store through which they meet, which must live as long as they do.
    """
    libuv = os.name != "nt"  # torch for Windows is built without it
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, use_libuv=libuv)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is this process's, as it is torchrun's
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": str(count),
        "USE_LIBUV": str(int(libuv)),
        LAUNCHER_HOLDS_STDIN: "1",
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, _cores() // count))),
    }
    apart = os.name != "nt"  # of the terminal's signals, which `supervise` passes on once
    children = []
    for rank in range(count):
        environment = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        words = [sys.executable, *map(str, command)]
        children.append(subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, start_new_session=apart))
    return children, store


@contextlib.contextmanager
def _signals_passed_on(children):
    """Context in which what asks this process to end, or to pause (Ctrl-Z), is passed on; yields a list of what asked to end."""
    asked = []

    def forward(number, _frame):
        asked.append(number)
        if os.name != "nt" or number == signal.SIGTERM:  # Windows passes Ctrl-C to all processes of a console
            for child in children:
                child.send_signal(signal.SIGTERM)

    def pause(_number, _frame):
        for child in children:
            child.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for child in children:  # here it goes on
            child.send_signal(signal.SIGCONT)

    with contextlib.ExitStack() as stack:
        stack.enter_context(handling(forward, signal.SIGINT, *ending_signals()))
        if hasattr(signal, "SIGTSTP"):
            stack.enter_context(handling(pause, signal.SIGTSTP))
        yield asked


def supervise(children, _store):
    """Wait for processes of `start`, passing signals on; once one has failed the others have `GRACE` seconds to end.

    Returns: exit code of the first that failed by itself, 1 if it was killed; 0 if none did.
    """
    failed, deadline, end = {}, math.inf, None  # failed: rank -> exit code, in the order in which they ended
    with _signals_passed_on(children) as asked:
        try:
            while None in (codes := [child.poll() for child in children]):
                if any(codes):
                    deadline = min(deadline, time.monotonic() + GRACE)
                if end is None:
                    failed |= {rank: code for rank, code in enumerate(codes) if code}
                if time.monotonic() > deadline:
                    if end is None:
                        print(
                            "error: a process was lost, and the others do not end by themselves; they are ended now",
                            file=sys.stderr,
                        )
                    end = subprocess.Popen.terminate if end is None else subprocess.Popen.kill
                    for child in children:
                        end(child)
                    deadline = time.monotonic() + GRACE
                time.sleep(0.1)
        finally:
            for child in children:
                child.kill()
    if end is None:
        failed |= {rank: child.returncode for rank, child in enumerate(children) if child.returncode}
    return _exit_code(list(failed.values()), asked)


def _exit_code(failed, asked):
    """What processes that failed with these codes, in this order, come to; says so where they cannot have said it themselves.

    Args:
        asked: whether they were asked to end.
    """
    if asked:  # a process that had not come to handle signals yet dies of them
        if set(failed) == {-signal.SIGTERM}:
            print("stopped before anything was begun", file=sys.stderr)
        failed = [130 if code == -signal.SIGTERM else code for code in failed]
    killed = [-code for code in failed if code < 0]
    if killed:
        print(f"error: a process was killed by signal {killed[0]} (9 may mean that the memory was not enough)", file=sys.stderr)
    causes = [code for code in failed if code != ProcessLost.exit_code] or [*failed, 0]
    return max(causes[0], 1) if failed else 0
