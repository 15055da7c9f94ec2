"""The DCGAN / LSGAN / WGAN-GP family with thirteen last layers (Chandrasegaran et al., CVPR 2021).

All three losses share one generator and one discriminator; what differs is the last upsampling, which shapes the high
frequencies. Networks work on images in [-1, 1]: `to_image` and `from_image` translate from and to [0, 1].
"""

import functools
import itertools

import numpy as np
import torch
from torch import nn

from models.batch_norm import BatchNorm

SETUPS = ("BASELINE", *(f"{letter}.1.{kernel}" for kernel in (3, 5, 7) for letter in "NZB"), "N.3.5", "Z.3.5", "B.3.5")


class ZeroUpsample(nn.Module):
    """Z: zeros between the values, so the spectrum repeats exactly: (N, C, H, W) -> (N, C, 2H, 2W)."""

    def forward(self, features):
        n, c, h, w = features.shape
        spread = features.new_zeros(n, c, h, 2, w, 2)
        spread[:, :, :, 0, :, 0] = features
        return spread.view(n, c, 2 * h, 2 * w)


UPSAMPLE = {  # letter of a set-up -> what makes its layer, (N, C, H, W) -> (N, C, 2H, 2W)
    "N": functools.partial(nn.Upsample, scale_factor=2),  # every value becomes a 2 x 2 box
    "B": functools.partial(nn.Upsample, scale_factor=2, mode="bilinear", align_corners=True),
    "Z": ZeroUpsample,
}


def last_layer(setup, channels):
    """The last upsampling of a generator: (N, channels, S/2, S/2) -> (N, 3, S, S), before tanh.

    Args:
        setup: BASELINE (a transposed convolution) or U.c.k: upsampling N | B | Z, then c convolutions of kernel k.
            With c = 3 nothing stands between the convolutions (as published).
        channels: of the features; convolutions before the last keep them.
    Raises: ValueError for a set-up outside `SETUPS`.
    """
    if setup not in SETUPS:
        raise ValueError(f"set-up {setup!r} is none of {', '.join(SETUPS)}")
    if setup == "BASELINE":
        return nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1)
    letter, count, kernel = setup[0], int(setup[2]), int(setup[4])
    widths = [channels] * count + [3]
    convolutions = [nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(UPSAMPLE[letter](), *convolutions)


def doublings(size):
    """How often 4 x 4 doubles to reach `size`; ValueError unless size is 8, 16, 32, ..."""
    if size < 8 or size & (size - 1):
        raise ValueError(f"size {size} is not a power of two from 8 on")
    return size.bit_length() - 3


class Generator(nn.Module):
    """Latent vector -> image.

    Args:
        size: side of the image, a power of two.
        setup: see `last_layer`.
        dim: channels before the last layer.
        latent_dim: length of the latent vector.
    """

    def __init__(self, size, setup, dim, latent_dim):
        super().__init__()
        steps = doublings(size)
        self.latent_dim = latent_dim
        widths = [min(dim * 2 ** (steps - 1), 16 * dim)]
        widths += [min(dim * 2 ** (steps - 2 - i), 8 * dim) for i in range(steps - 1)]
        blocks = [self._block(latent_dim, widths[0], stride=1, padding=0)]
        blocks += [self._block(a, b, stride=2, padding=1) for a, b in itertools.pairwise(widths)]
        self.body = nn.Sequential(*blocks)
        self.last = last_layer(setup, widths[-1])

    @staticmethod
    def _block(c_in, c_out, stride, padding):
        up = nn.ConvTranspose2d(c_in, c_out, 4, stride=stride, padding=padding, bias=False)
        return nn.Sequential(up, BatchNorm(c_out), nn.ReLU())

    def forward(self, latent):
        """(N, latent_dim) standard normal -> (N, 3, S, S) in [-1, 1]."""
        features = self.body(latent[:, :, None, None])  # (N, dim, S / 2, S / 2)
        return torch.tanh(self.last(features))  # (N, 3, S, S)


class Discriminator(nn.Module):
    """Image -> one logit.

    Args:
        size, dim: as for `Generator`.
        norm: "batch", or "layer" (GroupNorm with one group) where a gradient penalty needs each sample by itself.
    """

    def __init__(self, size, dim, norm):
        super().__init__()
        widths = [min(dim * 2**i, 16 * dim) for i in range(doublings(size))]
        layers = [nn.Conv2d(3, dim, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for a, b in itertools.pairwise(widths):
            normalise = BatchNorm(b) if norm == "batch" else nn.GroupNorm(1, b)
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False), normalise, nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.logit = nn.Conv2d(widths[-1], 1, 4)

    def forward(self, image):
        """(N, 3, S, S) in [-1, 1] -> (N,)."""
        return self.logit(self.body(image)).flatten()  # (N,)


def to_image(signed):
    """[-1, 1] -> [0, 1]."""
    return (signed + 1) / 2


def from_image(image):
    """[0, 1] -> [-1, 1]."""
    return 2 * image - 1


@torch.no_grad()
def update_average(average, module, decay):
    """Move the parameters of `average` towards those of `module` (exponential moving average); buffers are copied."""
    for mean, value in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for mean, value in zip(average.buffers(), module.buffers(), strict=True):
        mean.copy_(value)


def seeded_latents(indices, latent_dim, seed, stream=0):
    """Latent vectors that depend on (seed, stream, index) alone, so that image i is the same in any batch.

    Args:
        indices: iterable of non-negative integers. stream: another row of vectors for another purpose.
    Returns: (len(indices), latent_dim) float64, standard normal.
    """
    rows = [np.random.default_rng([seed, stream, index]).standard_normal(latent_dim) for index in indices]
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def generate(generator, latent):
    """Images of latent vectors, with the running BatchNorm statistics: (N, latent_dim) -> (N, 3, S, S) in [0, 1].

    Runs in the precision and on the device of the generator's weights.
    """
    was_training = generator.training
    generator.eval()
    weight = next(generator.parameters())
    image = to_image(generator(latent.to(weight.device, weight.dtype)))
    generator.train(was_training)
    return image
