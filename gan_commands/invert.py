"""gan.py invert: latents of photographs by optimisation, as triplets (real, latent, fake)."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.folder import load_folder, warn
from data.streams import find_photographs
from gan_commands.common import INVERT, batches_of, load_run, weights_digest
from gan_commands.pairs import PAIRS
from models.gan import from_image, generate, seeded_latents
from models.gan_training import restore_generator
from options import as_plain
from utils.distributed import resolve_device
from utils.errors import UserError
from utils.report import output_names
from utils.run_dir import atomic_path, check_place, claim, delete, refuse_deleting, refuse_held, write_json, write_png
from utils.seeding import seed_everything
from utils.tables import write_csv

PARTS = ("real", "fake", "latent")


def open_pairs_folder(folder, overwrite, source):
    """Make room for pairs in a folder; an earlier one is refused, or emptied with `overwrite`, if it does not hold the `source`."""
    check_place(folder)
    refuse_held(folder)
    existing = [folder / part for part in PARTS if (folder / part).exists()]
    if existing and not overwrite:
        raise UserError(f"{existing[0]} exists already; --overwrite replaces the pairs in {folder}, or choose another --out")
    if existing and not (folder / PAIRS).is_file():
        raise UserError(f"{folder} holds folders that gan.py invert did not write; choose another --out")
    for part in existing:
        refuse_deleting(part, [source], "choose another --out")
    claim(folder)
    for part in existing:
        delete(part)


def invert_batch(generator, real_image, latent, steps, lr, show):
    """Move latents towards images by Adam; every image is optimised by itself.

    Args:
        generator: in evaluation mode, its weights fixed.
        real_image: (N, 3, S, S) in [0, 1].
        latent: (N, latent_dim), where to start.
        show: called with the mean loss every ten steps.
    Returns: latent (N, latent_dim) and loss (N,): mean squared difference of the images in [-1, 1].
    """
    latent = latent.to(real_image).requires_grad_(True)
    optimiser = torch.optim.Adam([latent], lr)
    target = from_image(real_image)
    for step in range(steps):
        loss = (generator(latent) - target).square().flatten(1).mean(1)  # (N,)
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        if step % 10 == 0:
            show(loss.mean().item())
    with torch.no_grad():
        loss = (generator(latent) - target).square().flatten(1).mean(1)
    return latent.detach(), loss


def invert(options):
    """Invert images one batch after the other and keep the pairs whose loss is small enough."""
    device = resolve_device(options.device)
    seed_everything(options.seed, options.deterministic)
    checkpoint = load_run(options.dst, options.checkpoint)
    root = find_photographs(options.data)
    size = checkpoint["config"]["size"]
    reading = (options.fit, options.skip_bad)
    images = load_folder(root, size, *reading, num_workers=options.num_workers, recursive=True)[0]
    out = Path(options.out)
    open_pairs_folder(out, options.overwrite, root)
    origin = {"weights": weights_digest(checkpoint), "options": as_plain(options)}
    write_json(out / PAIRS, origin)  # by which an interrupted inversion is known as one
    generator = restore_generator(checkpoint).to(device).requires_grad_(False)
    count = len(images) if options.n is None else min(options.n, len(images))
    names = output_names(images.paths, root)[:count]
    print(
        f"inverting {count} images: {options.steps} steps of Adam at {options.lr:g}, pairs above {options.threshold:g} are dropped"
    )

    rows = []
    with tqdm(total=count, unit="image", desc="inverting") as bar:
        for real_image in batches_of(images, range(count), options.batch_size):
            numbers = range(len(rows), len(rows) + len(real_image))
            start = seeded_latents(numbers, generator.latent_dim, options.seed, INVERT)
            show = lambda loss: bar.set_postfix(lr=options.lr, loss=f"{loss:.3f}")  # noqa: E731
            latent, loss = invert_batch(generator, real_image.to(device), start, options.steps, options.lr, show)
            for number, real, z, fake, value in zip(
                numbers, real_image, latent, generate(generator, latent), loss.tolist(), strict=True
            ):
                kept = value <= options.threshold
                rows.append((names[number].as_posix(), value, int(kept)))
                if kept:
                    write_triplet(out, names[number], real, z, fake)
            bar.update(len(real_image))
    write_csv(out / "pairs.csv", ("name", "loss", "kept"), rows)
    kept, losses = sum(row[2] for row in rows), [row[1] for row in rows]
    summary = {"kept": kept, "dropped": count - kept, "median_loss": float(np.median(losses)), **origin}
    write_json(out / PAIRS, summary)
    print(f"{kept} pairs kept, {count - kept} dropped (median loss {np.median(losses):.4f}); they are in {out}")
    if not kept:
        warn("no pair is good enough: give more --steps or a higher --threshold, or train the generator longer")


def write_triplet(folder, name, real_image, latent, fake_image):
    """Write real/<name>, fake/<name> and latent/<name>.npy."""
    write_png(folder / "real" / name, real_image)
    write_png(folder / "fake" / name, fake_image)
    with atomic_path((folder / "latent" / name).with_suffix(".npy")) as temporary:
        np.save(temporary, latent.cpu().numpy())
