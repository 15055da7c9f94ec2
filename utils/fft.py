"""Image <-> spectrum: the only file of the project that calls an FFT.

Every function works on the two last axes alone, per sample and per channel, with the zero frequency (DC) at
(H // 2, W // 2); only halves of a spectrum, lags and cepstra begin with it, at (0, 0). Everything runs in float32 or better,
outside autocast.
"""

import torch


def _full_precision(tensor):
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def fourier(image, centred=True):
    """2-D Fourier transform.

    Args:
        image: (..., H, W) real; its origin is (H // 2, W // 2) for even sides.
    Returns: (..., H, W) complex, DC at (H // 2, W // 2) if centred, else as `dc_first` places it.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = _full_precision(image)
        spectrum = torch.fft.fft2(torch.fft.fftshift(image, dim=(-2, -1)))
        return torch.fft.fftshift(spectrum, dim=(-2, -1)) if centred else spectrum


def half_fourier(image):
    """The half of a real image's transform that says all of it: the rest is its mirror image, conjugated.

    Args:
        image: (..., H, W) real.
    Returns: (..., H, W // 2 + 1) complex, DC at (0, 0); up to the place of DC and signs of phases as `fourier` (which shifts the
        image first), so for magnitudes only.
    """
    with torch.autocast(image.device.type, enabled=False):
        return torch.fft.rfft2(_full_precision(image))


def inverse_half_fourier(half, width):
    """Inverse of `half_fourier`: (..., H, width // 2 + 1) complex -> (..., H, width) real."""
    with torch.autocast(half.device.type, enabled=False):
        return torch.fft.irfft2(half, s=(half.shape[-2], width))


def half_of(field):
    """Of something that is given for each frequency what stands at those of `half_fourier`.

    Args:
        field: (..., H, W), DC at (H // 2, W // 2).
    Returns: (..., H, W // 2 + 1), DC at (0, 0).
    """
    return dc_first(field)[..., : field.shape[-1] // 2 + 1]


def whole_from_half(values, width):
    """Something that is equal at opposite frequencies (a magnitude), from the half that `half_fourier` gives.

    Args:
        values: (..., H, width // 2 + 1).
    Returns: (..., H, width), DC at (H // 2, width // 2).
    """
    mirrored = values[..., 1 : width - values.shape[-1] + 1].flip((-2, -1)).roll(1, -2)  # rows -u, columns -v
    return torch.fft.fftshift(torch.cat([values, mirrored], dim=-1), dim=(-2, -1))


def inverse_fourier(spectrum):
    """Inverse of `fourier`.

    Args:
        spectrum: (..., H, W) complex, DC at (H // 2, W // 2).
    Returns: (..., H, W) complex; real up to rounding if the spectrum is Hermitian.
    """
    with torch.autocast(spectrum.device.type, enabled=False):
        return dc_first(torch.fft.ifft2(dc_first(spectrum)))


def image_to_mag(image):
    """Image -> normalised log-magnitude, phase and the range that undoes the normalisation.

    Args:
        image: (N, C, H, W), values in [0, 1].
    Returns:
        mag: (N, C, H, W) in [-1, 1]; minimum and maximum are taken per sample over all channels.
        phase: (N, C, H, W) in [-pi, pi].
        mag_range: (N, 2), the smallest and largest log-magnitude of each sample.
    """
    spectrum = fourier(image)
    mag, mag_range = _normalised_log_mag(spectrum)
    return mag, spectrum.angle(), mag_range


def normalised_log_mag(image):
    """`mag` of `image_to_mag` alone: (N, C, H, W) in [-1, 1]."""
    return _normalised_log_mag(fourier(image))[0]


def _normalised_log_mag(spectrum):
    log_mag = spectrum.abs().log1p()
    flat = log_mag.flatten(1)
    mag_range = torch.stack([flat.amin(1), flat.amax(1)], dim=1)  # (N, 2)
    return log_mag_to_mag(log_mag, mag_range), mag_range


def _low_and_span(mag_range):
    low, high = mag_range[:, 0].view(-1, 1, 1, 1), mag_range[:, 1].view(-1, 1, 1, 1)
    return low, (high - low).clamp_min(1e-12)


def log_mag_to_mag(log_mag, mag_range):
    """Scale log-magnitude (N, C, H, W) so that `mag_range` (N, 2) becomes [-1, 1]."""
    low, span = _low_and_span(mag_range)
    return 2 * (log_mag - low) / span - 1


def mag_to_log_mag(mag, mag_range):
    """Undo `log_mag_to_mag`."""
    low, span = _low_and_span(mag_range)
    return (mag + 1) / 2 * span + low


def mag_to_image(mag, phase, mag_range, inverse="real"):
    """Normalised log-magnitude and phase -> image (paper, signal path, step 5).

    Args:
        mag: (N, C, H, W), normalised log-magnitude; values a little outside [-1, 1] are allowed.
        phase: (N, C, H, W), as `image_to_mag` gives it.
        mag_range: (N, 2), as `image_to_mag` gives it.
        inverse: "real" takes the real part of the inverse transform, "abs" its modulus (released code).
    Returns: (N, C, H, W), not clamped: a changed magnitude may leave [0, 1].
    Raises: ValueError for another `inverse`.
    """
    if inverse not in ("real", "abs"):
        raise ValueError(f"inverse must be 'real' or 'abs', not {inverse!r}")
    with torch.autocast(mag.device.type, enabled=False):
        log_mag = mag_to_log_mag(_full_precision(mag), mag_range)
        image = inverse_fourier(torch.polar(log_mag.expm1(), phase))
    return image.real if inverse == "real" else image.abs()


def apply_gain(image, gain):
    """Pass images through a linear filter with a real gain, which may mix channels.

    Args:
        image: (N, C, H, W).
        gain: (C, C, H, W), what output channel a takes of input channel b at each frequency, equal at opposite ones, DC at
            (H // 2, W // 2).
    Returns: (N, C, H, W), not clamped.
    """
    return inverse_half_fourier((half_of(gain) * half_fourier(image)[:, None]).sum(2), image.shape[-1])


def mirror(spectrum):
    """Spectrum (..., H, W) with the horizontal frequency reversed: that of the image seen in a mirror, but for phases."""
    return spectrum.flip(-1).roll(1 - spectrum.shape[-1] % 2, -1)


def dc_first(field):
    """(..., H, W) with DC at (H // 2, W // 2) -> the same with DC at (0, 0)."""
    return torch.fft.ifftshift(field, dim=(-2, -1))


def to_lags(field, centred=True):
    """Orthonormal inverse transform of something that is given for each frequency.

    Args:
        field: (..., H, W), DC at (H // 2, W // 2) if centred, or as `dc_first` gives it.
    Returns: (..., H, W) complex over lags in pixels, lag 0 at (0, 0).
    """
    return torch.fft.ifft2(dc_first(field) if centred else field, norm="ortho")


def from_lags(lags):
    """Inverse of `to_lags`."""
    return torch.fft.fftshift(torch.fft.fft2(lags, norm="ortho"), dim=(-2, -1))


def cepstrum(log_spectrum):
    """Cepstrum of a log spectrum: its orthonormal inverse transform, over quefrencies (pixels).

    Args:
        log_spectrum: (..., H, W) real, equal at opposite frequencies as that of any image, DC at (H // 2, W // 2).
    Returns: (..., H, W) real, quefrency 0 at (0, 0).
    """
    return half_to_cepstrum(half_of(log_spectrum), log_spectrum.shape[-1])


def from_cepstrum(cepstrum):
    """Inverse of `cepstrum`."""
    return whole_from_half(half_from_cepstrum(cepstrum), cepstrum.shape[-1])


def half_to_cepstrum(half, width):
    """`cepstrum` (..., H, width) from the half (..., H, width // 2 + 1) of the log spectrum that `half_of` gives."""
    return torch.fft.irfft2(half, s=(half.shape[-2], width), norm="ortho")


def half_from_cepstrum(cepstrum):
    """Inverse of `half_to_cepstrum`."""
    return torch.fft.rfft2(cepstrum, norm="ortho").real
