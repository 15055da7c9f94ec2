"""Which images there are: names in a fixed order, compact enough for millions of them."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.reading import IMAGE_SUFFIXES
from utils.errors import UserError

DATASETS = Path("datasets")  # where --data looks
KINDS = "PNG, JPEG, WebP, BMP or TIFF"
OTHER_SUFFIXES = (".gif", ".apng", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".jfif", ".ppm", ".pgm", ".tga", ".exr", ".npy")


class ImagePaths(Sequence):
    """Files below one folder: a sequence of paths that keeps names only (about 70 bytes each) and makes a `Path` when asked.

    Args:
        root: the folder.
        names: POSIX paths below it.
    """

    def __init__(self, root, names):
        self.root, self.names = Path(root), names

    @classmethod
    def of(cls, paths):
        """Any row of paths as `ImagePaths`."""
        return paths if isinstance(paths, ImagePaths) else cls("", [os.fspath(path) for path in paths])

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return [self.root / name for name in self.names[index]] if isinstance(index, slice) else self.root / self.names[index]

    def __eq__(self, other):
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Path.__eq__, self, other))

    __hash__ = None

    def take(self, indices):
        """The images with these indices, in their order."""
        return ImagePaths(self.root, [self.names[index] for index in indices])

    def label(self, index):
        """What messages call an image."""
        return self[index]

    def content(self, index):
        """Bytes of a file; OSError if it cannot be read."""
        with open(os.path.join(self.root, self.names[index]), "rb", buffering=0) as file:  # noqa: PTH118, PTH123 (a quarter of the time)
            return file.read()

    def tail(self, index, count):
        """The last bytes of a file, at most `count`; OSError if it cannot be read."""
        with open(os.path.join(self.root, self.names[index]), "rb", buffering=0) as file:  # noqa: PTH118, PTH123
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read(count)

    def stamps(self):
        """(N, 3) int64 of each file: bytes, time of the last change of its content and of its entry (ns); -1 if it is not there."""
        root, stamps = str(self.root), np.full((len(self), 3), -1, np.int64)
        for index, name in enumerate(self.names):
            try:
                status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118
            except OSError:
                continue
            stamps[index] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return stamps

    def homes(self):
        """Folders or shards whose images are remembered together: list of (path, indices of its images)."""
        return [(self.root, np.arange(len(self)))] if self.root != Path() else []

    def places(self, indices):
        """(n, 2) int64: where images begin within a shard and how long they are; zeros for files of their own."""
        return np.zeros((len(indices), 2), np.int64)


def is_image_name(name):
    """True for the suffixes of images (any case), and not for hidden files."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122


def _is_no_pipe(entry):
    """Whether a directory's entry, no folder, may be read: a file, a link to one, or one to nothing, which reading it tells."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113 (a link may lead in a circle)


def _walk(folder, prefix, recursive):
    """Names of the images in a folder, in the file system's order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112 (a link may lead in a circle)
                if recursive and not entry.is_symlink():
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", recursive)
            elif is_image_name(entry.name) and _is_no_pipe(entry):
                yield prefix + entry.name


def passed_over(folder, recursive=False):
    """Sentence on what `list_images(folder, recursive)` leaves out though it may hold images; None without any."""
    links, others, deeper = [], [], []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [path for path in (Path(place, name) for name in folders) if path.is_symlink()]
        others += [Path(place, name) for name in files if name.lower().endswith(OTHER_SUFFIXES) and not name.startswith(".")]
        if not recursive and Path(place) != Path(folder):
            deeper += [Path(place, name) for name in files if is_image_name(name)]
    kinds = {"links to folders": links, "files of other formats": others, "images in subfolders": deeper}
    found = [f"{kind} ({len(paths)}, the first: {min(paths)})" for kind, paths in kinds.items() if paths]
    return f"passed over in {folder}: {' and '.join(found)}" if found else None


def list_images(folder, recursive=False):
    """Image files of a folder by suffix (any case), hidden ones left out.

    Returns: `ImagePaths`, sorted by their POSIX path within the folder, whatever the file system's order.
    Raises: UserError if the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"{folder} is not a folder; give the one that holds the images")
        raise UserError(f"{folder} does not exist; check the name, or make it and put {KINDS} images there")
    names = sorted(_walk(folder, "", recursive))
    if not names:
        deeper = not recursive and any(True for _ in _walk(folder, "", True))
        hint = "move those of its subfolders up" if deeper else "put some there"
        tars = sorted(path.name for path in folder.glob("*-*.tar"))
        if tars:
            prefix = tars[0].rpartition("-")[0]
            numbers = [name[len(prefix) + 1 : -4] for name in tars if name.rpartition("-")[0] == prefix]
            hint = f"give the names of the tar shards that it holds: '{folder}/{prefix}-{{{numbers[0]}..{numbers[-1]}}}.tar'"
        raise UserError(f"{folder} holds no {KINDS} images; {hint}")
    return ImagePaths(folder, names)
