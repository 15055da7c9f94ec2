"""Files of equal content: how much there is, and which images are copies of others."""

import hashlib
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

from data.listing import ImagePaths
from utils.errors import UserError
from utils.files import read_json
from utils.run_dir import OPTIONS

MOST = 10_000  # images among which copies are looked for: a fraction of a second on a local disk
WITHIN = "they count twice, and what is trained on some and judged by others looks too good; leave them out"
BETWEEN = "nothing can tell them apart: one folder is the wrong one, or what should have changed the images did nothing"
TAIL = 64  # bytes at a file's end that tell nearly all files of one length apart: a PNG's checksum lies there


def file_sizes(paths):
    """(N,) int64: bytes of each image as a file, within a shard too; -1 if it is not there."""
    lengths = paths.places(np.arange(len(paths)))[:, 1]  # 0 of files of their own
    return lengths if lengths.any() else paths.stamps()[:, 0]


def file_sum(*parts):
    """Number by which images are known again as files, in any order; those of other contents hardly ever have the same.

    It is the sum of their sizes and, where most have one size (as uncompressed ones do), of checksums of what is in them.
    """
    sizes = np.concatenate([file_sizes(paths) for paths in parts])
    images = ((paths, index) for paths in parts for index in range(len(paths)))
    alike = np.unique(sizes, return_counts=True)[1].max(initial=0)
    return int(sizes.sum()) + sum(zlib.crc32(_read(image) or b"") for image in images if 2 * alike > len(sizes))


def first_equal(*sides):
    """Which images are copies of others, byte for byte.

    Only files of one length and one end are read whole.

    Args:
        sides: rows of paths.
    Returns: list of (N,) int64, for each image the number of the first one that is equal to it, counted through all sides; its own
        if there is none.
    """
    given = [ImagePaths.of(paths) for paths in sides]
    images = [(paths, index) for paths in given for index in range(len(paths))]
    first = np.arange(len(images))
    sizes = np.concatenate([file_sizes(paths) for paths in given])
    for alike in _same((number for number in range(len(images)) if sizes[number] > 0), lambda number: sizes[number]):
        for ends in _same(alike, lambda number: _read(images[number], tail=True)):
            for copies in _same(ends, lambda number: _read(images[number])):
                first[copies] = copies[0]
    return np.split(first, np.cumsum([len(paths) for paths in given])[:-1])


def images_seen(used, paths):
    """How many images are those that a refiner was made with, byte for byte.

    Args:
        used, paths: `ImagePaths`.
    Returns: None if it is not known what was used, or there are more than MOST.
    """
    if not used or len(used) + len(paths) > MOST:
        return None
    return int((first_equal(used, paths)[1] < len(used)).sum())


def seen_by_refiner(refined):
    """Sentences (none or one): what refined the images of a folder, in a run of train.py or inference.py, had seen them before."""
    path = Path(refined).absolute()
    place = next((place.parent for place in (path, *path.parents) if place.name == "refined"), None)
    if place is None:
        return []
    if place.name == "eval" and _judged_itself(place.parent):
        run = place.parent.relative_to(Path.cwd()) if place.parent.is_relative_to(Path.cwd()) else place.parent
        return [
            f"the refiner of {run}, as its filters, was fitted on the images that judge it there: they look better than "
            "new ones would, and fresh detectors may find less than chance; train with --holdout or --test_data"
        ]
    made = _read_quietly(place / OPTIONS)
    seen = made.get("seen") if "refiner" in made else None  # a number, or None
    text = f"the refiner of {refined} was made with {seen} of the images that it refined, and those look better than others would"
    return [text] if seen else []


def _judged_itself(run):
    """Whether a training run was evaluated on the images that it was trained on."""
    return _read_quietly(run / "images.json").get("fraction") == 0 and not _read_quietly(run / OPTIONS).get("test_data")


def _read_quietly(path):
    """Content of a JSON file of ours; {} if there is none, or another's of this name."""
    try:
        return read_json(path)
    except (UserError, OSError):
        return {}


def _same(numbers, key):
    """Lists of two or more numbers that share a key; what has the key None is left out."""
    groups = defaultdict(list)
    for number in numbers:
        groups[key(number)].append(number)
    return [group for found, group in groups.items() if found is not None and len(group) > 1]


def _read(image, tail=False):
    """End of a file, or digest of the whole; None if it cannot be read."""
    paths, index = image
    try:
        return paths.tail(index, TAIL) if tail else hashlib.blake2b(paths.content(index)).digest()
    except OSError:
        return None


def told_copies(*sides, between=BETWEEN):
    """Sentences on images that are copies of others, within a folder or in two; of more than MOST images nothing is looked for.

    Args:
        sides: `ImagePaths` of different folders.
        between: what copies in two folders mean.
    """
    if sum(map(len, sides)) > MOST:
        return []
    starts, told = np.cumsum([0, *map(len, sides)]), []
    firsts, labels = first_equal(*sides), [paths.label(index) for paths in sides for index in range(len(paths))]
    for place, (paths, first) in enumerate(zip(sides, firsts, strict=True)):
        own = np.arange(starts[place], starts[place + 1])
        for other in range(place + 1):
            copies = np.flatnonzero((first != own) & (first >= starts[other]) & (first < starts[other + 1]))
            if len(copies):
                where = "others there" if other == place else f"images of {sides[other].root}"
                pair = f"{labels[own[copies[0]]]} is {labels[first[copies[0]]]}"
                told.append(
                    f"{len(copies)} of {len(paths)} images of {paths.root} are copies of {where}, byte for byte "
                    f"(the first: {pair}): {WITHIN if other == place else between}"
                )
    return told
