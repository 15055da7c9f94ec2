"""Patch-wise contrastive learning: sampled positions, projection heads and the cross-entropy."""

import torch
import torch.nn.functional as F
from torch import nn

from models.nested_unet import CHANNELS, initialise
from utils.devices import sent

WIDTH = 256  # of a head
SHORTEST = 1e-3  # length of a projection that has a direction; lengthened to 1, the gradient of others would drown all the rest


class PatchHeads(nn.Module):
    """One MLP (C -> 256 -> 256) per encoder level, L2-normalised.

    Parameters carry the released names `mlp_0.0.weight` ... `mlp_4.2.bias`.
    """

    def __init__(self, channels=CHANNELS):
        super().__init__()
        for level, count in enumerate(channels):
            head = nn.Sequential(nn.Linear(count, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            setattr(self, f"mlp_{level}", head)
        initialise(self)

    def forward(self, features, positions, level):
        """Project the features of one level at sampled positions.

        Args:
            features: (N, C, H, W) of encoder level `level`.
            positions: (P,) int64, indices into the flattened H x W map.
        Returns: (N, P, 256), rows of unit length; what is shorter than SHORTEST stays as it is.
        """
        samples = features.flatten(2)[:, :, positions].transpose(1, 2).float()  # (N, P, C)
        projected = getattr(self, f"mlp_{level}")(samples)  # (N, P, 256)
        length = torch.linalg.vector_norm(projected, dim=-1, keepdim=True)
        return projected / length.where(length >= SHORTEST, 1.0)


def sample_positions(area, count, device):
    """Up to `count` random positions of a map of `area` places, without repetition: (P,) int64, drawn on the CPU."""
    return sent(torch.randperm(area)[:count], device)


def patch_nce(query, key, tau):
    """Contrastive cross-entropy (paper, patch-wise contrastive loss).

    Args:
        query, key: (N, P, D), rows of unit length; the positive of query p is key p, its negatives the image's other keys.
        tau: temperature.
    Returns: scalar >= 0, the mean over all queries; no gradient flows into `key`.
    """
    logits = query @ key.detach().transpose(1, 2) / tau  # (N, P, P)
    target = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[0], -1)  # (N, P)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())
