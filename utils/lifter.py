"""The lifter: each image's own spectrum, not only the mean one, varies over images as those of photographs do.

A fixed gain moves the mean log spectrum and leaves how images differ from it, by which a detector still tells them. The deviation
of an image from the mean is taken to its cepstrum, where it is liftered: multiplied per quefrency (docs/fidelity.md).
"""

import functools

import torch

from utils.fft import cepstrum, fourier, from_cepstrum, inverse_fourier
from utils.linear_filter import OPPONENT, high_band, log_amplitude, mixed, trust
from utils.moments import RunningMoments
from utils.profiles import half_octaves, quefrencies

NEAR = 2.5  # pixels: quefrencies nearer than this are told apart by direction, too
DOUBT = 4  # times its variance that a squared log-ratio of energies must reach to count at all
SMALLEST = 1e-9  # energy that counts at least, so that its logarithm exists


@functools.lru_cache(maxsize=32)
def quefrency_groups(height, width):
    """Which quefrencies share a factor: (H, W) int64 from 0 on; mirrored ones always do.

    Near 0 that is all, so that upright and lying structures count apart; further out a half-octave of distance is one group.
    """
    rows, columns = quefrencies(height, width)
    is_near = torch.hypot(rows.double(), columns.double()) < NEAR
    groups = torch.where(is_near, height * columns + rows, half_octaves(height, width) + height * width)
    return groups.unique(return_inverse=True)[1]


def _deviation_cepstrum(log_spectrum, mean):
    """Cepstrum (N, 3, H, W) over opponent colours of what a log spectrum differs from `mean` by, DC aside."""
    deviation = log_spectrum - mean
    deviation[..., deviation.shape[-2] // 2, deviation.shape[-1] // 2] = 0
    return cepstrum(mixed(OPPONENT, deviation))


class LogEnergies(RunningMoments):
    """`RunningMoments` of each image's log energy per opponent colour and group of quefrencies, (3, groups).

    Args:
        mean: mean log spectrum of the images, (3, H, W) float64.
    """

    def __init__(self, mean):
        super().__init__()
        self._mean_spectrum = mean
        self._groups = quefrency_groups(*mean.shape[-2:]).flatten().to(mean.device)
        self._sizes = torch.bincount(self._groups)

    def update(self, image):
        """Add images (N, 3, H, W)."""
        values = _deviation_cepstrum(log_amplitude(fourier(image)).double(), self._mean_spectrum)
        sums = values.new_zeros(*values.shape[:2], len(self._sizes)).index_add(2, self._groups, values.square().flatten(2))
        super().update((sums / self._sizes).clamp_min(SMALLEST).log())


def fit_lifter(reals, fakes, mean):
    """Fit a lifter.

    Energies are compared by their mean logarithm over images: that of a typical image, which few wild ones do not move. A factor
    is kept as far as it exceeds its own uncertainty (`utils.linear_filter.trust`); of few images nothing may be left.

    Args:
        reals, fakes: `LogEnergies`, the fakes' as the linear filter before the lifter leaves them. mean: their mean log spectrum,
            (3, H, W) float64.
    Returns: (2, 3, H, W) float32 for `apply_lifter`: mean log spectrum of the fakes, DC at (H // 2, W // 2), and factors per
        opponent colour and quefrency, quefrency 0 at (0, 0).
    """
    difference, variance = reals.mean - fakes.mean, reals.variance_of_mean + fakes.variance_of_mean
    factors = (trust(difference.square(), variance, DOUBT) * difference / 2).exp()  # of amplitudes: the root of energies'
    return torch.stack([mean, factors[:, quefrency_groups(*mean.shape[-2:]).to(factors.device)]]).float()


def apply_lifter(image, lifter):
    """Lifter images; phases stay, and so do the lowest frequencies (`utils.linear_filter.high_band`), that is contrast and colours.

    Args:
        image: (N, 3, H, W). lifter: (2, 3, H, W) of `fit_lifter`.
    Returns: (N, 3, H, W), not clamped; an image's result does not depend on the others.
    """
    mean, factors = lifter
    spectrum = fourier(image)
    change = mixed(OPPONENT.T, from_cepstrum((factors - 1) * _deviation_cepstrum(log_amplitude(spectrum), mean)))
    return inverse_fourier(spectrum * (high_band(*image.shape[-2:]).to(change.device) * change).exp()).real
