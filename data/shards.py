"""Images in tar shards, found by an index and read where they lie: as good as a folder, in any order, without unpacking.

The layout is that of webdataset: what stands before the first dot of a member's name is the key of a sample. Of each sample the
first image counts.
"""

import os
import posixpath
import re
import tarfile
from pathlib import Path

import numpy as np

from data import manifest
from data.listing import KINDS, ImagePaths, is_image_name
from utils.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST = 10**6  # files that a range may stand for
_END = 512  # bytes of zeros that end a tar
_MAGIC = b"ustar"  # in the header of a member; tarfile takes a header that it cannot read for the end


def is_shards(data):
    """True for the name of a tar, or a pattern of tars, rather than a folder."""
    return str(data).endswith(".tar") and not Path(data).is_dir()


def expand_pattern(pattern):
    """Names that a pattern with braces stands for: x-{000..002}.tar, x-{a,b}.tar."""
    found = _BRACES.search(pattern)
    if not found:
        return [pattern]
    numbers = _RANGE.fullmatch(found[1])
    words = found[1].split(",")
    if numbers:
        first, last = map(int, numbers.groups())
        if not first <= last < first + MOST:
            raise UserError(f"{pattern} counts down, or stands for more than {MOST} files; mend the numbers in its braces")
        words = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    return [name for word in words for name in expand_pattern(pattern[: found.start()] + word + pattern[found.end() :])]


def shards_beside(folder, side):
    """Pattern of folder/<side>-000000.tar and those that follow, or None if there are none.

    Raises: UserError if it would leave one of them out.
    """
    numbers = [path.stem[len(side) + 1 :] for path in folder.glob(f"{side}-*.tar")]
    numbers = sorted(filter(str.isdecimal, numbers), key=int)
    if not numbers:
        return None
    pattern = folder / f"{side}-{{{numbers[0]}..{numbers[-1]}}}.tar"
    left_out = {f"{side}-{number}.tar" for number in numbers} - {Path(name).name for name in expand_pattern(str(pattern))}
    if left_out:
        raise UserError(f"{folder / min(left_out)} has not as many digits as {side}-{numbers[0]}.tar; number all shards alike")
    return pattern


class ShardPaths(ImagePaths):
    """Images in tar shards; their paths are <pattern>/<key>.<suffix>.

    Args:
        root, names: as `ImagePaths`.
        shards: paths of the tars. stamps: (S, 3) int64, theirs.
        shard: (N,) int32, the tar of each image. places: (N, 2) int64, where it begins and how long it is.
        whole: whether these are all images of the tars. Of a part nothing is remembered: a tar's manifest is its index, too.
    """

    def __init__(self, root, names, shards, stamps, shard, places, whole=True):
        super().__init__(root, names)
        self.shards, self._stamps, self.shard, self._places, self._whole = shards, stamps, shard, places, whole

    def take(self, indices):
        indices = np.asarray(indices, np.int64)
        names = [self.names[index] for index in indices.tolist()]
        whole = self._whole and len(indices) == len(self)
        return ShardPaths(self.root, names, self.shards, self._stamps, self.shard[indices], self._places[indices], whole)

    def label(self, index):
        return Path(self.shards[self.shard[index]]) / self.names[index]

    def content(self, index):
        return self.tail(index, int(self._places[index, 1]))

    def tail(self, index, count):
        start, length = self._places[index].tolist()
        count = min(count, length)
        with open(self.shards[self.shard[index]], "rb", buffering=0) as file:  # noqa: PTH123 (no place shared between threads)
            file.seek(start + length - count)
            return file.read(count)

    def stamps(self):
        return self._stamps[self.shard]

    def homes(self):
        if not self._whole:
            return []
        order = np.argsort(self.shard, kind="stable")
        return list(zip(self.shards, np.split(order, np.searchsorted(self.shard[order], range(1, len(self.shards)))), strict=True))

    def places(self, indices):
        return self._places[indices]


def _read_index(shard):
    """Names of the images in a tar and their places, (N, 2) int64."""
    names, places, last = [], [], None
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                path = posixpath.normpath(member.name)
                folder, name = posixpath.split(path)
                key = posixpath.join(folder, name.partition(".")[0])
                if member.isdir() or key == last or not is_image_name(name):
                    continue
                if not member.isreg() or member.issparse():
                    raise UserError(
                        f"{shard}: the member {member.name} is a link, or no plain file; "
                        "pack the images themselves (tar --dereference --hard-dereference)"
                    )
                if Path(path).is_absolute() or Path(path).drive or ".." in Path(path).parts:
                    raise UserError(f"{shard}: the member {member.name} leads out of the shard; pack it anew with plain names")
                names.append(key + posixpath.splitext(name)[1].lower())
                places.append((member.offset_data, member.size))
                last = key
            size, end = Path(shard).stat().st_size, tar.offset
            tar.fileobj.seek(end)
            damaged = any(tar.fileobj.read(_END)) or any(_MAGIC in part for part in iter(lambda: tar.fileobj.read(2**20), b""))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard} cannot be read as a tar ({error}); pack it anew") from error
    if size < end + _END:
        raise UserError(f"{shard} ends before its end mark, so it is not whole; pack or copy it anew")
    if damaged:
        raise UserError(
            f"{shard} is damaged at byte {end}, behind its image {len(names)}, or several tars in one; pack or copy it anew"
        )
    return names, np.array(places, np.int64).reshape(-1, 2)


def _index(shard, stamp):
    names, stamps, _, places = manifest.read_manifest(shard)
    return (names, places) if names and (stamps == stamp).all() else _read_index(shard)


def list_shards(pattern):
    """Images of all the tars that a pattern names.

    Returns: `ShardPaths`, sorted by key, however they were dealt to shards.
    Raises: UserError if a shard is missing or broken, there is no image, or two have one key.
    """
    shards = expand_pattern(str(pattern))
    missing = [shard for shard in shards if not Path(shard).is_file()]
    if missing:
        advice = "give their numbers in braces instead of *" if "*" in str(pattern) else f"or mend the pattern {pattern}"
        raise UserError(f"{missing[0]} does not exist; write shards with gan.py shard, {advice}")
    stamps = np.array([(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in map(os.stat, shards)], np.int64)
    found = [_index(shard, stamp) for shard, stamp in zip(shards, stamps, strict=True)]
    names = [name for part, _ in found for name in part]
    if not names:
        raise UserError(f"{pattern} holds no {KINDS} images; pack some")
    shard = np.repeat(np.arange(len(shards), dtype=np.int32), [len(part) for part, _ in found])
    paths = ShardPaths(pattern, names, shards, stamps, shard, np.concatenate([places for _, places in found]))
    paths, first = paths.take(sorted(range(len(names)), key=names.__getitem__)), {}
    for index, name in enumerate(paths.names):
        other = first.setdefault(name.rpartition(".")[0], index)
        if other != index:
            raise UserError(f"{paths.label(other)} and {paths.label(index)} have one key; pack them anew under different names")
    return paths
