"""The lifter: each image's own spectrum, not only the mean one, varies over images as those of photographs do.

A fixed gain moves the mean log spectrum and leaves how images differ from it, by which a detector still tells them. The deviation
of an image from the mean is taken to its cepstrum, for each opponent colour, where it is liftered: few coefficients of the lowest
quefrencies, its overall shape, are moved jointly, the others by a factor per quefrency (docs/filters.md).
"""

import functools
import math

import torch

from utils.devices import constant, on_device
from utils.fft import half_fourier, half_from_cepstrum, half_of, half_to_cepstrum, inverse_half_fourier
from utils.linear_filter import OPPONENT, RGB, high_band, log_amplitude, mixed, trust
from utils.moments import RunningMoments
from utils.profiles import half_octaves, quefrencies
from utils.transport import transport

NEAR = 2.5  # pixels: quefrencies nearer than this are told apart by direction, and move jointly
NEAR_QUEFRENCIES = [  # one of each mirrored pair
    (row, column) for row in range(3) for column in range(-2, 3) if (row, column) >= (0, 0) and math.hypot(row, column) < NEAR
]
JOINT = 3 * len(NEAR_QUEFRENCIES)  # coefficients that move jointly
REFLECTED = tuple(  # the place of each in the list when the image is seen in a mirror
    NEAR_QUEFRENCIES.index((row, -column)) if row and column else place for place, (row, column) in enumerate(NEAR_QUEFRENCIES)
)
INDEPENDENT = tuple(1 + (other != place) for place, other in enumerate(REFLECTED))  # coefficients of which the mean is taken
EFFICIENCY = 1 / (math.pi - 2)  # of a mean absolute value, against the root mean square of Gaussian numbers
DOUBT = 2  # times its variance that a squared log-ratio of energies must reach to count at all
SMALLEST_ENERGY = 1e-9  # energy that counts at least: its logarithm is taken, and it divides
MOST = 4  # log-ratio of energies, 7 times an amplitude: of images that hardly differ, or are copies, it would be any number
WILD, FAR_OUT = 2, 3  # deviations beyond which a coefficient counts as this far out: when correlations are estimated, when it moves


@functools.lru_cache(maxsize=32)
def quefrency_groups(height, width):
    """Which quefrencies are measured together: (H, W) int64, 0 for those nearer than NEAR, then one for each half-octave."""
    is_near = torch.hypot(*(places.double() for places in quefrencies(height, width))) < NEAR
    return torch.where(is_near, 0, half_octaves(height, width)).unique(return_inverse=True)[1]


def _near_index(device):
    """Rows and columns of NEAR_QUEFRENCIES in a cepstrum; negative, they are those of their mirror images."""
    return constant(tuple(zip(*NEAR_QUEFRENCIES, strict=True)), device, torch.int64)


def _deviation_cepstrum(half, mean):
    """Cepstrum (N, 3, H, W) of what the log amplitude of opponent colours (`half_fourier`) differs from `mean` by, DC aside."""
    deviation = log_amplitude(half).to(mean.dtype) - half_of(mean)
    deviation[..., 0, 0] = 0
    return half_to_cepstrum(deviation, mean.shape[-1])


class Deviations:
    """How the log spectra of images deviate from their mean, in the cepstrum.

    Args:
        mean: mean log spectrum of the images' opponent colours, (3, H, W) float64.

    Attributes:
        energies: `RunningMoments` of each image's log energy per opponent colour and group of quefrencies, (3, groups).
        sizes: `RunningMoments` of the absolute coefficients at NEAR_QUEFRENCIES, (JOINT,); of one and of its reflection the mean.
        near: the coefficients at NEAR_QUEFRENCIES of each batch, (N, JOINT); 264 bytes an image.
    """

    def __init__(self, mean):
        self._mean = mean
        self._groups = quefrency_groups(*mean.shape[-2:]).flatten().to(mean.device)
        self._counts = torch.bincount(self._groups)
        self.energies, self.sizes, self.near = RunningMoments(), RunningMoments(), []

    def update(self, image):
        """Add images (N, 3, H, W)."""
        values = _deviation_cepstrum(half_fourier(mixed(OPPONENT, image)), self._mean)
        near = values[(..., *_near_index(values.device))]  # (N, 3, JOINT / 3)
        self.near.append(near.flatten(1))
        self.sizes.update(((near.abs() + near.abs()[..., constant(REFLECTED, near.device, torch.int64)]) / 2).flatten(1))
        sums = values.new_zeros(*values.shape[:2], len(self._counts)).index_add(2, self._groups, values.square().flatten(2))
        self.energies.update((sums / self._counts).clamp_min(SMALLEST_ENERGY).log())

    @property
    def _shrinkage(self):
        """Logarithm of 1 - 1 / n, the share of its energy that a deviation keeps when it is taken from the mean of n images."""
        return math.log1p(-1 / max(self.energies.count, 2))

    def log_energies(self):
        """Mean log energies (3, groups) of deviations from the true mean and their estimated variance.

        It is at least that of Gaussian coefficients. A single image does not deviate from its own mean, and two do so alike.
        """
        half_freedom = (self._counts.double() / 4).clamp_min(0.5)  # of the chi-squared energy: mirrored coefficients are one
        variance = torch.maximum(self.energies.variance, torch.special.polygamma(1, half_freedom))
        independent = self.energies.count if self.energies.count > 2 else self.energies.count - 1
        return self.energies.mean - self._shrinkage, variance / independent

    @property
    def deviation(self):
        """Standard deviation (JOINT,) of the near coefficients, were they Gaussian with this mean size: wild images count less."""
        return self.sizes.mean.clamp_min(SMALLEST_ENERGY) * math.sqrt(math.pi / 2)

    def log_variances(self):
        """Logarithm of the squared `deviation` from the true mean and its estimated variance, (JOINT,) each.

        The variance is at least that of Gaussian coefficients. One degree of freedom is the mean's: a single image does not deviate
        from its own, and two do so alike.
        """
        relative = self.sizes.variance / self.sizes.mean.clamp_min(SMALLEST_ENERGY).square() / self.sizes.count
        freedom = (self.sizes.count - 1) * constant(INDEPENDENT, relative.device, relative.dtype).repeat(3)
        variance = torch.maximum(4 * relative, torch.special.polygamma(1, EFFICIENCY * freedom / 2))
        return 2 * self.deviation.log() - self._shrinkage, variance

    def correlation(self):
        """Correlation (JOINT, JOINT) of the near coefficients, 1 on the diagonal."""
        scaled = (torch.cat(self.near) / self.deviation).clamp(-WILD, WILD)
        scaled = torch.nn.functional.normalize(scaled, dim=0)
        return (scaled.T @ scaled).fill_diagonal_(1)


def _kept(real, fake):
    """Share of the log-ratio of energies of reals and fakes that is kept; each side is its value and its variance."""
    difference = real[0] - fake[0]
    return trust(difference.square(), real[1] + fake[1], DOUBT) * difference


def _believed(matrix, counts):
    """Share of the off-diagonal of a (difference of) correlations that is no noise of so many images (`trust`)."""
    noise = JOINT * (JOINT - 1) * sum(1 / max(count - 1, 1) for count in counts)
    return trust(matrix.square().sum() - matrix.diagonal().square().sum(), noise, 1)


def _joint_transport(reals, fakes):
    """Matrix (JOINT, JOINT) that gives the near coefficients of fakes the deviations and the correlation of reals."""
    counts = [side.energies.count for side in (reals, fakes)]
    real, fake = (side.correlation() for side in (reals, fakes))
    one = torch.eye(JOINT).to(fake)
    end, start = (
        torch.lerp(one, matrix, _believed(matrix, [count]))  # the rest is noise, which would make the matrices singular
        for matrix, count in zip((real, fake), counts, strict=True)
    )
    end = torch.lerp(start, end, _believed(real - fake, counts))
    wanted = fakes.deviation * (_kept(reals.log_variances(), fakes.log_variances()) / 2).exp()
    return transport(*(scale[:, None] * matrix * scale for scale, matrix in ((fakes.deviation, start), (wanted, end))))


def fit_lifter(reals, fakes, mean):
    """Fit a lifter.

    Energies are compared by their mean logarithm over images, near coefficients by their mean absolute value: few wild images do
    not move them far. Their ratios and the difference of correlations are kept as far as they exceed their own uncertainty
    (`utils.linear_filter.trust`); of few images nothing may be left.

    Args:
        reals, fakes: `Deviations`, the fakes' as the linear filter before the lifter leaves them. mean: that of the fakes' opponent
            colours, (3, H, W) float64.
    Returns: for `apply_lifter`, float32: {"lifter": (2, 3, H, W), the mean, DC at (H // 2, W // 2), and factors per opponent colour
        and quefrency, quefrency 0 at (0, 0); "joint": (JOINT + 1, JOINT), a matrix for the near coefficients and below it how large
        each can be}.
    """
    kept = _kept(reals.log_energies(), fakes.log_energies()).clamp(-MOST, MOST)
    kept[:, 0] = 0  # near ones have the matrix
    factors = (kept / 2).exp()[:, quefrency_groups(*mean.shape[-2:]).to(kept.device)]  # of amplitudes: roots of energies'
    joint = torch.cat([_joint_transport(reals, fakes), FAR_OUT * fakes.deviation[None]])
    return {"lifter": torch.stack([mean, factors]).float(), "joint": joint.float()}


def apply_lifter(image, lifter, joint):
    """Lifter images; phases of opponent colours stay.

    So do the lowest frequencies (`utils.linear_filter.high_band`), that is contrast and colours.

    Args:
        image: (N, 3, H, W). lifter, joint: of `fit_lifter`.
    Returns: (N, 3, H, W), not clamped; an image's result does not depend on the others.
    """
    (mean, factors), matrix, largest = lifter, joint[:-1], joint[-1]
    spectrum = half_fourier(mixed(OPPONENT, image))
    deviation = _deviation_cepstrum(spectrum, mean)
    change = (factors - 1) * deviation
    rows, columns = _near_index(deviation.device)
    near = deviation[..., rows, columns].flatten(1).clamp(-largest, largest)
    moved = (near @ matrix.T - near).unflatten(1, (3, -1))
    change[..., rows, columns] = change[..., -rows, -columns] = moved
    gain = (half_of(on_device(high_band(*image.shape[-2:]), change.device)) * half_from_cepstrum(change)).exp()
    return mixed(RGB, inverse_half_fourier(spectrum * gain, image.shape[-1]))
