"""The baseline anybody would try: one fixed gain per channel and frequency, fitted without training."""

import torch

from utils.fft import fourier
from utils.profiles import radial_rings, ring_means

FLOOR = 1e-3  # Magnitudes below this count as this: 4 % of one grey level in one pixel, where a logarithm says nothing.


class LogSpectrum:
    """Running mean and variance of log(abs(F)) per channel and frequency, in float64 (Welford's update)."""

    def __init__(self):
        self.count = 0
        self.mean = self._squares = None

    def update(self, image):
        """Add images (N, C, H, W) in [0, 1]."""
        for log_spectrum in fourier(image).abs().clamp_min(FLOOR).log().double():
            if self.mean is None:
                self.mean, self._squares = torch.zeros_like(log_spectrum), torch.zeros_like(log_spectrum)
            self.count += 1
            delta = log_spectrum - self.mean
            self.mean += delta / self.count
            self._squares += delta * (log_spectrum - self.mean)

    @property
    def variance_of_mean(self):
        """Estimated variance of `mean`, (C, H, W); zero for a single image."""
        return self._squares / max(self.count - 1, 1) / self.count


def fit_linear_filter(real, fake, shrink=False):
    """Log gain that moves the fakes' mean log spectrum onto the reals'; DC is kept.

    Args:
        real, fake: `LogSpectrum` of images of one size.
        shrink: pull every gain towards the mean of its radial ring as far as it may be noise: the difference d is replaced by
            r + w (d - r), w = max(0, 1 - v / (d - r)^2), with r the ring mean and v the variance of d.
    Returns: (C, H, W) float32 for `utils.fft.apply_gain`.
    """
    log_gain = real.mean - fake.mean  # (C, H, W)
    height, width = log_gain.shape[-2:]
    if shrink:
        rings = radial_rings(height, width)
        ring = ring_means(log_gain, rings)[:, rings.to(log_gain.device)]  # (C, H, W)
        excess = (log_gain - ring).square().clamp_min(1e-12)
        weight = (1 - (real.variance_of_mean + fake.variance_of_mean) / excess).clamp_min(0)
        log_gain = ring + weight * (log_gain - ring)
    log_gain[:, height // 2, width // 2] = 0
    return log_gain.float()


def spectrum_of(images):
    """`LogSpectrum` of an iterable of batches (N, C, H, W) in [0, 1]."""
    spectrum = LogSpectrum()
    for image in images:
        spectrum.update(image)
    return spectrum
