"""What rounding to 8 bit will add to an image's spectrum, taken out before.

Rounding adds white noise. The colours of photographs are hardly more than that noise at high frequencies: they were rounded once.
An image that has a photograph's spectrum before it is rounded has up to twice as much after, which a detector sees.
"""

import torch

from utils.devices import constant, on_device
from utils.fft import half_fourier, half_of, inverse_half_fourier
from utils.linear_filter import OPPONENT, RGB, log_amplitude, mixed
from utils.profiles import half_ring_means, radial_rings

ROUNDING_VARIANCE = 1 / 12 / 255**2  # of one pixel and channel in [0, 1]: a uniform error, one grey level wide
MEAN_LOG = float(torch.special.digamma(torch.tensor(1.0)))  # mean log power of a Gaussian field whose mean power is 1
LEAST = 0.1  # share of the power that is left at least
GREY = 1e-3 / 255  # channels that differ by less are rounded alike


def compensate_rounding(image):
    """Take from each opponent colour and radial ring the power that rounding to 8 bit will add; phases and DC stay.

    Args:
        image: (N, 3, H, W), not rounded yet; of one that was rounded before, rounding adds nothing, and too much would be taken.
    Returns: (N, 3, H, W), not clamped; an image's result does not depend on the others.
    """
    height, width = image.shape[-2:]
    spectrum = half_fourier(mixed(OPPONENT, image))
    power = (2 * half_ring_means(log_amplitude(spectrum), width) - MEAN_LOG).exp()  # (N, 3, R)
    is_grey = (image - image[:, :1]).abs().amax((1, 2, 3)) < GREY  # three equal errors are all grey: three times the power of one
    shares = torch.where(is_grey[:, None], constant((3, 0, 0), image.device, image.dtype), 1.0)  # (N, 3)
    added = height * width * ROUNDING_VARIANCE * shares[..., None]
    gain = (1 - added / power).clamp_min(LEAST).sqrt()
    gain[..., 0] = 1  # the first ring is DC alone
    rings = half_of(on_device(radial_rings(height, width), image.device))
    return mixed(RGB, inverse_half_fourier(spectrum * gain[..., rings], width))
