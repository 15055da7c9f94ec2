"""How many images a filter needs: fitted on ever more images of the demo, judged on the same other ones.

    python -m benchmarks.fitting_size --counts 25,50,100,200,400,800

The demo alone has as many images as one asks for. Quick judges only: no CNN.
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
from utils.errors import script
from utils.filters import FILTERS
from utils.tables import format_table

SEED = 73  # of images that no other benchmark shows
TITLES = COLUMNS | {"seconds": "fitting (s)"}
SHOWN = ("lfd", "gap", "gap_upper", "spread", "logreg", "knn", "coherence", "psnr", "seconds")


def some(images, first, last, prefix):
    """Images first to last - 1 as scenes of their own class: the demo's reals and fakes of one number show different things."""
    return Images([prefix + name for name in images.names[first:last]], images.pixels[first:last])


@script
def main(argv=None):
    """Print one table; returns its rows."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.fitting_size", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=number_list(int, 1), default=(25, 50, 100, 200, 400, 800), help="images of each class")
    parser.add_argument("--judged", type=number(int, 7), default=100, help="images of each class that judge")
    parser.add_argument("--size", type=image_size, default=128)
    options = parser.parse_args(argv)
    total = options.judged + max(options.counts)
    home = DATASETS / "quality" / f"fitting_{options.size}_{total}"
    folder = home if home.exists() else make_demo(home, total, options.size, SEED)
    real, fake = (read_images(folder / side) for side in ("real", "fake"))
    rows = {}
    for count in tqdm(options.counts, unit="count"):
        fitted_on, judged = (options.judged, options.judged + count), (0, options.judged)
        parts = [some(images, *span, side) for span in (fitted_on, judged) for side, images in (("r", real), ("f", fake))]
        case = Case(DEMO, options.size, "test", *parts)
        judge = Judge(case, quick=True)
        for kind in FILTERS:
            start = time.perf_counter()
            refine = fitted_filter(case.fit_real.pixels, case.fit_fake.pixels, "cpu", kind)
            seconds = time.perf_counter() - start
            rows[f"{kind}, {count} images"] = judge(refine_images(refine, case.fake, "cpu"), refined=True) | {"seconds": seconds}
    rows["fake"] = judge(case.fake)
    if count >= options.judged:
        rows["floor"] = judge(case.fit_real.take(options.judged))
    print(format_table(rows, {column: TITLES[column] for column in SHOWN}))
    return rows


if __name__ == "__main__":
    main()
