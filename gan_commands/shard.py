"""gan.py shard: a folder of images as tar shards."""

import contextlib
import glob
import io
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.shards import is_shards
from data.streams import files_of, open_photographs
from utils.ahead import read_ahead
from utils.errors import UserError
from utils.files import LONG_ABANDONED, TEMPORARY, atomic_path, check_place, real_path, sweep
from utils.interrupts import ending_signals, handling


def shard(options):
    """Write the shards and say how they are named."""
    reading = (options.fit, options.skip_bad, options.num_workers, options.overwrite)
    pattern = write_shards(options.data, options.out, options.per_shard, options.size, *reading)
    print(f"{pattern}: give this name, in quotes, instead of a folder, such as gan.py train --data '{pattern}'")


def write_shards(data, prefix, per_shard, size, fit="resize", skip_bad=False, num_workers=0, overwrite=False):
    """Pack a folder's images, brought to one size, as 8-bit PNGs into <prefix>-000000.tar, <prefix>-000001.tar, ...

    The same images make the same bytes. Shards get their names when all are written: a part of them would pass for a smaller set.

    Returns: the brace pattern that names the shards.
    Raises: UserError for an existing shard without overwrite, or any mistake `load_folder` names.
    """
    if not Path(prefix).name or str(prefix).endswith(("/", os.sep)):
        raise UserError(f"--out {prefix} names a folder; put the beginning of the shards' names behind it, such as {prefix}images")
    if set("{}") & set(str(prefix)):
        raise UserError(f"--out {prefix} holds braces, which stand for numbers in a pattern of shards; choose another")
    check_place(Path(prefix).parent)
    images = open_photographs(data, size, fit, skip_bad, 0.0, num_workers)
    keys = _keys(images.paths.names)
    count = -(-len(images) // per_shard)
    shards = [Path(f"{prefix}-{number:06d}.tar") for number in range(count)]
    existing = _replaced(prefix, overwrite)
    if is_shards(data) and {*map(real_path, files_of(data))} & {*map(real_path, (*existing, *shards))}:
        raise UserError(f"--out {prefix} names shards that --data {data} reads; choose another")
    sweep(Path(prefix).parent, LONG_ABANDONED, f"{TEMPORARY}.tar")
    with contextlib.ExitStack() as unnamed:
        for number, shard in enumerate(tqdm(shards, desc="writing shards", disable=None)):
            chosen = range(number * per_shard, min((number + 1) * per_shard, len(images)))
            contents = read_ahead(lambda index: _png(images.array(index)), chosen, num_workers)
            _write_tar(unnamed.enter_context(atomic_path(shard)), [f"{keys[index]}.png" for index in chosen], contents)
        with handling(signal.SIG_IGN, signal.SIGINT, *ending_signals()):  # a part of them would pass for all
            for shard in _replaced(prefix, overwrite):
                shard.unlink()
            unnamed.close()
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
