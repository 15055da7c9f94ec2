"""Checkpoints: tensors and plain values, written whole, read without executing anything."""

import contextlib
import csv
import hashlib
import math
import os
import zipfile
from pathlib import Path

import torch

from utils.errors import REFUSALS, UserError, check_finite, out_of_memory
from utils.files import atomic_path


def save_checkpoint(path, kind, content, advice=None):
    """Write dictionary `content` (tensors, numbers, strings, lists, dictionaries) as a checkpoint of this `kind`, atomically.

    Args:
        advice: what to do once there is room on the disk again; None = go on with --resume or --overwrite.
    """
    path = Path(path)
    try:
        with atomic_path(path) as temporary:
            torch.save({"kind": kind, **content}, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file)  # so that a power failure leaves the one before or this one
    except RuntimeError as error:  # torch's writer hides the operating system's refusal
        if out_of_memory(error):
            raise
        kept = path.is_file() or path.with_name("checkpoint.pt").is_file()
        advice = advice or f"go on with {'--resume' if kept else '--overwrite'}"
        raise UserError(f"{path} could not be written (is the disk full?); free some space and {advice}") from error


def check_state(content, step, advice, unit="step"):
    """`check_finite` of all tensors that a checkpoint will hold: `read_tensors` would refuse it, and a good one would be lost."""
    wrong = _not_finite(content)
    if wrong:
        check_finite({f"{wrong} of the checkpoint": math.nan}, step, advice, unit)


def _not_finite(content, name=""):
    """Name of the first tensor in nested dictionaries and lists that holds infinities or no numbers; None if there is none."""
    if isinstance(content, torch.Tensor):
        return None if not content.is_floating_point() or bool(content.isfinite().all()) else name
    if not isinstance(content, dict | list | tuple):
        return None
    parts = content.items() if isinstance(content, dict) else enumerate(content)
    found = (_not_finite(part, f"{name}.{key}" if name else str(key)) for key, part in parts)
    return next(filter(None, found), None)


def read_tensors(path):
    """Load a torch file with `weights_only=True` on the CPU.

    Raises: UserError if it is missing, broken, would execute code or holds a tensor that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}; give the path of a .pt file")
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        wrong = _not_finite(content)
    except UserError:
        raise
    except Exception as error:  # of a file that is none, reading it as one raises anything
        refused = isinstance(error, OSError) and error.errno in REFUSALS  # others come of seeking in a file that was cut
        if refused or out_of_memory(error):
            raise
        raise UserError(
            f"{path} is not a checkpoint of plain tensors (broken, or it would execute code); nothing was loaded"
        ) from error
    if wrong:
        raise UserError(f"{path} holds values that are not finite ({wrong}); a failed training wrote it: give another one")
    return content


@contextlib.contextmanager
def fitting(path, advice="put a good one in its place, or train again with --overwrite"):
    """Context in which the content of a run's file is used: UserError, naming the file, if a part is missing or does not fit."""
    try:
        yield
    except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RuntimeError, csv.Error) as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        reason = f"{lines[0]} is missing" if isinstance(error, KeyError) else lines[-1].strip() if lines else type(error).__name__
        raise UserError(f"{path} is damaged or was written by other code ({reason[:200]}); {advice}") from error


def is_state(content):
    """Whether something is a state dictionary: tensors by name."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )


def digest_of(state):
    """Hexadecimal SHA-256 of a dict of tensors, of their names and every bit of their values."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_sums(path):
    """UserError if a file's checksums do not fit: torch does not look at them and would use damaged weights as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise UserError(f"{path} is damaged (its checksums do not fit); nothing was loaded")


def load_checkpoint(path, kind):
    """Read a checkpoint that `save_checkpoint` wrote; UserError if it is of another kind."""
    content = read_tensors(path)
    found = content.get("kind") if isinstance(content, dict) else None
    if found != kind:
        what = f"it is a {found} one" if found else "it names no kind"
        raise UserError(f"{path} is not a {kind} checkpoint ({what}); give one that this project wrote for it")
    return content
