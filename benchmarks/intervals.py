"""How often the 95 % intervals of detect.py hold the truth, and how wide they are.

    python -m benchmarks.intervals

Scores are drawn from two normal distributions of width 1, again and again, so that the truth is known. Cells: share of draws whose
interval holds the true number, and its mean width.
"""

import numpy as np
from scipy.stats import norm

from benchmarks.common import benchmark_parser
from utils.arguments import number
from utils.detection import scores_with_intervals
from utils.errors import script
from utils.tables import format_table

COUNTS = ((8, 8), (16, 16), (40, 40), (25, 200), (200, 25))  # reals, fakes
DISTANCES = (0, 1, 2, 3, 4)  # of the two means
SHOWN = ("accuracy", "balanced_accuracy", "real_right", "fake_right", "ap", "auc")
DRAWN = 400_000  # images that stand for endlessly many


def truth(n_real, n_fake, distance, generator):
    """{measure: its value for endlessly many images}, those of the fakes n_fake / (n_real + n_fake) of all.

    Average precision is that of `DRAWN` images, the rest in closed form.
    """
    right, fakes = norm.cdf(distance / 2), DRAWN * n_fake // (n_real + n_fake)
    scores = generator.normal(size=DRAWN - fakes), generator.normal(distance, size=fakes)
    ap = scores_with_intervals(*scores, 0.5)["ap"][0]
    shares = dict.fromkeys(("accuracy", "balanced_accuracy", "real_right", "fake_right"), right)
    return shares | {"ap": ap, "auc": norm.cdf(distance / 2**0.5)}


def coverage(n_real, n_fake, distance, draws, generator):
    """{measure: (share of intervals that hold the truth, mean width)}; decisions are made halfway between the means."""
    true = truth(n_real, n_fake, distance, generator)
    holds, widths = ({name: [] for name in SHOWN} for _ in range(2))
    for _ in range(draws):
        scores = generator.normal(size=n_real), generator.normal(distance, size=n_fake)
        found = scores_with_intervals(*scores, 0.5, decision=distance / 2)
        for name in SHOWN:
            _, low, high = found[name]
            holds[name].append(low <= true[name] <= high)
            widths[name].append(high - low)
    return {name: (np.mean(holds[name]), np.mean(widths[name])) for name in SHOWN}


@script
def main(argv=None):
    """Print one table; returns its rows."""
    parser = benchmark_parser("intervals", __doc__)
    parser.add_argument("--draws", type=number(int, 1), default=2000, help="of each row")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of the draws")
    options = parser.parse_args(argv)
    generator, rows = np.random.default_rng(options.seed), {}
    for n_real, n_fake in COUNTS:
        for distance in DISTANCES:
            found = coverage(n_real, n_fake, distance, options.draws, generator)
            cells = {name: f"{holds:.3f} ({width:.2f})" for name, (holds, width) in found.items()}
            rows[f"{n_real} + {n_fake}, {distance} apart"] = cells
    print(format_table(rows, {name: name for name in SHOWN}, "reals + fakes"))
    return rows


if __name__ == "__main__":
    main()
