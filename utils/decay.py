"""Decay features of a spectrum: three numbers per image (Dzanic et al., NeurIPS 2020).

The reduced spectrum beyond half of the largest radius is averaged in radial bins and smoothed, and a power law is fitted to its
far end. Everything is float64; what depends on the image size alone is computed once per size.
"""

import functools
from typing import NamedTuple

import torch

from utils.chunks import in_chunks
from utils.devices import on_device, to_double
from utils.fft import half_fourier, whole_from_half

MATLAB_GREY = (0.298936021, 0.587043074, 0.114020904)
SMALLEST_SIDE = 16  # side of an image in pixels
BINS = 200
FIRST_BIN = 140  # counted from 0: the fit uses the bins from here on
SMOOTHING = 2  # bins on each side of the moving average
START, TOLERANCE, MAX_STEPS = -2.0, 1e-4, 200  # of the Nelder-Mead search
DECAY_NAMES = ("exponent", "y_first", "y_last")


class Geometry(NamedTuple):
    """Where the bins of an n x n spectrum lie."""

    kept: torch.Tensor  # (K,) int64, the Fourier bins beyond half of the largest radius: flat indices into the half spectrum
    bin: torch.Tensor  # (K,) int64, the radial bin of each, 0..BINS - 1
    count: torch.Tensor  # (BINS,) float64, Fourier bins per radial bin
    position: torch.Tensor  # (BINS,) float64, centre of each radial bin, in frequency bins


@functools.lru_cache(maxsize=8)
def decay_geometry(side):
    """Radial bins of a side x side spectrum; the radius is measured one bin off DC, as the published program does."""
    index = torch.arange(1, side + 1, dtype=torch.float64) - side / 2
    radius = torch.sqrt(index[:, None].square() + index[None, :].square()).flatten()
    kept = torch.nonzero(radius > 0.5 * 2**0.5 * side / 2).flatten()
    radius = radius[kept]
    edges = torch.linspace(radius.min(), radius.max(), BINS + 1, dtype=torch.float64)
    bins = (torch.searchsorted(edges, radius, right=False) - 1).clamp(0, BINS - 1)
    count = torch.bincount(bins, minlength=BINS).double()
    half = torch.arange(side * (side // 2 + 1)).view(side, -1)
    in_half = whole_from_half(half, side).flatten()[kept]  # where the magnitude of each bin, or of its mirror image, stands
    return Geometry(in_half, bins, count, (edges[1:] + edges[:-1]) / 2)


def reduced_spectrum(image):
    """Smoothed radial mean magnitude beyond half of the largest radius.

    Args:
        image: (N, 3, n, n) in [0, 1]; taken as 8 bit, which the definition works on.
    Returns: (N, BINS) float64; NaN where no Fourier bin lies within the smoothing window (small images only).
    Raises: ValueError if the image is not square or smaller than 16.
    """
    side = image.shape[-1]
    if image.shape[-2] != side or side < SMALLEST_SIDE:
        raise ValueError(f"decay features need square images of {SMALLEST_SIDE} pixels or more, not {image.shape[-2]} x {side}")
    levels = (to_double(image) * 255).round()
    red, green, blue = (levels[:, channel] * weight for channel, weight in enumerate(MATLAB_GREY))
    grey = (red + green + blue + 0.5).floor()  # (N, n, n)
    geometry = decay_geometry(side)
    magnitude = half_fourier(grey).abs().flatten(1)[:, on_device(geometry.kept, levels.device)]  # (N, K)
    sums = magnitude.new_zeros(len(image), BINS).index_add(1, on_device(geometry.bin, levels.device), magnitude)
    return smooth(sums / on_device(geometry.count, levels.device))


def smooth(values):
    """Centred 5-point moving average along the last axis; the window shrinks symmetrically at both ends, NaN is skipped.

    Args:
        values: (N, L), NaN marks an empty bin.
    Returns: (N, L), NaN only where the whole window is empty.
    """
    length = values.shape[-1]
    present = ~values.isnan()
    filled = values.where(present, 0)
    reach = torch.arange(length, device=values.device)
    reach = torch.minimum(reach, length - 1 - reach).clamp_max(SMOOTHING)
    total, count = torch.zeros_like(filled), torch.zeros_like(filled)
    for shift in range(-SMOOTHING, SMOOTHING + 1):
        used = (reach >= abs(shift)).to(values.dtype)
        total += used * filled.roll(-shift, -1)
        count += used * present.roll(-shift, -1)
    return total / count


def misfit(exponent, values, positions):
    """The largest singular value of Y, Y_ij = y_i - y_first (x_j / x_first)^c, in closed form.

    Y = y 1^T - 1 g^T has rank 2, so its singular values are the roots of a quadratic in y.y, y.1, g.g, g.1.

    Args:
        exponent: (N,), c.
        values: (N, L), y. positions: (L,), x > 0.
    Returns: (N,) >= 0.
    """
    power = values[:, :1] * torch.exp(exponent[:, None] * (positions / positions[0]).log())  # (N, L), g
    length = values.shape[1]
    y_y, y_1 = values.square().sum(1), values.sum(1)
    g_g, g_1 = power.square().sum(1), power.sum(1)
    trace = length * (y_y + g_g) - 2 * y_1 * g_1
    determinant = (length * y_y - y_1.square()) * (length * g_g - g_1.square())
    return ((trace + (trace.square() - 4 * determinant).clamp_min(0).sqrt()) / 2).sqrt()


def nelder_mead(objective, count):
    """Minimise `count` functions of one variable at once, each by the Nelder-Mead method from START.

    The same steps as scipy.optimize.minimize(method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4}): in one dimension
    the simplex is a pair of points, and "better than the second worst" means better than the best.

    Args:
        objective: (count,) -> (count,), element by element.
    Returns: (count,) float64, the minimisers.
    """
    best = torch.full((count,), START, dtype=torch.float64)
    worst = best * 1.05
    f_best, f_worst = objective(best), objective(worst)
    for _ in range(MAX_STEPS):
        swap = f_worst < f_best
        best, worst = best.where(~swap, worst), worst.where(~swap, best)
        f_best, f_worst = f_best.where(~swap, f_worst), f_worst.where(~swap, f_best)
        running = ((best - worst).abs() > TOLERANCE) | ((f_best - f_worst).abs() > TOLERANCE)
        if not running.any():
            break
        step = best - worst
        reflected = best + step
        f_reflected = objective(reflected)
        expand, outside = f_reflected < f_best, f_reflected < f_worst
        second = best + step * torch.where(expand, 2.0, torch.where(outside, 0.5, -0.5)).to(best)
        f_second = objective(second)
        # expanding competes with the reflected point, contracting outside with it too (<=), contracting inside with the worst
        accept = torch.where(expand, f_second < f_reflected, torch.where(outside, f_second <= f_reflected, f_second < f_worst))
        # not accepted: an expansion keeps the reflected point, a contraction shrinks towards the best
        fallback = reflected.where(expand, best - 0.5 * step)
        f_fallback = f_reflected.where(expand, objective(fallback))
        moved, f_moved = second.where(accept, fallback), f_second.where(accept, f_fallback)
        worst, f_worst = worst.where(~running, moved), f_worst.where(~running, f_moved)
    return best


def fit_decay(values, positions):
    """Fit y_first (x / x_first)^c to the far end of reduced spectra.

    Args:
        values: (N, L) smoothed means. positions: (L,).
    Returns: (N, 3) float64: exponent, first and last value.
    """
    exponent = nelder_mead(lambda c: misfit(c, values, positions), len(values))
    return torch.stack([exponent, values[:, 0], values[:, -1]], dim=1)


def decay_features(image):
    """Exponent, first and last value of the far end of the reduced spectrum (Dzanic et al.).

    Args:
        image: (N, 3, n, n) in [0, 1], n >= 16.
    Returns: (N, 3) float64, columns `DECAY_NAMES`; an image's numbers do not depend on the others in the batch.
    Raises: ValueError if the images are not square or too small.
    """
    far_end = in_chunks(lambda part: reduced_spectrum(part)[:, FIRST_BIN:], image)
    values = far_end.cpu()  # the fit is thousands of operations on a few numbers each, which a GPU is slow at
    present = ~values[0].isnan()  # the same bins for every image of this size
    return fit_decay(values[:, present], decay_geometry(image.shape[-1]).position[FIRST_BIN:][present]).to(far_end.device)
