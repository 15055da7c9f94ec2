"""The baselines that need no training: one fixed linear filter from fakes to reals.

"linear" is the filter anybody would try: one gain per channel and frequency, exp(mean log|F| of reals - mean log|F| of fakes), but
1 at DC: brightness is the scene's. It carries the noise of a few dozen images. "cepstral" removes that noise where it can be told
from the signal, in the Fourier transform of the log-gain itself, and mixes colours, so that their coherence is repaired too
(docs/filters.md).
"""

import functools

import torch

from utils.chunks import chunks
from utils.devices import on_device
from utils.fft import apply_gain, cepstrum, from_cepstrum, half_fourier, mirror, whole_from_half
from utils.moments import RunningMoments
from utils.profiles import half_octaves, radial_rings, ring_means

FLOOR = 1e-3  # Magnitudes below this count as this: a quarter of one grey level in one pixel, where a logarithm says nothing.
# How many times its variance a squared difference must reach to count at all (docs/filters.md): cepstral bands, bins, low rings.
BAND_DOUBT, BIN_DOUBT, RING_DOUBT = 1, 9, 4
OPPONENT = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]))  # orthonormal rows
RGB = OPPONENT.T  # back from opponent colours


def log_amplitude(spectrum):
    """log(abs(F)) of a complex spectrum, of any shape; smaller than `FLOOR` counts as `FLOOR`."""
    return spectrum.abs().clamp_min(FLOOR).log()


def log_spectrum(image):
    """log(abs(F)) of images (N, C, H, W), taken in their precision: the same shape, float64, DC at (H // 2, W // 2)."""
    return whole_from_half(log_amplitude(half_fourier(image)).double(), image.shape[-1])


class BinsAndCepstrum:
    """`RunningMoments` of a field over frequencies, `bins`, and of its `cepstrum`: (C, H, W) each."""

    def __init__(self):
        self.bins, self.cepstrum = RunningMoments(), RunningMoments()

    def update(self, fields):
        """Add fields (N, C, H, W)."""
        self.bins.update(fields)
        self.cepstrum.update(cepstrum(fields))


class MeanLogSpectrum(RunningMoments):
    """`RunningMoments` of log(abs(F)), (C, H, W), of colours mixed by `matrix` (`mixed`).

    Logarithms are taken in the images' precision, and summed in float64.
    """

    def __init__(self, matrix=None):
        super().__init__()
        self._matrix = matrix

    def update(self, image):
        """Add images (N, C, H, W)."""
        super().update(log_spectrum(mixed(self._matrix, image)))


class LogSpectrum:
    """Running statistics of log(abs(F)), as `MeanLogSpectrum` but 0 at DC, of colours mixed by `matrix` (`mixed`).

    Attributes:
        even, odd: `BinsAndCepstrum` of half the sum and half the difference of each log spectrum and its mirror image; each has
            half the noise. Without `with_odd` (what is odd in photographs is noise) odd is None.
        rings: `RunningMoments` of each image's means over radial rings, (C, R).
    """

    def __init__(self, matrix=None, with_odd=True):
        self._matrix = matrix
        self.even, self.odd, self.rings = BinsAndCepstrum(), BinsAndCepstrum() if with_odd else None, RunningMoments()

    def update(self, image):
        """Add images (N, C, H, W)."""
        for part in chunks(mixed(self._matrix, image)):
            log_spectra = log_spectrum(part)
            log_spectra[..., log_spectra.shape[-2] // 2, log_spectra.shape[-1] // 2] = 0  # it would be in every quefrency
            mirrored = mirror(log_spectra)
            self.even.update((log_spectra + mirrored) / 2)
            if self.odd is not None:
                self.odd.update((log_spectra - mirrored) / 2)
            self.rings.update(ring_means(log_spectra, radial_rings(*log_spectra.shape[-2:])))


def spectrum_of(images):
    """`LogSpectrum` of an iterable of batches (N, C, H, W)."""
    spectrum = LogSpectrum()
    for image in images:
        spectrum.update(image)
    return spectrum


def _difference(real, fake):
    """Difference of two `RunningMoments` and its variance."""
    return real.mean - fake.mean, real.variance_of_mean + fake.variance_of_mean


def trust(square, variance, doubt):
    """Share of a difference that is kept: 1 - doubt variance / difference^2, at least 0 (James and Stein's, per entry)."""
    return (1 - doubt * variance / square.clamp_min(1e-12)).clamp_min(0)


def trust_bands(square, variance):
    """`trust` of whole half-octaves of quefrencies or lags, (..., H, W): many weak entries of one band count together."""
    bands = half_octaves(*square.shape[-2:]).flatten().to(square.device)
    sums = square.new_zeros(2, *square.shape[:-2], int(bands.max()) + 1)
    squares, variances = sums.index_add(-1, bands, torch.stack([square, variance]).flatten(-2))  # (..., bands)
    return trust(squares, variances, BAND_DOUBT)[..., bands].view_as(square)


@functools.lru_cache(maxsize=32)
def high_band(height, width):
    """0 at DC, growing with the radius to 1 at half of the largest whole ring and beyond: (H, W) float32."""
    return (radial_rings(height, width) / (min(height, width) / 4)).clamp_max(1).float()


def _trust_rings(real, fake, height, width):
    """`trust` of rings' means at low frequencies, going over to 1 as `high_band` does: (C, H, W)."""
    difference, variance = _difference(real, fake)
    kept = trust(difference.square(), variance, RING_DOUBT)
    high = on_device(high_band(height, width), kept.device)
    return kept[:, radial_rings(height, width).to(kept.device)] * (1 - high) + high


def _without_noise(bins, quefrencies):
    """A log-gain (C, H, W) without what may be noise.

    In the cepstrum a smooth gain is a few entries around 0 and a lattice of peaks is a lattice, while noise is spread over all: an
    entry, or its half-octave, counts as far as it exceeds its own variance. What then still stands out in a single bin is added.

    Args:
        bins, quefrencies: the log-gain and its cepstrum, each with its variance.
    """
    difference, variance = quefrencies
    kept = torch.maximum(trust(difference.square(), variance, BIN_DOUBT), trust_bands(difference.square(), variance))
    smooth = from_cepstrum(kept * difference)
    difference, variance = bins
    rest = difference - smooth
    return smooth + trust(rest.square(), variance, BIN_DOUBT) * rest


def cepstral_log_gain(real, fake):
    """Log gain (C, H, W) float64 that moves the mean log spectrum of `fake` to that of `real` (`LogSpectrum`s), without noise.

    A photograph in the mirror is a photograph, so the mean log spectrum of all reals is even; what is odd in that of the fakes is
    theirs, and undone. Low frequencies, where images differ most and a wrong gain costs most, stay unless their ring's mean moves
    beyond doubt.
    """
    even = _without_noise(_difference(real.even.bins, fake.even.bins), _difference(real.even.cepstrum, fake.even.cepstrum))
    odd = _without_noise(*((-part.mean, part.variance_of_mean) for part in (fake.odd.bins, fake.odd.cepstrum)))
    return _keep_dc((even + odd) * _trust_rings(real.rings, fake.rings, *even.shape[-2:]))


def _keep_dc(log_gain):
    log_gain[:, log_gain.shape[-2] // 2, log_gain.shape[-1] // 2] = 0
    return log_gain


def diagonal_gain(log_gain):
    """Gain for `utils.fft.apply_gain` of channels that do not mix: (C, H, W) -> (C, C, H, W)."""
    return torch.diag_embed(log_gain.exp().movedim(0, -1)).permute(2, 3, 0, 1).contiguous()


def mixed(matrix, image):
    """Colours (N, C, H, W) mixed by a constant matrix (C, C) such as OPPONENT; None leaves them."""
    return image if matrix is None else torch.einsum("ab,nbhw->nahw", on_device(matrix, image.device, image.dtype), image)


def over_rgb(gain):
    """The same gain (3, 3, H, W) over red, green and blue, from one over opponent colours."""
    matrix = on_device(OPPONENT, gain.device, gain.dtype)
    return torch.einsum("ka,klhw,lb->abhw", matrix, gain, matrix)


def fit_linear(real, fake):
    """Plain filter from mean log spectra (C, H, W) of reals and fakes, DC kept: (C, C, H, W) float32 for `utils.fft.apply_gain`."""
    return diagonal_gain(_keep_dc(real - fake)).float()


def fit_cepstral(reals, opponent_reals, opponent_fakes, fake):
    """Fit the cepstral filter.

    It has two stages: a gain for each opponent colour (grey, red - blue, green against both), then one for red, green and blue that
    moves their means all the way.

    Args:
        reals: `LogSpectrum` of the reals. opponent_reals, opponent_fakes: those of opponent colours.
        fake: iterable of batches (N, 3, H, W) in [0, 1] of all fakes.
    Returns: (3, 3, H, W) float32 for `utils.fft.apply_gain`.
    """
    first = over_rgb(diagonal_gain(cepstral_log_gain(opponent_reals, opponent_fakes)))
    second = cepstral_log_gain(reals, spectrum_of(apply_gain(image, first.float()) for image in fake))
    return (second.exp()[:, None] * first).float()
