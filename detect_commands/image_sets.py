"""Folders of images as detectors see them: checked, with names, and with features that are computed once."""

import functools
from pathlib import Path

import numpy as np

from data.copies import file_sum, seen_by_refiner, told_copies
from data.differences import class_differences
from data.folder import load_folder, require_one_size
from data.pairs import version_key
from utils.checkpoint import digest_of
from utils.decay import SMALLEST_SIDE
from utils.errors import UserError, Warnings
from utils.files import real_path
from utils.filter_fitting import fitted_filters
from utils.filters import filtered
from utils.measure import batches
from utils.perturbations import PERTURBATIONS
from utils.pictures import to_8bit
from utils.run_dir import run_folder, unfinished_evaluation

FEATURE_BATCH = 8


class Chosen:
    """Some items of a dataset, each passed through `change(item, its index in the dataset)` if one is given."""

    def __init__(self, items, indices, change=None):
        self.items, self.indices, self.change = items, indices, change

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, number):
        index = int(self.indices[number])
        return self.items[index] if self.change is None else self.change(self.items[index], index)


class ImageSet:
    """A folder's images under the name it has in tables, with the features already computed of them.

    Args:
        label: name in tables.
        folder: path, to recognise the folder a detector was trained on.
        images: indexable with `.paths` (`ImagePaths` below the folder), [i] -> (3, H, W) in [0, 1].
        num_workers: threads that read ahead where features are computed.
        made_by: what shapes the images beside the folder's files, as plain values that a detector of them must have been made with.
    """

    def __init__(self, label, folder, images, num_workers=0, made_by=None):
        self.label, self.folder, self.images, self.num_workers = label, Path(folder), images, num_workers
        self.made_by = made_by or {}
        assert images.paths.root == self.folder
        self.names = images.paths.names
        self._features = {}

    def __len__(self):
        return len(self.names)

    @functools.cached_property
    def _places(self):
        """{name or `version_key` of an image: its position}; a name goes before a key."""
        return {version_key(name): i for i, name in enumerate(self.names)} | {name: i for i, name in enumerate(self.names)}

    def indices(self, names):
        """Positions of files by name, or by that of a version (a.png is the version of a.jpg); UserError if one is missing."""
        places = self._places
        found = [places[name] if name in places else places.get(version_key(name)) for name in names]
        if None in found:
            raise UserError(
                f"{self.folder} lacks {names[found.index(None)]} or a version of it (same name, any suffix); put it back, or "
                "give the folder that holds versions of all images"
            )
        return np.array(found, dtype=int)

    def file_sum(self, names):
        """`data.copies.file_sum` of some images."""
        return file_sum(self.images.paths.take(self.indices(names)))

    def features(self, extract, key, indices, perturbation="none"):
        """Rows (N, F) of `extract(images (B, 3, H, W))` for some images; each is computed once per `key` and perturbation."""
        known = self._features.setdefault((key, perturbation), {})
        wanted = [int(i) for i in indices if int(i) not in known]
        chosen = Chosen(self.images, wanted, PERTURBATIONS[perturbation])
        parts = map(extract, batches(chosen, f"features of {self.label}", "cpu", FEATURE_BATCH, self.num_workers))
        known.update(zip(wanted, (row for part in parts for row in part.numpy()), strict=True))
        return np.stack([known[int(i)] for i in indices])


class FilteredImages:
    """Fakes after a filter (`utils.filters`), rounded to 8 bit like files: indexable with `.paths`."""

    def __init__(self, fake, fitted):
        self.fake, self.paths, self.fitted = fake, fake.paths, fitted

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return to_8bit(filtered(self.fake[index][None], self.fitted)[0])


def filters_between(kinds, real, real_names, fake, fake_names, device):
    """{kind: tensors by name} of filters fitted from some images of the `ImageSet` fake to some of real, as train.py does."""
    sides = (
        (Chosen(side.images, side.indices(names)), f"spectra of {side.label}")
        for side, names in ((real, real_names), (fake, fake_names))
    )
    return fitted_filters(kinds, *sides, device, real.num_workers)


def filtered_sets(filters, fake, are_fixed):
    """Per filter of {kind: tensors by name} a set of all fakes after it, so named.

    Args:
        are_fixed: detectors know the filters bit by bit; not so those that are fitted anew, which may be rounded otherwise.
    """
    sets = []
    for kind, fitted in filters.items():
        made_by = {"filter": digest_of(fitted)} if are_fixed else None
        sets.append(ImageSet(kind, fake.folder, FilteredImages(fake.images, fitted), fake.num_workers, made_by))
    return sets


def folder_labels(folders):
    """{POSIX path: name in tables} of folders: the last two parts of the path, or the whole of it where others end alike.

    Of a path that does not end in names (., ..) the parts are those of the place where it leads.
    """
    paths = dict.fromkeys(Path(folder) for folder in folders)
    named = [path if path.parts and ".." not in path.parts[-2:] else path.resolve() for path in paths]
    short = ["/".join(path.parts[-2:]) for path in named]
    return {path.as_posix(): name if short.count(name) == 1 else path.as_posix() for path, name in zip(paths, short, strict=True)}


def open_sets(folders, options):
    """Read and check folders: dict role -> path becomes dict role -> `ImageSet`, the images' side, and warnings for the report."""
    sets, infos, warnings = {}, {}, Warnings()
    labels, cache_gb = folder_labels(folders.values()), options.cache_gb
    for role, folder in folders.items():
        images, infos[role] = load_folder(
            folder, options.size, options.fit, options.skip_bad, cache_gb, options.num_workers, tell=warnings
        )
        cache_gb -= images.cached_gb
        sets[role] = ImageSet(labels[Path(folder).as_posix()], folder, images, options.num_workers)
    run = run_folder(options.dst)
    if real_path(run / "eval") in [real_path(Path(folder).parent) for folder in folders.values()]:
        for text in unfinished_evaluation(run):
            warnings(text)
    first = next(iter(infos.values()))[0]
    if options.size is None:
        require_one_size(*infos.values(), square=True)
    side = options.size or first.width
    if side < SMALLEST_SIDE:
        least = f"{SMALLEST_SIDE} pixels or more"
        raise UserError(f"{first.path} is {side} x {side}; detectors need {least}: give other images, or --size")
    for role in (role for role in sets if role != "real" and "real" in sets):
        for text in class_differences(*((sets[one].images, infos[one]) for one in ("real", role))):
            warnings(f"{sets['real'].label} against {sets[role].label}: {text}")
    seen = [text for role, folder in folders.items() if role != "real" for text in seen_by_refiner(folder)]
    for text in seen + told_copies(*(images.images.paths for images in sets.values())):
        warnings(text)
    return sets, side, [f"Warning: {text}" for text in warnings]
