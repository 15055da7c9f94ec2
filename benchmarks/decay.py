"""Decay features per second on one core; at least 100 at 256 px.

python -m benchmarks.decay --size 256 --images 64
"""

import argparse

import torch

from benchmarks.common import seconds
from options import number
from utils.decay import decay_features


def main(argv=None):
    """Print one sentence."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.decay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=number(int, 1), default=256, help="side of the images")
    parser.add_argument("--images", type=number(int, 1), default=64, help="how many to measure")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    images = torch.rand(options.images, 3, options.size, options.size)
    decay_features(images[:1])  # the bins of this size
    rate = options.images / seconds(lambda: decay_features(images), images.device)
    print(f"{rate:.0f} images/s at {options.size} px on one core")


if __name__ == "__main__":
    main()
