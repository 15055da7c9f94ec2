"""The folder that gan.py invert writes, read again."""

from pathlib import Path

import numpy as np
import torch

from data.checking import check_images
from data.folder import ImageFolder, require_one_size
from data.listing import ImagePaths, list_images
from utils.errors import UserError
from utils.files import read_json

PAIRS = "pairs.json"  # in the folder: how it was made


def open_pairs(folder, num_workers=0):
    """Triplets of a folder of pairs, which `num_workers` processes check.

    Returns: `ImageFolder`s of reals (with names below real/) and fakes, and latents (N, latent_dim) float32, all in the same order.
    Raises: UserError if a part is missing or damaged, or of another size than the first, or the inversion was interrupted.
    """
    folder = Path(folder)
    if "kept" not in (read_pairs(folder) or {"kept": None}):
        raise UserError(f"the inversion to {folder} was interrupted; start the same gan.py invert again, and it goes on")
    if not (folder / "real").is_dir():
        what = "holds no pairs" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"{folder} {what}; give the folder that gan.py invert wrote (if it kept none, give it a higher --threshold)"
        )
    names = [path.relative_to(folder / "real") for path in list_images(folder / "real", recursive=True)]
    parts = {
        part: [(folder / part / name).with_suffix(suffix) for name in names]
        for part, suffix in (("real", ".png"), ("fake", ".png"), ("latent", ".npy"))
    }
    missing = [path for paths in parts.values() for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]} is missing; {folder} must be a folder that gan.py invert wrote")
    require_one_size(
        *(check_images(parts[part], num_workers=num_workers)[1] for part in ("real", "fake")),
        square=True,
        advice="run gan.py invert again",
    )
    latents = [_read_latent(path) for path in parts["latent"]]
    for path, latent in zip(parts["latent"], latents, strict=True):
        if latent.shape != latents[0].shape:
            raise UserError(
                f"{path} holds {len(latent)} numbers and {parts['latent'][0]} {len(latents[0])}; run gan.py invert again"
            )
    latent = torch.from_numpy(np.stack(latents)).float()
    real = ImagePaths(folder / "real", [name.with_suffix(".png").as_posix() for name in names])
    return ImageFolder(real), ImageFolder(parts["fake"]), latent


def read_pairs(folder):
    """What a folder's PAIRS holds: a dictionary, None if there is no such file; UserError if it is damaged."""
    path = Path(folder) / PAIRS
    return read_json(path, "delete its folder if gan.py invert wrote it, or choose another") if path.is_file() else None


def pairs_weights(folder):
    """`weights_digest` of the generator that pairs were inverted with; None if the folder does not say."""
    return (read_pairs(folder) or {}).get("weights")


def _read_latent(path):
    """Latent vector (D,) of a .npy file."""
    try:
        latent = np.load(path)
    except OSError:
        raise
    except Exception as error:  # NumPy raises anything on damaged files
        raise UserError(f"{path} is damaged and no latent vector; run gan.py invert again") from error
    if not isinstance(latent, np.ndarray) or latent.ndim != 1 or latent.dtype.kind != "f" or not np.isfinite(latent).all():
        raise UserError(f"{path} is no latent vector; run gan.py invert again")
    return latent
