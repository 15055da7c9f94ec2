"""Which real image goes with which fake one, in batches, and which images are held out.

All of it is a pure function of counts, names and seed: nothing depends on what was drawn before, so a run can go on at any batch.
"""

import itertools
import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from data.copies import file_sum
from data.listing import ImagePaths
from utils.ahead import read_ahead
from utils.distributed import dealt
from utils.errors import UserError, warn
from utils.files import read_json, write_json

_REAL, _FAKE, _HOLDOUT = 0, 1, 2  # streams of random numbers that must not share a seed
PARTS = ("train_real", "train_fake", "holdout_real", "holdout_fake")


def _permutation(count, seed, stream, number):
    return np.random.default_rng([seed, stream, number]).permutation(count)


def epoch_pairs(n_real, n_fake, epoch, seed):
    """Order of one epoch: each fake once, each with a real drawn independently of it.

    The reals are an endless row of permutations that the epochs read on, so that over the epochs each is used equally often.

    Args:
        n_real, n_fake: counts, at least 1.
        epoch: 0, 1, ...
        seed: non-negative integer.
    Returns: (n_fake, 2) int64, columns real index and fake index.
    Raises: ValueError if a count is below 1.
    """
    if min(n_real, n_fake) < 1:
        raise ValueError(f"pairs need at least one image of each kind, not {n_real} real and {n_fake} fake")
    first, last = epoch * n_fake // n_real, ((epoch + 1) * n_fake - 1) // n_real
    reals = np.concatenate([_permutation(n_real, seed, _REAL, number) for number in range(first, last + 1)])
    start = epoch * n_fake - first * n_real
    pairs = np.stack([reals[start : start + n_fake], _permutation(n_fake, seed, _FAKE, epoch)], axis=1)
    return torch.from_numpy(pairs.astype(np.int64))


class PairLoader:
    """Batches of (real, fake) images, the last one of an epoch possibly smaller.

    Args:
        real, fake: `ImageFolder`s of one size.
        batch_size: pairs per batch.
        seed: fixes the order of every epoch.
        num_workers: threads that read ahead (decoding runs outside Python's lock); 0 reads when asked.
        part: (rank, world): of each batch, only the pairs that `dealt` gives this process are read.
        pin: put batches into pinned memory, from which a GPU copies while it computes.
    """

    def __init__(self, real, fake, batch_size, seed, num_workers=0, part=(0, 1), pin=False):
        self.real, self.fake, self.part, self.pin = real, fake, part, pin
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.steps_per_epoch = -(-len(fake) // batch_size)

    def _batch(self, pairs):
        real = torch.stack([self.real[index] for index in pairs[:, 0].tolist()])  # (N, 3, H, W)
        fake = torch.stack([self.fake[index] for index in pairs[:, 1].tolist()])  # (N, 3, H, W)
        return (real.pin_memory(), fake.pin_memory()) if self.pin else (real, fake)

    def whole(self, number):
        """Pairs in batch `number` of an epoch, over all parts."""
        return min(self.batch_size, len(self.fake) - number * self.batch_size)

    def batches(self, epoch, start=0):
        """Iterator over (real_image, fake_image), each (N, 3, H, W) float32 in [0, 1], of an epoch from batch `start` on."""
        whole = epoch_pairs(len(self.real), len(self.fake), epoch, self.seed).split(self.batch_size)[start:]
        batches = [dealt(pairs, *self.part) for pairs in whole]
        return read_ahead(self._batch, batches, self.num_workers)


def names_within(paths):
    """POSIX names of images within the folder that they all share, in order."""
    names = paths.names
    if paths.root == Path():  # files from anywhere
        names = [Path(name).absolute().as_posix() for name in names]
    shared = os.path.commonpath({name.rpartition("/")[0] for name in names}).replace(os.sep, "/")
    start = len(shared) + bool(shared and not shared.endswith("/"))
    return [name[start:] for name in names] if start else names


def scene_name(name):
    """A POSIX name without suffix in Unicode's composed form (macOS gives names in the other one): images of one show one scene."""
    return unicodedata.normalize("NFC", name.rpartition(".")[0] or name)


def version_key(name):
    """What versions of one image have in common: `scene_name` with folders joined to it.

    A tar may hold faces/001.png; among pictures that lie in one folder its version is called faces_001.png.
    """
    return scene_name(name).replace("/", "_")


def pair_key(name):
    """What names of a pair have in common: `version_key` without the words real and fake (7_real_B.png, 7_fake_B.png)."""
    words = re.split(r"[_\-. ]+", version_key(name))
    return "_".join(word for word in words if word.lower() not in ("real", "fake", ""))


def joined_name(name):
    """A POSIX name, suffix and all, with its folders joined to it, in Unicode's composed form."""
    return unicodedata.normalize("NFC", name).replace("/", "_")


def _places(names, key):
    places = defaultdict(list)
    for index, name in enumerate(names):
        places[key(name)].append(index)
    return places


def _grouped(real, fake):
    """Places of images by the key that those of one scene share: a dict for each of two `ImagePaths`.

    Keys are `scene_name`, `version_key` or `pair_key` of names within the folder that a side's images all share, or with it:
    whichever way finds most keys on both sides, the first of equal ones.
    """
    ways = [[names_within(paths), *([paths.names] if paths.root != Path() else [])] for paths in (real, fake)]
    sides = [[_places(names, key) for key in (scene_name, version_key, pair_key) for names in way] for way in ways]
    return max(itertools.product(*sides), key=lambda pair: len(pair[0].keys() & pair[1].keys()))


def scene_keys(real_paths, fake_paths):
    """A key for each image of two folders, equal where names say that two show one scene (as `split_holdout`): two lists."""
    given = [ImagePaths.of(paths) for paths in (real_paths, fake_paths)]
    sides = [[""] * len(paths) for paths in given]
    for keys, groups in zip(sides, _grouped(*given), strict=True):
        for stem, places in groups.items():
            for place in places:
                keys[place] = stem
    return sides


def split_holdout(real_paths, fake_paths, fraction, seed):
    """Keep a share of the images out of training.

    Where a file name (without suffix) occurs in both folders, it is held out on both sides or on none: the two may show the same
    scene. So it is if subfolders, or keys of a tar, are part of the name on one side only, or if names differ by the words real
    and fake alone.

    Args:
        real_paths, fake_paths: image files of one folder each.
        fraction: share held out of each side, in [0, 1).
        seed: non-negative integer.
    Returns: dict of `ImagePaths` train_real, train_fake, holdout_real, holdout_fake, in the order given.
    Raises: UserError if a side has too few images for that.
    """
    given = {"real": ImagePaths.of(real_paths), "fake": ImagePaths.of(fake_paths)}
    sides = dict(zip(given, _grouped(*given.values()), strict=True))
    shared = sorted(sides["real"].keys() & sides["fake"].keys())
    order = [shared[i] for i in _permutation(len(shared), seed, _HOLDOUT, 0)]
    both = set(order[: max(1, round(fraction * len(shared))) if fraction else 0])
    split = {}
    for number, (side, groups) in enumerate(sides.items(), 1):
        alone = sorted(groups.keys() - set(shared))
        wanted = (max(1, round(fraction * len(groups))) if fraction else 0) - len(both)
        held = both | {alone[i] for i in _permutation(len(alone), seed, _HOLDOUT, number)[: max(0, wanted)]}
        paths, out = given[side], {index for stem in held for index in groups[stem]}
        split[f"train_{side}"] = paths.take([index for index in range(len(paths)) if index not in out])
        split[f"holdout_{side}"] = paths.take(sorted(out))
        if not split[f"train_{side}"] or (fraction and not out):
            raise UserError(f"--holdout {fraction} leaves no {side} image on one side of {len(paths)}; add images or change it")
    return {part: split[part] for part in PARTS}


def save_holdout(path, split, fraction, seed):
    """Write a split of `split_holdout` as a JSON manifest of file names and counts."""
    lists = {}
    for side in ("real", "fake"):
        kept, held = split[f"train_{side}"], split[f"holdout_{side}"]
        names = names_within(ImagePaths(kept.root, kept.names + held.names))
        lists |= {f"train_{side}": names[: len(kept)], f"holdout_{side}": names[len(kept) :]}
    lists = {part: lists[part] for part in PARTS}
    counts = {part: len(split[part]) for part in PARTS}
    total = {side: file_sum(split[f"train_{side}"], split[f"holdout_{side}"]) for side in ("real", "fake")}
    write_json(path, {"fraction": fraction, "seed": seed, "counts": counts, "bytes": total, **lists})


def load_holdout(path, real_paths, fake_paths, tell=warn):
    """Read a manifest back and find its images among the given ones; `tell` is called if their contents seem to be others.

    Returns: dict as `split_holdout` gives it.
    Raises: UserError if the manifest is missing or damaged, or names other images than those given.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing, and with it which images were held out; start again with --overwrite")
    manifest = read_json(path, "it says which images were held out: start again with --overwrite")
    given = {"real": ImagePaths.of(real_paths), "fake": ImagePaths.of(fake_paths)}
    places = {side: {name: index for index, name in enumerate(names_within(paths))} for side, paths in given.items()}
    split, began = {}, {}
    for part in PARTS:
        side = part.partition("_")[2]
        found = places[side]
        try:
            listed = [*manifest[f"train_{side}"], *manifest[f"holdout_{side}"]]
            wrong = sorted(set(listed) ^ set(found))
            split[part] = given[side].take([found[name] for name in manifest[part] if not wrong])
            began[side] = manifest["bytes"][side] if "bytes" in manifest else file_sum(given[side])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is no list of held-out images; start again with --overwrite") from error
        if wrong:
            where = "no longer there" if wrong[0] in listed else "not in it"
            raise UserError(
                f"{path} was made for other {side} images: {wrong[0]} is {where}; restore them, or start again with --overwrite"
            )
    for side, paths in given.items():
        if began[side] != file_sum(paths):
            tell(f"the {side} images are other files than when the run began: if they changed, start again")
    return split
