"""The refiners that need no training, as train.py fits them, shows them and starts from one of them.

A filter is a dict of tensors over FILTER_PARTS: "polyphase" (`utils.polyphase`), "gain" (`utils.linear_filter`), "lifter" and
"joint" (`utils.lifter`), "unseen" (`as_unseen`), each for some kinds only; an empty one changes nothing.
"""

import functools
import itertools

import torch

from utils.aliases import PERIOD, PERIODS
from utils.fft import apply_gain
from utils.lifter import JOINT, Deviations, apply_lifter, fit_lifter
from utils.linear_filter import OPPONENT, LogSpectrum, MeanLogSpectrum, diagonal_gain, fit_cepstral, fit_linear, over_rgb
from utils.polyphase import LagMoments, apply_polyphase, apply_to_unseen, fit_polyphase
from utils.profiles import radial_rings, ring_means
from utils.rounding import compensate_rounding

FILTERS = {  # name, in tables as for --method and --base -> what it is
    "linear": "one fixed gain per frequency",
    "cepstral": "the same without its noise, colours mixed",
    "lifter": "cepstral, then each image's own spectrum spread as photographs' are",
    "polyphase": "lifter, once what upsampling left in common between frequencies and their aliases is taken out",
}
FILTER_PARTS = {  # name -> the shapes it may have, of images that are `size` wide and high
    "polyphase": lambda size: [(2, 3, period**2, size, size) for period in PERIODS],
    "gain": lambda size: [(3, 3, size, size)],
    "lifter": lambda size: [(2, 3, size, size)],
    "joint": lambda size: [(JOINT + 1, JOINT)],
    "unseen": lambda size: [(3, 3, size, size)],
}

FAINT = 4.5 / 255  # range of what varies by no more than compression's errors

FIRST_PASS = {  # statistic of a set of images -> how it begins; each is then updated with every batch
    "mean": MeanLogSpectrum,
    "opponent_mean": functools.partial(MeanLogSpectrum, OPPONENT),
    "even_spectrum": functools.partial(LogSpectrum, with_odd=False),
    "even_opponent_spectrum": functools.partial(LogSpectrum, OPPONENT, with_odd=False),
    "opponent_spectrum": functools.partial(LogSpectrum, OPPONENT),
}
SECOND_PASS = {  # statistic -> how it begins, given a mean and the period of lags, and which mean of the first pass that is
    "deviations": (lambda mean, _: Deviations(mean), "opponent_mean"),
    "lags": (LagMoments, "opponent_mean"),
    "halved_lags": (functools.partial(LagMoments, parts=2), "opponent_mean"),
}
FITTED_TO = {  # kind -> statistics of the reals, and of the fakes before any filter
    "linear": (["mean"], ["mean"]),
    "cepstral": (["even_opponent_spectrum", "even_spectrum"], ["opponent_spectrum"]),
    "lifter": (["even_opponent_spectrum", "even_spectrum", "deviations"], ["opponent_spectrum"]),
    "polyphase": (["even_opponent_spectrum", "even_spectrum", "deviations", "lags"], ["halved_lags"]),
}


def filters_legend(kinds):
    """What some of FILTERS are, in words for the reader of a table."""
    return "; ".join(f"`{kind}`, {FILTERS[kind]}" for kind in kinds)


def _update(statistics, read):
    """Update statistics in one pass over the images; in none if there are no statistics."""
    for image in read() if statistics else ():
        for statistic in statistics:
            statistic.update(image)


def statistics_of(read, wanted, period=PERIOD):
    """Statistics of a set of images, each computed once, and all that can be in the same pass over them.

    Args:
        read: function without arguments that returns an iterable of batches (N, 3, H, W) in [0, 1] of all images.
        wanted: names out of FIRST_PASS and SECOND_PASS. period: of lags.
    Returns: {name: statistic}, those wanted and the means that these begin with.
    Raises: ValueError if lags are wanted and images have no aliases (`utils.aliases.check_aliases`).
    """
    means = {SECOND_PASS[name][1] for name in wanted if name in SECOND_PASS}
    first = {name: begin() for name, begin in FIRST_PASS.items() if name in wanted or name in means}
    _update(first.values(), read)
    second = {name: begin(first[mean].mean, period) for name, (begin, mean) in SECOND_PASS.items() if name in wanted}
    _update(second.values(), read)
    return first | second


def _fit_cepstral(reals, fakes, fake):
    """Filter "cepstral" from what `statistics_of` gives and the function that reads the fakes."""
    gain = fit_cepstral(reals["even_spectrum"], reals["even_opponent_spectrum"], fakes["opponent_spectrum"], fake())
    return {"gain": gain}


def _with_lifter(cepstral, reals, fake):
    """Filter "lifter" from filter "cepstral"."""
    fakes = statistics_of(lambda: (apply_filter(image, cepstral) for image in fake()), ["deviations"])
    return cepstral | fit_lifter(reals["deviations"], fakes["deviations"], fakes["opponent_mean"].mean)


def _fit_polyphase(reals, fakes, fake, period):
    """Filter "polyphase"."""
    weights, halves = fit_polyphase(*reals["lags"].parts, fakes["halved_lags"].parts, fakes["opponent_mean"].mean, period)

    def unseen():
        return apply_to_unseen(fake(), halves)

    cepstral = _fit_cepstral(reals, statistics_of(unseen, ["opponent_spectrum"]), unseen)
    rest = _with_lifter(cepstral, reals, unseen)
    return {"polyphase": weights, **rest, "unseen": _unseen_gain(fake, weights, halves, rest)}


def _unseen_gain(fake, weights, halves, rest):
    """Gain for `as_unseen`: (3, 3, H, W) float32, one amplitude per opponent colour and radial ring, DC kept.

    Args:
        fake: function that reads the fakes. weights, halves: of `fit_polyphase` on them. rest: the parts that follow.
    """
    seen, unseen = (MeanLogSpectrum(OPPONENT) for _ in range(2))
    images, again = itertools.tee(fake())
    for image, other in zip(images, apply_to_unseen(again, halves), strict=True):
        seen.update(apply_filter(apply_polyphase(image, weights), rest))
        unseen.update(apply_filter(other, rest))
    rings = radial_rings(*weights.shape[-2:]).to(weights.device)
    log_gain = ring_means(unseen.mean - seen.mean, rings)
    log_gain[:, 0] = 0  # the first ring is DC alone
    return over_rgb(diagonal_gain(log_gain[:, rings])).float()


def _has_colour(image):
    """(N,) bool, of images (N, 3, H, W): whether differences between channels vary over the image by more than FAINT."""
    return _varies(image - image[:, :1])


def _varies(image):
    """(N,) bool, of images (N, 3, H, W): whether a channel varies over the image by more than FAINT."""
    return (image.amax((2, 3)) - image.amin((2, 3))).amax(1) > FAINT


def _telling(read):
    """`read` without images in which no colour, or nothing at all, varies, if most of them are others.

    Their amplitudes, in some or all opponent colours, are `utils.linear_filter.FLOOR` or little more, which says nothing of others'
    spectra: one photograph in twenty without colour would take a quarter of their colours from all fakes (docs/filters.md).
    """
    found = [(_has_colour(image), _varies(image)) for image in read()]
    for place, test in enumerate((_has_colour, _varies)):
        kept = torch.cat([tests[place] for tests in found])
        if 2 * kept.sum() > len(kept):
            return read if kept.all() else functools.partial(_only, test, read)
    return read


def _only(test, read):
    """Batches of `read()` without the images that fail a test."""
    for image in read():
        kept = test(image)
        if kept.any():
            yield image[kept]


def fit_filters(real, fake, kinds=tuple(FILTERS), period=PERIOD):
    """Fit filters on images.

    Args:
        real, fake: functions without arguments that return an iterable of batches (N, 3, H, W) in [0, 1] of all images.
            The reals are read three times at most. Where most images have colours, those without are left out, so are blank ones.
        kinds: which of FILTERS. period: one of PERIODS, of the polyphase filter: 8 where fakes were enlarged eight times.
    Returns: {kind: filter}, tensors float32 on the images' device.
    Raises: KeyError for another kind; ValueError if a polyphase filter cannot have images of this size.
    """
    real, fake = _telling(real), _telling(fake)
    reals, fakes = (
        statistics_of(read, {name for kind in kinds for name in FITTED_TO[kind][side]}, period)
        for side, read in enumerate((real, fake))
    )
    filters = {}
    if "linear" in kinds:
        filters["linear"] = {"gain": fit_linear(reals["mean"].mean, fakes["mean"].mean)}
    if "cepstral" in kinds or "lifter" in kinds:
        filters["cepstral"] = _fit_cepstral(reals, fakes, fake)
    if "lifter" in kinds:
        filters["lifter"] = _with_lifter(filters["cepstral"], reals, fake)
    if "polyphase" in kinds:
        filters["polyphase"] = _fit_polyphase(reals, fakes, fake, period)
    return {kind: filters[kind] for kind in kinds}


def apply_filter(image, fitted):
    """Pass images (N, 3, H, W) through a filter: (N, 3, H, W), not clamped."""
    if "polyphase" in fitted:
        image = apply_polyphase(image, fitted["polyphase"])
    if "gain" in fitted:
        image = apply_gain(image, fitted["gain"])
    if "lifter" in fitted:
        image = apply_lifter(image, fitted["lifter"], fitted["joint"])
    return image


def as_unseen(image, fitted):
    """Fakes that a filter was fitted on, as it would leave others: (N, 3, H, W), after `apply_filter`, not clamped.

    A network that learns to correct what the filter leaves of the images it was fitted on learns the filter's noise: a polyphase
    filter takes more from these than from any other.
    """
    return apply_gain(image, fitted["unseen"]) if "unseen" in fitted else image


def grey_where(image, refined):
    """Refined images (N, 3, H, W), of those images whose channels are equal the mean of theirs: refining adds no colour."""
    is_grey = (image == image[:, :1]).flatten(1).all(1)[:, None, None, None]
    return torch.where(is_grey, refined.mean(1, keepdim=True), refined)


def filtered(image, fitted):
    """What is kept of fakes after a filter: (N, 3, H, W) in [0, 1] -> the same, to be rounded to 8 bit.

    Grey images stay grey. Where the filter holds a lifter, which gives each image the spectrum it should have, rounding is
    compensated for.
    """
    image = grey_where(image, apply_filter(image, fitted))
    return (compensate_rounding(image) if "lifter" in fitted else image).clamp(0, 1)


def filter_refiner(fitted, device):
    """Function that passes images (N, 3, H, W) on a device through a filter, as `filtered` does."""
    fitted = to_device(fitted, device)
    return lambda image: filtered(image, fitted)


def check_filter(fitted, size):
    """The filter. Raises: ValueError if it is none for images of size x size."""
    if ("lifter" in fitted) != ("joint" in fitted):
        raise ValueError("the filter holds half of a lifter")
    for name, tensor in fitted.items():
        wanted = FILTER_PARTS[name](size)
        if tuple(tensor.shape) not in wanted:
            raise ValueError(f"the filter's {name} is {tuple(tensor.shape)} and not {' or '.join(map(str, wanted))}")
    return fitted


def to_device(fitted, device):
    """The same filter on another device."""
    return {name: tensor.to(device) for name, tensor in fitted.items()}
