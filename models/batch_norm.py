"""Batch normalisation whose statistics may be those of a batch that several processes share."""

import torch
from torch import nn


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation; where `processes` share a batch, its statistics are those of the whole batch.

    torch's SyncBatchNorm works on CUDA alone, and counts images that only fill a place.
    """

    processes = None

    def forward(self, x):
        if self.processes is None or not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        values = x.float()
        mean = self.processes.mean(values.mean((0, 2, 3)))  # (C,)
        centred = values - mean.view(1, -1, 1, 1)
        variance = self.processes.mean(centred.square().mean((0, 2, 3)))  # (C,)
        with torch.no_grad():
            count = values[:, 0].numel() * self.processes.extent
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()  # (C,)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def share_statistics(network, processes):
    """Let every `BatchNorm` in a network take its statistics over the batches of all these `Processes`."""
    if processes.world > 1:
        for part in network.modules():
            if isinstance(part, BatchNorm):
                part.processes = processes
