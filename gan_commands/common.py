"""What the sub-commands share: trained runs, images drawn from them, and which images of a folder are used."""

import math
import shlex

import numpy as np
import torch

from models.gan import generate, seeded_latents
from models.gan_training import restore_generator
from utils.checkpoint import digest_of, fitting, load_checkpoint
from utils.devices import double_device
from utils.errors import UserError
from utils.pictures import to_8bit
from utils.run_dir import run_folder

KIND = "gan"
BATCH = 64  # images that are drawn at once
SAMPLE, MONITOR, GRID, INVERT, DETECTOR, JUDGED = range(6)  # streams of latent vectors that do not overlap


def run_checkpoint(dst, which="best"):
    """Path of the checkpoint of results/<dst>: its best epoch (the last one if none is marked) or its last; UserError if none."""
    folder = run_folder(dst)
    path = folder / "best.pt"
    if which == "last" or not path.is_file():
        path = folder / "checkpoint.pt"
    if not path.is_file():
        raise UserError(f"{folder} holds no trained generator; train one with gan.py train --dst {shlex.quote(str(dst))}")
    return path


def load_run(dst, which="best"):
    """Content of `run_checkpoint`; UserError if there is none, or what is drawn from does not fit."""
    path = run_checkpoint(dst, which)
    checkpoint = load_checkpoint(path, KIND)
    with fitting(path):
        if which == "best" and path.name != "best.pt" and math.isfinite(checkpoint["progress"].get("best", math.inf)):
            raise UserError(
                f"{path.parent / 'best.pt'}, the run's best epoch, is missing; copy it back, or draw from its last epoch by gan.py "
                "sample --checkpoint last"
            )
        restore_generator(checkpoint)
        checkpoint["steps"], checkpoint["progress"]["epoch"] = int(checkpoint["steps"]), int(checkpoint["progress"]["epoch"])
    return checkpoint


def weights_digest(checkpoint):
    """By which the generator of a run is known again; SHA-256 of its weights."""
    return digest_of(restore_generator(checkpoint).state_dict())


def draw_batches(generator, indices, seed, stream, batch_size=BATCH):
    """Yield (indices, 8-bit images (N, 3, S, S) in [0, 1]) of numbered latents, batch by batch."""
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        yield chosen, to_8bit(generate(generator, seeded_latents(chosen, generator.latent_dim, seed, stream)))


def draw(checkpoint, count, seed, device, stream=SAMPLE):
    """Yield 8-bit images (N, 3, S, S) of a run, those that `gan.py sample` writes for the same seed."""
    generator = sampling_generator(checkpoint, device)
    for _, image in draw_batches(generator, range(count), seed, stream):
        yield image.float()


def sampling_generator(checkpoint, device):
    """The run's generator in double precision, so that the 8-bit images depend neither on batch size nor on the device."""
    return restore_generator(checkpoint).to(double_device(device), torch.float64)


def images_of(folder, count, seed):
    """At most `count` positions of a dataset, drawn without replacement, in order."""
    return np.sort(np.random.default_rng(seed).permutation(len(folder))[:count]).tolist()
