"""How many images a filter needs: fitted on ever more images of a set, judged on the same ones of another.

    python -m benchmarks.fitting_size --counts 25,50,100,200,400,800
    python -m benchmarks.fitting_size --data many --test_data others --size 32 --counts 100,1000 --cnn

Without `--data` both are parts of a demo set that is as large as asked for.
"""

import argparse
import time

from tqdm import tqdm

from benchmarks.quality import refine_images
from benchmarks.quality_data import Case, Images, read_images
from benchmarks.quality_filters import fitted_filter
from benchmarks.quality_judge import COLUMNS, Judge
from data.demo import make_demo
from data.training import DATASETS, DEMO
from options import image_size, number, number_list
from utils.errors import UserError, script
from utils.filters import FILTERS
from utils.tables import format_table

SEED = 73  # of images that no other benchmark shows
TITLES = COLUMNS | {"seconds": "fitting (s)"}
SHOWN = ("lfd", "gap", "gap_upper", "spread", "logreg", "knn", "coherence", "cnn", "psnr", "seconds")


def some(images, first, last, prefix):
    """Images first to last - 1 as scenes of their own class: the demo's reals and fakes of one number show different things."""
    return Images([prefix + name for name in images.names[first:last]], images.pixels[first:last])


def open_parts(options):
    """What is judged and what may be fitted on, each {side: `Images`} with as many of each class as asked for.

    Raises: UserError if a folder is missing or has too few images, or they are of another size.
    """
    asked = {"real": max(options.counts), "fake": options.fakes or max(options.counts)}
    if options.data:
        parts = {name: (DATASETS / folder, 0) for name, folder in (("judged", options.test_data), ("fit", options.data))}
    else:
        total = options.judged + max(asked.values())
        home = DATASETS / "quality" / f"fitting_{options.size}_{total}"
        folder = home if home.exists() else make_demo(home, total, options.size, SEED)
        parts = {"judged": (folder, 0), "fit": (folder, options.judged)}
    images = {}
    for part, (folder, first) in parts.items():
        images[part] = {}
        for side, count in asked.items():
            found, count = read_images(folder / side), options.judged if part == "judged" else count
            if found.pixels.shape[-2:] != (options.size, options.size):
                raise UserError(f"{folder / side} holds images of another size than --size {options.size}")
            if len(found) < first + count:
                raise UserError(f"{folder / side} holds {len(found)} images; {first + count} are needed")
            found = found.take(count) if options.data else some(found, first, first + count, "")
            images[part][side] = some(found, 0, count, side[0])
    return images


@script
def main(argv=None):
    """Print one table; returns its rows."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.fitting_size", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=number_list(int, 1), default=(25, 50, 100, 200, 400, 800), help="images of each class")
    parser.add_argument("--fakes", type=number(int, 1), help="fit on this many fakes, whatever the count of reals is")
    parser.add_argument("--judged", type=number(int, 7), default=100, help="images of each class that judge")
    parser.add_argument("--data", help="set in datasets/ to fit on; needs --test_data")
    parser.add_argument("--test_data", help="set in datasets/ to judge on")
    parser.add_argument("--size", type=image_size, default=128)
    parser.add_argument("--cnn", action="store_true", help="judge by the CNN, too")
    options = parser.parse_args(argv)
    if bool(options.data) != bool(options.test_data):
        parser.error("argument --data: goes with --test_data; give both or neither")
    parts, rows = open_parts(options), {}
    judged, counts = parts["judged"], options.counts
    for count in tqdm(counts, unit="count"):
        fitted = [some(parts["fit"][side], 0, n, "") for side, n in (("real", count), ("fake", options.fakes or count))]
        case = Case(options.data or DEMO, options.size, "test", *fitted, judged["real"], judged["fake"])
        judge = Judge(case, quick=not options.cnn)
        for kind in FILTERS:
            start = time.perf_counter()
            refine = fitted_filter(case.fit_real.pixels, case.fit_fake.pixels, "cpu", kind)
            seconds = time.perf_counter() - start
            rows[f"{kind}, {count} images"] = judge(refine_images(refine, case.fake, "cpu"), refined=True) | {"seconds": seconds}
    rows["fake"] = judge(case.fake)
    if count >= options.judged:
        rows["floor"] = judge(case.fit_real.take(options.judged))
    print(format_table(rows, {column: TITLES[column] for column in SHOWN if any(column in row for row in rows.values())}))
    return rows


if __name__ == "__main__":
    main()
