"""Tensors where they are computed with: on their way there, constants that are there already, and float64 where there is none."""

import functools

import torch


def sent(tensor, device):
    """A tensor of the CPU on a device; a GPU copies it from pinned memory, and is not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=256)
def on_device(constant, device, dtype=None):
    """A module's constant (told by identity) on a device, copied once: a GPU waits for each copy; not to be changed in place."""
    return constant.to(device, dtype)


@functools.lru_cache(maxsize=64)
def constant(values, device, dtype):
    """Tensor of a tuple of numbers on a device, copied once; not to be changed in place."""
    return torch.tensor(values, dtype=dtype).to(device)


def double_device(device):
    """The device itself, or the CPU where it has no float64, as Apple's GPU has none."""
    return torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)


def to_double(tensor):
    """The tensor in float64 without a graph, on `double_device` of its own; the same tensor if it is that already."""
    return tensor.detach().to(double_device(tensor.device), torch.float64)
