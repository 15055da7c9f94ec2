"""Several processes compute what one does: steps, trainings, folders; and what happens when one of them is lost."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shared_steps
import torch
from PIL import Image
from small import SMALL_NETWORK, draw, draw_tiny, refused

import detect
import eval as eval_script
import gan
import inference
import train
from data.pairs import PairLoader
from detect_commands import bench
from detect_commands.bench import Bench
from detect_commands.detect import detect as detect_images
from detect_commands.options import parse_detect
from gan_commands import train as gan_train
from gan_commands.options import parse_gan
from models.batch_norm import BatchNorm, share_statistics
from utils import inception, launch
from utils.checkpoint import load_checkpoint
from utils.distributed import Processes, ProcessLost
from utils.errors import UserError
from utils.interrupts import StopRequest
from utils.locks import held_by_another, let_go
from utils.metrics import SpectrumFolds

ROOT = Path(__file__).parents[1]
SMALL = [*SMALL_NETWORK, "--data", "tiny", "--size", "16", "--epoch", "2", "--batch_size", "2"]
TRAIN = [*SMALL, "--save_frequency", "1", "--timeout", "2", "--norm", "none"]  # normalised, so small a network is chaotic
STEPS = 6  # of five fakes in two epochs; the last step of each has one pair, and the second process none
CPU, TWO = ["--device", "cpu"], ["--device", "cpu,cpu"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with datasets/tiny, in which the scripts run."""
    return draw_tiny(tmp_path_factory.mktemp("shared"), 4, 5, 16)


@pytest.fixture(autouse=True)
def inside(house, monkeypatch):
    monkeypatch.chdir(house)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def alone(house):
    """Checkpoint of the training in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(house)
        train.main([*TRAIN, *CPU, "--dst", "alone"])
    return house / "results/alone"


def run_two(script, *arguments):
    """Exit code and output of a script in two processes that torchrun starts."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local_addr=127.0.0.1", "--nproc_per_node=2"]
    command = [*launcher, str(ROOT / script)]
    done = subprocess.run([*command, *arguments, *CPU], capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, done.stderr


def assert_close(first, second, relative, absolute):
    """Tensors by name that agree to `relative` of each one's largest entry, or to `absolute`."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        error, scale = ((tensor.double()).abs().max() for tensor in (value - second[name], value))
        assert error <= relative * scale + absolute, name


def same_training(first, second):
    """Both end at the same step, drew the same random numbers and learned the same, up to rounding.

    Adam makes steps of full size out of gradients that are nothing but rounding, such as those of a bias before a normalisation.
    """
    a, b = (load_checkpoint(folder / "checkpoint.pt", "stig") for folder in (first, second))
    assert a["step"] == b["step"] == STEPS
    assert torch.equal(a["random"]["cpu"], b["random"]["cpu"])
    for kind, fitted in a["filters"].items():
        for name, part in fitted.items():
            torch.testing.assert_close(b["filters"][kind][name], part, rtol=1e-5, atol=1e-9)  # matrices round by threads
    for part in ("model", "averaged"):
        differences = [(a[part][name].float() - b[part][name].float()).flatten() for name in a[part] if a[part][name] is not None]
        assert torch.cat(differences).abs().mean() < 0.05 * a["options"]["lr"]
    losses = [list(csv.DictReader((folder / "log.csv").open())) for folder in (first, second)]
    assert [row["step"] for row in losses[0]] == [row["step"] for row in losses[1]]
    for rows in zip(*losses, strict=True):
        for name in rows[0].keys() - {"images_per_s"}:
            assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), rel=1e-2, abs=1e-4), name


@pytest.fixture(scope="module")
def halted(house):
    """results/gan_two stopped in the second of four epochs, results/detector_two after the first of three; all of .._one done."""
    draw(house / "real", 12, 3, 32)
    for seed, name in ((4, "fake"), (5, "refined")):
        draw(house / name, 10, seed, 32)
    processes, end_epoch = Processes(torch.device("cpu")), gan_train.Run.end_epoch

    def stopping(run, monitor, log):
        end_epoch(run, monitor, log)
        if run.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    def halting(folder):
        (folder / "detector.pt").unlink()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(house)
        shared_steps.commands(processes, "one")
        patch.setattr(gan_train.Run, "end_epoch", stopping)
        with pytest.raises(SystemExit) as stop:
            gan_train.train(parse_gan([*shared_steps.GAN.split(), "--dst", "gan_two"])[1], processes)
        assert stop.value.code == 130
        patch.setattr(bench, "remove_progress", halting)
        first = ["--classifier", "cnn", "--class_epoch", "1", "--dst", "detector_two"]
        with pytest.raises(KeyboardInterrupt):
            detect_images(parse_detect([*shared_steps.DETECT.split(), *first]), processes)
    let_go()  # as a script does at its end
    assert (house / "results/detector_two/cnn_classifier/run_00/last.pt").exists()


@pytest.fixture(scope="module")
def steps_of_two(halted, house, tmp_path_factory):
    """What shared_steps.py leaves in two processes: the folder, and the content of each one's file."""
    folder = tmp_path_factory.mktemp("steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(house)
        assert launch.supervise(*launch.start([shared_steps.__file__, folder], 2)) == 0
    return folder, *(torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))


def assert_alike(first, second):
    """Nested dictionaries that agree to the last bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert_alike(value, second[name])
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_an_environment_that_no_launcher_made_is_told(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for world, words in (("abc", "invalid literal"), ("2", "(MASTER_ADDR is missing)")):
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(SystemExit) as stop:
            eval_script.main(["--eval_root", "none", "--eval_mode", "lfd"])
        told = capsys.readouterr().err
        assert stop.value.code == 2 and "start with torchrun, or unset them" in told and words in told


def test_processes_go_on_alike(steps_of_two):
    _, one, two = steps_of_two
    assert_alike(one, two)


def test_steps_of_two_processes_equal_those_of_one(steps_of_two):
    for case, expected in shared_steps.steps(Processes()).items():
        found = steps_of_two[1]["stig"][case]
        for exact in (True, False):  # where something is normalised, some gradients (of biases before it) are nothing but rounding
            part = [name for name in expected["gradients"] if (case == "uneven" and name.startswith("generator.")) == exact]
            sides = ({name: side["gradients"][name] for name in part} for side in (expected, found))
            assert_close(*sides, 1e-4, 0 if exact else 5e-5)
        assert expected["gradients"].keys() == found["gradients"].keys()
        assert "heads.mlp_4.0.weight" not in found["gradients"] and "heads.mlp_2.0.weight" in found["gradients"]
        assert found["numbers"] == pytest.approx(expected["numbers"], rel=1e-2, abs=1e-4)
        buffers = [
            name for name in expected["model"] if "running" in name or "tracked" in name or name == "generator.centre"
        ]  # after a step of Adam, see `same_training`
        assert (len(buffers) > 1) == (case == "batch norm") and "generator.centre" in buffers
        assert_close(*({name: state["model"][name] for name in buffers} for state in (expected, found)), 5e-2, 1e-6)


def test_gan_steps_of_two_processes_equal_those_of_one(steps_of_two):
    """Batch normalisation, both sides of it; gradient penalties; a spectrum and a spread that are not means over images."""
    found, expected = steps_of_two[1]["gan"], shared_steps.gan_steps(Processes(torch.device("cpu")))
    assert found.pop("scores") == pytest.approx(expected.pop("scores"), rel=1e-9)
    assert found.keys() == expected.keys()
    for case, alone in expected.items():
        assert found[case]["numbers"] == pytest.approx(alone["numbers"], rel=1e-5)
        for part in ("gradients", "state"):
            assert_close(alone[part], found[case][part], 1e-4, 1e-7)


def test_detectors_of_two_processes_equal_those_of_one(steps_of_two, tmp_path):
    """Class weights that do not average to one in a batch, augmentation, batch normalisation, the choice of the best epoch."""
    processes = Processes(torch.device("cpu"))
    found, expected = steps_of_two[1]["detectors"], shared_steps.detector_steps(processes, tmp_path)
    for classifier, alone in expected.items():
        assert found[classifier]["best"] == alone["best"]
        assert found[classifier]["threshold"] == pytest.approx(alone["threshold"], rel=1e-3)
        assert_close(alone["state"], found[classifier]["state"], 5e-2 if classifier == "resnet50" else 1e-4, 1e-7)
        logs = [np.genfromtxt(folder / classifier / "log.csv", delimiter=",") for folder in (tmp_path, steps_of_two[0] / "two")]
        np.testing.assert_allclose(*logs, rtol=1e-5)


OPTIMISER = """
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from utils.launch import run_processes


def work(_, processes):
    processes.wait()
    torch.optim.Adam([torch.zeros(1)])


if __name__ == "__main__":
    run_processes(work, SimpleNamespace(device="cpu", timeout=1), __file__, None)
    sys.exit(any("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm")))
"""


def test_no_thread_of_a_group_outlives_it(tmp_path, monkeypatch):
    """One that did would abort the process now and then, when the interpreter has ended before it. (Seen on Linux only.)"""
    (tmp_path / "optimiser.py").write_text(OPTIMISER)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert launch.supervise(*launch.start([tmp_path / "optimiser.py"], 2)) == 0


def test_no_second_derivative_is_taken_of_a_sum_over_processes():
    """It would be wrong without a word; only a critic without batch normalisation meets a gradient penalty."""
    processes = Processes(world=2)
    processes.sum = lambda value: 2 * value
    x = torch.ones(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(processes.mean(x) ** 2, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.backward()


def test_what_is_drawn_uses_the_running_statistics_however_many_processes_there_are():
    layer, image = BatchNorm(3), torch.rand(2, 3, 4, 4)
    share_statistics(layer, Processes(world=2))
    assert torch.equal(layer.eval()(image), torch.nn.BatchNorm2d(3).eval()(image))


def test_random_numbers_that_the_main_process_draws_count_as_drawn_by_all(monkeypatch):
    sent, before = [], torch.get_rng_state()

    def broadcast(found):
        sent.extend([] if sent else found)
        found[:] = sent

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    drawn = Processes(rank=0, world=2).once(lambda: torch.rand(1).item())
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    assert Processes(rank=1, world=2).once(None) == drawn and torch.equal(torch.get_rng_state(), after)


def test_training_with_torchrun(alone):
    code, out, errors = run_two("train.py", *TRAIN, "--dst", "torchrun")
    assert code == 0, errors
    assert out.count("training on cpu") == 1 and out.count("| refined") == 1
    same_training(alone, alone.parent / "torchrun")
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in (alone, alone.parent / "torchrun")]
    assert len({tuple(path for path in found if "tensorboard" not in path.parts) for found in names}) == 1
    assert len(list((alone.parent / "torchrun/tensorboard").iterdir())) == 1


def wait_for(path, children):
    while not path.exists():
        assert all(child.poll() is None for child in children)
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.usefixtures("quick_figures")
def test_a_killed_process_ends_the_run_and_one_goes_on(alone, lost, capfd):
    """Whichever is lost, the other says so; the checkpoint is whole, and another number of processes goes on from it."""
    folder, options = alone.parent / f"killed_{lost}", [*TRAIN, "--dst", f"killed_{lost}"]
    children, store = launch.start([ROOT / "train.py", *options, *CPU], 2)
    wait_for(folder / "checkpoint.pt", children)
    children[lost].kill()
    assert launch.supervise(children, store) == 1
    errors = capfd.readouterr().err
    assert errors.count("error: another process of this run was lost") == errors.count("--resume") == 1
    assert errors.splitlines()[-1].startswith("error: a process was killed by signal 9")
    assert "Traceback" not in errors
    assert children[1 - lost].returncode == 1
    assert load_checkpoint(folder / "checkpoint.pt", "stig")["step"] < STEPS
    if lost:
        train.main([*options, *CPU, "--resume"])
        same_training(alone, folder)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_a_stop_asked_of_one_process_stops_all(house, capfd):
    """As by Slurm or Ctrl-C, which a launcher may pass on a second time."""
    children, store = launch.start([ROOT / "train.py", *TRAIN, "--epoch", "100", *CPU, "--dst", "stopped"], 2)
    wait_for(house / "results/stopped/checkpoint.pt", children)
    for _ in range(2):
        children[1].send_signal(signal.SIGINT)
    assert launch.supervise(children, store) == 130
    assert [child.returncode for child in children] == [130, 130]
    step = load_checkpoint("results/stopped/checkpoint.pt", "stig")["step"]
    assert f"stopped after step {step}; go on with the same command and --resume" in capfd.readouterr().out


def started_by_a_command(house, dst, epochs=1000):
    """A training of two processes by --device cpu,cpu, under way."""
    command = [sys.executable, ROOT / "train.py", *TRAIN, "--epoch", str(epochs), "--device", "cpu,cpu", "--dst", dst]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    wait_for(house / "results" / dst / "checkpoint.pt", [launcher])
    return launcher


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_stop_asked_of_the_command_alone_stops_its_processes(house):
    """As by a terminal that is gone; `test_a_paused_command_pauses_its_processes` stops one as a notebook's button does."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("the tests were started so that they ignore it, as by nohup, and so do their commands")
    launcher = started_by_a_command(house, "stopped_by_hangup")
    try:
        launcher.send_signal(signal.SIGHUP)
        assert "go on with the same command and --resume" in launcher.communicate(timeout=120)[0]
        assert launcher.returncode == 130
    finally:
        launcher.kill()  # were it still there, its processes would fill the folder under later tests


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTSTP")
def test_a_paused_command_pauses_its_processes(house):
    """As by Ctrl-Z."""
    launcher = started_by_a_command(house, "paused")
    launcher.send_signal(signal.SIGTSTP)
    os.waitpid(launcher.pid, os.WUNTRACED)
    log = house / "results/paused/log.csv"
    time.sleep(0.2)
    before = log.read_bytes()
    time.sleep(0.5)
    assert log.read_bytes() == before
    launcher.send_signal(signal.SIGCONT)
    launcher.send_signal(signal.SIGINT)
    assert "go on with the same command and --resume" in launcher.communicate(timeout=120)[0]
    assert launcher.returncode == 130
    assert log.read_bytes() != before


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_processes_do_not_outlive_the_command_that_started_them(house):
    launcher = started_by_a_command(house, "orphans")
    launcher.kill()
    launcher.communicate(timeout=120)  # until all who write to the pipe have ended
    assert not held_by_another(house / "results/orphans")


def test_the_devices_group_is_left_together_and_once():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        group = torch.distributed.new_group()
        processes = Processes(torch.device("cpu"), 0, 2, group)
        for _ in range(2):
            processes.send_no_more_tensors()
        with pytest.raises(KeyError):
            torch.distributed.get_process_group_ranks(group)
        assert processes.once(lambda: 3) == 3  # objects go on being sent
    finally:
        torch.distributed.destroy_process_group()


LATE_MISTAKE = """
import os, sys, time
mistaken = os.environ["RANK"] == "1"
time.sleep(float(sys.argv[1 + mistaken]))
sys.exit(2 if mistaken else 1)
"""


@pytest.mark.parametrize(("other", "mistaken", "grace"), [(1, 0, 60), (0, 1, 60), (1000, 0, 0.3)])
def test_the_process_whose_mistake_it_is_gives_the_exit_code(tmp_path, monkeypatch, capfd, other, mistaken, grace):
    """Whether the first one, which has lost it, ends after it, before it, or never."""
    monkeypatch.setattr(launch, "GRACE", grace)
    (tmp_path / "late.py").write_text(LATE_MISTAKE)
    assert launch.supervise(*launch.start([tmp_path / "late.py", other, mistaken], 2)) == 2
    assert capfd.readouterr().err.count("do not end by themselves") == (other == 1000)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize(
    ("failed", "asked", "code", "said"),
    [
        ([], False, 0, ""),
        ([1, 2], False, 2, ""),  # the first has only lost the second
        ([1], False, 1, ""),
        ([-9, 1], False, 1, "killed by signal 9"),
        ([130, 130], True, 130, ""),
        ([-15, -15], True, 130, "stopped before anything was begun"),
        ([-15, 130], True, 130, ""),
        ([-15], False, 1, "killed by signal 15"),
    ],
)
def test_exit_codes_of_processes_come_to_one(failed, asked, code, said, capsys):
    assert launch._exit_code(failed, asked) == code
    assert (said in (errors := capsys.readouterr().err)) and bool(errors) == bool(said)


def test_each_process_takes_its_own_device(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert launch._device_of(["auto"]) == launch._device_of(["cpu"]) == launch._device_of(["cpu", "cpu"]) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [str(launch._device_of(devices)) for devices in (["auto"], ["3", "2"], ["cpu", "0"])] == ["cuda:1", "cuda:2", "cuda:0"]
    for devices in (["2"], ["0", "1", "2"]):
        with pytest.raises(UserError, match=r"does not name one device for each of the 2 processes"):
            launch._device_of(devices)
    with pytest.raises(UserError, match="names a GPU twice"):
        launch._device_of(["2", "2"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"2 processes were started on a host with 1 GPUs; give torchrun --nproc_per_node=1"):
        launch._device_of(["auto"])


def test_an_error_is_told_by_one_process_and_a_loss_only_where_nothing_caused_it():
    def joined():
        store = torch.distributed.HashStore()
        for rank in (0, 1):
            store.set(f"joined {rank}", "")
        return store

    store, mistake, lost = joined(), UserError("no such folder"), ProcessLost("lost")
    fails = launch._fails_alone
    assert fails(lost, None) and fails(mistake, "NCCL's group") and fails(OSError(), "NCCL's group")
    assert not (fails(mistake, None) or fails(KeyboardInterrupt(), "NCCL's group") or fails(SystemExit(130), "NCCL's group"))
    assert [launch._first_to_say(store, lost, 2) for _ in range(2)] == [True, False]
    store = joined()
    assert [launch._first_to_say(store, mistake, 2) for _ in range(2)] == [True, False]
    assert launch._first_to_say(store, UserError("another"), 2)
    assert not launch._first_to_say(store, lost, 2)


def test_a_mistake_waits_for_those_who_still_join():
    store, said = torch.distributed.HashStore(), []
    store.set("joined 0", "")
    first = threading.Thread(target=lambda: said.append(launch._first_to_say(store, UserError("no such folder"), 2)))
    first.start()
    first.join(0.2)
    assert first.is_alive() and not said
    store.set("joined 1", "")
    first.join(60)
    assert said == [True]


def test_cores_are_shared_by_the_processes(monkeypatch, tmp_path):
    """As many threads each as there are cores for it, at least one, unless the user has said how many."""
    monkeypatch.setattr(launch, "_cores", lambda: 7)
    (tmp_path / "told.py").write_text(
        "import os, sys; open(sys.argv[1] + os.environ['RANK'], 'w').write(os.environ['OMP_NUM_THREADS'])"
    )
    for given, expected in ((None, "3"), ("5", "5")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert launch.supervise(*launch.start([tmp_path / "told.py", tmp_path / "threads"], 2)) == 0
        assert [(tmp_path / f"threads{rank}").read_text() for rank in (0, 1)] == [expected, expected]


def test_a_second_interrupt_stops_at_once_unless_a_launcher_may_have_doubled_the_first():
    with StopRequest(patient=True) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with StopRequest() as stop:  # what a cluster's scheduler sends may come twice, and the checkpoint is being written
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
def test_a_terminal_that_is_gone_stops_a_training_unless_nohup_has_it_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, stops in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            with StopRequest() as stop:
                signal.raise_signal(signal.SIGHUP)
                assert stop.asked == stops
    finally:
        signal.signal(signal.SIGHUP, before)


def stopped_by(folder, file, command, capfd):
    """Run a script in two processes, stop the second once a file is there; what they said."""
    children, store = launch.start(command, 2)
    wait_for(folder / file, children)
    children[1].send_signal(signal.SIGINT)
    assert launch.supervise(children, store) == 130
    assert [child.returncode for child in children] == [130, 130]
    said = capfd.readouterr()
    assert "Traceback" not in said.err and "lost" not in said.err
    return said


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_gan_training_is_stopped_by_any_process(house, capfd):
    command = [ROOT / "gan.py", *shared_steps.GAN.split(), *CPU, "--epochs", "1000", "--patience", "1000", "--dst", "gan_stopped"]
    said = stopped_by(house / "results/gan_stopped", "checkpoint.pt", command, capfd).out
    steps = load_checkpoint("results/gan_stopped/checkpoint.pt", "gan")["steps"]
    assert said.count(f"stopped after step {steps}; go on with the same command and --resume") == 1


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_a_detectors_training_is_stopped_by_any_process(halted, house, capfd):
    command = [*shared_steps.DETECT.split(), *CPU, "--classifier", "cnn", "--dst", "stopped_detector"]
    folder = house / "results/stopped_detector/cnn_classifier/run_00"
    command += ["--patience", "0"]
    said = stopped_by(folder, "last.pt", [ROOT / "detect.py", *command, "--class_epoch", "100000"], capfd).err
    assert said.count("stopped; every file in results/stopped_detector is whole") == 1
    epoch = load_checkpoint(folder / "last.pt", "detector-training")["epoch"]
    detect.main([*command, "--class_epoch", str(epoch + 3), "--resume"])
    assert (folder / "detector.pt").exists()


def same_files(one, two, logged):
    """Both folders hold files of the same names, TensorBoard's aside, of which there is one for each time that `two` was begun."""
    names = [sorted(path.relative_to(root) for path in root.rglob("*.*")) for root in (one, two)]
    assert len({tuple(path for path in found if "tensorboard" not in path.parts) for found in names}) == 1
    assert len(list((two / logged / "tensorboard").iterdir())) == 2


def rows_of(path):
    """{(step, column): value} of a log."""
    with path.open(newline="") as file:
        return {(row["step"], name): float(value) for row in csv.DictReader(file) for name, value in row.items()}


def test_gan_training_goes_on_in_two_processes(steps_of_two):
    """Stopped in one process before the second epoch was scored; what follows is as if nothing had happened."""
    roots = [Path("results/gan_one"), Path("results/gan_two")]
    one, two = (load_checkpoint(root / "checkpoint.pt", "gan") for root in roots)
    assert one["progress"] == pytest.approx(two["progress"], rel=1e-4) and one["steps"] == two["steps"] == 4
    assert torch.equal(one["random"]["cpu"], two["random"]["cpu"])
    for part in ("generator", "discriminator", "average"):
        assert_close(one[part], two[part], 1e-4, 1e-7)
    for name in ("log.csv", "epochs.csv"):
        assert rows_of(roots[0] / name) == pytest.approx(rows_of(roots[1] / name), rel=1e-4)
    same_files(*roots, "")


def test_images_drawn_by_two_processes_are_those_of_one(steps_of_two):
    drawn = [{path.name: path.read_bytes() for path in Path(f"drawn_{name}").iterdir()} for name in ("one", "two")]
    assert len(drawn[0]) == 8 and drawn[0] == drawn[1]


def test_a_detector_goes_on_in_two_processes(steps_of_two):
    """Halted in one process after the first of three epochs; the rest, its threshold and every table are as in one."""
    roots = [Path("results/detector_one"), Path("results/detector_two")]
    one, two = (load_checkpoint(root / "cnn_classifier/run_00/detector.pt", "detector") for root in roots)
    assert one["best_epoch"] == two["best_epoch"] and one["threshold"] == pytest.approx(two["threshold"], rel=1e-4)
    assert_close(one["state"], two["state"], 1e-4, 1e-7)
    logs = [rows_of(root / "cnn_classifier/run_00/log.csv") for root in roots]
    assert len(logs[0]) == 12 and logs[0] == pytest.approx(logs[1], rel=1e-5)
    for name in ("cnn_classifier/runs.csv", "knn_classifier/runs.csv", "detection_matrix.csv", "detection.md"):
        assert (roots[0] / name).read_text() == (roots[1] / name).read_text()
    same_files(*roots, "cnn_classifier/run_00")


def test_inference_by_two_processes_equals_one(alone):
    base = ["--inference_data", "datasets/tiny/fake", "--inference_params", "results/alone/checkpoint.pt", "--batch_size", "2"]
    for name, device in (("one", CPU), ("two", TWO)):
        inference.main([*base, "--dst", f"refined_{name}", "--save_mag", *device])
    files = [sorted(path for path in Path(f"results/refined_{name}").rglob("*.png")) for name in ("one", "two")]
    assert len(files[0]) == len(files[1]) == 10
    for first, second in zip(*files, strict=True):
        assert first.relative_to("results/refined_one") == second.relative_to("results/refined_two")
        one, two = (np.asarray(Image.open(path)).astype(int) for path in (first, second))
        assert np.abs(one - two).max() <= 1  # where a value lies on the edge between two grey levels, its last digit decides
        assert (one != two).mean() < 1e-3


def test_eval_by_two_processes_equals_one(house, weights):
    folders = ["--real", "datasets/tiny/real", "--fake", "datasets/tiny/fake", "--batch_size", "2"]
    options = [*folders, "--eval_mode", "all", "--inception_weights", str(weights)]
    results = [eval_script.main([*options, "--out", f"{name}/x.json", *device]) for name, device in (("one", CPU), ("two", TWO))]
    assert results[1] is None  # other processes have measured and written
    one, two = (json.loads(Path(f"{name}/x.json").read_text()) for name in ("one", "two"))
    assert one["count"] == two["count"]
    assert one["rows"].keys() == two["rows"].keys()
    for role, row in one["rows"].items():
        for name, value in row.items():
            # Inception computes in float32, whose last digit may depend on where a buffer lies; the covariances of five images
            # are singular, and a Frechet distance of them magnifies it.
            tolerance = {"rtol": 1e-3, "atol": 1e-6} if "fid" in name or "kid" in name else {"rtol": 1e-12}
            np.testing.assert_allclose(two["rows"][role][name], value, **tolerance, err_msg=name)
    np.testing.assert_allclose(two["profiles"]["real"], one["profiles"]["real"], rtol=1e-12)
    caches = [{path.name: path.read_bytes() for path in Path(f"{name}/statistics").iterdir()} for name in ("one", "two")]
    assert len(caches[0]) == 4 and caches[0].keys() == caches[1].keys()


@pytest.mark.parametrize("kept", [10_000, 30])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_parts_of_a_folder_join_to_the_whole(kept, world, monkeypatch):
    """Statistics of whole batches that consecutive processes read: nothing is lost, doubled or moved to another half."""
    monkeypatch.setattr(inception, "KEPT_FEATURES", kept)
    monkeypatch.setattr(inception, "DIMENSIONS", 8)
    features = np.random.default_rng(0).normal(size=(51, 8)).astype(np.float32)
    images = torch.rand(51, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def read(rank, world):
        part = Processes(rank=rank, world=world).block(51, 4)
        statistics, folds = inception.FeatureStatistics(51, part.start), SpectrumFolds(part.start)
        for start in range(part.start, part.stop, 4):
            stop = min(start + 4, part.stop)
            statistics.update(features[start:stop])
            folds.update(images[start:stop])
        return part, statistics, folds

    (_, whole, whole_folds), parts = read(0, 1), [read(rank, world) for rank in range(world)]
    assert [index for part, _, _ in parts for index in part] == list(range(51))
    joined = inception.FeatureStatistics.joined([statistics for _, statistics, _ in parts])
    for half in (None, 0, 1):
        assert np.array_equal(joined.features(half), whole.features(half))
        np.testing.assert_allclose(joined.moments(half).covariance, whole.moments(half).covariance, rtol=0 if kept > 51 else 1e-12)
    floors = [folds.floor() for folds in (sum((folds for _, _, folds in parts), SpectrumFolds()), whole_folds)]
    assert floors[0]["lfd"] == pytest.approx(floors[1]["lfd"], rel=1e-12)
    assert floors[0]["gap_spread"] == pytest.approx(floors[1]["gap_spread"], rel=1e-10)


@pytest.mark.parametrize("world", [2, 3])
def test_parts_of_batches_hold_every_pair_once(world):
    """Every process takes as many steps; weights of a step add up to one; who has nothing to read borrows with weight 0."""
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    loaders = [PairLoader(images, images[:7], 3, 0, part=(rank, world)) for rank in range(world)]
    whole = list(PairLoader(images, images[:7], 3, 0).batches(1))
    for number, batches in enumerate(zip(*(loader.batches(1) for loader in loaders), strict=True)):
        kept = []
        for rank, (_, fake) in enumerate(batches):
            processes = Processes(rank=rank, world=world)
            processes.begin(loaders[rank].whole(number))
            kept.append((processes.weight, fake[:, 0, 0, 0].tolist()))
        assert sum(weight for weight, _ in kept) == pytest.approx(1)
        assert [len(values) for weight, values in kept if not weight] == [1] * sum(not weight for weight, _ in kept)
        assert sorted(value for weight, values in kept if weight for value in values) == sorted(
            whole[number][1][:, 0, 0, 0].tolist()
        )


def test_mistakes_are_told_once(alone, monkeypatch, capfd):
    assert "this machine has" in refused(train.main, [*TRAIN, "--dst", "new", "--device", "76,77"], capfd)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        assert "twice" in refused(train.main, [*TRAIN, "--dst", "new", "--device", "0,cuda:0"], capfd)
    with pytest.raises(SystemExit) as stop:
        train.main([*TRAIN, *TWO, "--dst", "new", "--batch_size", "1"])
    assert stop.value.code == 2 and not Path("results/new").exists()
    errors = capfd.readouterr().err
    assert errors.count("error: ") == errors.count("--batch_size 1 is less than one pair for each of the 2 processes") == 1
    with pytest.raises(SystemExit) as stop:
        train.main([*TRAIN, *TWO, "--dst", "alone"])  # only the first process meets this
    assert stop.value.code == 2
    errors = capfd.readouterr().err
    assert errors.count("error: ") == errors.count("exists already") == 1 and "lost" not in errors


def test_batches_smaller_than_the_processes_are_refused():
    options = parse_gan([*shared_steps.GAN.split(), "--dst", "new", "--batch_size", "2"])[1]
    with pytest.raises(UserError, match="--batch_size 2 is less than one image for each of the 3 processes"):
        gan_train.train(options, Processes(world=3))
    options = parse_detect(["--dst", "new", "--class_batch_size", "2"])
    with pytest.raises(UserError, match="--class_batch_size 2 is less than one image for each of the 3 processes"):
        Bench("cnn", 32, options.of("cnn"), Processes(torch.device("cpu"), world=3))
    assert not Bench("knn", 32, options.of("knn"), Processes(torch.device("cpu"), world=3)).shared


ALONE = {
    "invert": "invert --dst x --data tiny --out y",
    "finetune": "finetune --generator x --pairs y --dst z",
    "shard": "shard --data tiny --out y",
    "spectrum": "study spectrum --real x --inputs y --dst z",
    "truncation": "study truncation --pairs x --dst y",
    "setups": "study setups --data tiny --dst z",
    "features": "--mode features --dst x",
}


@pytest.mark.parametrize("name", ALONE)
def test_what_runs_in_one_process_says_so(name, monkeypatch, capfd):
    main = detect.main if name == "features" else gan.main
    if name != "shard":  # which has no --device
        assert "runs on one device" in refused(main, [*ALONE[name].split(), *TWO], capfd)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert f"{name} runs in one process" in refused(main, ALONE[name].split(), capfd)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as stop:
        main(ALONE[name].split())
    assert stop.value.code == 2 and not capfd.readouterr().err


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (("cuda", None), r"do not compute on one kind of device \(cpu, cuda\)"),
        ((None, "--device 1: this machine has 1 usable CUDA GPUs"), "--device 1: this machine has 1"),
        (("cpu", None), None),
    ],
    ids=["another kind", "another's mistake", "alike"],
)
def test_processes_agree_on_a_kind_of_device(other, told):
    """The one that has none would leave the others waiting for it."""
    processes = SimpleNamespace(gather=lambda value: [value, other], once=lambda function: function())
    if told is None:
        assert launch._agreed_device(["cpu"], processes) == torch.device("cpu")
        return
    with pytest.raises(UserError, match=told):
        launch._agreed_device(["cpu"], processes)


def test_a_process_without_its_device_says_so_to_all():
    said = []
    processes = SimpleNamespace(gather=lambda value: said.append(value) or said, once=lambda function: function())
    with pytest.raises(UserError, match=r"--device .gpu. is not understood"):
        launch._agreed_device(["gpu"], processes)
    assert said[0][0] is None and "--device" in said[0][1]
