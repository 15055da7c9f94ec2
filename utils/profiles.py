"""Ring averages of spectra: chessboard rings, those of the paper's profile, and radial ones.

A profile costs one pass over the bins: each bin is added to its ring by index, there is no mask per ring.
"""

import functools

import torch

from utils.chunks import in_chunks
from utils.devices import constant, to_double
from utils.fft import half_fourier, half_of

GREY_WEIGHTS = (0.299, 0.587, 0.114)


@functools.lru_cache(maxsize=32)
def chessboard_rings(height, width):
    """Ring of every bin by chessboard distance from DC: (H, W) int64, 0..N/2 for an N x N spectrum."""
    rows = (torch.arange(height) - height // 2).abs()[:, None]
    columns = (torch.arange(width) - width // 2).abs()[None, :]
    return torch.maximum(rows, columns)


@functools.lru_cache(maxsize=32)
def radial_rings(height, width):
    """Ring of every bin by its frequency, rounded down: (H, W) int64.

    Of what is not square the longer side has more bins for the same frequencies: rings are counted in bins of the shorter one.
    """
    side = min(height, width)
    rows, columns = ((torch.arange(length).double() - length // 2) * (side / length) for length in (height, width))
    distance = torch.sqrt(rows[:, None].square() + columns[None, :].square())
    return (distance + 1e-9).floor().long()  # whole ones may come out a rounding error too small


@functools.lru_cache(maxsize=32)
def quefrencies(height, width):
    """Distance of every row and every column from quefrency 0 at (0, 0), around the edge: (H, 1) and (1, W) int64."""
    rows, columns = (torch.minimum(torch.arange(length), length - torch.arange(length)) for length in (height, width))
    return rows[:, None], columns[None, :]


def half_octaves(height, width):
    """Half-octave of every quefrency's distance from 0 at (0, 0): (H, W) int64, 0 for 0, 2 for 1, 3 for 1.4, 4 for 2, ..."""
    distance = torch.hypot(*(places.double() for places in quefrencies(height, width)))
    return (2 * distance.clamp_min(0.5).log2() + 2).round().long()


@functools.lru_cache(maxsize=32)
def _index_and_counts(rings, device):
    """Ring of every bin (H * W,) and bins of every ring (R,); kept, because counting and copying would make a GPU wait."""
    index = rings.flatten()
    return index.to(device), torch.bincount(index).to(device)


def ring_means(values, rings):
    """Mean over each ring.

    Args:
        values: (..., H, W) real.
        rings: (H, W) int64, numbered from 0 without a gap.
    Returns: (..., R), differentiable in values.
    """
    index, counts = _index_and_counts(rings, values.device)
    flat = values.flatten(-2)  # (..., H * W)
    sums = flat.new_zeros(*flat.shape[:-1], len(counts)).index_add(-1, index, flat)
    return sums / counts.to(values.dtype)


@functools.lru_cache(maxsize=32)
def _half_rings(height, width, device, dtype):
    """Of each bin of a half spectrum its radial ring and how many bins of the whole it stands for, (H * K,); bins per ring (R,)."""
    half = width // 2 + 1
    rings = half_of(radial_rings(height, width))
    weight = torch.full((height, half), 2.0, dtype=dtype)
    weight[:, 0] = 1
    weight[:, width - half + 1 :] = 1  # Nyquist of an even width, which is its own mirror image
    index, weight = rings.flatten(), weight.flatten()
    return tuple(part.to(device) for part in (index, weight, torch.bincount(index, weight).to(dtype)))


def half_ring_means(values, width):
    """Mean over radial rings of something equal at opposite frequencies, from its half.

    Args:
        values: (..., H, width // 2 + 1) real, placed as `utils.fft.half_fourier` does.
    Returns: (..., R), as `ring_means` of the whole.
    """
    index, weight, counts = _half_rings(values.shape[-2], width, values.device, values.dtype)
    flat = values.flatten(-2) * weight  # (..., H * K)
    return flat.new_zeros(*flat.shape[:-1], len(counts)).index_add(-1, index, flat) / counts


def to_grey(image):
    """Luma of an RGB tensor: (N, 3, H, W) -> (N, H, W) with weights 0.299, 0.587, 0.114."""
    return (image * constant(GREY_WEIGHTS, image.device, image.dtype).view(1, 3, 1, 1)).sum(dim=1)


def chessboard_profile(mag):
    """Spectral filter profile (paper): grey ring means over chessboard rings, min-max scaled per sample.

    Args:
        mag: (N, 3, H, W), a magnitude at any scale: a factor or offset common to the sample does not matter.
    Returns: (N, max(H, W) // 2 + 1) in [0, 1], differentiable in mag.
    """
    profile = ring_means(to_grey(mag), chessboard_rings(*mag.shape[-2:]))  # (N, R)
    low, high = profile.amin(1, keepdim=True), profile.amax(1, keepdim=True)
    return (profile - low) / (high - low).clamp_min(1e-12)


def log_profile(image, corners=False):
    """Natural logarithm of the mean power in each radial ring: what the `logreg` detector sees.

    Args:
        image: (N, 3, H, W) in [0, 1].
        corners: False keeps the complete rings 0..min(H, W) // 2; True adds those that only the corners of the spectrum reach.
    Returns: (N, R) float64.
    """
    profile = in_chunks(_ring_power, image).clamp_min(1e-12).log()  # (N, all rings)
    return profile if corners else profile[:, : min(image.shape[-2:]) // 2 + 1]


def _ring_power(image):
    """Mean power in each radial ring of the grey image: (N, 3, H, W) -> (N, all rings) float64."""
    spectrum = half_fourier(to_grey(to_double(image)))
    power = spectrum.real.square() + spectrum.imag.square()  # (N, H, W // 2 + 1)
    return half_ring_means(power, image.shape[-1])
