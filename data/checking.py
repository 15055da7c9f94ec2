"""Finding unreadable images before any long work, and what is known of the good ones."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from tqdm import tqdm

from data import manifest
from data.listing import ImagePaths
from data.reading import FORMATS, ImageInfo, header_info, inspect
from utils.errors import UserError, warn
from utils.locks import forget_inherited

PART = 250  # images a worker process is given at a time
FORKED = sys.platform == "linux"  # elsewhere a process starts by importing everything again
PARALLEL_FROM = 500 if FORKED else 50_000


class ImageTable(Sequence):
    """`ImageInfo`s as columns (12 bytes an image), each made when asked for.

    Args:
        paths: `ImagePaths`. rows: (N,) array of dtype `manifest.ROW`.
    """

    def __init__(self, paths, rows):
        self.paths, self.rows = paths, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        width, height, kind, quality, bits, several = self.rows[index].item()
        return ImageInfo(self.paths[index], FORMATS[kind], width, height, quality or None, bits, bool(several))

    def take(self, indices):
        """The images with these indices, in their order."""
        return ImageTable(self.paths.take(indices), self.rows[indices])


def column(infos, name):
    """One property of all images (format, width, height, bits, several; jpeg_quality with 0 for none) as an array."""
    if isinstance(infos, ImageTable):
        return np.array(FORMATS)[infos.rows[name]] if name == "format" else infos.rows[name]
    return np.array([getattr(info, name) or 0 for info in infos])


def _row(info):
    return info.width, info.height, FORMATS.index(info.format), info.jpeg_quality or 0, info.bits, info.several


def _check_part(paths):
    """Rows of some images (zeros for bad ones), and {index: what is wrong}."""
    rows, errors = np.zeros(len(paths), manifest.ROW), {}
    for index in range(len(paths)):
        try:
            label, read = paths.label(index), functools.partial(paths.content, index)
            rows[index] = _row(header_info(label, read) or inspect(label, read)[1])
        except UserError as error:
            errors[index] = str(error)
    return rows, errors


def _begin_worker(parent):
    """In a worker process: Ctrl-C is its parent's to handle, SIGTERM ends it, and so does the parent's end, whatever that was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    forget_inherited()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check(paths, num_workers):
    """As `_check_part`, in worker processes if there are many images."""
    parts = [range(start, min(start + PART, len(paths))) for start in range(0, len(paths), PART)]
    given = (paths.take(part) for part in parts)
    rows, errors = np.zeros(len(paths), manifest.ROW), {}
    with tqdm(total=len(paths), desc="checking images", delay=3, leave=False, unit="image") as bar:

        def collect(results):
            for part, (some, wrong) in zip(parts, results, strict=True):
                rows[part.start : part.stop] = some
                errors.update({part.start + index: message for index, message in wrong.items()})
                bar.update(len(part))

        if num_workers > 1 and len(paths) >= PARALLEL_FROM:
            context = multiprocessing.get_context("fork" if FORKED else "spawn")
            pool = ProcessPoolExecutor(num_workers, context, initializer=_begin_worker, initargs=(os.getpid(),))
            try:
                collect(pool.map(_check_part, given))
            except BrokenProcessPool as error:
                raise UserError("a process that checks images was killed (too little memory?); give less --num_workers") from error
            finally:
                pool.shutdown(cancel_futures=True)
        else:
            collect(map(_check_part, given))
    return rows, errors


def check_images(paths, skip_bad=False, num_workers=0, tell=warn):
    """See that every file is an image and whole, so that nothing unreadable turns up later.

    PNGs are read whole and compared with their checksums, JPEGs with their end mark; every other file, and whatever is unusual
    about those, is decoded. Folders of many images are remembered (data/manifest.py): only new and changed files are looked at.

    Args:
        paths: image files.
        skip_bad: leave unreadable files out, with a warning that names them.
        num_workers: processes, for folders that are worth starting them; 0 or 1 for none.
        tell: called with each warning about the images.
    Returns: `ImagePaths` of the good ones and their `ImageInfo`s (`ImageTable`), in the order given.
    Raises: UserError naming unreadable files, unless skip_bad; and if no file is left.
    """
    paths = ImagePaths.of(paths)
    remembered = paths.homes() if len(paths) >= manifest.FROM else []
    rows = np.zeros(len(paths), manifest.ROW)
    stamps = paths.stamps() if remembered else None
    for home, part in remembered:
        rows[part] = manifest.known_rows(home, [paths.names[index] for index in part], stamps[part])
    unknown = np.flatnonzero(rows["width"] == 0)
    rows[unknown], wrong = _check(paths.take(unknown), num_workers)
    errors = [wrong[index] for index in sorted(wrong)]
    looked_at = np.isin(np.arange(len(paths)), unknown)
    for home, part in remembered:
        if looked_at[part].any():
            _remember(home, paths, part, stamps[part], rows[part])
    if errors and not skip_bad:
        more = f" ({len(errors) - 1} more such files)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}, or leave such files out by --skip_bad{more}")
    for error in errors:
        tell(f"left out: {error}")
    good = np.flatnonzero(rows["width"])
    if not len(good):
        raise UserError(f"none of the {len(paths)} images{f' in {paths[0].parent}' if paths else ''} is readable; replace them")
    table = ImageTable(paths, rows)
    table = table if len(good) == len(paths) else table.take(good)
    several = np.flatnonzero(table.rows["several"])
    if len(several):
        tell(f"of {len(several)} files with several frames the first frame alone is read (the first: {table[several[0]].path})")
    return table.paths, table


def _remember(home, paths, part, stamps, rows):
    error = manifest.write_manifest(home, [paths.names[index] for index in part], stamps, rows, paths.places(part))
    if error:
        reason = getattr(error, "strerror", None) or error
        warn(f"what was checked of {home} cannot be remembered ({reason}); set STIG_CACHE to a folder that can be written")
