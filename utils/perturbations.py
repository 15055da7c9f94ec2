"""What happens to images on their way to a detector: JPEG, resizing, blur, noise; and ResNet-50's training augmentation."""

import io

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms.functional import gaussian_blur

from utils.pictures import to_8bit, to_uint8


def jpeg(image, quality):
    """Through JPEG of this quality (4:2:0): (3, H, W) in [0, 1] -> the same."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255


def resize(image, factor):
    """Down by `factor` < 1 and back up to the same size, bicubic with antialiasing: (3, H, W) -> the same, in [0, 1]."""
    height, width = image.shape[1:]
    options = {"mode": "bicubic", "antialias": True, "align_corners": False}
    small = interpolate(image[None], size=(round(height * factor), round(width * factor)), **options)
    return interpolate(small, size=(height, width), **options)[0].clamp(0, 1)


def blur(image, sigma):
    """Gaussian blur, sigma in pixels: (3, H, W) -> the same."""
    radius = min(max(1, round(4 * sigma)), min(image.shape[1:]) - 1)
    return gaussian_blur(image, 2 * radius + 1, sigma)


def noise(image, std, index):
    """Gaussian noise of this standard deviation ([0, 1] scale), the same for the same `index`: (3, H, W) -> the same, in [0, 1]."""
    generator = torch.Generator().manual_seed(index)
    return (image + std * torch.randn(image.shape, generator=generator)).clamp(0, 1)


PERTURBATIONS = {
    "none": lambda image, index: image,
    "jpeg 95": lambda image, index: jpeg(image, 95),
    "jpeg 85": lambda image, index: jpeg(image, 85),
    "jpeg 75": lambda image, index: jpeg(image, 75),
    "resize 0.75": lambda image, index: to_8bit(resize(image, 0.75)),
    "resize 0.5": lambda image, index: to_8bit(resize(image, 0.5)),
    "blur 1": lambda image, index: to_8bit(blur(image, 1.0)),
    "noise 0.02": lambda image, index: to_8bit(noise(image, 0.02, index)),
}


def augment(image, generator, probability, crop):
    """Training augmentation of the image-domain ResNet-50: blur and JPEG at random, random crop, flip.

    Args:
        image: (3, H, W) in [0, 1].
        generator: numpy Generator.
        probability: of the blur (sigma 0.1..3) and, independently, of the JPEG (quality 30..100).
        crop: side of the square cut out, or the image's shorter side if that is smaller.
    Returns: (3, C, C) in [0, 1].
    """
    if generator.random() < probability:
        image = blur(image, float(generator.uniform(0.1, 3)))
    if generator.random() < probability:
        image = jpeg(image, int(generator.integers(30, 101)))
    crop = min(crop, *image.shape[1:])
    top, left = (int(generator.integers(side - crop + 1)) for side in image.shape[1:])
    image = image[:, top : top + crop, left : left + crop]
    return image.flip(2) if generator.random() < 0.5 else image
