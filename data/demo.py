"""A data set made of nothing: dead-leaves images, and others of the same kind that went through a generator's upsampling.

Dead leaves: opaque discs whose radii follow a power law r^-3 hide one another; such images share the 1/f^2 power spectrum of
photographs (Lee, Mumford, Huang 2001). The fakes' upsampling is a transposed convolution whose kernel weighs the four output
phases unevenly, the cause of checkerboard patterns (Odena, Dumoulin, Olah 2016).
"""

from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_folder, check_place
from utils.pictures import write_png

_REAL, _FAKE = 0, 1  # streams of random numbers: no fake shows what a real shows
_SMALLEST = 0.8  # radius of the smallest disc, pixels
_FINER = 3  # samples per pixel along each axis
_LAYERS = 4  # discs' areas together, as multiples of the image's
_KERNEL = np.array([0.13, 0.83, 0.855, 0.185])  # taps of the transposed convolution along one axis, stride 2
_DETAIL = 0.55  # share of the finest details that the fakes keep


def _texture(rng, size):
    """Soft noise (size, size) of unit deviation: octaves of random numbers, each twice as fine and half as strong."""
    total = np.zeros((size, size))
    cells = 4
    while cells <= size:
        coarse = rng.standard_normal((cells + 1, cells + 1))
        at = np.linspace(0, cells, size, endpoint=False)
        low, part = at.astype(int), at % 1
        rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
        total += (rows[:, low] * (1 - part) + rows[:, low + 1] * part) * 4 / cells
        cells *= 2
    return total / total.std()


def _front_discs(rng, size):
    """Drop discs on a square until hardly any of it is left bare: (size, size) int64, the front disc's number, 0 for none.

    Discs of one width are drawn together: of all discs on a pixel, the one of the highest number is in front.
    """
    smallest, largest = _SMALLEST * _FINER, size / 3
    mean_area = 2 * np.pi * np.log(largest / smallest) * smallest**2  # of the density r^-3 between the two
    count = round(_LAYERS * (size + largest) ** 2 / mean_area)
    share = rng.random(count)
    radii = 1 / np.sqrt(share / largest**2 + (1 - share) / smallest**2)
    centres = rng.uniform(-largest / 2, size + largest / 2, (count, 2))
    cells, reach = np.floor(centres).astype(np.int64), np.ceil(radii).astype(np.int64)
    front = np.zeros(size * size, np.int64)
    for width in np.unique(reach):
        discs = np.flatnonzero(reach == width)
        steps = np.arange(-width, width + 1)
        rows, columns = (cells[discs, axis, None] + steps for axis in (0, 1))  # (D, 2 w + 1)
        aside = [(cells[discs, axis, None] + steps + 0.5 - centres[discs, axis, None]) ** 2 for axis in (0, 1)]
        inside = aside[0][:, :, None] + aside[1][:, None, :] < radii[discs, None, None] ** 2
        inside &= ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
        disc, row, column = np.nonzero(inside)
        np.maximum.at(front, rows[disc, row] * size + columns[disc, column], discs[disc] + 1)
    return front.reshape(size, size), count


def dead_leaves(rng, size):
    """One image of occluding, coloured, lightly textured discs.

    Args:
        rng: NumPy generator.
        size: side in pixels.
    Returns: (size, size, 3) float64 in [0, 1], each pixel the mean of _FINER x _FINER samples.
    """
    fine = _FINER * size
    front, count = _front_discs(rng, fine)
    base = rng.uniform(0.3, 0.7) + rng.normal(0, 0.06, 3)
    colours = base + rng.normal(0, 0.16, (count + 1, 1)) + rng.normal(0, 0.07, (count + 1, 3))
    roughness, shifts = rng.uniform(0, 0.06, count + 1), rng.integers(0, fine, (2, count + 1))
    rows, columns = (np.arange(fine)[:, None] + shifts[0, front]) % fine, (np.arange(fine) + shifts[1, front]) % fine
    image = colours[front] + (roughness[front] * _texture(rng, fine)[rows, columns])[..., None]
    return image.reshape(size, _FINER, size, _FINER, 3).mean(axis=(1, 3)).clip(0, 1)


def _halve(image):
    """Mean of 2 x 2 pixels: (2 H, 2 W, 3) -> (H, W, 3)."""
    return (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) / 4


def transposed_convolution(image, kernel):
    """Zeros between the pixels, then a 4-tap kernel along both axes: (H, W, 3) -> (2 H, 2 W, 3), edges repeated."""
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 0)
        before, after = np.concatenate([lines[:1], lines[:-1]]), np.concatenate([lines[1:], lines[-1:]])
        doubled = np.stack([kernel[3] * before + kernel[1] * lines, kernel[2] * lines + kernel[0] * after], axis=1)
        image = np.moveaxis(doubled.reshape(-1, *lines.shape[1:]), 0, axis)
    return image


def through_generator(image):
    """What a generator that grows its picture in two steps would have left of an image.

    Each step doubles the picture with the uneven kernel and adds the details that an even one would miss, the last step only a
    part of them.
    Args:
        image: (size, size, 3) in [0, 1], size a multiple of 4.
    Returns: (size, size, 3) in [0, 1].
    """
    even = (_KERNEL + _KERNEL[::-1]) / 2
    even = even / even.sum() * 2
    half = _halve(image)
    grown = transposed_convolution(_halve(half), _KERNEL) + half - transposed_convolution(_halve(half), even)
    detail = image - transposed_convolution(half, even)
    return (transposed_convolution(grown, _KERNEL) + _DETAIL * detail).clip(0, 1)


def make_demo(folder, count=64, size=128, seed=0):
    """Write folder/real/*.png and folder/fake/*.png, all or nothing; the same arguments make the same pixels.

    Args:
        folder: must not exist yet.
        count: images of each class.
        size: side in pixels, a multiple of 4.
        seed: non-negative integer.
    Returns: the folder's path.
    Raises: UserError if the folder exists, or cannot be made.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists already; delete it to have it made anew")
    if count < 1 or size < 16 or size % 4:
        raise ValueError(f"the demo needs at least one image and a size that is a multiple of 4 from 16 on, not {count} and {size}")
    check_place(folder)
    with atomic_folder(folder) as temporary:
        for name, stream in (("real", _REAL), ("fake", _FAKE)):
            for number in range(count):
                image = dead_leaves(np.random.default_rng([seed, stream, number]), size)
                image = image if name == "real" else through_generator(image)
                write_png(temporary / name / f"{number:04d}.png", (image * 255).round().astype(np.uint8))
    return folder
