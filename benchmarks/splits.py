"""What one split owes to luck: refiners fitted on a random half of a set and judged on the other, again and again.

    python -m benchmarks.splits --sets stargan_celeba,pix2pix_map2sat --splits 20
    python -m benchmarks.splits --sets stargan_celeba --rows polyphase,default,floor --splits 5 --epoch 4 --width 16

benchmarks/quality.py judges one fixed half; with 25 to 50 images its floor alone moves by a factor of several in the gaps. Here
every split deals all scenes anew (a fake and the photograph it was made from stay together), and rows are compared within it.
Options that are not listed here go to train.py; finished trainings in results/quality are not repeated.
"""

import numpy as np
from tqdm import tqdm

from benchmarks.common import benchmark_parser
from benchmarks.imagenet import NETWORKS, load_imagenet
from benchmarks.quality import add_common, completed, refine_images
from benchmarks.quality_data import FEWEST, HOME, PARTS, Case, read_images, scene, source_folder, write_part
from benchmarks.quality_judge import CLASSICAL, CNNS, COLUMNS, Judge, fold_of_scenes
from benchmarks.quality_rows import prepare_row
from data.listing import DATASETS, list_images
from utils.arguments import number
from utils.distributed import resolve_device
from utils.errors import UserError, script
from utils.tables import format_table

SHOWN = (
    "lfd",
    "gap",
    "gap_upper",
    "spread",
    "logreg",
    "knn",
    "coherence",
    "coherence8",
    "seen_coherence8",
    "cnn",
    "cnn_opponent",
    "kid_imagenet",
    "kid_imagenet_mag",
    "psnr",
)
AGAINST = {  # title -> (column, the row it is compared with, how)
    "LFD - floor's": ("lfd", "floor", "difference"),
    "LFD - linear's": ("lfd", "linear", "difference"),
    "gap, all bands / floor's": ("gap", "floor", "ratio"),
    "gap, upper half / floor's": ("gap_upper", "floor", "ratio"),
    "spread / floor's": ("spread", "floor", "ratio"),
}


def open_split(name, size, split):
    """A `Case` of all images of a set, its scenes dealt to two halves at random, always the same for the same `split`.

    Raises: UserError as `quality_data.open_case`.
    """
    source, case_name, images = source_folder(name, size), f"{name}_split{split}", []
    sides = {side: list_images(source / side) for side in ("real", "fake")}
    halves = fold_of_scenes(*([scene(path.name) for path in paths] for paths in sides.values()), 2, split)
    for half, part in enumerate(PARTS["test"]):
        chosen = {
            side: [path for path, place in zip(paths, fold, strict=True) if place == half]
            for (side, paths), fold in zip(sides.items(), halves, strict=True)
        }
        for side, paths in chosen.items():
            if len(paths) < FEWEST:
                raise UserError(f"half of {source / side} is {len(paths)} images; {FEWEST} are needed: add images")
        folder = DATASETS / HOME / f"{case_name}_{size}" / part
        write_part(folder, chosen, size)
        images += [read_images(folder / side) for side in chosen]
    return Case(case_name, size, "test", *images)


def judge_split(case, options, device):
    """Numbers of all rows on one split: {row: {column: value}}."""
    judge, numbers = Judge(case, options.detectors, options.networks), {}
    for row in options.rows:
        _, start = prepare_row(row, "0", case, options.train, device)
        if start is None:
            numbers[row] = judge(case.fake) if row == "fake" else judge.floor()
        else:
            numbers[row] = judge(refine_images(start()[0], case.fake, device), refined=True)
    return numbers


def summarise(splits):
    """Two tables of a list of `judge_split`: values, and rows against others; both mean and standard deviation over splits.

    A ratio is that of the means over splits: the mean of ratios would be ruled by splits whose floor is small by luck.
    """
    values, against = {}, {}
    for row, first in splits[0].items():
        values[row] = {column: spelt([numbers[row][column] for numbers in splits]) for column in SHOWN if column in first}
        against[row] = {}
        for title, (column, other, how) in AGAINST.items():
            if other in splits[0] and other != row:
                own, others = (np.array([numbers[which][column] for numbers in splits]) for which in (row, other))
                against[row][title] = spelt(own - others) if how == "difference" else f"{own.mean() / others.mean():.2f}"
    return values, against


def spelt(numbers):
    """Mean ± standard deviation, as text."""
    return f"{np.mean(numbers):.3f} ± {np.std(numbers, ddof=1):.3f}"


@script
def main(argv=None):
    """Print two tables of every set; returns {set: list of `judge_split`}."""
    parser = benchmark_parser("splits", __doc__)
    add_common(parser, ("fake", "linear", "cepstral", "lifter", "polyphase", "floor"))
    parser.add_argument("--splits", type=number(int, 2), default=10, help="random halves")
    parser.add_argument("--cnn", action="store_true", help="judge by the CNNs, too")
    parser.add_argument("--eighths", action="store_true", help="judge by coherence8, too, of eighths of the sampling rate")
    parser.add_argument("--imagenet", action="store_true", help="judge by KID on ImageNet features, too (benchmarks/imagenet.py)")
    options, options.train = parser.parse_known_args(argv)
    options, results = completed(options, parser), {}
    options.detectors = CLASSICAL + ("coherence8",) * options.eighths + CNNS * options.cnn
    options.networks = NETWORKS if options.imagenet else {}
    if options.networks:
        load_imagenet()  # or it is told now that it is not there
    device = resolve_device(options.device)
    for name in options.sets:
        results[name] = [
            judge_split(open_split(name, options.size, split), options, device)
            for split in tqdm(range(options.splits), desc=name, unit="split")
        ]
        values, against = summarise(results[name])
        print(f"\n**{name}**, {options.size} px, {options.splits} random halves (mean ± standard deviation):\n")
        print(format_table(values, {column: COLUMNS[column] for column in SHOWN if any(column in row for row in values.values())}))
        print(f"\n{format_table(against, {title: title for title in AGAINST})}", flush=True)
    return results


if __name__ == "__main__":
    main()
