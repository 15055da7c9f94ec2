"""The refiners that need no training, as train.py fits them, shows them and starts from one of them.

A filter is a dict of tensors over FILTER_PARTS: "gain" (`utils.linear_filter`) and, for the last kind, "lifter" (`utils.lifter`);
an empty one changes nothing.
"""

import functools

from utils.fft import apply_gain
from utils.lifter import apply_lifter, fit_lifter
from utils.linear_filter import fit_linear_filter

FILTERS = {  # name -> as tables call it
    "linear": "linear filter",
    "cepstral": "linear filter, cepstral",
    "lifter": "cepstral filter and lifter",
}
FILTER_PARTS = {"gain": (3, 3), "lifter": (2, 3)}  # name -> shape before (H, W), in the order in which they are applied


def _filtered(read, gain):
    return (apply_gain(image, gain) for image in read())


def fit_filters(real, fake, kinds=tuple(FILTERS)):
    """Fit filters on images.

    Args:
        real, fake: functions without arguments that return an iterable of batches (N, 3, H, W) in [0, 1] of all images.
        kinds: which of FILTERS.
    Returns: {kind: filter}, tensors float32 on the images' device.
    """
    filters = {}
    if "linear" in kinds:
        filters["linear"] = {"gain": fit_linear_filter("linear", real, fake)}
    if {"cepstral", "lifter"} & set(kinds):
        gain = fit_linear_filter("cepstral", real, fake)
        filters["cepstral"] = {"gain": gain}
        if "lifter" in kinds:
            filters["lifter"] = {"gain": gain, "lifter": fit_lifter(real, functools.partial(_filtered, fake, gain))}
    return {kind: filters[kind] for kind in kinds}


def apply_filter(image, fitted):
    """Pass images (N, 3, H, W) through a filter: (N, 3, H, W), not clamped."""
    for name, apply in zip(FILTER_PARTS, (apply_gain, apply_lifter), strict=True):
        if name in fitted:
            image = apply(image, fitted[name])
    return image


def check_filter(fitted, size):
    """Raises: ValueError if a filter is none for images of size x size."""
    for name, tensor in fitted.items():
        if tensor.shape != (*FILTER_PARTS[name], size, size):
            raise ValueError(f"the filter's {name} is {tuple(tensor.shape)} and not {(*FILTER_PARTS[name], size, size)}")


def to_device(fitted, device):
    """The same filter on another device."""
    return {name: tensor.to(device) for name, tensor in fitted.items()}
