"""What rounding to 8 bit adds to the spectra of refined images, with and without compensation.

    python -m benchmarks.rounding --data cifar10_gan --size 32

A polyphase filter is fitted on some images of a set and applied to the fakes of others, as `benchmarks.quality` splits them.
Numbers are mean log amplitudes of opponent colours: those of the photographs, and how much higher others are.
"""

import torch

from benchmarks.common import benchmark_parser
from benchmarks.quality_data import open_case
from benchmarks.quality_filters import plain_rounding
from utils.arguments import image_size
from utils.errors import script
from utils.linear_filter import OPPONENT, MeanLogSpectrum
from utils.pictures import to_8bit
from utils.profiles import radial_rings, ring_means
from utils.rounding import compensate_rounding
from utils.tables import format_table

COLOURS = ("grey", "red - blue", "green against both")
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25)  # of the largest whole ring; beyond 1 only corners are


def levels(images):
    """Mean log amplitude over images of opponent colours, per ring: (3, R)."""
    spectrum = MeanLogSpectrum(OPPONENT)
    for part in images.split(16):
        spectrum.update(part)
    return ring_means(spectrum.mean, radial_rings(*images.shape[-2:]))


@script
def main(argv=None):
    """Print one table; returns its rows."""
    parser = benchmark_parser("rounding", __doc__)
    parser.add_argument("--data", required=True, help="set in datasets/ with real/ and fake/")
    parser.add_argument("--size", type=image_size, default=128, help="side of the centre crops")
    parser.add_argument("--part", choices=("validation", "test"), default="validation", help="what is judged")
    options = parser.parse_args(argv)
    case = open_case(options.data, options.size, options.part)
    refine = plain_rounding(case.fit_real.pixels, case.fit_fake.pixels, torch.device("cpu"))
    refined = torch.cat([refine(part) for part in case.fake.pixels.split(16)])
    real = levels(case.real.pixels)
    columns = {
        "fake": case.fake.pixels,
        "refined, not rounded": refined,
        "rounded": to_8bit(refined),
        "compensated and rounded": to_8bit(torch.cat([compensate_rounding(part) for part in refined.split(16)])),
    }
    excess = {name: levels(images) - real for name, images in columns.items()}
    rows = {}
    for colour, name in enumerate(COLOURS):
        for ring in (round(share * options.size / 2) for share in SHARES):
            numbers = {column: float(found[colour, ring]) for column, found in excess.items()}
            rows[f"{name}, ring {ring}"] = {"photographs": float(real[colour, ring])} | numbers
    print(format_table(rows, {name: name for name in ("photographs", *columns)}))
    return rows


if __name__ == "__main__":
    main()
