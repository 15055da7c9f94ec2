"""What spectra have in common, so that networks need not learn it first."""

import torch

from utils.fft import image_to_mag
from utils.moments import RunningMoments

SMALLEST = 0.02  # deviation that counts at least: 1 % of the range of a normalised log-magnitude


def normalised_log_mag(image):
    """What `image_to_mag` gives of images (N, 3, H, W), without phase and range."""
    return image_to_mag(image)[0]


def fit_whitening(images, spectrum=normalised_log_mag, smallest=SMALLEST):
    """Mean and standard deviation of spectra over images, per channel and frequency.

    Args:
        images: iterable of batches (N, 3, H, W) in [0, 1].
        spectrum: function of a batch -> (N, 3, H, W), logarithmic.
        smallest: deviation that counts at least.
    Returns: (2, 3, H, W) float32, the deviation at least `smallest`.
    """
    moments = RunningMoments()
    for image in images:
        moments.update(spectrum(image).double())
    deviation = moments.variance.sqrt().clamp_min(smallest)
    return torch.stack([moments.mean, deviation]).float()
