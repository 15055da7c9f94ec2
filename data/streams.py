"""Photographs as an endless row of shuffled epochs, from a folder or from tar shards, and how shards are written.

What an epoch holds depends on its number and the seed alone, so a run that is resumed sees the same batches.
"""

import contextlib
import glob
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from data.folder import load_folder, refuse_mixed
from data.shards import expand_pattern, is_shards
from utils.ahead import read_ahead
from utils.distributed import dealt
from utils.errors import UserError
from utils.run_dir import LONG_ABANDONED, atomic_path, check_place, real_path, sweep


def find_photographs(data):
    """Folder that --data names: datasets/<data>, or the path itself; of a data set its photographs; UserError if there is none."""
    for folder in (Path("datasets") / data, Path(data)):
        if folder.is_dir():
            real = folder / "real"
            return real if real.is_dir() and (folder.parent == Path("datasets") or (folder / "fake").is_dir()) else folder
    raise UserError(f"--data {data}: neither datasets/{data} nor a folder {data} exists; give the folder of the photographs")


def files_of(data):
    """What lies where --data says: the folder, or the shards."""
    return expand_pattern(str(data)) if is_shards(data) else [find_photographs(data)]


def open_photographs(data, size, *reading):
    """`ImageFolder` of what --data names: shards, or a folder with all below it.

    Arguments as `load_folder`. Raises: UserError as that and `refuse_mixed`.
    """
    place = data if is_shards(data) else find_photographs(data)
    refuse_mixed(place)
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


def write_shards(data, prefix, per_shard, size, fit="resize", skip_bad=False, num_workers=0, overwrite=False):
    """Pack a folder's images, brought to one size, as 8-bit PNGs into <prefix>-000000.tar, <prefix>-000001.tar, ...

    The same images make the same bytes. Shards get their names when all are written: a part of them would pass for a smaller set.

    Returns: the brace pattern that names the shards.
    Raises: UserError for an existing shard without overwrite, or any mistake `load_folder` names.
    """
    if not Path(prefix).name or str(prefix).endswith(("/", os.sep)):
        raise UserError(f"--out {prefix} names a folder; put the beginning of the shards' names behind it, such as {prefix}images")
    check_place(Path(prefix).parent)
    images = open_photographs(data, size, fit, skip_bad, 0.0, num_workers)
    keys = _keys(images.paths.names)
    count = -(-len(images) // per_shard)
    shards = [Path(f"{prefix}-{number:06d}.tar") for number in range(count)]
    existing = _replaced(prefix, overwrite)
    if is_shards(data) and {*map(real_path, files_of(data))} & {*map(real_path, (*existing, *shards))}:
        raise UserError(f"--out {prefix} names shards that --data {data} reads; choose another")
    sweep(Path(prefix).parent, LONG_ABANDONED)
    with contextlib.ExitStack() as unnamed:
        for number, shard in enumerate(tqdm(shards, desc="writing shards", disable=None)):
            chosen = range(number * per_shard, min((number + 1) * per_shard, len(images)))
            contents = read_ahead(lambda index: _png(images.array(index)), chosen, num_workers)
            _write_tar(unnamed.enter_context(atomic_path(shard)), [f"{keys[index]}.png" for index in chosen], contents)
        for shard in _replaced(prefix, overwrite):
            shard.unlink()
    return f"{prefix}-{{000000..{count - 1:06d}}}.tar"


def _replaced(prefix, overwrite):
    """Paths of the shards of this prefix that there are; UserError if they may not be overwritten."""
    existing = sorted(Path(prefix).parent.glob(f"{glob.escape(Path(prefix).name)}-[0-9][0-9][0-9][0-9][0-9][0-9].tar"))
    if existing and not overwrite:
        raise UserError(f"{existing[0]} exists already; --overwrite replaces it, or choose another --out")
    return existing


def _write_tar(path, names, contents):
    """Tar of files of these names with these contents, bytes each."""
    with tarfile.open(path, "w") as tar:
        for name, content in zip(names, contents, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _keys(names):
    """The names without suffixes; numbers if any has another dot (which would end its key) or two would be the same."""
    keys = [name.rpartition(".")[0] for name in names]
    plain = len(set(keys)) == len(keys) and not any("." in key.rpartition("/")[2] for key in keys)
    return keys if plain else [f"{index:08d}" for index in range(len(keys))]


def _png(array):
    """(H, W, 3) uint8 or uint16 -> bytes of an 8-bit PNG."""
    buffer = io.BytesIO()
    eight_bit = array if array.dtype == np.uint8 else ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    Image.fromarray(eight_bit).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
