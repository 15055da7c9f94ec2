"""The image sets of a training run, opened and checked before anything is written."""

from pathlib import Path

from data.copies import told_copies
from data.demo import make_demo
from data.differences import class_differences
from data.folder import ImageFolder, load_folder, refuse_same
from data.listing import DATASETS, ImagePaths, list_images
from data.pairs import load_holdout, names_within, split_holdout
from data.shards import is_shards, list_shards, shards_beside
from utils.errors import UserError, warn
from utils.files import read_json, real_path
from utils.run_dir import OPTIONS

DEMO = "demo"
TRAINED_ON = "they are trained on, and what is judged by them looks too good; give others to --test_data"
ONE_IMAGE = "one {} image does not tell how far others differ from it: all but the plain filter do next to nothing then; add images"


def open_dataset(name, options, tell=warn):
    """Open datasets/<name>/{real,fake}, folders or shards real-000000.tar, ...; the name "demo" is made on first use.

    Args:
        options: has size, fit, skip_bad, num_workers.
        tell: called with each warning, of what gives the classes away apart from the spectrum, too.
    Returns: dict real, fake -> (`ImageFolder` without a cache, its `ImageInfo`s).
    Raises: UserError for whatever is missing or unreadable.
    """
    folder = DATASETS / name
    if name == DEMO and not folder.exists():
        print(f"making {folder} (drawn images, no download)")
        make_demo(folder)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else f"does not exist in {Path.cwd()}"
        raise UserError(f"{folder} {problem}; put photographs in {folder}/real and generated images in {folder}/fake")
    places = {side: _place(folder, side) for side in ("real", "fake")}
    refuse_same(*places.values())
    reading = {"skip_bad": options.skip_bad, "num_workers": options.num_workers, "tell": tell}
    pair = {side: load_folder(place, options.size, options.fit, **reading) for side, place in places.items()}
    differences = [f"{folder}: {sentence}" for sentence in class_differences(pair["real"], pair["fake"])]
    for sentence in differences + told_copies(*(images.paths for images, _ in pair.values())):
        tell(sentence)
    return pair


def _place(folder, side):
    """Where a class lies: the folder folder/<side>, or the pattern of the shards beside it."""
    shards = shards_beside(folder, side)
    if shards and (folder / side).exists():
        raise UserError(f"{folder} holds both {side}/ and {shards.name}; leave one of them there")
    return shards or folder / side


def trained_fakes(run):
    """Paths of the fakes that a run of train.py, a folder, was trained on; none if it does not say, or they are not there."""
    try:
        place = _place(DATASETS / read_json(run / OPTIONS)["data"], "fake")
        wanted = set(read_json(run / "images.json")["train_fake"])
        listed = list_shards(place) if is_shards(place) else list_images(place)
    except (UserError, OSError, KeyError, TypeError):
        return ImagePaths("", [])
    return listed.take([index for index, name in enumerate(names_within(listed)) if name in wanted])


def inputs_of(options):
    """Folders that `training_sets` reads, and those that links in them lead to."""
    return [DATASETS / name / side for name in (options.data, options.test_data) if name for side in ("", "real", "fake")]


def training_sets(options, manifest=None, tell=warn):
    """The sets of train.py.

    Args:
        options: has data, test_data, holdout, seed, cache_gb and what `open_dataset` needs.
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
        split = load_holdout(manifest, real_paths, fake_paths, tell)
    else:
        split = split_holdout(real_paths, fake_paths, options.holdout, options.seed)
    test, source = _test_parts(options, pair, split, tell)
    sets = _cached_parts({f"train_{side}": (*pair[side], split[f"train_{side}"]) for side in pair} | test, options.cache_gb)
    sets = {f"test_{side}": sets[f"train_{side}"] for side in pair} | sets
    for side in pair:
        if len(sets[f"train_{side}"]) < 2:
            tell(ONE_IMAGE.format(side))
    if len(sets["test_real"]) < 2:
        tell("there is one real image to evaluate on, so the table has no floor; add images, or change --holdout or --test_data")
    return sets, source, split


def _test_parts(options, pair, split, tell):
    """What is evaluated on, as `_cached_parts` takes it (nothing: the training images), and what it is, in words.

    Args:
        pair: of --data, as `open_dataset` gives it. options, split, tell: as `training_sets`.
    """
    if options.test_data:
        for side in pair:
            if real_path(DATASETS / options.test_data / side) == real_path(DATASETS / options.data / side):
                raise UserError(f"--test_data {options.test_data} has the {side} images of --data; give others, or --holdout 0.2")
        others = open_dataset(options.test_data, options, tell)
        for side, (images, _) in others.items():
            for sentence in told_copies(split[f"train_{side}"], images.paths, between=TRAINED_ON):
                tell(sentence)
        parts = {f"test_{side}": (*opened, opened[0].paths) for side, opened in others.items()}
        return parts, f"{options.test_data}, another data set"
    if options.holdout:
        held = " + ".join(str(len(split[f"holdout_{side}"])) for side in pair)
        source = f"{held} images (real + fake) held out of {options.data}"
        return {f"test_{side}": (*pair[side], split[f"holdout_{side}"]) for side in pair}, source
    return {}, "the training images (the paper's protocol)"


def _cached_parts(parts, cache_gb):
    """`ImageFolder`s of parts, dict name -> (`ImageFolder`, its `ImageInfo`s, `ImagePaths`); the first ones that fit are cached."""
    sets = {}
    for name, (dataset, infos, paths) in parts.items():
        where = {image: index for index, image in enumerate(infos.paths.names)}
        part = infos.take([where[image] for image in paths.names])
        sets[name] = ImageFolder(part.paths, dataset.size, dataset.fit, cache_gb, part)
        cache_gb -= sets[name].cached_gb
    return sets
