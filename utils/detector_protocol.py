"""Which images a detector sees, chooses its threshold on, and is judged by; features that are computed once."""

import functools
import hashlib
from pathlib import Path

import numpy as np
import torch

from utils.errors import UserError
from utils.fft import apply_gain
from utils.linear_filter import fit_linear_filter
from utils.perturbations import PERTURBATIONS
from utils.report import to_8bit

PARTS = ("train", "validation", "test")
FEATURE_BATCH = 8


class ImageSet:
    """A folder's images under the name it has in tables, with the features already computed of them.

    Args:
        label: name in tables.
        folder: path, to recognise the folder a detector was trained on.
        images: indexable with `.paths`, [i] -> (3, H, W) in [0, 1].
    """

    def __init__(self, label, folder, images):
        self.label, self.folder, self.images = label, Path(folder), images
        self.names = [path.relative_to(self.folder).as_posix() for path in images.paths]
        self._features = {}

    def __len__(self):
        return len(self.names)

    def indices(self, names):
        """Positions of files by name, or by name without suffix (a.png is the version of a.jpg); UserError if one is missing."""
        where = {Path(name).stem: i for i, name in enumerate(self.names)} | {name: i for i, name in enumerate(self.names)}
        found = [where.get(name, where.get(Path(name).stem)) for name in names]
        if None in found:
            raise UserError(f"{self.folder} lacks {names[found.index(None)]} or a version of it; put it back or train again")
        return np.array(found, dtype=int)

    def features(self, extract, key, indices, perturbation="none"):
        """Rows (N, F) of `extract(images (B, 3, H, W))` for some images; each is computed once per `key` and perturbation."""
        known = self._features.setdefault((key, perturbation), {})
        wanted = [int(i) for i in indices if int(i) not in known]
        for start in range(0, len(wanted), FEATURE_BATCH):
            chosen = wanted[start : start + FEATURE_BATCH]
            batch = torch.stack([PERTURBATIONS[perturbation](self.images[i], i) for i in chosen])
            known.update(zip(chosen, extract(batch).numpy(), strict=True))
        return np.stack([known[int(i)] for i in indices])


class FilteredImages:
    """Fakes after the linear filter, rounded to 8 bit like files: indexable with `.paths`."""

    def __init__(self, fake, gain):
        self.fake, self.paths, self.gain = fake, fake.paths, gain

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return to_8bit(apply_gain(self.fake[index][None], self.gain)[0])


def linear_filter_of(real, real_indices, fake, fake_indices, processes):
    """The cepstral linear filter from some fakes to some reals, fitted in the main process, as a set of all filtered fakes."""

    def read(source, indices):
        return (source.images[int(i)][None] for i in indices)

    reads = functools.partial(read, real, real_indices), functools.partial(read, fake, fake_indices)
    gain = processes.once(lambda: fit_linear_filter("cepstral", *reads))
    filtered = FilteredImages(fake.images, gain)
    return ImageSet("linear filter", fake.folder, filtered)


def draw_samples(names, count, seed):
    """At most `count` of the names, without replacement, sorted.

    Each name is ranked by a hash of itself (without suffix) and the seed: two folders with the same names give the same sample.
    """
    if count is None or count >= len(names):
        return sorted(names)
    rank = {name: hashlib.sha256(f"{seed}/{Path(name).with_suffix('')}".encode()).digest() for name in names}
    return sorted(sorted(names, key=rank.get)[:count])
