"""Most of what docs/performance.md says about a GPU, measured again in one go.

    python -m benchmarks.gpu --minutes 12

Runs commands one after the other and keeps what each prints in results/gpu/NAME.txt, under the command itself. One that fails, or
is not done in time, does not stop the others, and its output stays in NAME.unfinished; a second call does what is missing. No
images are needed.
"""

import os
import shlex
import signal
import subprocess
import sys
import time

from benchmarks.common import benchmark_parser
from utils.arguments import name_list, number, run_name
from utils.distributed import resolve_device
from utils.errors import UserError, script
from utils.run_dir import run_folder
from utils.tables import format_table

STEP = "-m benchmarks.step --device 0 --sizes"
TRAIN = "train.py --device 0 --data demo --size 256 --epoch 4 --num_workers 2 --seed 0 --overwrite"
TESTS = "-m pytest -q -p no:cacheprovider tests/test_gpu.py -k"
COMMANDS = {  # name -> what Python is given; the shorter and the less known come first
    "step_batch_1": f"{STEP} 256 --variants plain,eager,graph,amp+graph,amp+compile+graph --warm_up 5 --steps 5 --profile 25",
    "step_batches": f"{STEP} 256 --batches 8,16,32 --variants amp+compile+graph --warm_up 5 --steps 3 --profile 30",
    "tests": f"{TESTS} 'not trainings and not train_refine'",
    "tests_slow": f"{TESTS} 'trainings or train_refine'",
    "upsample": "-m benchmarks.upsample --device 0",
    "metrics": "-m benchmarks.metrics --sizes 256 --n 512 --workers 0,4,8 --rounds 2 --device 0",
    "train_plain": f"{TRAIN} --cuda_graphs False --dst gpu_plain",
    "train_fast": f"{TRAIN} --amp --compile --dst gpu_fast",
    "train_fast_not_centred": f"{TRAIN} --amp --compile --centre False --dst gpu_fast_not_centred",
    "step_large": f"{STEP} 512,1024 --variants eager,amp+graph --warm_up 4 --turns 1 --steps 2",
    "step_batches_plain": f"{STEP} 256 --batches 16 --variants plain,eager --warm_up 3 --turns 1 --steps 2",
    "filters": "-m benchmarks.filters --sizes 128,256 --device 0",
}
LONGEST = 240  # seconds that one command may take while others wait


def ended_in_time(arguments, file, limit):
    """Exit code of Python with some arguments, which prints to a file; None if it ran for longer than `limit` seconds."""
    own_group = {"start_new_session": True} if hasattr(os, "killpg") else {}  # so that what it starts ends with it
    process = subprocess.Popen([sys.executable, "-u", *shlex.split(arguments)], stdout=file, stderr=subprocess.STDOUT, **own_group)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL) if own_group else process.kill()
            process.wait()


def measured(path, arguments, limit):
    """Run one command for `limit` seconds at most and keep what it prints at a path, or beside it if it does not come to its end.

    Returns: what became of it, in words.
    """
    unfinished, start = path.with_suffix(".unfinished"), time.monotonic()
    with unfinished.open("w", encoding="utf-8") as file:
        print(f"$ python {arguments}\n", file=file, flush=True)
        code = ended_in_time(arguments, file, limit)
    if code == 0:
        unfinished.replace(path)
    end = "done" if code == 0 else "out of time" if code is None else f"failed with exit code {code}"
    return f"{end}, {time.monotonic() - start:.0f} s"


@script
def main(argv=None):
    """Print what became of each command; returns that by name."""
    parser = benchmark_parser("gpu", __doc__)
    parser.add_argument("--only", type=name_list(tuple(COMMANDS)), default=tuple(COMMANDS), metavar="NAME[,NAME...]", help="which")
    parser.add_argument("--minutes", type=number(float, 0, open_low=True), default=60, help="for all together")
    parser.add_argument("--dst", type=run_name, default="gpu", help="outputs go to results/<dst>")
    options = parser.parse_args(argv)
    if resolve_device("auto").type != "cuda":
        raise UserError("PyTorch finds no CUDA GPU here, and these commands measure nothing else; call this where there is one")
    home, end, found = run_folder(options.dst), time.monotonic() + 60 * options.minutes, {}
    home.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(options.only):
        path, left = home / f"{name}.txt", end - time.monotonic()
        if path.exists():
            found[name] = "done before"
        else:
            waiting = any(not (home / f"{other}.txt").exists() for other in options.only[place + 1 :])
            found[name] = measured(path, COMMANDS[name], min(left, LONGEST) if waiting else left) if left > 0 else "no time left"
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    print(format_table({name: {"end": end} for name, end in found.items()}, {"end": f"output in {home}"}))
    return found


if __name__ == "__main__":
    main()
