"""The terms of the objective: tensors in, unweighted scalar out."""

import functools

import torch
import torch.nn.functional as F

from utils.devices import on_device

SIGMA = 1.5  # pixels, of the window of SSIM


def adversarial_loss(score, is_real):
    """Least-squares GAN term: mean squared distance of the scores (any shape, in [0, 1]) to 1 (`is_real`) or 0."""
    return (score - 1).square().mean() if is_real else score.square().mean()


def low_frequency_loss(refined_mag, fake_mag, half_width, whole_mean=lambda mean: mean):
    """RMS difference in the centred low-frequency box (paper, low-frequency regularisation).

    Args:
        refined_mag, fake_mag: (N, C, H, W) float, normalised log-magnitude in [-1, 1], DC at (H // 2, W // 2).
        half_width: half the box's side in frequency bins, 1..H // 2.
        whole_mean: function from the mean over these images to that over a batch of which they are a part (the root of a mean is
            not the mean of roots); by default they are the batch.
    Returns: scalar >= 0, differentiable in refined_mag (at equality the gradient is 0).
    Raises: ValueError if the shapes differ or half_width is out of range.
    """
    height, width = refined_mag.shape[-2:]
    if refined_mag.shape != fake_mag.shape:
        raise ValueError(f"magnitudes differ in shape: {tuple(refined_mag.shape)} and {tuple(fake_mag.shape)}")
    if not 1 <= half_width <= min(height, width) // 2:
        raise ValueError(f"half_width {half_width} is out of range for {height} x {width}: give 1..{min(height, width) // 2}")
    rows = slice(height // 2 - half_width, height // 2 + half_width)
    columns = slice(width // 2 - half_width, width // 2 + half_width)
    mean_square = whole_mean((refined_mag - fake_mag)[..., rows, columns].square().mean())
    return mean_square.clamp_min(1e-12).sqrt()


@functools.lru_cache(maxsize=8)
def _gaussian_window(taps):
    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return (window / window.sum()).float()


@functools.lru_cache(maxsize=8)
def _blur_matrix(size, taps):
    """(size, size) float32: the window around every place of a line, as the rows of a matrix."""
    padded = F.pad(_gaussian_window(taps), (0, size))
    return torch.stack([padded.roll(place)[taps // 2 : taps // 2 + size] for place in range(size)])


def _blur(maps, taps, as_matrices):
    """Gaussian blur of (M, 1, H, W) with zero padding: as convolutions or, `as_matrices`, as products with banded matrices."""
    if as_matrices:
        rows, columns = (on_device(_blur_matrix(size, taps), maps.device, maps.dtype) for size in maps.shape[-2:])
        return rows @ maps @ columns.mT
    window = on_device(_gaussian_window(taps), maps.device, maps.dtype)
    maps = F.conv2d(maps, window.view(1, 1, -1, 1), padding=(taps // 2, 0))
    return F.conv2d(maps, window.view(1, 1, 1, -1), padding=(0, taps // 2))


def ssim(image, other, taps=17):
    """Structural similarity (Wang et al. 2004) with a separable Gaussian window and zero padding.

    The released code's 35 x 35 window gives the same number: beyond 8 taps its weights are below 1e-6 of the peak. Convolutions on
    a GPU keep 10 bits of float32 (TF32), too few for E[x^2] - E[x]^2; matrix products keep all.

    Args:
        image, other: (N, C, H, W), values in [0, 1].
    Returns: scalar in [-1, 1], the mean over all pixels; differentiable in both.
    """
    n, c, height, width = image.shape
    moments = torch.stack([image, other, image * image, other * other, image * other])  # (5, N, C, H, W)
    blurred = _blur(moments.view(-1, 1, height, width), taps, as_matrices=image.is_cuda)
    mean_x, mean_y, xx, yy, xy = blurred.view(5, n, c, height, width)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x.square() + yy - mean_y.square() + c2)
    return (luminance * structure).mean()
