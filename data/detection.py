"""What detectors are trained and judged on: checked folders, and which images are for training, validation and test."""

import sys
from pathlib import Path

from data.folder import compare_classes, load_folder
from data.pairs import split_holdout
from utils.decay import SMALLEST
from utils.detector_protocol import ImageSet, draw_samples
from utils.errors import UserError

VALIDATION = 0.2  # of the training part: best epoch and threshold


def open_sets(folders, options):
    """Read and check folders: dict role -> path becomes dict role -> `ImageSet`, the images' side, and warnings for the report."""
    sets, infos = {}, {}
    labels = ["/".join(Path(folder).parts[-2:]) for folder in folders.values()]
    for (role, folder), label in zip(folders.items(), labels, strict=True):
        images, infos[role] = load_folder(
            folder, options.size, options.fit, options.skip_bad, options.cache_gb, options.num_workers
        )
        sets[role] = ImageSet(label if labels.count(label) == 1 else Path(folder).as_posix(), folder, images)
    first = next(iter(infos.values()))[0]
    for info in (info for role in infos.values() for info in role if options.size is None):
        if (info.width, info.height) != (first.width, first.width):
            raise UserError(
                f"{info.path} is {info.width} x {info.height}, but detectors take squares of one size; give --size N, with "
                "--fit crop to keep the artefacts being studied"
            )
    side = options.size or first.width
    if side < SMALLEST:
        raise UserError(f"{first.path} is {side} x {side}; detectors need {SMALLEST} pixels or more: give other images, or --size")
    warnings = []
    for role in (role for role in sets if role != "real" and "real" in sets):
        found = compare_classes(infos["real"], infos[role])
        warnings += [f"warning, {sets['real'].label} against {sets[role].label}: {text}" for text in found]
    for text in warnings:
        print(text, file=sys.stderr)
    return sets, side, warnings


def split_names(real, fake, num_samples, train_share, seed):
    """Names of the training, validation and test images of one run, drawn without replacement.

    A name that is in both folders is on the same side of the split in both.

    Args:
        real, fake: image sets.
        num_samples: images per class at most, None = all.
        train_share: training and validation together, the rest is for testing.
    Returns: dict side -> dict part -> list of names.
    Raises: UserError if there are too few images.
    """
    paths = [[images.folder / name for name in draw_samples(images.names, num_samples, seed)] for images in (real, fake)]
    try:
        outer = split_holdout(*paths, 1 - train_share, seed)
        inner = split_holdout(outer["train_real"], outer["train_fake"], VALIDATION, seed)
    except UserError as error:
        counts = f"{len(paths[0])} real and {len(paths[1])} fake images"
        raise UserError(f"{counts} are too few for --split {train_share}; add images or change it") from error
    parts = {"train": (inner, "train"), "validation": (inner, "holdout"), "test": (outer, "holdout")}

    def names(images, side, where, key):
        return [path.relative_to(images.folder).as_posix() for path in where[f"{key}_{side}"]]

    sides = (("real", real), ("fake", fake))
    return {side: {part: names(images, side, *place) for part, place in parts.items()} for side, images in sides}
