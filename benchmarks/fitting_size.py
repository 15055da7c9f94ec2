"""How many images a filter needs: fitted on ever more images of a set, judged on the same ones of another.

    python -m benchmarks.fitting_size --counts 25,50,100,200,400,800
    python -m benchmarks.fitting_size --data many --test_data others --size 32 --counts 100,1000 --cnn

Without `--data` both are parts of a demo set that is as large as asked for; it is drawn once and kept in datasets/quality.
"""

import time

from tqdm import tqdm

from benchmarks.common import benchmark_parser
from benchmarks.quality import refine_images
from benchmarks.quality_data import Case, Images, read_images
from benchmarks.quality_filters import fitted_filter
from benchmarks.quality_judge import CLASSICAL, CNNS, COLUMNS, Judge
from data.demo import make_demo
from data.listing import DATASETS
from data.training import DEMO
from utils.arguments import image_size, number, number_list
from utils.errors import UserError, script
from utils.filters import FILTERS
from utils.tables import format_table

SEED = 73  # of images that no other benchmark shows
TITLES = COLUMNS | {"seconds": "fitting (s)"}
SHOWN = ("lfd", "gap", "gap_upper", "spread", "logreg", "knn", "coherence", "cnn", "cnn_opponent", "psnr", "seconds")


def some(images, first, last, prefix=""):
    """Images first to last - 1; with a prefix as scenes of their own, as the demo's reals and fakes of one number are."""
    return Images([prefix + name for name in images.names[first:last]], images.pixels[first:last])


def open_parts(options):
    """What is judged and what may be fitted on, each {side: `Images`}, as many of each class as asked for.

    Raises: UserError if a folder is missing or has too few images, or they are of another size.
    """
    most = max(options.counts)
    if options.data:
        places = {"judged": (DATASETS / options.test_data, options.judged), "fit": (DATASETS / options.data, most)}
    else:
        home = DATASETS / "quality" / f"fitting_{options.size}_{options.judged + most}"
        folder = home if home.exists() else make_demo(home, options.judged + most, options.size, SEED)
        sides = {side: read_images(folder / side) for side in ("real", "fake")}
        spans = {"judged": (0, options.judged), "fit": (options.judged, options.judged + most)}
        return {part: {side: some(images, *span, side[0]) for side, images in sides.items()} for part, span in spans.items()}
    parts = {part: {} for part in places}
    for part, (folder, count) in places.items():
        for side in ("real", "fake"):
            images = read_images(folder / side)
            if images.pixels.shape[-2:] != (options.size, options.size):
                raise UserError(f"{folder / side} holds images of another size than --size {options.size}")
            if len(images) < count:
                raise UserError(f"{folder / side} holds {len(images)} images; {count} are needed")
            parts[part][side] = some(images.take(count), 0, count)
    return parts


@script
def main(argv=None):
    """Print one table; returns its rows."""
    parser = benchmark_parser("fitting_size", __doc__)
    parser.add_argument(
        "--counts",
        type=number_list(7),
        default=(25, 50, 100, 200, 400, 800),
        help="images of each class, the first by name of those drawn; 7 or more",
    )
    parser.add_argument("--judged", type=number(int, 7), default=100, help="images of each class that judge")
    parser.add_argument("--data", help="set in datasets/ to fit on; needs --test_data")
    parser.add_argument("--test_data", help="set in datasets/ to judge on")
    parser.add_argument("--size", type=image_size, default=128, help="side of the images")
    parser.add_argument("--cnn", action="store_true", help="judge by the CNNs, too")
    options = parser.parse_args(argv)
    if bool(options.data) != bool(options.test_data):
        parser.error("argument --data: goes with --test_data; give both or neither")
    parts, rows = open_parts(options), {}
    judged = parts["judged"].values()
    for count in tqdm(options.counts, unit="count"):
        fitted = (some(images, 0, count, "") for images in parts["fit"].values())
        case = Case(options.data or DEMO, options.size, "test", *fitted, *judged)
        judge = Judge(case, CLASSICAL + CNNS * options.cnn)
        for kind in FILTERS:
            start = time.perf_counter()
            refine = fitted_filter(case.fit_real.pixels, case.fit_fake.pixels, "cpu", kind)
            seconds = time.perf_counter() - start
            rows[f"{kind}, {count} images"] = judge(refine_images(refine, case.fake, "cpu"), refined=True) | {"seconds": seconds}
    rows["fake"] = judge(case.fake)
    if max(options.counts) >= options.judged:
        rows["floor"] = judge(parts["fit"]["real"].take(options.judged))
    print(format_table(rows, {column: TITLES[column] for column in SHOWN if any(column in row for row in rows.values())}))
    return rows


if __name__ == "__main__":
    main()
