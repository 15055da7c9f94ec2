"""Images as 8-bit files hold them, and log-magnitudes as pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from utils.fft import normalised_log_mag
from utils.files import atomic_path


def to_8bit(image):
    """The image (values in [0, 1]) as an 8-bit file holds it."""
    return (image.clamp(0, 1) * 255).round() / 255


def mag_picture(image):
    """Normalised log-magnitude of images (N, C, H, W) as pictures in [0, 1]."""
    return (normalised_log_mag(image) + 1) / 2


def to_uint8(image):
    """Image tensor (3, H, W) or (1, H, W), values clamped to [0, 1] -> (H, W, 3) or (H, W) uint8 array, rounded."""
    array = (image.detach().float().clamp(0, 1) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def write_png(path, image):
    """Write an image tensor (C, H, W) in [0, 1], or a uint8 array, as 8-bit PNG atomically."""
    array = image if isinstance(image, np.ndarray) else to_uint8(image)
    with atomic_path(Path(path).with_suffix(".png")) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", compress_level=1)
