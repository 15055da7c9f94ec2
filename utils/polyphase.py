"""The polyphase filter: takes from a fake what its upsampling left in common between a frequency and its aliases.

A gain per frequency, or a translated magnitude with the old phase, leaves that correlation as it was (`utils.aliases`). A filter
that adds up a frequency and its aliases, each with its own weight, does not; in pixels it is a filter whose coefficients repeat
every so many pixels (`PERIODS` of `utils.aliases`).
"""

import functools
import itertools
import math

import torch
from torch.nn.functional import pad

from utils.aliases import PERIOD, alias_lags, alias_shifts, aliases, check_aliases
from utils.fft import cepstrum, fourier, from_cepstrum, from_lags, half_of, inverse_half_fourier
from utils.lifter import SMALLEST_ENERGY
from utils.linear_filter import OPPONENT, RGB, mixed, trust_bands
from utils.moments import RunningMoments
from utils.transport import transport

WINDOW = 5  # pixels: standard deviation of the window of lags that an estimated coherence is smoothed with
LEAST = 1e-3  # eigenvalue that a coherence matrix has at least; noise may leave a smaller one
CONTRAST = 1e2  # most that amplitudes of aliases differ by when it is weighed which one to change; keeps matrices regular


@functools.lru_cache(maxsize=32)
def _lag_window(height, width):
    """(H, W) float64, 1 at lag 0; its transform is positive, so that energies smoothed with it stay positive."""
    frequencies = ((torch.arange(side, dtype=torch.float64) - side // 2) / side for side in (height, width))  # cycles per pixel
    rows, columns = (torch.exp(-((2 * math.pi * WINDOW * frequency) ** 2) / 2) for frequency in frequencies)
    window = cepstrum(rows[:, None] * columns)
    return window / window[0, 0]


class LagMoments:
    """`RunningMoments` of `alias_lags` of whitened opponent colours, (3, S, H, W, 2), for each part of the images, dealt in turn.

    The pair in the last place is real and imaginary part. A frequency is in units of its typical amplitude, and of the image's own
    energy around it: no image counts more than another.

    Args:
        mean: mean log spectrum of the images' opponent colours, (3, H, W) float64. period: of the aliases. parts: how many.
    Attributes: parts, list of `RunningMoments`.
    Raises: ValueError if a side of the images is no multiple of the period.
    """

    def __init__(self, mean, period=PERIOD, parts=1):
        check_aliases(*mean.shape[-2:], period)
        self._period = period
        self.parts, self._number = [RunningMoments() for _ in range(parts)], itertools.count()
        self._amplitude, self._window = mean.exp(), _lag_window(*mean.shape[-2:]).to(mean.device)

    def update(self, image):
        """Add images (N, 3, H, W)."""
        spectrum = fourier(mixed(OPPONENT, image.double())) / self._amplitude
        energy = from_cepstrum(self._window * cepstrum(spectrum.abs().square())).clamp_min(SMALLEST_ENERGY)
        whitened = spectrum / energy.sqrt()
        whitened[..., whitened.shape[-2] // 2, whitened.shape[-1] // 2] = 0  # DC: a fixed pattern would be in every lag
        for one in whitened:
            part = self.parts[next(self._number) % len(self.parts)]
            part.update(torch.view_as_real(alias_lags(one, self._period))[None])


def _blocks(field, period):
    """(..., H, W) -> (..., h, w, A): a frequency's A = period^2 `aliases` beside each other.

    Of the H / period rows only the first h = H / period // 2 + 1: the others are opposite to them, and an image's spectrum is
    Hermitian. All W / period columns w.
    """
    rows = field.shape[-2] // period // 2 + 1
    field = field.unflatten(-2, (period, -1))[..., :rows, :].unflatten(-1, (period, -1))  # (..., period, h, period, w)
    return field.movedim((-4, -2), (-2, -1)).flatten(-2)


def _from_blocks(blocks, period, height):
    """Weights (A, H, W) for each of `aliases`, from the half (A, h, w, A) that `_blocks` leaves of them."""
    field = blocks.unflatten(-1, (period, period)).movedim((-2, -1), (-4, -2)).flatten(-2)  # (A, period, h, W)
    weights = pad(field, (0, 0, 0, height // period - field.shape[-2])).flatten(-3, -2)
    negatives = [aliases(period).index((-row % period, -column % period)) for row, column in aliases(period)]
    opposite = weights[negatives].flip((-2, -1)).roll((1, 1), (-2, -1)).conj()
    known = torch.arange(height, device=weights.device) % (height // period) < field.shape[-2]
    return torch.where(known[:, None], weights, opposite)


def _shifted_places(shift, period):
    """Place among `aliases` of f - shift for every f."""
    return torch.arange(period**2).view(period, period).roll(shift, (0, 1)).flatten()


def _coherence(lags, period):
    """Lags (S, H, W, 2) -> Hermitian matrices (h, w, A, A) of products of aliases, 0 on the diagonal."""
    products = _blocks(from_lags(torch.view_as_complex(lags)), period)  # (S, h, w, A)
    matrices = products.new_zeros(*products.shape[1:], period**2)
    own = torch.arange(period**2)
    for values, shift in zip(products, alias_shifts(period), strict=True):
        other = _shifted_places(shift, period)
        matrices[..., own, other] = values
        matrices[..., other, own] = values.conj()
    return matrices


def _nearest_coherence(matrices):
    """Coherence matrices, 1 on the diagonal and no eigenvalue below about LEAST, from such whose off-diagonal part is noisy."""
    values, vectors = torch.linalg.eigh(matrices)
    matrices = (vectors * values.clamp_min(LEAST)[..., None, :]) @ vectors.mH
    scale = matrices.diagonal(dim1=-2, dim2=-1).real.rsqrt()
    return scale[..., None] * matrices * scale[..., None, :]


def _towards(fake, target, amplitude):
    """Matrices (..., A, A) that change fakes least, in the mean square, so that they get the target's coherence.

    Args:
        fake, target: coherence matrices, (..., A, A). amplitude: of each alias, (..., A); stays.
    """
    weight = torch.maximum(amplitude, amplitude.amax(-1, keepdim=True) / CONTRAST)
    covariance, wanted = (weight[..., None] * matrices * weight[..., None, :] for matrices in (fake, target))
    matrices = transport(covariance, wanted)
    scale = amplitude / weight
    return scale[..., None] * matrices / scale[..., None, :]


def fit_polyphase(reals, halves, mean, period=PERIOD):
    """Fit a polyphase filter.

    Lags at which reals and fakes differ beyond what so few images leave open (`utils.linear_filter.trust_bands`) are moved; equal
    sets leave nothing to do.

    Args:
        reals: `RunningMoments` of the reals' lags. halves: those of the fakes', of which every second belongs to the same half
            (`LagMoments` of two parts). mean: mean log spectrum of the fakes' opponent colours, (3, H, W) float64.
        period: of all the lags.
    Returns: weights (2, 3, A, H, W) float32 for `apply_polyphase`: real and imaginary part of what each opponent colour at f takes
        of itself at f - shift, for each of the A = period^2 shifts of `aliases`, DC at (H // 2, W // 2); and a pair of such for
        `apply_to_unseen`.
    """
    fit = functools.partial(_fit, reals, mean.exp(), period)
    every = fit(halves[0] + halves[1])
    return every, [every, every] if halves[1].count < 2 else [fit(other) for other in reversed(halves)]


def _fit(reals, amplitude, period, fakes):
    """Weights from `RunningMoments` of lags and the fakes' amplitude (3, H, W)."""
    difference, variance = reals.mean - fakes.mean, reals.variance_of_mean + fakes.variance_of_mean
    kept = trust_bands(difference.square().sum(-1), variance.sum(-1))[..., None] * difference
    smooth = _lag_window(*amplitude.shape[-2:]).to(kept.device)[..., None] * fakes.mean
    colours = zip(smooth, kept, amplitude, strict=True)  # one after the other: the matrices are large
    weights = torch.stack([_weights(*colour, period) for colour in colours])
    return torch.stack([weights.real, weights.imag])


def _weights(smooth, kept, amplitude, period):
    """Weights (A, H, W) of one colour.

    Args:
        smooth: lags of the fakes, (S, H, W, 2). kept: what the reals' have more, the same. amplitude: of the fakes, (H, W).
    """
    one = torch.eye(period**2).to(kept)
    found = _nearest_coherence(one + _coherence(smooth, period))
    matrices = _towards(found, _nearest_coherence(found + _coherence(kept, period)), _blocks(amplitude, period))
    matrices[0, 0] = one  # DC and what would be predicted from it
    own = torch.arange(period**2)
    places = (_shifted_places(shift, period) for shift in aliases(period))
    half = torch.stack([matrices[..., own, other] for other in places]).to(torch.complex64)
    return _from_blocks(half, period, amplitude.shape[-2])


def apply_polyphase(image, weights):
    """Pass images through a polyphase filter.

    Args:
        image: (N, 3, H, W). weights: (2, 3, A, H, W) of `fit_polyphase`.
    Returns: (N, 3, H, W), not clamped; an image's result does not depend on the others.
    """
    spectrum, period = fourier(mixed(OPPONENT, image), centred=False), math.isqrt(weights.shape[2])
    (height, width), weights = image.shape[-2:], torch.complex(*half_of(weights))
    half = weights.shape[-1]
    wide = torch.cat([spectrum, spectrum[..., :half]], -1)  # frequencies from any column on, half of them

    def alias(row, column):
        start = -column * width // period % width
        return wide[..., start : start + half].roll(row * height // period, -2)

    refined = sum(weights[:, number] * alias(*shift) for number, shift in enumerate(aliases(period)))
    refined = inverse_half_fourier(refined, width)
    return mixed(RGB, refined.roll((height // 2, width // 2), (-2, -1)))  # back to where `fourier` has the origin


def apply_to_unseen(images, halves):
    """Pass the fakes that a filter was fitted on through those of `halves` that were not fitted on them.

    A filter fits the noise of the images it was fitted on, too: its own would look better than others ever will, and whatever is
    fitted after it would fall short.

    Args:
        images: iterable of batches (N, 3, H, W), the fakes in their order. halves: second result of `fit_polyphase`.
    Returns: iterable of batches.
    """
    number = itertools.count()
    for image in images:
        sides = torch.tensor([next(number) % 2 for _ in image])
        refined = torch.empty_like(image)
        for side in set(sides.tolist()):  # a batch of one image has one side only
            refined[sides == side] = apply_polyphase(image[sides == side], halves[side])
        yield refined
