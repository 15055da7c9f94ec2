"""How fast folders are measured. Rates are given beside the floor that reading the files sets.

    python -m benchmarks.metrics
    python -m benchmarks.metrics --sizes 256 --n 10000 --device 0 --inception_weights pt_inception-2015-12-05-6726825d.pth

Images are drawn, none are needed. All parts are timed in turn in one run, several rounds over, and the best round of each counts:
ratios hold on a busy machine.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import benchmark_parser, best_times, draw_pictures, for_each, image_sizes
from data.folder import ImageFolder
from data.listing import list_images
from utils.aliases import alias_features, alias_lags
from utils.arguments import number, number_list
from utils.decay import decay_features
from utils.distributed import resolve_device
from utils.errors import script
from utils.feature_metrics import Moments, kernel_distance
from utils.fft import fourier
from utils.measure import batches as read_batches
from utils.metrics import GREY_LEVEL, SpectrumFolds, SpectrumMean, psnr, ssim
from utils.profiles import log_profile, radial_rings, ring_means, to_grey

DISTINCT = 200  # pictures that differ; the files repeat them
FEATURES = (80, 2500)  # images a side, for what is computed of features
IN_MEMORY = 32  # images of which each part is timed


def make_images(folder, count, size):
    """Write numbered files to read."""
    pictures = draw_pictures(min(count, DISTINCT), size)
    for index in range(count):
        (folder / f"{index:06}.png").write_bytes(pictures[index % DISTINCT])


class PlainMean:
    """What `SpectrumMean` sums up, by the whole complex transform of each image."""

    def __init__(self):
        self.log_mag, self.profile = 0.0, 0.0

    def update(self, image):
        for part in image.double().split(2):
            log_mag = fourier(part).abs().log1p()
            low, high = log_mag.amin((1, 2, 3), keepdim=True), log_mag.amax((1, 2, 3), keepdim=True)
            self.log_mag = self.log_mag + ((log_mag - low) / (high - low)).sum(0)
            power = fourier(to_grey(part)).abs().square()
            self.profile = self.profile + ring_means((power + GREY_LEVEL**2).log(), radial_rings(*power.shape[-2:])).sum(0)


def run_on(updater, batches):
    """Feed every batch to `updater.update`, and wait for the device."""
    for image in batches:
        updater.update(image)
    profile = updater.total.profile if isinstance(updater, SpectrumFolds) else updater.profile
    return float(profile.flatten()[0])


def all_lags(image):
    """What `alias_features` takes a few lags of, by the whole transform of each shift's products."""
    for part in image.double().split(2):
        spectrum = fourier(to_grey(part))
        lags = alias_lags(spectrum / spectrum.abs())
    return float(lags.real.sum())


def image_parts(folder, batches):
    """{what: function that handles every image once}."""
    return {
        "reading and decoding (floor)": lambda: for_each(folder.__getitem__, range(sum(map(len, batches)))),
        "float32 log-magnitude alone": lambda: [float(fourier(image).abs().log1p().sum()) for image in batches],
        "LFD and profile: SpectrumMean": lambda: run_on(SpectrumMean(), batches),
        "the same by the whole complex transform": lambda: run_on(PlainMean(), batches),
        "the same in parts, for the floor: SpectrumFolds": lambda: run_on(SpectrumFolds(), batches),
        "PSNR": lambda: [float(psnr(image, image.flip(0)).sum()) for image in batches],
        "SSIM": lambda: [float(ssim(image, image.flip(0)).sum()) for image in batches],
        "decay features": lambda: [float(decay_features(image).sum()) for image in batches],
        "a detector's radial profile": lambda: [float(log_profile(image).sum()) for image in batches],
        "coherence features": lambda: [float(alias_features(image).sum()) for image in batches],
        "the same by whole transforms of products": lambda: [all_lags(image) for image in batches],
    }


class Everything:
    """LFD, profile, decay features and a detector's profile."""

    def __init__(self):
        self.total, self.rows = SpectrumFolds(), []

    def update(self, image):
        self.total.update(image)
        self.rows += [decay_features(image).cpu(), log_profile(image).cpu()]


def file_parts(folder, device, batch_size, workers, network):
    """{what: function that reads and measures every file once}."""
    parts = {"reading and decoding (floor)": lambda: for_each(folder.__getitem__, range(len(folder)))}
    for count in workers:
        read = functools.partial(read_batches, folder, "", device, batch_size, count)

        def measure(make, read=read):
            updater = make()
            for image in read():
                updater.update(image)
            return updater.total.total if isinstance(updater, Everything) else updater.total

        with_workers = f"{count} reading ahead" if count else "read when asked for"
        parts[f"LFD and profile, {with_workers}"] = functools.partial(measure, SpectrumFolds)
        parts[f"decay features and detector's profile too, {with_workers}"] = functools.partial(measure, Everything)
        if network:
            parts[f"Inception features, {with_workers}"] = lambda read=read: for_each(network, read())
    return parts


def inception_network(weights, device):
    """Function from images to features, or None without weights."""
    if weights is None:
        return None
    from utils import inception  # torchvision is slow to import

    return functools.partial(inception.inception_features, inception.load_inception(weights, device))


def feature_parts(count):
    """Frechet distance and KID of `count` random 2048-dimensional features a side."""
    features = np.random.default_rng(1).standard_normal((2, count, 2048))
    first, second = map(Moments.of, features)
    return {
        f"Frechet distance, {count} images": lambda: first.frechet_distance(second),
        f"KID, {count} images": lambda: kernel_distance(*features),
    }


@script
def main(argv=None):
    """Print both tables."""
    parser = benchmark_parser("metrics", __doc__)
    parser.add_argument("--sizes", type=image_sizes, default=(64, 256), help="image sides in pixels, multiples of 16")
    parser.add_argument("--n", type=number(int, 1), default=256, help="files that are read and measured")
    parser.add_argument("--batch_size", type=number(int, 1), default=16, help="images that are read and measured together")
    parser.add_argument("--workers", type=number_list(0), default=(0, 1, 2), help="numbers of threads that read ahead")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="of which the best counts")
    parser.add_argument("--inception_weights", metavar="PATH", help="measure Inception features, too")
    parser.add_argument("--device", default="auto", help="as train.py")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    network = inception_network(options.inception_weights, device)
    threads = f"{device}, {torch.get_num_threads()} threads: images/s, time / floor"
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            make_images(Path(name), options.n, size)
            folder = ImageFolder(list_images(name))
            images = torch.stack([folder[index] for index in range(min(IN_MEMORY, len(folder)))]).to(device)
            parts = image_parts(folder, images.split(options.batch_size))
            if network:
                parts["Inception features"] = lambda images=images: [network(image) for image in images.split(options.batch_size)]
            print_rates(f"{len(images)} images of {size} px in memory, {threads}", len(images), best_times(parts, options.rounds))
            parts = file_parts(folder, device, options.batch_size, options.workers, network)
            times = best_times(parts, options.rounds, warm_up=0)
            print_rates(f"{options.n} files of {size} px, {threads}", options.n, times)
    print("\nfrom features to numbers: seconds")
    parts = {part: work for count in FEATURES for part, work in feature_parts(count).items()}
    for part, seconds in best_times(parts, 1).items():
        print(f"  {part:<50}{seconds:9.2f}")


def print_rates(title, count, times):
    """One table; its first part is the floor."""
    print(f"\n{title}")
    floor = next(iter(times.values()))
    for part, seconds in times.items():
        print(f"  {part:<58}{count / seconds:9.1f}{seconds / floor:8.2f}", flush=True)


if __name__ == "__main__":
    main()
