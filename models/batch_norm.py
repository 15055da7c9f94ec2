"""Batch normalisation whose statistics may be those of a batch that several processes share."""

from torch import nn

from models.switches import switched_off


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation; where `processes` share a batch, its statistics are those of the whole batch.

    torch's SyncBatchNorm works on CUDA alone, and counts images that only fill a place. While `counts` is false a batch leaves the
    running statistics as they are.
    """

    processes, counts = None, True

    def forward(self, x):
        if not self.training or (self.processes is None and self.counts):
            return super().forward(x)
        if self.processes is None:
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        self._check_input_dim(x)
        values = x.float()
        mean = self.processes.mean(values.mean((0, 2, 3)))  # (C,)
        centred = values - mean.view(1, -1, 1, 1)
        variance = self.processes.mean(centred.square().mean((0, 2, 3)))  # (C,)
        if self.counts:
            self._count(mean.detach(), variance.detach(), values[:, 0].numel() * self.processes.extent)
        scale = self.weight * (variance + self.eps).rsqrt()  # (C,)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)

    def _count(self, mean, variance, count):
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


def uncounted(network):
    """Context in which batches leave the running statistics of every `BatchNorm` in a network as they are."""
    return switched_off(network, BatchNorm, "counts")


def share_statistics(network, processes):
    """Let every `BatchNorm` in a network take its statistics over the batches of all these `Processes`."""
    if processes.world > 1:
        for part in network.modules():
            if isinstance(part, BatchNorm):
                part.processes = processes
