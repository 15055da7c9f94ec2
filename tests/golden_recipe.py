"""The golden numbers of tests/golden and the images and weights they were measured with."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"
NUMBERS = json.loads((FOLDER / "golden_64.json").read_text())
ARRAYS = {name: torch.from_numpy(value) for name, value in np.load(FOLDER / "golden_64.npz").items()}
RELEASED_ORDER = (2, 0, 1)  # the released generator's channel c is channel RELEASED_ORDER[c] of the image


def golden_image(k, size=64):
    """The made image `k` (1 fake, 2 real): (1, 3, size, size) float32."""
    t = 2 * math.pi / size
    i, j, c = np.arange(size)[None, :, None], np.arange(size)[None, None, :], np.arange(3)[:, None, None]
    u = np.random.default_rng(k).random((3, size, size))
    wave = np.sin(t * ((3 + k) * i + 2 * j) + c) * np.cos(t * (i - (4 + k) * j))
    return torch.from_numpy(np.clip(0.5 + 0.35 * wave + 0.1 * (u - 0.5), 0, 1).astype(np.float32))[None]


def golden_weights(part):
    """State dictionary of `part` (generator, discriminator, mlp, spectral_discriminator) under the released names."""
    state = {}
    for name, shape in NUMBERS["params"][part]:
        x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("running_var"):
            x = 1 + 0.1 * np.abs(x)
        elif name.endswith("running_mean"):
            x = 0.1 * x
        elif ".bn" in name and name.endswith("weight"):
            x = 1 + 0.02 * x
        else:
            x = 0.05 * x
        state[name.split(".", 1)[1]] = torch.from_numpy(x.astype(np.float32))
    return state
