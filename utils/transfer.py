"""Tensors on their way to where they are computed with."""


def sent(tensor, device):
    """A tensor of the CPU on a device; a GPU copies it from pinned memory, and is not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
