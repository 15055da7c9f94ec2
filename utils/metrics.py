"""Numbers from images, spectra and features: float64 throughout; folders are read elsewhere.

Lower is better for every distance (LFD, profile gap, Frechet distance, KID); higher is better for PSNR and SSIM. A distance
between finite folders is not 0 even when both hold the same kind of image: `SpectrumFolds.floor` says how far apart two halves
of one folder are, and belongs beside every result.
"""

import functools
import itertools
import math

import numpy as np
import torch

from utils.chunks import chunks
from utils.devices import constant, to_double
from utils.fft import half_fourier, whole_from_half
from utils.profiles import GREY_WEIGHTS, half_ring_means

PSNR_CEILING = 100.0  # dB that count for equal images in a mean over images, which would be infinite
GREY_LEVEL = 1 / 255
FOLDS = 8
TITLES = {  # of the columns of tables
    "lfd_8bit": "LFD 8-bit",
    "lfd": "LFD float",
    "gap": "gap, all bands",
    "gap_upper": "gap, upper half",
    "psnr": "PSNR to fake (dB)",
    "ssim": "SSIM to fake",
}


def log_power_profile(spectrum, width):
    """Mean log power per ring: natural log of abs(F_grey)^2 + (1/255)^2, averaged over radial rings 0..min(H, W) // 2.

    The logarithm is taken per bin before the average over the ring (and, later, over images), so that no bright frequency or
    image outweighs the others. One grey level is added inside it: a bin that is exactly zero does not become minus infinity.

    Args:
        spectrum: (N, 3, H, width // 2 + 1) complex, `half_fourier` of images in [0, 1].
        width: W of the images.
    Returns: (N, min(H, W) // 2 + 1) float64; the corners beyond the largest whole ring are left out.
    """
    parts = torch.view_as_real(spectrum)  # (N, 3, H, W // 2 + 1, 2): real weights need no complex product
    weights = constant(GREY_WEIGHTS, spectrum.device, torch.float64).view(1, 3, 1, 1, 1)
    grey = (parts * weights).sum(dim=1)  # the transform is linear: grey of the spectrum = spectrum of the grey image
    power = grey[..., 0].square() + grey[..., 1].square()  # (N, H, W // 2 + 1)
    return half_ring_means((power + GREY_LEVEL**2).log(), width)[:, : min(spectrum.shape[-2], width) // 2 + 1]


def _power(spectrum):
    """abs(F)^2; its root is abs(F) in half the time."""
    return spectrum.real.square() + spectrum.imag.square()


def _check_batch(image):
    if image.ndim != 4 or image.shape[1] != 3 or not len(image):
        raise ValueError(f"images must be a batch (N, 3, H, W), not {tuple(image.shape)}")


def _scaled_log_mag_and_profile(image):
    """What `SpectrumMean` sums up of images: (N, 3, H, W // 2 + 1), of which the rest is the mirror image, and (N, R)."""
    spectrum = half_fourier(to_double(image))
    log_mag = _power(spectrum).sqrt_().log1p_()
    low, high = log_mag.amin((1, 2, 3), keepdim=True), log_mag.amax((1, 2, 3), keepdim=True)
    return log_mag.sub_(low).div_((high - low).clamp_min(1e-12)), log_power_profile(spectrum, image.shape[-1])


class SpectrumMean:
    """Running mean spectrum of a folder: memory does not depend on the number of images.

    Attributes:
        count: images seen so far.
        log_mag: (3, H, W) float64 in [0, 1], mean of log(1 + abs(F)), each image scaled by its own minimum and maximum over all
            channels first; DC at (H // 2, W // 2).
        profile, profile_std: (R,) float64, mean and standard deviation over the images of `log_power_profile`.
    """

    def __init__(self):
        self.count = 0
        self._shape = self._log_mag_sum = self._profile_sum = self._profile_square_sum = None

    def update(self, image):
        """Add a batch.

        Args:
            image: (N, 3, H, W), values in [0, 1], N >= 1.
        Raises: ValueError if the shape is another one or differs from the first batch's.
        """
        _check_batch(image)
        for part in chunks(image):
            log_mag, profile = _scaled_log_mag_and_profile(part)
            self._add(image.shape[1:], len(part), log_mag.sum(0), profile.sum(0), profile.square().sum(0))

    def _add(self, shape, count, *sums):
        if self.count and shape != self._shape:
            raise ValueError(f"images of {tuple(shape)} cannot be averaged with {tuple(self._shape)}")
        self._shape = shape
        names = ("_log_mag_sum", "_profile_sum", "_profile_square_sum")
        for name, value in zip(names, sums, strict=True):
            if self.count:
                getattr(self, name).add_(value)
            else:
                setattr(self, name, value.clone())
        self.count += count

    def __getstate__(self):
        """For another process, which may not have this one's device: everything on the CPU."""
        return {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in self.__dict__.items()}

    def __add__(self, other):
        """The mean over the images of both."""
        total = SpectrumMean()
        for part in (self, other):
            if part.count:
                total._add(part._shape, part.count, part._log_mag_sum, part._profile_sum, part._profile_square_sum)
        return total

    def _mean(self, value):
        if not self.count:
            raise ValueError("a mean of no images does not exist: call update first")
        return value / self.count

    @property
    def log_mag(self):
        return whole_from_half(self._mean(self._log_mag_sum), self._shape[-1])

    @property
    def profile(self):
        return self._mean(self._profile_sum)

    @property
    def profile_std(self):
        return (self._mean(self._profile_square_sum) - self.profile.square()).clamp_min(0).sqrt()


class SpectrumFolds:
    """`SpectrumMean` of a folder kept in eight parts, so that halves of it can be compared: the floor of every distance.

    One split into halves depends on luck (LFD 13.8 to 15.2 on 80 photographs); the mean over all 35 splits of eight parts does
    not, and costs no second pass.

    Args:
        start: index in the folder of the first image that will come, where others are counted elsewhere.
    """

    def __init__(self, start=0):
        self._folds, self._next = [SpectrumMean() for _ in range(FOLDS)], start

    def __add__(self, other):
        """The parts of both, which hold different images of one folder."""
        total = SpectrumFolds()
        total._folds = [first + second for first, second in zip(self._folds, other._folds, strict=True)]
        return total

    def update(self, image):
        """Add a batch (N, 3, H, W) in [0, 1]; the image with index n goes to part `fold_of(n)`."""
        _check_batch(image)
        for part in chunks(image):
            for log_mag, profile in zip(*_scaled_log_mag_and_profile(part), strict=True):
                self._folds[fold_of(self._next)]._add(image.shape[1:], 1, log_mag, profile, profile.square())
                self._next += 1

    @property
    def total(self):
        """`SpectrumMean` of all images."""
        return sum(self._folds, SpectrumMean())

    def floor(self):
        """Distances between two halves of the folder, averaged over all splits of its parts.

        A half has half as many images, so twice the variance: LFD is about log 2 = 0.69, and a gap about sqrt 2 times, higher than
        that of two folders of the whole size that hold the same kind of image.

        Returns: as `spectral_distances`, plus `<name>_spread` = (smallest, largest) over the splits.
        Raises: ValueError with fewer than two images.
        """
        filled = [fold for fold in self._folds if fold.count]
        if len(filled) < 2:
            raise ValueError("two halves need at least two images")
        chosen = [c for c in itertools.combinations(range(len(filled)), len(filled) // 2) if len(filled) % 2 or 0 in c]
        rows = []
        for first in chosen:
            halves = [sum((f for i, f in enumerate(filled) if (i in first) == side), SpectrumMean()) for side in (True, False)]
            rows.append(spectral_distances(*halves))
        means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        spreads = {f"{name}_spread": [f(row[name] for row in rows) for f in (min, max)] for name in rows[0]}
        return means | spreads


def fold_of(index):
    """Part 0..7 of the image with this index, in a fixed random order: any eight consecutive images from a multiple of eight on
    fill all parts, and any two from an even index on go to an even and an odd part.
    """
    return _fold_order(index // FOLDS)[index % FOLDS]


def first_half(count):
    """Which of `count` images are in the first of two halves, (count,) bool: as many in both, but for one."""
    return np.array([fold_of(index) % 2 == 0 for index in range(count)], dtype=bool)


@functools.lru_cache(maxsize=8)
def _fold_order(block):
    generator = np.random.default_rng(block)
    pairs = np.stack([2 * generator.permutation(FOLDS // 2), 2 * generator.permutation(FOLDS // 2) + 1], axis=1)
    return generator.permuted(pairs, axis=1).flatten().tolist()


def lfd(real, other, bits=8):
    """Log frequency distance: log(1 + sum over channels and bins of the squared difference of two mean log-magnitudes).

    Lower is better. The sum is not an average: only numbers of one image size compare. The released code subtracts in uint8,
    where a difference of 16 levels or more wraps; here it is exact (docs/fidelity.md).

    Args:
        real, other: `SpectrumMean` of images of one size.
        bits: 8 rounds both means to 0..255 (paper); None keeps them as they are, on the same scale.
    Returns: float >= 0.
    Raises: ValueError for other bits or another shape.
    """
    if bits not in (8, None):
        raise ValueError(f"bits must be 8 or None, not {bits!r}")
    first, second = _same_shape(real.log_mag * 255, other.log_mag * 255)
    difference = first.round() - second.round() if bits else first - second
    return math.log1p(float(difference.square().sum()))


def profile_gap(real, other):
    """Mean absolute difference of two mean log power profiles, in natural-log units of power (0.1 is about 10 %).

    Args:
        real, other: `SpectrumMean` of images of one size. The profile is `log_power_profile` (grey, logarithm per bin).
    Returns: (over all rings 0..N/2, over their outer half); lower is better.
    """
    first, second = _same_shape(real.profile, other.profile)
    difference = (first - second).abs()
    return float(difference.mean()), float(difference[len(difference) // 2 :].mean())


def _same_shape(first, second):
    if first.shape != second.shape:
        raise ValueError(f"spectra of {tuple(first.shape)} and {tuple(second.shape)} cannot be compared: use one image size")
    return first, second.to(first.device)


def spectral_distances(real, other):
    """All distances between two `SpectrumMean`s: {"lfd_8bit", "lfd", "gap", "gap_upper"}; lower is better."""
    gap, gap_upper = profile_gap(real, other)
    return {"lfd_8bit": lfd(real, other), "lfd": lfd(real, other, bits=None), "gap": gap, "gap_upper": gap_upper}


def psnr(first, second):
    """Peak signal-to-noise ratio in dB of images (N, 3, H, W) in [0, 1] -> (N,) float64; infinite for equal images."""
    error = (to_double(first) - to_double(second)).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def ssim(first, second):
    """Structural similarity (Wang et al. 2004): 11-tap Gaussian window, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2.

    The usual form for reporting: only windows that lie wholly inside the image count. The training loss pads with zeros.

    Args:
        first, second: (N, C, H, W), values in [0, 1], at least 11 x 11.
    Returns: (N,) float64, mean over channels and positions, at most 1; higher is better.
    Raises: ValueError if the shapes differ or the images are smaller than the window.
    """
    if first.shape != second.shape or min(first.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs two batches of one shape, at least 11 x 11: {tuple(first.shape)}, {tuple(second.shape)}")
    parts = zip(chunks(first), chunks(second), strict=True)
    return torch.cat([_ssim(to_double(part), to_double(other.to(part.device))) for part, other in parts])


def _ssim(first, second):
    """`ssim` of a few images in float64. The variances are needed as their sum only: one blur less."""
    mean_1, mean_2 = _gaussian_blur(first), _gaussian_blur(second)
    squares, product = mean_1.square() + mean_2.square(), 2 * mean_1 * mean_2
    variances = _gaussian_blur(first.square() + second.square()) - squares
    covariance = 2 * _gaussian_blur(first * second) - product  # twice it
    luminance = (product + 0.01**2) / (squares + 0.01**2)
    structure = (covariance + 0.03**2) / (variances + 0.03**2)
    return (luminance * structure).flatten(1).mean(1)


def _gaussian_blur(image):
    """(N, C, H, W) -> (N, C, H - 10, W - 10) with the 11-tap window of `ssim`, one axis after the other.

    Eleven shifted sums: four times as fast as torch's float64 convolution of single channels.
    """
    taps = [math.exp(-(tap**2) / (2 * 1.5**2)) for tap in range(-5, 6)]
    for axis in (-2, -1):
        length = image.shape[axis] - 10
        blurred = torch.zeros_like(image.narrow(axis, 0, length))
        for offset, tap in enumerate(taps):
            blurred.add_(image.narrow(axis, offset, length), alpha=tap / sum(taps))
        image = blurred
    return image
