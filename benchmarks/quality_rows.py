"""The refiners that the quality benchmark judges: to add one is to add a line to ROWS.

A row is either a list of train.py options, trained once per seed, or a function (real, fake, device) -> refine that needs no
training: real and fake are the images it may fit itself on, (N, 3, S, S) float32 in [0, 1] on the device, and refine takes any
batch of fakes like them and returns the refined images, (B, 3, S, S), clamped to [0, 1] if it does not do so itself.
"""

from inference import filter_refiner
from utils.linear_filter import fit_linear_filter, spectrum_of


def linear_filter(real, fake, device, shrink=False):
    """The linear filter, plain or shrunk."""
    spectra = (spectrum_of(images.split(16)) for images in (real, fake))
    return filter_refiner(fit_linear_filter(*spectra, shrink=shrink), device)


def shrunk_filter(real, fake, device):
    """The linear filter without its noise."""
    return linear_filter(real, fake, device, shrink=True)


ROWS = {
    "linear": linear_filter,
    "shrunk": shrunk_filter,
    "default": [],
    "released": ["--preset", "released"],
    "paper": ["--generator", "direct", "--base", "identity", "--norm", "batch", "--nce_levels", "0,1,2,3,4", "--ema", "0"],
    "base_identity": ["--base", "identity"],
    "base_linear": ["--base", "linear"],
    "direct": ["--generator", "direct"],
    "levels_all": ["--nce_levels", "0,1,2,3,4"],
    "no_nce": ["--lambda_nce", "0"],
    "no_average": ["--ema", "0"],
    "bicubic": ["--upsample", "bicubic"],
    "batch_norm": ["--norm", "batch"],
    "stretch": ["--image_range", "stretch"],
    "abs": ["--inverse", "abs"],
}
