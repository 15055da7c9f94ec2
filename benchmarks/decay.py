"""Decay features per second on one core: python -m benchmarks.decay [--size 256] [--images 64]. At least 100 at 256 px."""

import argparse
import time

import torch

from utils.decay import decay_features


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--images", type=int, default=64, help="how many to measure")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    images = torch.rand(options.images, 3, options.size, options.size)
    decay_features(images[:1])  # the bins of this size
    start = time.perf_counter()
    decay_features(images)
    print(f"{options.images / (time.perf_counter() - start):.0f} images/s at {options.size} px on one core")


if __name__ == "__main__":
    main()
