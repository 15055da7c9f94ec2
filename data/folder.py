"""Folders (or tar shards) of images: listed in a fixed order, checked before any long work, read with an optional cache."""

import functools
import os

import numpy as np

from data.checking import check_images, column
from data.listing import ImagePaths, list_images, passed_over
from data.reading import fit_error, read_array, to_tensor
from data.shards import is_shards, list_shards
from utils.errors import UserError, warn
from utils.files import real_path
from utils.run_dir import OPTIONS


class ImageFolder:
    """Images as (3, H, W) float32 tensors in [0, 1].

    Args:
        paths: image files.
        size, fit: as `data.reading.read_image`.
        cache_gb: memory for decoded images (1 = 2**30 bytes); used if all fit in, filled as they are read.
        infos: `ImageInfo`s of the paths, which a cache needs for its budget.

    Attributes:
        cached_gb: memory that the decoded images will take, 0 if they are not kept.
    """

    def __init__(self, paths, size=None, fit="resize", cache_gb=0.0, infos=None):
        self.paths = ImagePaths.of(paths)
        self.size, self.fit = size, fit
        need = _decoded_bytes(infos, size) / 2**30 if cache_gb > 0 else 0
        self.cached_gb = need if need <= cache_gb else 0
        self._arrays = {}

    def __len__(self):
        return len(self.paths)

    def array(self, index):
        """One image, (H, W, 3) uint8 or uint16; not to be changed, the cache may hold it."""
        array = self._arrays.get(index)
        if array is None:
            read = functools.partial(self.paths.content, index)
            array = read_array(self.paths.label(index), self.size, self.fit, read)
            if self.cached_gb:
                self._arrays[index] = array
        return array

    def __getitem__(self, index):
        return to_tensor(self.array(index))

    def __getstate__(self):
        return self.__dict__ | {"_arrays": {}}  # another process gets no copy of the cache


def _decoded_bytes(infos, size):
    """Memory that images take once they are decoded and fitted."""
    pixels = column(infos, "width").astype(np.int64) * column(infos, "height") if size is None else size**2
    return int((pixels * (column(infos, "bits").astype(np.int64) // 8 * 3)).sum())


def require_one_size(*parts, square=False, advice="give --size N, with --fit crop to keep the artefacts being studied"):
    """UserError, naming the first that is not, unless all images have the size of the very first one.

    Args:
        parts: rows of `ImageInfo`s, none of them empty.
        square: the size is that of a square as wide as the first image, which may then be the one to blame itself.
        advice: what the sentence ends with.
    """
    first = parts[0][0]
    height, wanted = (first.width, "be squares of") if square else (first.height, "have")
    for infos in parts:
        others = np.flatnonzero((column(infos, "width") != first.width) | (column(infos, "height") != height))
        for other in (infos[index] for index in others[:1]):
            beside = "" if other == first else f", but {first.path} is {first.width} x {first.height}"
            raise UserError(f"{other.path} is {other.width} x {other.height}{beside}; all must {wanted} one size: {advice}")


def all_of_size(infos, size):
    """Whether images are (size, size) already."""
    return bool(((column(infos, "width") == size) & (column(infos, "height") == size)).all())


def refuse_same(real, fake):
    """UserError if both classes are the images of one folder, or shards of one name."""
    if real_path(real) == real_path(fake):
        raise UserError(f"{fake} is given for both classes; give photographs for one and generated images for the other")


def refuse_mixed(folder, deep=True):
    """UserError if a folder holds images of several kinds: a run, or real/ beside fake/; so may any below it, if that is `deep`."""
    for place, folders, files in os.walk(folder):
        if {"real", "fake"} <= set(folders):
            raise UserError(f"{place} holds real/ and fake/; give the one of them that is meant")
        if OPTIONS in files:
            raise UserError(f"{place} is a run, with pictures of several kinds; give the folder of images in it that is meant")
        folders[:] = [name for name in folders if deep and not name.startswith(".")]


def _check_sizes(folder, infos, size, fit, tell):
    """UserError or one warning if images are not (size, size) already."""
    width, height = column(infos, "width"), column(infos, "height")
    others = np.flatnonzero((width != size) | (height != size))
    worst = others[np.minimum(width, height)[others] < size] if fit == "crop" else others
    for info in (infos[index] for index in worst[:1]):
        problem = fit_error(info.path, info.width, info.height, size, fit)
        if problem:
            raise UserError(problem)
    if len(others) and fit == "resize":
        first = infos[others[0]]
        squeezed = ", out of their proportions where they are no squares" if (width != height).any() else ""
        tell(
            f"{len(others)} of {len(infos)} images in {folder} are resized to {size} x {size}{squeezed} (the first: "
            f"{first.path.name}, {first.width} x {first.height}): resizing erases the artefacts being studied, --fit crop keeps "
            "them"
        )


def load_folder(folder, size, fit="resize", skip_bad=False, cache_gb=0.0, num_workers=0, recursive=False, tell=warn):
    """List, check and open a folder of images, or tar shards.

    Args:
        folder, recursive: as `list_images`; or the pattern of tar shards, as `list_shards`.
        skip_bad, num_workers, tell: as `check_images`.
        size, fit, cache_gb: as `ImageFolder`; the budget is this folder's own.
    Returns: `ImageFolder`, and its `ImageInfo`s (`ImageTable`).
    Raises: UserError, before anything is kept, for each mistake those name. Warns if images will be resized, or are left out.
    """
    if not is_shards(folder):
        refuse_mixed(folder, deep=recursive)
    listed = list_shards(folder) if is_shards(folder) else list_images(folder, recursive)
    left_out = None if is_shards(folder) else passed_over(folder, recursive)
    if left_out:
        tell(left_out)
    paths, infos = check_images(listed, skip_bad, num_workers, tell)
    if size is not None:
        _check_sizes(folder, infos, size, fit, tell)
    return ImageFolder(paths, size, fit, cache_gb, infos), infos
