"""What JPEG leaves in pixels whatever format they are in now: colours that a decoder gives, more often than others.

A decoder turns Y, Cb, Cr in whole numbers into red, green, blue (ITU-T T.871), which gives only a quarter of all colours.
Most photographs were JPEGs once, generated images were not, and a detector may learn that (Grommelt et al. 2024, arXiv 2403.17608).
"""

import functools

import numpy as np

CHECKED = 32  # images of each class
FEWEST = 64  # pixels of an image that count at least


@functools.cache
def _excess():
    """(511, 511) by R - G and B - G, each + 255: 1 if a decoder gives such a colour or 0, less the mean of the eight around it."""
    chroma = np.arange(256) - 128
    red, blue = (np.floor(factor * chroma + 0.5) for factor in (1.402, 1.772))
    green = np.floor(-0.344136 * chroma[:, None] - 0.714136 * chroma + 0.5)  # by Cb, Cr
    differences = np.stack([red - green, blue[:, None] - green]).astype(int) + 255
    given = np.zeros((513, 513))  # a border of zeros
    inside = ((differences >= 0) & (differences <= 510)).all(0)
    given[tuple(differences[:, inside] + 1)] = 1
    moved = [given[1 + row : 512 + row, 1 + column : 512 + column] for row in (-1, 0, 1) for column in (-1, 0, 1)]
    own = given[1:-1, 1:-1]
    return own - (sum(moved) - own) / 8


def jpeg_trace(array):
    """How much more often an image's colours are those that a JPEG decoder gives than colours beside them are.

    Args:
        array: (H, W, 3) uint8.
    Returns: between -1 and 1: 0 is chance, 0.9 a decoded JPEG; None where fewer than `FEWEST` pixels count. Grey ones do not
        (grey images look like JPEG's), nor those with a channel at 0 or 255, where a decoder clips.
    """
    pixels = array.reshape(-1, 3).astype(int)
    pixels = pixels[((pixels > 0) & (pixels < 255)).all(1) & (np.ptp(pixels, axis=1) > 0)]
    if len(pixels) < FEWEST:
        return None
    red, green, blue = pixels.T
    return float(_excess()[red - green + 255, blue - green + 255].mean())


def sampled(images):
    """At most `CHECKED` arrays of an `ImageFolder`, evenly spread, as it gives them."""
    chosen = np.unique(np.linspace(0, len(images) - 1, CHECKED).round().astype(int))
    return (images.array(int(index)) for index in chosen)


def traces(images):
    """Traces of those of `sampled` images that have one."""
    found = (jpeg_trace(array) for array in sampled(images) if array.dtype == np.uint8)
    return np.array([trace for trace in found if trace is not None])
