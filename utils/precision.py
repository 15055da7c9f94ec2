"""Where float64 is computed: Apple's GPU has none."""

import torch


def double_device(device):
    """The device itself, or the CPU where it has no float64."""
    return torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)


def to_double(tensor):
    """The tensor in float64 without a graph, on `double_device` of its own; the same tensor if it is that already."""
    return tensor.detach().to(double_device(tensor.device), torch.float64)
