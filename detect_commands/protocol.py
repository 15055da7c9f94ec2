"""Which images are for training, for validation and for the test, and which of another folder may judge a detector."""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
from torch.nn.functional import adaptive_avg_pool2d

from data.folder import ImageFolder
from data.listing import ImagePaths
from data.pairs import joined_name, pair_key, split_holdout, version_key
from data.reading import read_image
from data.shards import is_shards, list_shards
from utils.errors import UserError
from utils.files import real_path
from utils.profiles import to_grey

PARTS = ("train", "validation", "test")
VALIDATION = 0.2  # of the training part: best epoch and threshold
COMPARED, THUMBNAIL, ALIKE = 8, 16, 0.95  # pairs of one name, side of their thumbnails, least correlation of versions of one image


def draw_samples(names, count, seed):
    """At most `count` of the names, without replacement, sorted.

    Each name is ranked by a hash of its `version_key` and the seed: two folders with the same names give the same sample.
    """
    if count is None or count >= len(names):
        return sorted(names)
    rank = {name: hashlib.sha256(os.fsencode(f"{seed}/{version_key(name)}")).digest() for name in names}
    return sorted(sorted(names, key=rank.get)[:count])


def split_names(real, fake, num_samples, train_share, seed, classifier, for_filters=False):
    """Names of the training, validation and test images of one run, drawn without replacement.

    A name that is in both folders is on the same side of the split in both.

    Args:
        real, fake: image sets.
        num_samples: images per class at most, None = all.
        train_share: training and validation together, the rest is for testing.
        classifier: named where there are too few images.
        for_filters: half of what is not for testing is a part of its own, `filters`: a filter changes the images that it was
            fitted on more than others, and a detector trained on those would not know what to look for in others.
    Returns: dict side -> dict part -> list of names.
    Raises: UserError if there are too few images.
    """
    paths = [ImagePaths(images.folder, draw_samples(images.names, num_samples, seed)) for images in (real, fake)]
    try:
        outer = split_holdout(*paths, 1 - train_share, seed)
        halves = split_holdout(outer["train_real"], outer["train_fake"], 0.5 if for_filters else 0, seed)
        inner = split_holdout(halves["train_real"], halves["train_fake"], VALIDATION, seed)
    except UserError as error:
        few = f"{len(paths[0])} real and {len(paths[1])} fake images are too few for {classifier} with --split {train_share}"
        raise UserError(f"{few}; add images, or give another --split or --num_samples") from error
    parts = {"train": (inner, "train"), "validation": (inner, "holdout"), "test": (outer, "holdout")}
    parts |= {"filters": (halves, "holdout")} if for_filters else {}
    return {side: {part: where[f"{key}_{side}"].names for part, (where, key) in parts.items()} for side in ("real", "fake")}


def _training_images(folder, like):
    """Function from the name of an image in a folder (or tar shards) to the image, in the size of the `ImageSet` `like`."""
    size, fit = like.images.size, like.images.fit
    if not is_shards(folder):
        return lambda name: read_image(folder / name, size, fit)
    images = functools.cache(lambda: ImageFolder(list_shards(folder), size, fit))
    return lambda name: images()[images().paths.names.index(name)]


def _is_version(image_set, name, read, gone=True):
    """Whether an image of a set looks like that which `read()` gives; `gone` if that is (better one too many left out)."""
    try:
        sides = image_set.images[int(image_set.indices([name])[0])], read()
    except (UserError, ValueError):
        return gone
    thumbnails = [adaptive_avg_pool2d(to_grey(image[None]), THUMBNAIL).flatten().double().numpy() for image in sides]
    with np.errstate(invalid="ignore"):  # of an image of one colour
        return not np.corrcoef(thumbnails)[0, 1] < ALIKE


def _mostly_versions(image_set, trained_on):
    """Whether a folder holds versions of the images a detector was trained on, rather than others of the same names.

    Args:
        image_set: of the folder. trained_on: {name in the set: function that reads the training image of that name}.
    """
    names = sorted(trained_on)[:: -(-len(trained_on) // COMPARED)] if trained_on else []
    return 2 * sum(_is_version(image_set, name, trained_on[name]) for name in names) >= max(len(names), 1)


def _trained_on(image_set, folder, names, *more):
    """{name of an image of a set: function that reads the image of that name which a detector was trained or validated on}.

    Args:
        folder: of the images that it was trained on. names: {part: their names}.
        more: keys by which names are known again beside `joined_name` and `version_key`.
    """
    read = _training_images(folder, image_set)
    known = [name for part in ("train", "validation") for name in names[part]]
    # of a.jpg the version is a.png, but a.jpg.png where there was an a.bmp, too (`utils.result_files.output_names`)
    ways = (joined_name, version_key, *more)
    seen = {key(name): functools.partial(read, name) for key in reversed(ways) for name in known}
    keys = {name: next((key(name) for key in ways if key(name) in seen), None) for name in image_set.names}
    return {name: seen[key] for name, key in keys.items() if key is not None}


def unseen(image_set, side, content, count, seed):
    """Positions of the images of a folder that may judge a detector.

    Of the folder it was trained on: the test part. Of a folder that holds versions of those images under their names
    (results/NAME/eval/refined, say): all but those of training or validation images. Of any other folder: all but copies of those.
    At most `count` of the last two, and without what shows an image of the other class that it was trained on.

    Args:
        side: "real" or "fake", what the images stand for.
        content: the detector's checkpoint: its `names`, the folders in `training`, and `bytes` of the parts, if it has them.
    Raises: UserError if no image is left, the files of the test part are others now, or the detector was trained on the folder as
        the other class.
    """
    other = {"real": "fake", "fake": "real"}[side]
    if real_path(image_set.folder) == real_path(content["training"][other]):
        raise UserError(f"{image_set.folder} holds the {other} images that the detector was trained on; give {side} ones")
    trained, names = Path(content["training"][side]), content["names"][side]
    if real_path(image_set.folder) == real_path(trained):
        kept = content.get("bytes", {}).get(side, {}).get("test")
        if kept not in (None, image_set.file_sum(names["test"])):
            raise UserError(
                f"{image_set.folder} holds other files under the names of the images that were kept for testing; put them back, "
                "or train anew with --overwrite"
            )
        return image_set.indices(names["test"])
    trained_on = _trained_on(image_set, trained, names)
    versions = trained_on if _mostly_versions(image_set, trained_on) else {}
    left = draw_samples([name for name in image_set.names if name not in versions], count, seed)
    left = [name for name in left if name not in trained_on or not _is_version(image_set, name, trained_on[name])]
    scenes = _trained_on(image_set, Path(content["training"][other]), content["names"][other], pair_key)  # known by the other label
    left = [name for name in left if name not in scenes or not _is_version(image_set, name, scenes[name], gone=False)]
    if not left:
        raise UserError(
            f"every image of {image_set.folder} is a version of one a detector was trained on; give others, or train on fewer (a "
            "lower --split)"
        )
    return image_set.indices(left)
