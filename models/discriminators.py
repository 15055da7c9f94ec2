"""PatchGAN on the magnitude and the spectral discriminator on the chessboard profile."""

import torch.nn.functional as F
from torch import nn

from models.nested_unet import initialise


class _Stage(nn.Module):
    """3x3 stride-2 convolution, instance norm (but for the first stage), LeakyReLU 0.2; halves the map."""

    def __init__(self, in_channels, out_channels, normalise):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1))
        self.normalise = normalise

    def forward(self, x):
        x = self.block(x)
        if self.normalise and x.shape[-1] * x.shape[-2] > 1:
            x = F.instance_norm(x)
        return F.leaky_relu(x, 0.2, inplace=True)


class PatchDiscriminator(nn.Module):
    """PatchGAN: probability of being real per patch of the magnitude."""

    def __init__(self):
        super().__init__()
        self.stage_1 = _Stage(3, 64, normalise=False)
        self.stage_2 = _Stage(64, 128, normalise=True)
        self.stage_3 = _Stage(128, 256, normalise=True)
        self.stage_4 = _Stage(256, 512, normalise=True)
        self.patch = nn.Conv2d(512, 1, 3, padding=1)
        initialise(self)

    def forward(self, mag):
        """mag (N, 3, H, W) in [-1, 1] -> (N, 1, H / 16, W / 16) in [0, 1]."""
        x = self.stage_2(self.stage_1(mag))  # (N, 128, H / 4, W / 4)
        x = self.stage_4(self.stage_3(x))  # (N, 512, H / 16, W / 16)
        return self.patch(x).float().sigmoid()  # (N, 1, H / 16, W / 16)


class SpectralDiscriminator(nn.Sequential):
    """One fully connected layer on the chessboard profile: (N, R) in [0, 1] -> (N, 1) in [0, 1]."""

    def __init__(self, rings):
        super().__init__(nn.Linear(rings, 1), nn.Sigmoid())
        initialise(self)
