"""What a spectrum has in common with its own aliases: the trace of upsampling that no magnitude shows.

A layer that doubles an image's size repeats its spectrum: what stands at frequency f stands at f + 1/2 too (cycles per pixel),
until the layers after it have made something new of it. Such an image is cyclostationary: its statistics repeat every second
pixel, and F(f) and F(f + 1/2) stay correlated. In a stationary image, as a photograph nearly is, frequencies are uncorrelated.
Products F(f) conj(F(f - s)) measure it: their mean over images is the spectral correlation, and its inverse transform over f the
cyclic autocorrelation at lags in pixels (Gardner, Exploitation of spectral redundancy in cyclostationary signals, 1991).
"""

import functools

import torch
from torch.nn.functional import pad

from utils.chunks import in_chunks
from utils.devices import on_device, to_double
from utils.fft import dc_first, fourier, to_lags
from utils.profiles import to_grey

PERIODS = (4, 8)  # pixels: shifts are multiples of 1 / period, those that the last two or three doublings of the size leave
PERIOD = PERIODS[0]
REACH = 3  # pixels: the largest lag per direction that `alias_features` looks at


def aliases(period):
    """Shifts (rows, columns) in units of 1 / period from a frequency to all its aliases, itself first: a list of period^2."""
    return [(row, column) for row in range(period) for column in range(period)]


def alias_shifts(period=PERIOD):
    """Of `aliases` but the first, one of each pair s and -s, whose products say the same: a list of 9 (period 4) or 33 (8)."""
    return [shift for shift in aliases(period)[1:] if shift <= (-shift[0] % period, -shift[1] % period)]


def check_aliases(height, width, period=PERIOD):
    """Raises: ValueError if images of this size have frequencies without aliases."""
    if height % period or width % period:
        raise ValueError(f"aliases need sides that are multiples of {period}, not {height} x {width}")


def shifted(spectrum, shift, period=PERIOD):
    """Spectrum (..., H, W) at f - shift / period for each f."""
    height, width = spectrum.shape[-2:]
    return spectrum.roll((shift[0] * height // period, shift[1] * width // period), (-2, -1))


def alias_lags(spectrum, period=PERIOD):
    """Cyclic autocorrelations: orthonormal inverse transforms of the products of a spectrum with its shifted selves.

    Args:
        spectrum: (..., H, W) complex, of a real image, DC at (H // 2, W // 2); H and W multiples of the period.
    Returns: (..., S, H, W) complex per shift of `alias_shifts`, lag 0 at (0, 0).
    """
    spectrum = dc_first(spectrum)
    products = [spectrum * shifted(spectrum, shift, period).conj() for shift in alias_shifts(period)]
    return to_lags(torch.stack(products, -3), centred=False)


@functools.cache
def _turns(period):
    """How products turn with their place in the period: (period^2 - 1, period, period) float64, real parts for all shifts of
    `alias_shifts`, then imaginary parts for those that are not their own negatives."""
    shift, place = torch.tensor(alias_shifts(period), dtype=torch.float64), torch.arange(period, dtype=torch.float64)
    angle = -2 * torch.pi / period * (shift[:, :1, None] * place[:, None] + shift[:, 1:, None] * place)
    return torch.cat([angle.cos(), angle.sin()[(2 * shift % period).any(1)]])


def alias_features(image, period=PERIOD):
    """Cyclic autocorrelations of the grey image whose magnitudes are all set to 1: only phases count.

    Magnitudes, and whatever was done to them, do not matter. In an image without correlation every number is about normal with mean
    0, and variance 1 for the shifts that are their own negatives or 1/2 for the parts of the others (at lag 0, where products
    coincide, twice that for normal pixels, more for heavier tails), whatever its size.

    Args:
        image: (N, 3, H, W) in [0, 1]; H and W multiples of the period.
    Returns: (N, (period^2 - 1) * lags) float64, of 25 lags: real parts for all shifts of `alias_shifts`, then imaginary parts for
        those that are not their own negatives.
    Raises: ValueError for another size.
    """
    check_aliases(*image.shape[-2:], period)
    return in_chunks(functools.partial(_features, period=period), image)


def _features(image, period):
    """`alias_features` of a few images.

    A few lags of `alias_lags` are cheaper as sums over pixels: the products of the whitened image with itself, moved by a lag, are
    added up for each place in the period, and these sums turned.
    """
    spectrum = fourier(to_grey(to_double(image)))
    white = to_lags(spectrum / spectrum.abs().clamp_min(1e-9)).real  # (N, H, W), real as the image is
    height, width = white.shape[-2:]
    wrapped = pad(white[:, None], (REACH, REACH, 0, REACH), mode="circular")[:, 0]
    sums = []
    for row in range(REACH + 1):
        for column in range(-REACH if row else 0, REACH + 1):  # half of the lags: the other half says the same
            later = wrapped[:, row : row + height, REACH + column : REACH + column + width]
            rows = (white * later).unflatten(1, (-1, period)).sum(1)  # (N, period, W): rows a period apart together
            sums.append(rows.unflatten(2, (-1, period)).sum(2))
    sums = torch.stack(sums, 1) / (height * width) ** 0.5  # (N, lags, period, period)
    return torch.einsum("spq,nlpq->nsl", on_device(_turns(period), white.device), sums).flatten(1)
