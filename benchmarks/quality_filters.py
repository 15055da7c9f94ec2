"""Refiners of the quality benchmark that need no training: what train.py fits, what it replaced, and what did not help.

Each is a function (real, fake, device) -> refine: real and fake are the images it may fit itself on, (N, 3, S, S) float32 in [0, 1]
on the device, and refine takes any batch of fakes like them and returns the refined images, (B, 3, S, S), clamped afterwards.
"""

import functools

import torch

from utils.aliases import PERIOD
from utils.fft import apply_gain, fourier
from utils.filters import apply_filter, filter_refiner, fit_filters
from utils.linear_filter import cepstral_log_gain, diagonal_gain, log_amplitude, spectrum_of
from utils.moments import RunningMoments
from utils.profiles import radial_rings, ring_means, to_grey
from utils.transport import transport

NODES = 8  # of the piecewise linear profile that `matched_profiles` moves
REACH = 2.5  # standard deviations beyond which an image counts as at most that far out


def _fitted(real, fake, kind, period=PERIOD):
    """One of the filters that train.py fits, on the images' device."""
    return fit_filters(*(functools.partial(images.split, 16) for images in (real, fake)), [kind], period)[kind]


def fitted_filter(real, fake, device, kind, period=PERIOD):
    """What train.py makes of one of its filters."""
    return filter_refiner(_fitted(real, fake, kind, period), device)


def plain_rounding(real, fake, device):
    """The polyphase filter without compensation for rounding."""
    return functools.partial(apply_filter, fitted=_fitted(real, fake, "polyphase"))


def ring_shrunk_filter(real, fake, device, ring_doubt=4, bin_doubt=2):
    """The plain linear filter with its noise shrunk in rings, which the cepstral filter replaced.

    Each ring's mean log-gain is pulled to 0, and each bin's to that of its ring, by 1 - doubt variance / difference^2, at least 0.
    """
    moments = {part: [RunningMoments(), RunningMoments()] for part in ("rings", "bins")}
    rings = radial_rings(*real.shape[-2:])
    for side, images in enumerate((real, fake)):
        for image in images.split(16):
            log_spectra = log_amplitude(fourier(image)).double()
            moments["bins"][side].update(log_spectra)
            moments["rings"][side].update(ring_means(log_spectra, rings))
    log_gain = torch.zeros(())
    for part, doubt in (("rings", ring_doubt), ("bins", bin_doubt)):
        a, b = moments[part]
        excess = a.mean - b.mean - log_gain
        variance = a.variance_of_mean + b.variance_of_mean
        log_gain = log_gain + (1 - doubt * variance / excess.square().clamp_min(1e-12)).clamp_min(0) * excess
        if part == "rings":
            log_gain = log_gain[:, rings.to(device)]  # (C, R) -> (C, H, W)
    log_gain[:, real.shape[-2] // 2, real.shape[-1] // 2] = 0
    return filter_refiner({"gain": diagonal_gain(log_gain).float()}, device)


def rgb_cepstral_filter(real, fake, device):
    """The cepstral filter without its first stage: channels do not mix."""
    spectra = (spectrum_of(images.split(16)) for images in (real, fake))
    return filter_refiner({"gain": diagonal_gain(cepstral_log_gain(*spectra)).float()}, device)


def matched_profiles(real, fake, device):
    """After the cepstral filter, a gain for each image: its profile goes where optimal transport between Gaussians takes it.

    The mean of eight points of the grey log profile is moved, and their covariance over the images becomes that of the reals.
    """
    filtered = fitted_filter(real, fake, device, "cepstral")
    rings = radial_rings(*real.shape[-2:]).to(device)
    radius = torch.arange(int(rings.max()) + 1, dtype=torch.float64, device=device)
    step = (real.shape[-1] // 2) / (NODES - 1)
    hats = (1 - (radius[:, None].clamp_max(step * (NODES - 1)) / step - torch.arange(NODES, device=device)).abs()).clamp_min(0)
    weights = hats * torch.bincount(rings.flatten())[:, None]
    weights[0] = 0  # DC

    def nodes(images):
        log_spectrum = log_amplitude(fourier(to_grey(images.double())))
        return ring_means(log_spectrum, rings.cpu()) @ weights / weights.sum(0)  # (N, NODES)

    reals, fakes = nodes(real), torch.cat([nodes(filtered(part)) for part in fake.split(16)])
    matrix = transport(_covariance(fakes), _covariance(reals))
    mean, reach = fakes.mean(0), REACH * fakes.std(0)

    def refine(image):
        image = filtered(image)
        excess = (nodes(image) - mean).clamp(-reach, reach)
        change = ((reals.mean(0) - mean + excess @ matrix - excess) @ hats.T)[:, rings]  # (N, H, W)
        change[:, change.shape[-2] // 2, change.shape[-1] // 2] = 0
        gains = torch.eye(3, device=device)[..., None, None] * change.exp()[:, None, None]  # (N, 3, 3, H, W)
        return torch.cat([apply_gain(one[None], gain.float()) for one, gain in zip(image, gains, strict=True)])

    return refine


def _covariance(points):
    """Covariance of (N, NODES), of whose correlations a tenth is not believed."""
    covariance = torch.cov(points.T)
    return 0.9 * covariance + 0.1 * covariance.diag().diag()
