"""The folder that gan.py invert writes, read again."""

from pathlib import Path

import numpy as np
import torch

from data.folder import ImageFolder, list_images
from utils.errors import UserError


def open_pairs(folder, count=None):
    """Triplets of a folder of pairs.

    Returns: `ImageFolder`s of reals and fakes, and latents (N, latent_dim) float32, all in the same order.
    Raises: UserError if a part is missing.
    """
    folder = Path(folder)
    names = [path.relative_to(folder / "real") for path in list_images(folder / "real", recursive=True)][:count]
    parts = {
        part: [(folder / part / name).with_suffix(suffix) for name in names]
        for part, suffix in (("real", ".png"), ("fake", ".png"), ("latent", ".npy"))
    }
    missing = [path for paths in parts.values() for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]} is missing; {folder} must be a folder that gan.py invert wrote")
    latent = torch.from_numpy(np.stack([np.load(path) for path in parts["latent"]])).float()
    return ImageFolder(parts["real"]), ImageFolder(parts["fake"]), latent
