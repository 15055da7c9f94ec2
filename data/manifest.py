"""What was found out about a folder's images, kept in the user's cache so that the next start need not look again.

An entry holds for as long as the file's size and times are the same. The cache is a convenience: one that is missing, damaged or
not writable costs time and nothing else. It holds plain arrays and is read without executing anything.
"""

import hashlib
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from utils.files import atomic_path

FORMAT = 3
ROW = np.dtype([("width", "i4"), ("height", "i4"), *((name, "u1") for name in ("format", "jpeg_quality", "bits", "several"))])
FRESH_NS = 2 * 10**9  # a file changed so recently may change again within the resolution of its time
FROM = 1000  # smaller folders are checked faster than they are worth remembering


def cache_folder():
    """Where manifests go: $STIG_CACHE, else the folder stig in the user's cache."""
    own = os.environ.get("STIG_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stig"


def _manifest_path(home):
    return cache_folder() / f"images_{hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:24]}.npz"


def read_manifest(home):
    """What is remembered of a place.

    Returns: list of names, (N, 3) int64 stamps, (N,) rows of dtype `ROW`, (N, 2) int64 places within a shard; all empty if nothing
        is known. A row of width 0 says that the image is there and was not found good.
    """
    nothing = [], np.empty((0, 3), np.int64), np.empty(0, ROW), np.empty((0, 2), np.int64)
    try:
        with np.load(_manifest_path(home), allow_pickle=False) as arrays:
            found = (*(arrays[name] for name in ("stamps", "rows", "places")),)
            names = os.fsdecode(arrays["names"].tobytes()).split("\0")
            fits = int(arrays["version"]) == FORMAT and found[1].dtype == ROW and all(len(part) == len(names) for part in found)
        return (names, *found) if fits else nothing
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return nothing


def write_manifest(home, names, stamps, rows, places):
    """Remember images, all but those that changed a moment ago.

    Returns: None, or the OSError that kept it from being written.
    """
    stamps = np.where(stamps[:, 1:2] > time.time_ns() - FRESH_NS, -1, stamps)
    packed = np.frombuffer(os.fsencode("\0".join(names)), np.uint8)
    try:
        with atomic_path(_manifest_path(home)) as temporary:
            np.savez(temporary, version=FORMAT, names=packed, stamps=stamps, rows=rows, places=places)
    except (OSError, RuntimeError) as error:  # Path.home() raises RuntimeError for a user without a home
        return error


def known_rows(home, names, stamps):
    """Rows of the images whose stamps are still those remembered, and zeros for all others: (N,) of dtype `ROW`."""
    rows = np.zeros(len(names), ROW)
    old_names, old_stamps, old_rows, _ = read_manifest(home)
    if old_names == names:
        mine = theirs = np.arange(len(names))
    else:
        where = {name: index for index, name in enumerate(old_names)}
        found = [(index, where[name]) for index, name in enumerate(names) if name in where]
        mine, theirs = np.array(found, np.int64).reshape(-1, 2).T
    same = (old_stamps[theirs] == stamps[mine]).all(axis=1) & (stamps[mine, 0] >= 0)
    rows[mine[same]] = old_rows[theirs[same]]
    return rows
