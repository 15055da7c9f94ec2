"""What magnitudes of photographs have in common, so that networks need not learn it first."""

import torch

from utils.fft import image_to_mag
from utils.linear_filter import OPPONENT, mixed
from utils.moments import RunningMoments

SMALLEST = 0.02  # deviation that counts at least: 1 % of the range of a magnitude


def fit_whitening(images):
    """Mean and standard deviation of the normalised log-magnitude over images, per channel and frequency.

    Args:
        images: iterable of batches (N, 3, H, W) in [0, 1].
    Returns: (2, 3, H, W) float32, the deviation at least `SMALLEST`.
    """
    moments = RunningMoments()
    for image in images:
        moments.update(image_to_mag(mixed(OPPONENT, image))[0].double())
    deviation = moments.variance.sqrt().clamp_min(SMALLEST)
    return torch.stack([moments.mean, deviation]).float()
