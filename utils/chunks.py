"""Large batches worked on a few images at a time: on a CPU the parts stay in its cache, and memory is bounded anywhere."""

import torch

CPU_PIXELS = 2**17
DEVICE_PIXELS = 2**21  # many are needed to keep a GPU busy


def chunks(image):
    """A batch (N, ..., H, W) in parts of a few images each."""
    pixels = CPU_PIXELS if image.device.type == "cpu" else DEVICE_PIXELS
    return image.split(max(1, pixels // (image.shape[-2] * image.shape[-1])))


def in_chunks(function, image):
    """What `function` of a batch gives, (N, ...), computed part by part; no image's result may depend on the others."""
    return torch.cat([function(part) for part in chunks(image)])
