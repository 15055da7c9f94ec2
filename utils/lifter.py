"""The lifter: each image's own spectrum, not only the mean one, varies over images as those of photographs do.

A fixed gain moves the mean log spectrum and leaves how images differ from it, by which a detector still tells them. The deviation
of an image from the mean is taken to its cepstrum, for each opponent colour, where it is liftered: few coefficients of the lowest
quefrencies, its overall shape, are moved jointly, the others by a factor per quefrency (docs/fidelity.md).
"""

import functools
import math

import torch

from utils.constants import constant, on_device
from utils.fft import cepstrum, fourier, from_cepstrum, inverse_fourier
from utils.linear_filter import OPPONENT, RGB, high_band, log_amplitude, mixed, trust
from utils.moments import RunningMoments
from utils.profiles import half_octaves, quefrencies
from utils.transport import transport

NEAR = 2.5  # pixels: quefrencies nearer than this are told apart by direction, and move jointly
NEAR_QUEFRENCIES = [  # one of each mirrored pair
    (row, column) for row in range(3) for column in range(-2, 3) if (row, column) >= (0, 0) and math.hypot(row, column) < NEAR
]
JOINT = 3 * len(NEAR_QUEFRENCIES)  # coefficients that move jointly
DOUBT = 4  # times its variance that a squared log-ratio of energies must reach to count at all
SMALLEST = 1e-9  # energy that counts at least, so that its logarithm exists
WILD, FAR_OUT = 2, 3  # deviations beyond which a coefficient counts as this far out: when correlations are estimated, when it moves


@functools.lru_cache(maxsize=32)
def quefrency_groups(height, width):
    """Which quefrencies are measured together: (H, W) int64 from 0 on; mirrored ones always do.

    Near 0 that is all, so that upright and lying structures count apart; further out a half-octave of distance is one group.
    """
    rows, columns = quefrencies(height, width)
    is_near = torch.hypot(rows.double(), columns.double()) < NEAR
    groups = torch.where(is_near, height * columns + rows, half_octaves(height, width) + height * width)
    return groups.unique(return_inverse=True)[1]


def _near_index(device):
    """Rows and columns of NEAR_QUEFRENCIES in a cepstrum; negative, they are those of their mirror images."""
    return constant(tuple(zip(*NEAR_QUEFRENCIES, strict=True)), device, torch.int64)


def _deviation_cepstrum(spectrum, mean):
    """Cepstrum (N, 3, H, W) of what the log amplitude of opponent colours differs from `mean` by, DC aside."""
    deviation = log_amplitude(spectrum).to(mean.dtype) - mean
    deviation[..., deviation.shape[-2] // 2, deviation.shape[-1] // 2] = 0
    return cepstrum(deviation)


class Deviations:
    """How the log spectra of images deviate from their mean, in the cepstrum.

    Args:
        mean: mean log spectrum of the images' opponent colours, (3, H, W) float64.

    Attributes:
        energies: `RunningMoments` of each image's log energy per opponent colour and group of quefrencies, (3, groups).
        near: the coefficients at NEAR_QUEFRENCIES of each batch, (N, JOINT); 264 bytes an image.
    """

    def __init__(self, mean):
        self._mean = mean
        self._groups = quefrency_groups(*mean.shape[-2:]).flatten().to(mean.device)
        self._sizes = torch.bincount(self._groups)
        # of Gaussian coefficients, the energy has a chi-squared distribution; a coefficient and its mirror image are one
        self._half_freedom = (self._sizes.double() / 4).clamp_min(0.5)
        self.energies, self.near = RunningMoments(), []

    def update(self, image):
        """Add images (N, 3, H, W)."""
        values = _deviation_cepstrum(fourier(mixed(OPPONENT, image)), self._mean)
        self.near.append(values[(..., *_near_index(values.device))].flatten(1))
        sums = values.new_zeros(*values.shape[:2], len(self._sizes)).index_add(2, self._groups, values.square().flatten(2))
        self.energies.update((sums / self._sizes).clamp_min(SMALLEST).log())

    def variance_of_mean(self):
        """Estimated variance of the mean log energies, at least that of Gaussian coefficients: two images deviate alike."""
        return torch.maximum(self.energies.variance, torch.special.polygamma(1, self._half_freedom)) / self.energies.count

    def deviation(self, log_energies):
        """Standard deviation (JOINT,) of the near coefficients that mean log energies (3, groups) belong to."""
        rows, columns = _near_index(self._groups.device)
        groups = self._groups.view(self._mean.shape[-2:])[rows, columns]
        half = self._half_freedom[groups]
        bias = torch.special.digamma(half) - half.log()  # mean log energy of Gaussian coefficients of deviation 1
        return ((log_energies[:, groups] - bias) / 2).exp().flatten()

    def correlation(self):
        """Correlation (JOINT, JOINT) of the near coefficients, 1 on the diagonal."""
        scaled = (torch.cat(self.near) / self.deviation(self.energies.mean)).clamp(-WILD, WILD)
        scaled = torch.nn.functional.normalize(scaled, dim=0)
        return (scaled.T @ scaled).fill_diagonal_(1)


def _believed(matrix, counts):
    """Share of the off-diagonal of a (difference of) correlations that is no noise of so many images (`trust`)."""
    noise = JOINT * (JOINT - 1) * sum(1 / max(count - 1, 1) for count in counts)
    return trust(matrix.square().sum() - matrix.diagonal().square().sum(), noise, 1)


def _joint_transport(reals, fakes, wanted):
    """Matrix (JOINT, JOINT) that gives the near coefficients of fakes the deviations `wanted` and the correlation of reals."""
    counts = [side.energies.count for side in (reals, fakes)]
    real, fake = (side.correlation() for side in (reals, fakes))
    one = torch.eye(JOINT).to(fake)
    end, start = (
        torch.lerp(one, matrix, _believed(matrix, [count]))  # the rest is noise, which would make the matrices singular
        for matrix, count in zip((real, fake), counts, strict=True)
    )
    end = torch.lerp(start, end, _believed(real - fake, counts))
    now = fakes.deviation(fakes.energies.mean)
    return transport(*(scale[:, None] * matrix * scale for scale, matrix in ((now, start), (wanted, end))))


def fit_lifter(reals, fakes, mean):
    """Fit a lifter.

    Energies are compared by their mean logarithm over images: that of a typical image, which few wild ones do not move. Their
    ratios and the difference of correlations are kept as far as they exceed their own uncertainty (`utils.linear_filter.trust`); of
    few images nothing may be left.

    Args:
        reals, fakes: `Deviations`, the fakes' as the linear filter before the lifter leaves them. mean: that of the fakes' opponent
            colours, (3, H, W) float64.
    Returns: for `apply_lifter`, float32: {"lifter": (2, 3, H, W), the mean, DC at (H // 2, W // 2), and factors per opponent colour
        and quefrency, quefrency 0 at (0, 0); "joint": (JOINT + 1, JOINT), a matrix for the near coefficients and below it how large
        each can be}.
    """
    difference = reals.energies.mean - fakes.energies.mean
    kept = trust(difference.square(), reals.variance_of_mean() + fakes.variance_of_mean(), DOUBT) * difference
    wanted, now = (fakes.deviation(fakes.energies.mean + change) for change in (kept, 0))
    factors = (kept / 2).exp()[:, quefrency_groups(*mean.shape[-2:]).to(kept.device)]  # of amplitudes: roots of energies'
    rows, columns = _near_index(factors.device)
    factors[:, rows, columns] = factors[:, -rows, -columns] = 1
    joint = torch.cat([_joint_transport(reals, fakes, wanted), FAR_OUT * now[None]])
    return {"lifter": torch.stack([mean, factors]).float(), "joint": joint.float()}


def apply_lifter(image, lifter, joint):
    """Lifter images; phases of opponent colours stay.

    So do the lowest frequencies (`utils.linear_filter.high_band`), that is contrast and colours.

    Args:
        image: (N, 3, H, W). lifter, joint: of `fit_lifter`.
    Returns: (N, 3, H, W), not clamped; an image's result does not depend on the others.
    """
    (mean, factors), matrix, largest = lifter, joint[:-1], joint[-1]
    spectrum = fourier(mixed(OPPONENT, image))
    deviation = _deviation_cepstrum(spectrum, mean)
    change = (factors - 1) * deviation
    rows, columns = _near_index(deviation.device)
    near = deviation[..., rows, columns].flatten(1).clamp(-largest, largest)
    moved = (near @ matrix.T - near).unflatten(1, (3, -1))
    change[..., rows, columns] = change[..., -rows, -columns] = moved
    gain = (on_device(high_band(*image.shape[-2:]), change.device) * from_cepstrum(change)).exp()
    return mixed(RGB, inverse_fourier(spectrum * gain).real)
