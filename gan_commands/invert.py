"""gan.py invert: latents of photographs by optimisation, as triplets (real, latent, fake)."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.copies import file_sum
from data.streams import files_of, open_photographs
from gan_commands.common import INVERT, load_run, weights_digest
from gan_commands.options import GanInvertOptions
from gan_commands.pairs import PAIRS, read_pairs
from models.gan import from_image, generate, seeded_latents
from models.gan_training import restore_generator
from utils.arguments import as_plain, free_on_resume
from utils.distributed import resolve_device
from utils.errors import UserError, warn
from utils.files import atomic_path, check_place, delete, real_path, write_json
from utils.pictures import write_png
from utils.result_files import output_names
from utils.run_dir import claim, refuse_deleting, refuse_held
from utils.seeding import seed_everything
from utils.tables import read_csv, write_csv

PARTS = ("real", "fake", "latent")
TABLE, COLUMNS = "pairs.csv", ("name", "loss", "kept")


def open_pairs_folder(folder, overwrite, source, origin):
    """Make room for pairs in a folder, or find those of an interrupted inversion of the same origin there.

    Args:
        overwrite: empty it first, unless one of the paths `source` is in it.
        origin: {"weights": digest, "bytes": `file_sum` of the images, "options": plain values}.
    Returns: rows of COLUMNS of the images that are done.
    Raises: UserError if the folder holds anything else.
    """
    check_place(folder)
    refuse_held(folder)
    existing = [folder / part for part in (TABLE, *PARTS) if (folder / part).exists()]  # deleted in this order
    known = "options" in (read_pairs(folder) or {})  # another's file of this name says nothing of them
    goes_on = not overwrite and known and _unfinished(read_pairs(folder), origin)
    around = next((path for path in source if real_path(folder).is_relative_to(real_path(path))), None)
    if around:
        raise UserError(f"--out {folder} lies in {around}, whose images are inverted: pairs would count as such; choose another")
    if existing and not known:
        raise UserError(f"{existing[0]} is not of gan.py invert, which would write there; choose another --out")
    if (folder / "real").exists() and not (overwrite or goes_on):
        raise UserError(f"{folder / 'real'} exists already; --overwrite replaces the pairs in {folder}, or choose another --out")
    for part in () if goes_on else existing:
        refuse_deleting(part, source, "choose another --out")
    claim(folder)
    if existing and not goes_on:
        write_json(folder / PAIRS, dict.fromkeys(origin))  # a part of the old ones would pass for all
    for part in () if goes_on else existing:
        delete(part)
    write_json(folder / PAIRS, origin)
    return _rows(folder / TABLE)


def _unfinished(begun, origin):
    """Whether what a folder's PAIRS says is an inversion of this origin that was interrupted."""
    if "kept" in begun or not isinstance(begun.get("options"), dict):
        return False
    free = free_on_resume(GanInvertOptions)
    mine, theirs = ({name: value for name, value in each["options"].items() if name not in free} for each in (begun, origin))
    return mine == theirs and all(begun.get(name) == origin[name] for name in ("weights", "bytes"))


def _rows(path):
    """Rows of COLUMNS of a TABLE; none if there is no such file."""
    return read_csv(path, lambda row: (row["name"], float(row["loss"]), int(row["kept"]))) if path.is_file() else []


def invert_batch(generator, real_image, latent, steps, lr, show):
    """Move latents towards images by Adam; every image is optimised by itself.

    Args:
        generator: in evaluation mode, its weights fixed.
        real_image: (N, 3, S, S) in [0, 1].
        latent: (N, latent_dim), where to start.
        show: called with the mean loss every ten steps.
    Returns: latent (N, latent_dim) and loss (N,): mean squared difference of the images in [-1, 1].
    """
    latent = latent.to(real_image, copy=True).requires_grad_(True)  # the caller's stay as they are
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
    size, out = checkpoint["config"]["size"], Path(options.out)
    images = open_photographs(options.data, size, options.fit, options.skip_bad, 0.0, options.num_workers)
    count = len(images) if options.n is None else min(options.n, len(images))
    names = output_names(images.paths, images.paths.root)[:count]
    origin = {"weights": weights_digest(checkpoint), "bytes": file_sum(images.paths), "options": as_plain(options)}
    rows = open_pairs_folder(out, options.overwrite, files_of(options.data), origin)
    if [row[0] for row in rows] != [name.as_posix() for name in names[: len(rows)]]:
        raise UserError(f"{out} was begun with other images than are in {options.data} now; --overwrite starts anew")
    generator = restore_generator(checkpoint).to(device).requires_grad_(False)
    print(
        f"inverting {count} images: {options.steps} steps of Adam at {options.lr:g}, pairs above {options.threshold:g} are dropped"
    )
    with tqdm(total=count, initial=len(rows), unit="image", desc="inverting") as bar:
        for first in range(len(rows), count, options.batch_size):
            numbers = range(first, min(first + options.batch_size, count))
            real_image = torch.stack([images[number] for number in numbers])
            start = seeded_latents(numbers, generator.latent_dim, options.seed, INVERT)
            show = lambda loss: bar.set_postfix(lr=options.lr, loss=f"{loss:.3f}")  # noqa: E731
            latent, loss = invert_batch(generator, real_image.to(device), start, options.steps, options.lr, show)
            fakes = generate(generator, latent)
            for number, real, z, fake, value in zip(numbers, real_image, latent, fakes, loss.tolist(), strict=True):
                kept = value <= options.threshold
                rows.append((names[number].as_posix(), float(f"{value:.6g}"), int(kept)))
                if kept:
                    write_triplet(out, names[number], real, z, fake)
            write_csv(out / TABLE, COLUMNS, rows)
            bar.update(len(real_image))
    kept, losses = sum(row[2] for row in rows), [row[1] for row in rows]
    write_json(out / PAIRS, {"kept": kept, "dropped": count - kept, "median_loss": float(np.median(losses)), **origin})
    print(f"{kept} pairs kept, {count - kept} dropped (median loss {np.median(losses):.4f}); they are in {out}")
    if not kept:
        warn("no pair is good enough: give more --steps or a higher --threshold, or train the generator longer")


def write_triplet(folder, name, real_image, latent, fake_image):
    """Write real/<name>, fake/<name> and latent/<name>.npy."""
    write_png(folder / "real" / name, real_image)
    write_png(folder / "fake" / name, fake_image)
    with atomic_path((folder / "latent" / name).with_suffix(".npy")) as temporary:
        np.save(temporary, latent.cpu().numpy())
