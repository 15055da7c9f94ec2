"""Photographs as an endless row of shuffled epochs: from a folder, or from tar shards (needs the package webdataset).

What an epoch holds depends on its number and the seed alone, so a run that is resumed sees the same batches.
"""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from data.folder import load_folder, warn
from data.reading import IMAGE_SUFFIXES, fit_error, to_tensor
from data.shards import expand_pattern, is_shards
from utils.distributed import dealt
from utils.errors import UserError
from utils.run_dir import atomic_path, check_place

SHUFFLE_BUFFER = 4096  # images of a shard stream that are mixed at a time


def import_webdataset():
    """The optional package; UserError saying how to install it."""
    try:
        import webdataset
    except ImportError as error:
        raise UserError("tar shards need the package webdataset; install it with: pip install -r requirements-extra.txt") from error
    return webdataset


def find_photographs(data):
    """Folder that --data names: datasets/<data>/real, datasets/<data>, or the path itself; UserError if there is none."""
    candidates = (Path("datasets") / data / "real", Path("datasets") / data, Path(data))
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(f"--data {data}: neither datasets/{data} nor a folder {data} exists; give one, or tar shards ending in .tar")


def open_stream(data, size, batch_size, seed, fit="resize", skip_bad=False, cache_gb=0.0, num_workers=0):
    """`FolderStream` or `ShardStream` of what --data names."""
    if is_shards(data):
        return ShardStream(data, size, batch_size, seed, fit, skip_bad)
    folder = find_photographs(data)
    images, _ = load_folder(folder, size, fit, skip_bad, cache_gb, num_workers, recursive=True)
    if len(images) < batch_size:
        raise UserError(f"{folder} holds {len(images)} images, fewer than --batch_size {batch_size}; give a smaller one")
    return FolderStream(images, batch_size, seed, num_workers)


class FolderStream:
    """Shuffled batches of an `ImageFolder`.

    Args:
        images: `ImageFolder` of one size, at least batch_size of them.
        num_workers: threads that read a batch together; 0 reads one after the other.
    """

    def __init__(self, images, batch_size, seed, num_workers=0):
        self.images, self.batch_size, self.seed, self.num_workers = images, batch_size, seed, num_workers
        self.steps_per_epoch = len(images) // batch_size

    def batches(self, epoch, start=0, part=(0, 1)):
        """Yield batches (N, 3, S, S) in [0, 1] from batch `start` on; images that do not fill one are left to other epochs.

        Args:
            part: (rank, world): of each batch, only the images that `dealt` gives this process are read.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images)).tolist()
        with ThreadPoolExecutor(max(1, self.num_workers)) as pool:
            read = pool.map if self.num_workers else map
            for step in range(start, self.steps_per_epoch):
                chosen = dealt(order[step * self.batch_size : (step + 1) * self.batch_size], *part)
                yield torch.stack(list(read(self.images.__getitem__, chosen)))


class ShardStream:
    """Shuffled batches of the images in tar shards; shards are shuffled whole, images within a buffer.

    Args:
        pattern: path with a brace range, such as photos-{000000..000007}.tar.
        size, fit: as `data.reading.read_image`.
        skip_bad: leave unreadable images out, naming them on stderr.
    Raises: UserError if a shard is missing, or webdataset is not installed.
    """

    steps_per_epoch = None  # a stream has no length

    def __init__(self, pattern, size, batch_size, seed, fit="resize", skip_bad=False):
        import_webdataset()
        self.shards = expand_pattern(pattern)
        missing = [shard for shard in self.shards if not Path(shard).is_file()]
        if missing:
            raise UserError(f"--data {pattern}: {missing[0]} does not exist; write shards with gan.py shard, or mend the pattern")
        self.pattern, self.size, self.fit, self.skip_bad = pattern, size, fit, skip_bad
        self.batch_size, self.seed = batch_size, seed

    def _read(self, sample):
        """One sample of a shard -> (3, S, S), or None if it is to be skipped."""
        name = f"{sample['__url__']}: {sample['__key__']}"
        member = next((value for key, value in sample.items() if f".{key.rsplit('.', 1)[-1].lower()}" in IMAGE_SUFFIXES), None)
        try:
            if member is None:
                raise ValueError("no image")
            with Image.open(io.BytesIO(member)) as image:
                return to_tensor(self._fitted(image.convert("RGB"), name))
        except UserError:
            raise
        except Exception as error:  # decoders raise anything on damaged data
            if not self.skip_bad:
                raise UserError(f"{name} cannot be read ({error}); leave such images out by --skip_bad") from error
            warn(f"left out: {name} cannot be read ({error})")
            return None

    def _fitted(self, image, name):
        if image.size == (self.size, self.size):
            return np.asarray(image)
        problem = fit_error(name, *image.size, self.size, self.fit)
        if problem:
            raise UserError(problem)
        if self.fit == "resize":
            return np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def batches(self, epoch, start=0, part=(0, 1)):
        """Yield batches (N, 3, S, S) in [0, 1] from batch `start` on (earlier ones are read and passed over) until the shards end.

        A last batch that is not full is left out.

        Args:
            part: (rank, world): of each batch, only the images that `dealt` gives this process; it decodes all of them, since one
                that cannot be read changes which images a batch holds.
        """
        shards = [self.shards[i] for i in np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))]
        samples = import_webdataset().WebDataset(shards, shardshuffle=False, empty_check=False)
        rng = random.Random(f"{self.seed}-{epoch}")
        batch, number = [], 0
        for sample in samples.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=rng):
            image = self._read(sample)
            batch += [image] if image is not None else []
            if len(batch) == self.batch_size:
                if number >= start:
                    yield torch.stack(dealt(batch, *part))
                batch, number = [], number + 1
        if not number:
            raise UserError(
                f"{self.pattern} holds {len(batch)} images, fewer than --batch_size {self.batch_size}; give a smaller one"
            )


def write_shards(data, prefix, per_shard, size, fit="resize", skip_bad=False, num_workers=0, overwrite=False):
    """Pack a folder's images, brought to one size, as 8-bit PNGs into <prefix>-000000.tar, <prefix>-000001.tar, ...

    The same images make the same bytes. Each shard is written whole or not at all.

    Returns: the brace pattern that names the shards.
    Raises: UserError for an existing shard without overwrite, or any mistake `load_folder` names.
    """
    webdataset = import_webdataset()
    check_place(Path(prefix).parent)
    images = load_folder(find_photographs(data), size, fit, skip_bad, num_workers=num_workers, recursive=True)[0]
    keys = _keys(images.paths.names)
    count = -(-len(images) // per_shard)
    shards = [Path(f"{prefix}-{number:06d}.tar") for number in range(count)]
    existing = [shard for shard in shards if shard.exists()]
    if existing and not overwrite:
        raise UserError(f"{existing[0]} exists already; --overwrite replaces it, or choose another --out")
    for number, shard in enumerate(tqdm(shards, desc="writing shards", disable=None)):
        with atomic_path(shard) as temporary, temporary.open("wb") as file, webdataset.TarWriter(file, mtime=0) as tar:
            for index in range(number * per_shard, min((number + 1) * per_shard, len(images))):
                tar.write({"__key__": keys[index], "png": _png(images.array(index))})
    return f"{prefix}-{{000000..{count - 1:06d}}}.tar"


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
