"""What images that are made of others are called, and how they are written."""

import os
from collections import Counter
from pathlib import Path

from utils.errors import UserError
from utils.pictures import mag_picture, write_png

LONGEST_NAME = 255  # bytes of a file or folder: what ext4, XFS, NTFS and APFS take


def output_names(paths, root=None):
    """Name of the PNG written for each image: its path below `root` (default: the file name alone) with the suffix .png.

    Images that would share a name, on a file system that tells no case apart too, keep their own suffix as well: a.jpg, a.png ->
    a.jpg.png, a.png.png. Where that does not help (A.png, a.png), these are numbered.

    Raises: UserError if a name is longer than file systems take, before anything is written.
    """
    names = [Path(path).relative_to(root) if root is not None else Path(Path(path).name) for path in paths]
    stems = [name.with_suffix("") for name in names]
    taken = {stem for stem, count in Counter(str(stem).lower() for stem in stems).items() if count > 1}
    found = [Path(f"{name}.png" if str(stem).lower() in taken else f"{stem}.png") for name, stem in zip(names, stems, strict=True)]
    if not _all_differ(found):
        whole = [Path(f"{name}.png") for name in names]  # a.jpg, a.png, a.jpg.png: only with its own suffix is each name its own
        found = whole if _all_differ(whole) else _numbered(found)
    return _short_enough(found)


def _numbered(names):
    """The names, of which those that are shared begin with their place among all."""
    counts = Counter(str(name).lower() for name in names)
    found = [
        name.with_name(f"{index:06d}_{name.name}") if counts[str(name).lower()] > 1 else name for index, name in enumerate(names)
    ]
    return found if _all_differ(found) else [name.with_name(f"{index:06d}_{name.name}") for index, name in enumerate(names)]


def _short_enough(names):
    """The same names; UserError if a file or a folder in one is longer than file systems take."""
    for part in (part for name in names for part in name.parts):
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise UserError(
                f"a result would be called {part[:20]}...{part[-20:]}, longer than {LONGEST_NAME} bytes; rename its image"
            )
    return names


def _all_differ(names):
    """Whether all names differ on a file system that tells no case apart."""
    return len({str(name).lower() for name in names}) == len(names)


def flat_names(paths):
    """As `output_names`, for pictures that all lie in one folder: the folders that keys of shards have become part of the name."""
    root = getattr(paths, "root", Path())
    found = output_names(paths if root == Path() else [name.replace("/", "_") for name in paths.names])
    return found if _all_differ(found) else _short_enough([Path(f"{index:06d}_{name}") for index, name in enumerate(found)])


def drop_others(folder, name, files):
    """Delete pictures of folder/<name> and folder/<name>_mag that are none of `files`, but of an earlier evaluation."""
    kept = {str(file) for file in files}
    for picture in (*(folder / name).glob("*.png"), *(folder / f"{name}_mag").glob("*.png")):
        if picture.name not in kept:
            picture.unlink()


def write_pictures(folder, name, files, image, with_mag=True):
    """Write 8-bit images (N, 3, H, W) to folder/<name> and, if asked, their magnitude pictures to folder/<name>_mag.

    Raises: UserError if an image holds something that is no number, which would become black.
    """
    if not image.isfinite().all():
        raise UserError(f"{folder / name}: {files[0]} or one after it would not consist of numbers; what refines it is damaged")
    for part, pictures in ((name, image), *([(f"{name}_mag", mag_picture(image))] if with_mag else [])):
        for file, picture in zip(files, pictures, strict=True):
            write_png(folder / part / file, picture)
