"""The image sets of a training run, opened and checked before anything is written."""

import dataclasses
from pathlib import Path

from data.demo import make_demo
from data.folder import ImageFolder, compare_classes, load_folder, warn
from data.pairs import load_holdout, split_holdout
from data.shards import shards_beside
from utils.errors import UserError

DATASETS = Path("datasets")
DEMO = "demo"


def open_dataset(name, options, tell=warn):
    """Open datasets/<name>/{real,fake}, folders or shards real-000000.tar, ...; the name "demo" is made on first use.

    Args:
        options: has size, fit, skip_bad, cache_gb, num_workers.
        tell: called with each warning, of what gives the classes away apart from the spectrum, too.
    Returns: dict real, fake -> (`ImageFolder`, list of `ImageInfo`).
    Raises: UserError for whatever is missing or unreadable.
    """
    folder = DATASETS / name
    if name == DEMO and not folder.exists():
        print(f"making {folder} (drawn images, no download)")
        make_demo(folder)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {problem}; put photographs in {folder}/real and generated images in {folder}/fake")
    places = {side: _place(folder, side) for side in ("real", "fake")}
    half = options.cache_gb / 2
    pair = {
        side: load_folder(place, options.size, options.fit, options.skip_bad, half, options.num_workers, tell=tell)
        for side, place in places.items()
    }
    for sentence in compare_classes(pair["real"][1], pair["fake"][1]):
        tell(sentence)
    return pair


def _place(folder, side):
    """Where a class lies: the folder folder/<side>, or the pattern of the shards beside it."""
    shards = shards_beside(folder, side)
    if shards and (folder / side).exists():
        raise UserError(f"{folder} holds both {side}/ and {shards.name}; leave one of them there")
    return shards or folder / side


def training_sets(options, manifest=None, tell=warn):
    """The sets of train.py.

    Args:
        options: has data, test_data, holdout, seed and what `open_dataset` needs.
        manifest: the images.json of a run to resume, whose split holds; None splits anew.
        tell: called with each warning.
    Returns:
        sets: dict of `ImageFolder`s train_real, train_fake, test_real, test_fake.
        source: what the test sets are, in words.
        split: dict of `ImagePaths`, as `split_holdout` gives it.
    Raises: UserError as `open_dataset`, `split_holdout` and `load_holdout`.
    """
    pair = open_dataset(options.data, options, tell)
    real_paths, fake_paths = (pair[side][0].paths for side in ("real", "fake"))
    if manifest:
        split = load_holdout(manifest, real_paths, fake_paths)
    else:
        split = split_holdout(real_paths, fake_paths, options.holdout, options.seed)
    sets = {f"train_{side}": _part(*pair[side], split[f"train_{side}"], options.cache_gb / 4) for side in pair}
    if options.test_data:
        half = dataclasses.replace(options, cache_gb=options.cache_gb / 2)  # the training images have the other half
        tests = {side: dataset for side, (dataset, _) in open_dataset(options.test_data, half, tell).items()}
        source = f"{options.test_data}, another data set"
    elif options.holdout:
        tests = {side: _part(*pair[side], split[f"holdout_{side}"], options.cache_gb / 4) for side in pair}
        source = f"the held-out {options.holdout:.0%} of {options.data}"
    else:
        tests = {side: sets[f"train_{side}"] for side in pair}
        source = "the training images (the paper's protocol)"
    if len(tests["real"]) < 2:
        tell("there is one real image to evaluate on, so the table has no floor; add images, or change --holdout or --test_data")
    return sets | {f"test_{side}": dataset for side, dataset in tests.items()}, source, split


def _part(dataset, infos, paths, cache_gb):
    where = {name: index for index, name in enumerate(infos.paths.names)}
    part = infos.take([where[name] for name in paths.names])
    return ImageFolder(part.paths, dataset.size, dataset.fit, cache_gb, part)
