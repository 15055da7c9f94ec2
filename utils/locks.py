"""Locks on files, which a process that ends in any way lets go of, and folders that are filled by one process at a time."""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None
    import msvcrt

NAME = ".lock"  # of a file in a folder that is being filled
_held = {}  # real path of a folder that this process fills -> its locked file


def lock(file, wait=True):
    """Lock an open file against other processes until it is closed.

    Args:
        wait: until the one that has it lets go.
    Returns: whether it is locked now; True, too, where the file system knows no locks.
    """
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # some network file systems
            return True
        return True
    file.seek(0)
    while True:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            return True
        except OSError:  # held by another; LK_LOCK gives up after ten seconds
            if not wait:
                return False


def _is(path, file):
    """Whether an open file is still the one of this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(path).stat())
    except FileNotFoundError:
        return False


def hold(folder):
    """Hold a folder that exists, until `let_go` or the end of this process.

    Returns: whether it is held now; False if another process holds it.
    """
    key, path = os.path.realpath(folder), Path(folder).absolute() / NAME
    if key in _held and _is(path, _held[key]):
        return True
    if key in _held:  # the folder was deleted and made again
        _held.pop(key).close()
    while True:
        file = path.open("a")
        if not lock(file, wait=False):
            file.close()
            return False
        if _is(path, file):
            _held[key] = file
            return True
        file.close()  # the one that held it has deleted the file meanwhile


def held_by_another(folder):
    """Whether another process holds a folder."""
    path = Path(folder) / NAME
    if os.path.realpath(folder) in _held or not path.is_file():
        return False
    try:
        with path.open("a") as file:  # closing it lets go
            return not lock(file, wait=False)
    except PermissionError:
        return False


def forget_inherited():
    """In a process that was forked: leave the folders that its parent holds to the parent alone, which may end before it."""
    for file in _held.values():
        file.close()
    _held.clear()


def let_go():
    """Let other processes have the folders that this one holds."""
    for file in _held.values():
        if fcntl and _is(file.name, file):  # while it is locked, or it might be another's by then
            Path(file.name).unlink(missing_ok=True)
        file.close()
        if not fcntl:  # Windows deletes no open file, nor one that another has opened
            with contextlib.suppress(PermissionError):
                Path(file.name).unlink(missing_ok=True)
    _held.clear()
