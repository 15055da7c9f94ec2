"""Files and folders that are written whole or not at all, and places that can be written to."""

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from pathlib import Path

from utils.errors import UserError

ABANDONED = 600  # seconds without a change after which a temporary file is taken for one of a process that was killed,
LONG_ABANDONED = 86_400  # and in a folder that others may be filling
TEMPORARY = "." + 32 * "[0-9a-f]" + ".tmp"  # glob pattern of what `atomic_path` gives, but for the suffix


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path`; rename it to `path` on success, delete it on any failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp{path.suffix}"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and str(error.filename) in ("None", str(temporary)):
            error.filename = str(path)  # what a full disk refused, for the user's eyes
        raise


@contextlib.contextmanager
def atomic_folder(path):
    """Give a temporary folder beside `path`; rename it to `path` on success, delete it on any failure.

    If there is a `path` by then, another process was faster: its folder stays, and this one is deleted.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_place(folder):
    """UserError if a folder cannot be made or filled: what it lies in is a file, leads nowhere, or may not be written to."""
    folder = Path(folder)
    lost = next((place for place in (folder, *folder.parents) if place.is_symlink() and not place.exists()), None)
    if lost:
        raise UserError(f"{lost} is a link to {lost.readlink()}, which is not there (is its disk mounted?); choose another place")
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is a file, so nothing can be written to {folder}; choose another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{nearest} is read-only for this user, so nothing can be written to {folder}; choose another place")


def write_text(path, text):
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may be any bytes


def write_json(path, value):
    """Write `value` as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path, advice="delete it and run again"):
    """Read a JSON file that holds an object: a dictionary; UserError with its name and this advice if it is none."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); {advice}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged, it holds no JSON object; {advice}")
    return found


def real_path(path):
    """The absolute path without links; of links that lead in a circle, as far as they can be followed."""
    return Path(os.path.realpath(path))


def file_hash(path):
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def delete(path):
    """Delete a file, a link or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sweep(folder, age=ABANDONED, pattern=f"**/{TEMPORARY}*"):
    """Delete what killed processes left unfinished in a folder (`atomic_path`), and nothing has changed for `age` seconds."""
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if path.is_file() and time.time() - path.stat().st_mtime > age:
                path.unlink()
