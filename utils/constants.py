"""Constant tensors on the device that computes with them, copied once: a copy from the CPU makes a GPU wait for it."""

import functools

import torch


@functools.lru_cache(maxsize=256)
def on_device(constant, device, dtype=None):
    """A module's constant (told by identity) on a device; not to be changed in place."""
    return constant.to(device, dtype)


@functools.lru_cache(maxsize=64)
def constant(values, device, dtype):
    """Tensor of a tuple of numbers on a device; not to be changed in place."""
    return torch.tensor(values, dtype=dtype).to(device)
