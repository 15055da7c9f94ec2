"""Photographs as an endless row of shuffled epochs, from a folder or from tar shards.

What an epoch holds depends on its number and the seed alone, so a run that is resumed sees the same batches.
"""

from pathlib import Path

import numpy as np
import torch

from data.folder import load_folder
from data.listing import DATASETS
from data.shards import expand_pattern, is_shards
from utils.ahead import read_ahead
from utils.distributed import dealt
from utils.errors import UserError


def find_photographs(data):
    """Folder that --data names: datasets/<data>, or the path itself; of a data set its photographs; UserError if there is none."""
    for folder in (DATASETS / data, Path(data)):
        if folder.is_dir():
            real = folder / "real"
            return real if real.is_dir() and (folder.parent == DATASETS or (folder / "fake").is_dir()) else folder
    where = f"neither {DATASETS}/{data} nor a folder {data} exists in {Path.cwd()}"
    raise UserError(f"--data {data}: {where}; give the folder of the photographs")


def files_of(data):
    """What lies where --data says: the folder, or the shards."""
    return expand_pattern(str(data)) if is_shards(data) else [find_photographs(data)]


def open_photographs(data, size, *reading):
    """`ImageFolder` of what --data names: shards, or a folder with all below it.

    Arguments and errors as `load_folder`.
    """
    place = data if is_shards(data) else find_photographs(data)
    return load_folder(place, size, *reading, recursive=True)[0]


def open_stream(data, size, batch_size, seed, fit="resize", skip_bad=False, cache_gb=0.0, num_workers=0):
    """`ImageStream` of what --data names."""
    images = open_photographs(data, size, fit, skip_bad, cache_gb, num_workers)
    if len(images) < batch_size:
        raise UserError(f"{data} holds {len(images)} images, fewer than --batch_size {batch_size}; give a smaller one")
    return ImageStream(images, batch_size, seed, num_workers)


class ImageStream:
    """Shuffled batches of an `ImageFolder`.

    Args:
        images: `ImageFolder` of one size, at least batch_size of them.
        num_workers: threads that read ahead, as `read_ahead`.
    """

    def __init__(self, images, batch_size, seed, num_workers=0):
        self.images, self.batch_size, self.seed, self.num_workers = images, batch_size, seed, num_workers
        self.steps_per_epoch = len(images) // batch_size

    def batches(self, epoch, start=0, part=(0, 1)):
        """Iterator over batches (N, 3, S, S) in [0, 1] from batch `start` on; images that fill none are left to other epochs.

        Args:
            part: (rank, world): of each batch, only the images that `dealt` gives this process are read.
        """
        chosen = [dealt(numbers, *part) for numbers in self._numbers(epoch)[start : self.steps_per_epoch]]
        return read_ahead(self._batch, chosen, self.num_workers)

    def once(self):
        """Every image once, in the order of the first epoch: iterator over batches as above, of which the last may be smaller."""
        return read_ahead(self._batch, self._numbers(0), self.num_workers)

    def _numbers(self, epoch):
        """Numbers of all images in the order of an epoch, in batches."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images)).tolist()
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _batch(self, chosen):
        return torch.stack([self.images[index] for index in chosen])
