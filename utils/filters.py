"""The refiners that need no training, as train.py fits them, shows them and starts from one of them.

A filter is a dict of tensors over FILTER_PARTS: "polyphase" (`utils.polyphase`), "gain" (`utils.linear_filter`) and "lifter"
(`utils.lifter`), each for some kinds only; an empty one changes nothing.
"""

import functools

from utils.fft import apply_gain
from utils.lifter import apply_lifter, fit_lifter
from utils.linear_filter import fit_linear_filter
from utils.polyphase import ALIASES, apply_polyphase, apply_to_unseen, fit_polyphase

FILTERS = {  # name, in tables as for --method and --base -> what it is
    "linear": "one fixed gain per frequency",
    "cepstral": "the same without its noise, colours mixed",
    "lifter": "cepstral, then each image's own spectrum spread as photographs' are",
    "polyphase": "lifter, once what upsampling left in common between frequencies and their aliases is taken out",
}
FILTER_PARTS = {  # name -> shape before (H, W), and how it is applied; in the order in which they are
    "polyphase": ((2, 3, len(ALIASES)), apply_polyphase),
    "gain": ((3, 3), apply_gain),
    "lifter": ((2, 3), apply_lifter),
}


def filters_legend(kinds):
    """What some of FILTERS are, in words for the reader of a table."""
    return "; ".join(f"`{kind}`, {FILTERS[kind]}" for kind in kinds)


def _filtered(read, fitted):
    return (apply_filter(image, fitted) for image in read())


def _fit_lifted(real, fake):
    """Filters "cepstral" and "lifter"."""
    cepstral = {"gain": fit_linear_filter("cepstral", real, fake)}
    return cepstral, cepstral | {"lifter": fit_lifter(real, functools.partial(_filtered, fake, cepstral))}


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
    if "lifter" in kinds:
        filters["cepstral"], filters["lifter"] = _fit_lifted(real, fake)
    elif "cepstral" in kinds:
        filters["cepstral"] = {"gain": fit_linear_filter("cepstral", real, fake)}
    if "polyphase" in kinds:
        weights, halves = fit_polyphase(real, fake)
        filters["polyphase"] = {"polyphase": weights, **_fit_lifted(real, lambda: apply_to_unseen(fake(), halves))[1]}
    return {kind: filters[kind] for kind in kinds}


def apply_filter(image, fitted):
    """Pass images (N, 3, H, W) through a filter: (N, 3, H, W), not clamped."""
    for name, (_, apply) in FILTER_PARTS.items():
        if name in fitted:
            image = apply(image, fitted[name])
    return image


def check_filter(fitted, size):
    """Raises: ValueError if a filter is none for images of size x size."""
    for name, tensor in fitted.items():
        wanted = (*FILTER_PARTS[name][0], size, size)
        if tensor.shape != wanted:
            raise ValueError(f"the filter's {name} is {tuple(tensor.shape)} and not {wanted}")


def to_device(fitted, device):
    """The same filter on another device."""
    return {name: tensor.to(device) for name, tensor in fitted.items()}
