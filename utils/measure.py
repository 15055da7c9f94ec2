"""From folders of images to rows of a results table: spectral distances, FID and KID.

Folders are datasets: anything with a length whose items are (3, H, W) tensors in [0, 1].
"""

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.feature_metrics import frechet_distance, kernel_distance
from utils.fft import image_to_mag
from utils.metrics import SpectrumFolds, SpectrumMean, spectral_distances


def batches(images, title, device, batch_size=16, num_workers=0):
    """Every image once, in order, with a bar: yields (N, 3, H, W) on the device."""
    pinned = torch.device(device).type == "cuda"  # so that copying does not hold the device up
    loader = DataLoader(images, batch_size, num_workers=num_workers, pin_memory=pinned)
    with tqdm(total=len(images), desc=title, unit="image", delay=2, leave=False) as bar:
        for image in loader:
            yield image.to(device, non_blocking=pinned)
            bar.update(len(image))


def measure_spectra(folders, read):
    """LFD and profile gap of folders.

    Args:
        folders: {role: dataset} with "real". read: as `batches` with everything but (images, title) given.
    Returns: {role: SpectrumMean}, and {role: row of `spectral_distances`} for every role but real, and for "floor".
    """
    real = SpectrumFolds()
    spectra = {role: real if role == "real" else SpectrumMean() for role in folders}
    for role, images in folders.items():
        for image in read(images, f"spectra of {role}"):
            spectra[role].update(image)
    spectra["real"] = real.total
    rows = {role: spectral_distances(spectra["real"], spectrum) for role, spectrum in spectra.items() if role != "real"}
    return spectra, rows | {"floor": real.floor()}


class FeatureDistances:
    """FID and KID of folders; the weights are found and checked when this is made, before any image is read.

    Args:
        weights: path of pytorch-fid's weights file, or None to look for it and download it.
        device: where the network runs. cache: folder for the statistics of folders. seed: of KID's subsets.
        read: as `batches` with everything but (images, title) given.
    """

    def __init__(self, weights, device, cache, seed, read):
        from utils import inception  # torchvision is slow to import, and the spectral distances do not need it

        weights = inception.find_weights(weights)
        self.inception, self.network = inception, inception.load_inception(weights, device)
        self.weights_hash = inception.file_hash(weights)
        self.device, self.cache, self.seed, self.read = device, cache, seed, read

    def _statistics(self, images, title, from_images):
        def compute():
            statistics = self.inception.FeatureStatistics(len(images))
            for image in self.read(images, title):
                if from_images:
                    image = ((image_to_mag(image)[0] + 1) / 2 * 255).round() / 255  # the picture that would be saved
                statistics.update(self.inception.inception_features(self.network, image))
            return statistics

        settings = {"size": images.size, "fit": images.fit, "spectrum": from_images, "device": self.device.type}
        name = self.inception.statistics_name(images.paths, weights=self.weights_hash, **settings)
        return self.inception.cached_statistics(self.cache / name, compute)

    def rows(self, kind, folders, from_images=False):
        """Distances to real.

        Args:
            kind: "image" or "magnitude", the prefix of the columns.
            folders: {role: ImageFolder} with "real"; each of at least four images.
            from_images: the folders hold images, and the 8-bit pictures of their log-magnitudes are wanted.
        Returns: {role: {"<kind>_fid", "<kind>_kid", "<kind>_kid_std"}} for every role but real, and for "floor".
        """
        found = {role: self._statistics(images, f"{kind} features of {role}", from_images) for role, images in folders.items()}
        real = found.pop("real")
        pairs = {role: ((real, None), (other, None)) for role, other in found.items()} | {"floor": ((real, 0), (real, 1))}
        rows = {}
        for role, pair in pairs.items():
            first, second = (statistics.moments(half) for statistics, half in pair)
            fid = frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
            kid, std = kernel_distance(*(statistics.features(half) for statistics, half in pair), seed=self.seed)
            rows[role] = {f"{kind}_fid": fid, f"{kind}_kid": kid, f"{kind}_kid_std": std}
        return rows
