"""Nested U-Net (UNet++): the generator that translates a normalised log-magnitude.

Parameters carry the names of the released checkpoints (`conv0_0.conv1.weight`, `conv0_0.bn1.weight`, ..., `final.bias`), so
that those load as they are; `bn1` and `bn2` are the node's normalisations, whichever kind `norm` chooses.
"""

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = (64, 128, 256, 512, 512)
DEPTH = len(CHANNELS)


class InstanceNorm(nn.Module):
    """Instance normalisation with scale and shift, per sample and channel, for any memory format."""

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x):
        # Not F.group_norm, which refuses the single 1 x 1 map that a 16-px image has at the deepest level.
        return torch.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


NORMS = {"batch": nn.BatchNorm2d, "instance": InstanceNorm, "none": lambda channels: nn.Identity()}


class Node(nn.Module):
    """Two times 3x3 convolution, normalisation, ReLU: one X^{i,j} of the grid."""

    def __init__(self, in_channels, out_channels, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn1 = NORMS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = NORMS[norm](out_channels)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class NestedUNet(nn.Module):
    """X^{i,j} for i + j <= 4: column 0 is the encoder, X^{0,4} feeds the output.

    Args:
        mode: "residual" adds the output to the input, starts as the identity (last convolution zero) and is bounded below by
            -1; "direct" gives 2 sigmoid - 1 (paper).
        norm: "instance" (an image's result does not depend on its batch, in training too) | "batch" (paper) | "none".
        upsample: "bilinear" | "bicubic", both without aligned corners.
        channels: output channels per level, 64, 128, 256, 512, 512 in the paper.
    """

    def __init__(self, mode="residual", norm="instance", upsample="bilinear", channels=CHANNELS):
        super().__init__()
        self.mode, self.upsample, self.channels = mode, upsample, tuple(channels)
        for j in range(DEPTH):
            for i in range(DEPTH - j):
                below = channels[i - 1] if i else 3
                inputs = below if j == 0 else j * channels[i] + channels[i + 1]
                setattr(self, f"conv{i}_{j}", Node(inputs, channels[i], norm))
        self.final = nn.Conv2d(channels[0], 3, 1)
        initialise(self)
        if mode == "residual":
            nn.init.zeros_(self.final.weight)

    def encode(self, mag, levels=DEPTH):
        """Features X^{0,0}, X^{1,0}, ... of the first `levels` levels.

        Args:
            mag: (N, 3, H, W), H and W multiples of 16.
        Returns: list of (N, channels[i], H / 2^i, W / 2^i).
        """
        features = [self.conv0_0(mag)]  # (N, 64, H, W)
        for i in range(1, levels):
            features.append(getattr(self, f"conv{i}_0")(F.max_pool2d(features[-1], 2)))  # (N, C_i, H / 2^i, W / 2^i)
        return features

    def decode(self, features, mag):
        """Output magnitude (N, 3, H, W) from the encoder's five features and the input `mag`."""
        rows = [[feature] for feature in features]
        for j in range(1, DEPTH):
            for i in range(DEPTH - j):
                raised = F.interpolate(rows[i + 1][j - 1], scale_factor=2, mode=self.upsample, align_corners=False)
                rows[i].append(getattr(self, f"conv{i}_{j}")(torch.cat([*rows[i], raised], 1)))  # (N, C_i, H / 2^i, W / 2^i)
        out = self.final(rows[0][-1]).float()  # (N, 3, H, W)
        return (mag + out).clamp_min(-1) if self.mode == "residual" else 2 * torch.sigmoid(out) - 1

    def forward(self, mag):
        """Normalised log-magnitude (N, 3, H, W) in [-1, 1] -> the same of the refined image."""
        return self.decode(self.encode(mag), mag)


def initialise(module, std=0.02):
    """Paper's start: convolution and linear weights N(0, std), biases 0, batch-norm weights N(1, std)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d | InstanceNorm):
            nn.init.normal_(part.weight, 1.0, std)
            nn.init.zeros_(part.bias)
