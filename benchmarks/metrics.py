"""How fast folders are measured: `python -m benchmarks.metrics`. Rates are given beside the floor that reading the files sets.

All parts are timed in turn in one run, several rounds over, and the best round of each counts: ratios hold on a busy machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from data.folder import ImageFolder, list_images
from utils.distributed import resolve_device
from utils.feature_metrics import Moments, frechet_distance, kernel_distance
from utils.fft import log_magnitude
from utils.metrics import SpectrumFolds, SpectrumMean, psnr, ssim
from utils.run_dir import write_png


def make_images(folder, count, size):
    """Smooth random images with a little noise: files that decode at the speed of photographs."""
    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = torch.from_numpy(generator.random((1, 3, size // 16, size // 16)))
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
        write_png(folder / f"{index:03}.png", smooth + 0.02 * torch.from_numpy(generator.standard_normal((3, size, size))))


def run_on(updater, batches):
    """Feed every batch to `updater.update`, and wait for the device."""
    for image in batches:
        updater.update(image)
    return float(updater.total.profile[0]) if isinstance(updater, SpectrumFolds) else float(updater.profile[0])


def image_parts(folder, batches):
    """{what: function that handles every image once}."""
    return {
        "reading and decoding (floor)": lambda: [folder[index] for index in range(len(folder))],
        "float32 log-magnitude alone": lambda: [float(log_magnitude(image).sum()) for image in batches],
        "LFD and profile: SpectrumMean": lambda: run_on(SpectrumMean(), batches),
        "the same in parts, for the floor: SpectrumFolds": lambda: run_on(SpectrumFolds(), batches),
        "PSNR": lambda: [float(psnr(image, image.flip(0)).sum()) for image in batches],
        "SSIM": lambda: [float(ssim(image, image.flip(0)).sum()) for image in batches],
    }


def best_times(parts, rounds):
    """Seconds of each part in its best round; the parts take turns."""
    times = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in times.items()}  # the first round warms up


def feature_parts(count):
    """Frechet distance and KID of `count` random 2048-dimensional features a side."""
    features = np.random.default_rng(1).standard_normal((2, count, 2048))
    moments = [Moments(), Moments()]
    for half, values in zip(moments, features, strict=True):
        half.update(values)
    first, second = ((half.mean, half.covariance) for half in moments)
    return {
        f"Frechet distance, {count} images": lambda: frechet_distance(*first, *second),
        f"KID, {count} images": lambda: kernel_distance(*features),
    }


def main(argv=None):
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", default="64,256", help="image sides in pixels")
    parser.add_argument("--count", type=int, default=32, help="images")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            make_images(Path(name), options.count, size)
            folder = ImageFolder(list_images(name))
            images = torch.stack([folder[index] for index in range(len(folder))]).to(device)
            times = best_times(image_parts(folder, images.split(options.batch_size)), options.rounds)
        floor = times["reading and decoding (floor)"]
        print(f"\n{options.count} images of {size} px, {device}, {torch.get_num_threads()} threads: images/s, time / floor")
        for part, seconds in times.items():
            print(f"  {part:<50}{options.count / seconds:9.1f}{seconds / floor:8.2f}")
    print("\nfrom features to numbers: seconds")
    for part, seconds in best_times(feature_parts(80) | feature_parts(2500), 1).items():
        print(f"  {part:<50}{seconds:9.2f}")


if __name__ == "__main__":
    main()
