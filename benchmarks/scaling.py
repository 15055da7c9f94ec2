"""Seconds per training step of one process and of several on the CPU, same batch; prints their ratio (docs/cluster.md).

    python -m benchmarks.scaling --size 64 --batch_size 4

Images are random numbers, none are needed; the CPU must have as many cores as there are processes.
"""

import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.common import benchmark_parser
from models.stig import STIG
from models.training import Trainer
from utils.arguments import image_size, number
from utils.errors import script
from utils.files import read_json, write_json
from utils.launch import run_processes, start, supervise
from utils.tables import format_table


def time_steps(options, processes):
    """Seconds of each step in the main process, after one that warms up."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    trainer = Trainer(STIG(options.size), 8e-5, 1000, 0.99, processes)
    fake_image, real_image = torch.rand(2, options.batch_size, 3, options.size, options.size)[:, processes.rank :: processes.world]
    seconds = []
    for _ in range(options.steps + 1):
        begin = time.perf_counter()
        trainer.train_step(fake_image, real_image, options.batch_size)
        processes.wait()
        seconds.append(time.perf_counter() - begin)
    if processes.main:
        write_json(options.out, {"seconds": seconds[1:]})


@script(several=True)
def main(argv=None):
    """Print one table; in a process that is measured, take the steps."""
    parser = benchmark_parser("scaling", __doc__)
    parser.add_argument("--size", type=image_size, default=64, help="image side in pixels, a multiple of 16")
    parser.add_argument("--batch_size", type=number(int, 1), default=4, help="pairs per step, over all processes")
    parser.add_argument("--processes", type=number(int, 1), default=2, help="how many are compared with one")
    parser.add_argument("--steps", type=number(int, 1), default=3, help="steps per turn")
    parser.add_argument("--turns", type=number(int, 1), default=3, help="turns of one and of several, alternating")
    parser.add_argument("--out", help="set for the processes that are measured")
    options = parser.parse_args(argv)
    if options.out:
        run_processes(time_steps, SimpleNamespace(device="cpu", timeout=10.0, **vars(options)), __file__, argv)
        return
    seconds = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        for count in list(seconds) * options.turns:
            arguments = [f"--{name}={value}" for name, value in vars(options).items() if name != "out"]
            if supervise(*start(["-m", "benchmarks.scaling", *arguments, f"--out={out}"], count)):
                sys.exit(1)
            seconds[count] += read_json(out)["seconds"]
    means = {count: sum(values) / len(values) for count, values in seconds.items()}
    rows = {
        f"{count} process{'es' if count > 1 else ''}": {
            "seconds": means[count],
            "fastest": min(seconds[count]),
            "slowest": max(seconds[count]),
            "speed": means[1] / means[count],
        }
        for count in seconds
    }
    print(format_table(rows, {"seconds": "s/step", "fastest": "fastest", "slowest": "slowest", "speed": "x one process"}))


if __name__ == "__main__":
    main()
