"""Folders of images: listed in a fixed order, checked before any long work, read with an optional cache."""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset, get_worker_info
from tqdm import tqdm

from data.reading import IMAGE_SUFFIXES, ImageInfo, fit_error, inspect, read_array, to_tensor
from utils.errors import UserError

__all__ = ["ImageFolder", "ImageInfo", "check_images", "compare_classes", "list_images", "load_folder"]


def warn(message):
    """Tell the user on stderr without stopping."""
    print(f"warning: {message}", file=sys.stderr)


def list_images(folder, recursive=False):
    """Image files of a folder by suffix (any case), hidden ones left out.

    Returns: list of paths, sorted by their POSIX path within the folder, whatever the file system's order.
    Raises: UserError if the folder is missing or holds no image.
    """
    folder = Path(folder)
    kinds = "PNG, JPEG, WebP, BMP or TIFF"
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {problem}; make it and put {kinds} images there")

    def images(names):
        return [name for name in names if name.suffix.lower() in IMAGE_SUFFIXES and not name.is_dir()]

    found = images(folder.rglob("*") if recursive else folder.iterdir())
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        deeper = not recursive and any(images(folder.rglob("*")))
        hint = "move those of its subfolders up" if deeper else "put some there"
        raise UserError(f"{folder} holds no {kinds} images; {hint}")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _info_or_error(path):
    try:
        return inspect(path)[1]
    except UserError as error:
        return error


def check_images(paths, skip_bad=False, num_workers=0):
    """Decode every file whole, so that nothing unreadable turns up later.

    Args:
        paths: image files.
        skip_bad: leave unreadable files out, naming them on stderr.
        num_workers: threads (decoding runs outside Python's lock); 0 or 1 for none.
    Returns: the good paths and their `ImageInfo`s, in the order given.
    Raises: UserError naming unreadable files, unless skip_bad; and if no file is left.
    """
    paths = [Path(path) for path in paths]
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        mapped = pool.map(_info_or_error, paths) if num_workers > 1 else map(_info_or_error, paths)
        results = list(tqdm(mapped, total=len(paths), desc="checking images", delay=3, leave=False))
    infos = [result for result in results if isinstance(result, ImageInfo)]
    errors = [result for result in results if not isinstance(result, ImageInfo)]
    if errors and not skip_bad:
        more = f" ({len(errors) - 1} more such files)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}, or leave such files out by --skip_bad{more}")
    for error in errors:
        warn(f"left out: {error}")
    if not infos:
        raise UserError(f"none of the {len(paths)} images{f' in {paths[0].parent}' if paths else ''} is readable; replace them")
    return [info.path for info in infos], infos


def _spread(real, fake):
    """Mean distance of two samples' quantiles, and how much of it chance explains (three standard errors of the mean)."""
    grid = np.linspace(0, 1, 21)
    distance = np.abs(np.quantile(real, grid) - np.quantile(fake, grid)).mean()
    return distance, 3 * np.sqrt(np.var(real) / len(real) + np.var(fake) / len(fake))


def _tally(values):
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common(3))


def compare_classes(real_infos, fake_infos):
    """Differences between the classes that give the label away without any look at the spectrum.

    Args:
        real_infos, fake_infos: non-empty lists of `ImageInfo`.
    Returns: list of sentences, empty if format, JPEG quality and size agree.
    """
    found = []
    tail = "whatever tells the classes apart may be this and not the spectrum"
    shares = [Counter(info.format for info in infos) for infos in (real_infos, fake_infos)]
    names = sorted(shares[0] | shares[1])
    distance = sum(abs(shares[0][name] / len(real_infos) - shares[1][name] / len(fake_infos)) for name in names) / 2
    if distance >= 0.2:
        formats = [_tally(info.format for info in infos) for infos in (real_infos, fake_infos)]
        found.append(f"file formats differ between the classes (real: {formats[0]}; fake: {formats[1]}): {tail}")
    qualities = [[info.jpeg_quality for info in infos if info.jpeg_quality] for infos in (real_infos, fake_infos)]
    if all(qualities):
        distance, chance = _spread(*qualities)
        if distance > max(2, chance):
            real, fake = (int(np.median(values)) for values in qualities)
            found.append(f"JPEG quality differs between the classes (median: real {real}, fake {fake}): {tail}")
    for side in ("width", "height"):
        distance, chance = _spread(*(np.log([getattr(info, side) for info in infos]) for infos in (real_infos, fake_infos)))
        if distance > max(0.02, chance):
            sizes = [_tally(f"{info.width} x {info.height}:" for info in infos) for infos in (real_infos, fake_infos)]
            found.append(f"image sizes differ between the classes (real {sizes[0]}; fake {sizes[1]}): {tail}")
            break
    return found


class ImageFolder(Dataset):
    """Images as (3, H, W) float32 tensors in [0, 1].

    Args:
        paths: image files.
        size, fit: as `data.reading.read_image`.
        cache_gb: memory for decoded images (1 = 2**30 bytes); used if all fit in, filled as they are read.
        infos: `ImageInfo`s of the paths, if known; a cache needs them for its budget and checks the files otherwise.
    """

    def __init__(self, paths, size=None, fit="resize", cache_gb=0.0, infos=None):
        self.paths = [Path(path) for path in paths]
        self.size, self.fit = size, fit
        if infos is None and cache_gb > 0:
            infos = check_images(self.paths)[1]
        pixels = [(info.width * info.height if size is None else size**2) * info.bits // 8 * 3 for info in infos or ()]
        self.cached = cache_gb > 0 and sum(pixels) <= cache_gb * 2**30
        self._arrays = {}

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        array = self._arrays.get(index)
        if array is None:
            array = read_array(self.paths[index], self.size, self.fit)
            if self.cached and get_worker_info() is None:  # each worker process would hold a cache of its own
                self._arrays[index] = array
        return to_tensor(array)

    def __getstate__(self):
        return self.__dict__ | {"_arrays": {}}  # a spawned worker process gets no copy of the cache


def _check_sizes(folder, infos, size, fit):
    """UserError or one warning if images are not (size, size) already."""
    others = [info for info in infos if (info.width, info.height) != (size, size)]
    for info in others:
        problem = fit_error(info.path, info.width, info.height, size, fit)
        if problem:
            raise UserError(problem)
    if others and fit == "resize":
        warn(
            f"{len(others)} of {len(infos)} images in {folder} are resized to {size} x {size} (the first: {others[0].path.name}, "
            f"{others[0].width} x {others[0].height}): resizing erases the artefacts being studied; --fit crop keeps them"
        )


def load_folder(folder, size, fit="resize", skip_bad=False, cache_gb=0.0, num_workers=0, recursive=False):
    """List, check and open a folder of images.

    Args:
        folder, recursive: as `list_images`.
        skip_bad, num_workers: as `check_images`.
        size, fit, cache_gb: as `ImageFolder`; the budget is this folder's own.
    Returns: `ImageFolder`, and the list of `ImageInfo`s.
    Raises: UserError, before anything is kept, for each mistake those name. Warns once if images will be resized.
    """
    paths, infos = check_images(list_images(folder, recursive), skip_bad, num_workers)
    if size is not None:
        _check_sizes(folder, infos, size, fit)
    return ImageFolder(paths, size, fit, cache_gb, infos), infos
