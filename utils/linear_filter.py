"""The baseline anybody would try: one fixed gain per channel and frequency, fitted without training."""

from utils.fft import fourier
from utils.profiles import radial_rings, ring_means

RING_DOUBT, BIN_DOUBT = 4, 2  # how many times its variance a squared gain must reach to count at all (docs/fidelity.md)
FLOOR = 1e-3  # Magnitudes below this count as this: 4 % of one grey level in one pixel, where a logarithm says nothing.


class RunningMoments:
    """Running mean of tensors of one shape and the variance of that mean (Welford's update)."""

    def __init__(self):
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def update(self, value):
        """Add one tensor."""
        self.count += 1
        delta = value - self.mean
        self.mean = self.mean + delta / self.count
        self._squares = self._squares + delta * (value - self.mean)

    @property
    def variance_of_mean(self):
        """Estimated variance of `mean`; zero for a single tensor."""
        return self._squares / max(self.count - 1, 1) / self.count


class LogSpectrum:
    """Running statistics of log(abs(F)) in float64.

    Attributes:
        bins: `RunningMoments` per channel and frequency, (C, H, W).
        rings: `RunningMoments` of each image's means over radial rings, (C, R).
    """

    def __init__(self):
        self.bins, self.rings = RunningMoments(), RunningMoments()

    def update(self, image):
        """Add images (N, C, H, W) in [0, 1]."""
        for log_spectrum in fourier(image).abs().clamp_min(FLOOR).log().double():
            self.bins.update(log_spectrum)
            self.rings.update(ring_means(log_spectrum, radial_rings(*log_spectrum.shape[-2:])))


def _shrink(difference, target, variance, doubt):
    """Pull a difference to its target as far as it may be noise: weight 1 - doubt variance / (difference - target)^2, >= 0."""
    excess = difference - target
    return target + (1 - doubt * variance / excess.square().clamp_min(1e-12)).clamp_min(0) * excess


def fit_linear_filter(real, fake, shrink=False):
    """Log gain that moves the fakes' mean log spectrum onto the reals'; DC is kept.

    Args:
        real, fake: `LogSpectrum` of images of one size.
        shrink: apply no noise. Each ring's mean gain is pulled to 0, and each bin's to that ring mean, by `_shrink` with the
            variance of the difference between the two sets of images.
    Returns: (C, H, W) float32 for `utils.fft.apply_gain`.
    """
    log_gain = real.bins.mean - fake.bins.mean  # (C, H, W)
    height, width = log_gain.shape[-2:]
    if shrink:
        ring_variance, bin_variance = (
            getattr(real, part).variance_of_mean + getattr(fake, part).variance_of_mean for part in ("rings", "bins")
        )
        ring_gain = _shrink(real.rings.mean - fake.rings.mean, 0.0, ring_variance, RING_DOUBT)  # (C, R)
        by_ring = ring_gain[:, radial_rings(height, width).to(log_gain.device)]  # (C, H, W)
        log_gain = _shrink(log_gain, by_ring, bin_variance, BIN_DOUBT)
    log_gain[:, height // 2, width // 2] = 0
    return log_gain.float()


def spectrum_of(images):
    """`LogSpectrum` of an iterable of batches (N, C, H, W) in [0, 1]."""
    spectrum = LogSpectrum()
    for image in images:
        spectrum.update(image)
    return spectrum
