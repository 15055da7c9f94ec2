"""What a filter costs: fitting it, and refining images with it, beside reading and writing them.

    python -m benchmarks.filters --sizes 128,256 --device cpu

Images are drawn (data/demo.py). A time is that of the best round; parts take turns.
"""

import functools
import tempfile
from pathlib import Path

import torch

from benchmarks.common import benchmark_parser, best_times, image_sizes, synchronise
from data.demo import make_demo
from data.folder import load_folder
from utils.aliases import PERIODS
from utils.arguments import number
from utils.distributed import resolve_device
from utils.errors import script
from utils.filters import FILTERS, filtered, fit_filters
from utils.pictures import write_png
from utils.tables import format_table

BATCH = 16


def kinds():
    """{row: (kind, period)}: all filters, and polyphase with each period."""
    rows = {kind: (kind, PERIODS[0]) for kind in FILTERS}
    return rows | {f"polyphase --period {period}": ("polyphase", period) for period in PERIODS[1:]}


def costs(home, count, size, rounds, device):
    """{row: numbers} of all filters on `count` + `count` images; the last row is the floor, reading and writing."""
    drawn = make_demo(home / "set", count, size)
    folders = [load_folder(drawn / side, size)[0] for side in ("real", "fake")]
    real, fake = (torch.stack([*folder]).to(device) for folder in folders)
    reads = [functools.partial(images.split, BATCH) for images in (real, fake)]
    some, fitted = range(min(BATCH, count)), {}

    def fit(row, kind, period):
        fitted[row] = fit_filters(*reads, [kind], period)[kind]
        synchronise(device)

    def refine(row):
        filtered(fake[: len(some)], fitted[row])
        synchronise(device)

    def read_and_write():
        for index in some:
            write_png(home / "written", folders[1][index])

    fits = best_times({row: functools.partial(fit, row, *kind) for row, kind in kinds().items()}, rounds, warm_up=0)
    passes = {row: functools.partial(refine, row) for row in fitted} | {"reading and writing (floor)": read_and_write}
    passes = best_times(passes, rounds)
    floor = passes["reading and writing (floor)"]
    rows = {row: {"pass": 1e3 * time / len(some), "floors": time / floor} for row, time in passes.items()}
    for row, time in fits.items():
        rows[row] |= {"fit": time, "pair": 1e3 * time / count}
    return rows


@script
def main(argv=None):
    """Print one table for each size."""
    parser = benchmark_parser("filters", __doc__)
    parser.add_argument("--sizes", type=image_sizes, default=(64, 128), help="image sides in pixels, multiples of 16")
    parser.add_argument("--n", type=number(int, 3), default=32, help="images of each class that filters are fitted on")
    parser.add_argument("--rounds", type=number(int, 1), default=2, help="of which the best counts")
    parser.add_argument("--device", default="auto", help="as train.py")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    titles = {"fit": f"fitting on {options.n} + {options.n} (s)", "pair": "the same, a pair (ms)"}
    titles |= {"pass": "refining an image (ms)", "floors": "refining / floor"}
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            rows = costs(Path(name), options.n, size, options.rounds, device)
        print(f"\n{size} px, {device}, {torch.get_num_threads()} threads:\n\n{format_table(rows, titles)}", flush=True)


if __name__ == "__main__":
    main()
