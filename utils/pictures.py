"""Images as 8-bit files hold them, and log-magnitudes as pictures."""

from utils.fft import normalised_log_mag


def to_8bit(image):
    """The image (values in [0, 1]) as an 8-bit file holds it."""
    return (image.clamp(0, 1) * 255).round() / 255


def mag_picture(image):
    """Normalised log-magnitude of images (N, C, H, W) as pictures in [0, 1]."""
    return (normalised_log_mag(image) + 1) / 2
