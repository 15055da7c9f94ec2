"""What filters are fitted on, of images in folders: few enough to take minutes, and spread over all of them."""

import functools

from torch.utils.data import Subset

from utils.aliases import PERIOD
from utils.devices import double_device
from utils.filters import fit_filters, to_device
from utils.measure import batches, evenly_spaced

FITTING_IMAGES = 1000  # at least, of those that are there; and of small ones as many as these have pixels at 128 x 128


def fitted_filters(kinds, real, fake, device, num_workers=0, period=PERIOD):
    """Filters that bring fakes to reals, fitted on `fitting_indices` of both.

    Args:
        kinds: which of FILTERS. real, fake: (images, what they are called in progress bars). period: as `fit_filters`.
    Returns: {kind: filter}, as `fit_filters`, on the CPU.
    """
    reads = (functools.partial(fitting_batches, *side, device, num_workers) for side in (real, fake))
    return {kind: to_device(fitted, "cpu") for kind, fitted in fit_filters(*reads, kinds, period).items()}


def fitting_batches(images, title, device, num_workers=0):
    """As `batches`, of `fitting_indices`, on `double_device`."""
    return batches(Subset(images, fitting_indices(images)), title, double_device(device), num_workers=num_workers)


def fitting_indices(images):
    """Indices of the images that filters are fitted on: at most `FITTING_IMAGES` (of small ones, more), evenly spaced."""
    return evenly_spaced(len(images), max(FITTING_IMAGES, FITTING_IMAGES * 128**2 // images[0][0].numel()))
