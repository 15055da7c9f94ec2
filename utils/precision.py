"""Where float64 is computed: Apple's GPU has none."""

import torch


def double_device(device):
    """The device itself, or the CPU where it has no float64."""
    return torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)


def to_double(tensor):
    """Float64 copy without a graph, on `double_device` of the tensor's."""
    return tensor.detach().to(double_device(tensor.device), torch.float64)
