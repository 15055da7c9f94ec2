"""From folders of images to rows of a results table: spectral distances, FID and KID.

Folders are datasets: anything with a length whose items are (3, H, W) tensors in [0, 1].
"""

import dataclasses
import functools
import operator

import torch
from torch.utils.data import Subset
from tqdm import tqdm

from utils.ahead import read_ahead
from utils.distributed import Processes
from utils.errors import UserError
from utils.feature_metrics import kernel_distance
from utils.files import file_hash
from utils.metrics import SpectrumFolds, SpectrumMean, spectral_distances
from utils.pictures import mag_picture, to_8bit

AT_ONCE = 2**20  # pixels that a network of full width refines in 5 GiB (a CPU, float32): 16 images of 256 px, one of 1024 px


def refined_at_once(side):
    """How many images of a side go through a refiner together where nobody has said how many."""
    return max(1, AT_ONCE // side**2)


def batches(images, title, device, batch_size=16, num_workers=0):
    """Every image once, in order, with a bar: yields (N, 3, H, W) on the device; `num_workers` threads read ahead.

    Raises: UserError if images of one batch differ in size: one was exchanged after it had been checked.
    """
    pinned = torch.device(device).type == "cuda"  # so that copying does not hold the device up

    def read(start):
        some = [images[index] for index in range(start, min(start + batch_size, len(images)))]
        if len({image.shape for image in some}) > 1:
            raise UserError(f"{title}: an image is of another size than when it was checked; let nothing change it and run again")
        image = torch.stack(some)
        return image.pin_memory() if pinned else image

    with tqdm(total=len(images), desc=title, unit="image", delay=2, leave=False) as bar:
        for image in read_ahead(read, range(0, len(images), batch_size), num_workers):
            yield image.to(device, non_blocking=pinned)
            bar.update(len(image))


def evenly_spaced(count, most):
    """Indices of at most `most` of `count` images."""
    step = max(1.0, count / most)
    return [int(number * step) for number in range(min(count, most))]


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads this process's part of folders, in whole batches: an image meets the same others in any number of processes."""

    processes: Processes
    batch_size: int
    num_workers: int

    def part(self, images):
        """Range of the indices that this process reads."""
        return self.processes.block(len(images), self.batch_size)

    def __call__(self, images, title):
        """As `batches`, of this process's part."""
        return batches(Subset(images, self.part(images)), title, self.processes.device, self.batch_size, self.num_workers)


def measure_spectra(folders, read):
    """LFD and profile gap of folders.

    Args:
        folders: {role: dataset} with "real". read: a `Reader`.
    Returns: {role: SpectrumMean}, and {role: row of `spectral_distances`} for every role but real, and for "floor" (not of a single
        real); both empty but in the main process.
    """
    spectra = {role: SpectrumMean() for role in folders} | {"real": SpectrumFolds(read.part(folders["real"]).start)}
    for role, images in folders.items():
        for image in read(images, f"spectra of {role}"):
            spectra[role].update(image)
    parts = {role: read.processes.gather(spectrum) for role, spectrum in spectra.items()}
    if not read.processes.main:
        return {}, {}
    spectra = {role: functools.reduce(operator.add, part) for role, part in parts.items()}
    real = spectra["real"]
    spectra["real"] = real.total
    rows = {role: spectral_distances(spectra["real"], spectrum) for role, spectrum in spectra.items() if role != "real"}
    return spectra, rows | ({"floor": real.floor()} if real.total.count > 1 else {})


class FeatureDistances:
    """FID and KID of folders; the weights are found and checked when this is made, before any image is read.

    Args:
        weights: path of pytorch-fid's weights file, or None to look for it and download it.
        cache: folder for the statistics of folders. seed: of KID's subsets.
        read: a `Reader`; the network runs on the device of its processes.
    """

    def __init__(self, weights, cache, seed, read):
        from utils import inception  # torchvision is slow to import, and the spectral distances do not need it

        weights = read.processes.once(lambda: inception.find_weights(weights))
        self.inception, self.network = inception, inception.load_inception(weights, read.processes.device)
        self.weights_hash = file_hash(weights)
        self.cache, self.seed, self.read = cache, seed, read

    def _statistics(self, images, title, from_images):
        """`FeatureStatistics` of a folder, from the cache or computed and kept there; of use in the main process alone."""
        processes = self.read.processes
        settings = {"size": images.size, "fit": images.fit, "spectrum": from_images, "device": processes.device.type}

        def find():
            path = self.cache / self.inception.statistics_name(images.paths, weights=self.weights_hash, **settings)
            return path, self.inception.cached_statistics(path)

        path, statistics = find() if processes.main else (None, None)
        if processes.once(lambda: statistics is not None):
            return statistics
        statistics = self.inception.FeatureStatistics(len(images), self.read.part(images).start)
        for image in self.read(images, title):
            if from_images:
                image = to_8bit(mag_picture(image))
            statistics.update(self.inception.inception_features(self.network, image))
        if processes.world > 1:
            parts = processes.gather(statistics)
            statistics = self.inception.FeatureStatistics.joined(parts) if processes.main else None
        if processes.main:
            statistics.save(path)
        return statistics

    def rows(self, kind, folders, from_images=False):
        """Distances to real.

        Args:
            kind: "image" or "magnitude", the prefix of the columns.
            folders: {role: ImageFolder} with "real"; each of at least four images.
            from_images: the folders hold images, and the 8-bit pictures of their log-magnitudes are wanted.
        Returns: {role: {"<kind>_fid", "<kind>_kid", "<kind>_kid_std"}} for every role but real, and for "floor"; empty
            but in the main process.
        """
        found = {role: self._statistics(images, f"{kind} features of {role}", from_images) for role, images in folders.items()}
        if not self.read.processes.main:
            return {}
        real = found.pop("real")
        pairs = {role: ((real, None), (other, None)) for role, other in found.items()} | {"floor": ((real, 0), (real, 1))}
        rows = {}
        for role, pair in pairs.items():
            first, second = (statistics.moments(half) for statistics, half in pair)
            fid = first.frechet_distance(second)
            kid, std = kernel_distance(*(statistics.features(half) for statistics, half in pair), seed=self.seed)
            rows[role] = {f"{kind}_fid": fid, f"{kind}_kid": kid, f"{kind}_kid_std": std}
        return rows
