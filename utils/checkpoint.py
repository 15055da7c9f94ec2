"""Checkpoints: tensors and plain values, written whole, read without executing anything."""

import contextlib
import hashlib
import pickle
import struct
import zipfile
from pathlib import Path

import torch

from utils.arguments import as_plain, free_on_resume
from utils.errors import REFUSALS, UserError, out_of_memory
from utils.files import atomic_path
from utils.interrupts import to_resume

RELEASED_NAME = "Generator"  # what the released code's file of a generator begins with
RELEASED_ORDER = (2, 0, 1)  # channel c of a released network is channel RELEASED_ORDER[c] of the image


def save_checkpoint(path, kind, content):
    """Write dictionary `content` (tensors, numbers, strings, lists, dictionaries) as a checkpoint of this `kind`, atomically."""
    path = Path(path)
    try:
        with atomic_path(path) as temporary:
            torch.save({"kind": kind, **content}, temporary)
    except RuntimeError as error:  # torch's writer hides the operating system's refusal
        if out_of_memory(error):
            raise
        kept = path.is_file() or path.with_name("checkpoint.pt").is_file()
        option = "--resume" if kept else "--overwrite"
        raise UserError(f"{path} could not be written (is the disk full?); free some space and go on with {option}") from error


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
    except UserError:
        raise
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        OSError,
        struct.error,
    ) as error:
        refused = isinstance(error, OSError) and error.errno in REFUSALS  # others come of seeking in a file that was cut
        if refused or out_of_memory(error):
            raise
        raise UserError(
            f"{path} is not a checkpoint of plain tensors (broken, or it would execute code); nothing was loaded"
        ) from error
    wrong = _not_finite(content)
    if wrong:
        raise UserError(f"{path} holds values that are not finite ({wrong}); a failed training wrote it: give another one")
    return content


@contextlib.contextmanager
def fitting(path):
    """Context in which the content of a run's file is used: UserError, naming the file, if a part is missing or does not fit."""
    try:
        yield
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        reason = f"{lines[0]} is missing" if isinstance(error, KeyError) else lines[-1].strip() if lines else type(error).__name__
        raise UserError(
            f"{path} is damaged or was written by other code ({reason[:200]}); put a good one in its "
            "place, or train again with --overwrite"
        ) from error


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


def load_optimiser(optimiser, state):
    """`optimiser.load_state_dict(state)`, which takes any tensors: ValueError if one is missing or does not fit its parameter."""
    optimiser.load_state_dict(state)
    if len({frozenset(kept) for kept in optimiser.state.values()}) > 1:
        raise ValueError("the optimiser's state lacks a part")
    for parameter, kept in optimiser.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"{name} is of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}")


def load_scheduler(scheduler, state):
    """`scheduler.load_state_dict(state)`, which takes any dictionary: KeyError or TypeError if a number is missing or is none."""
    for name, own in scheduler.state_dict().items():
        if isinstance(own, int | float) and not isinstance(state[name], int | float):
            raise TypeError(f"{name} of the schedule is no number")
    scheduler.load_state_dict(state)


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


def read_resumed(run_folder, kind, options):
    """The checkpoint that --resume continues.

    Args:
        run_folder: the run's folder.
        kind: as `load_checkpoint`.
        options: the options dataclass of this command.
    Raises: UserError if there is no checkpoint, or an option differs that is not free to (`utils.arguments.option`).
    """
    path = Path(run_folder) / "checkpoint.pt"
    if not path.exists():
        raise UserError(f"{path} does not exist, so there is nothing to resume; start again with --overwrite")
    checkpoint = load_checkpoint(path, kind)
    if "options" not in checkpoint:
        raise UserError(f"{path} does not say with which options it was made, so it cannot be resumed; choose another --dst")
    with fitting(path):
        check_same_options(path, checkpoint["options"], as_plain(options), free_on_resume(options))
    return checkpoint


def check_same_options(path, made, options, free):
    """UserError if what is resumed, of which a file at `path` tells, was made with other options.

    Args:
        made, options: its options and those of this command, as plain values by name. free: names of those that may differ.
    """
    for name in sorted((made.keys() ^ options.keys()) - set(free)):
        has = "has" if name in made else "lacks"
        raise UserError(f"{path} was written by another command or version (it {has} {name}); choose another --dst")
    for name, value in made.items():
        if name not in free and options[name] != value:
            raise UserError(f"--{name} is {options[name]}, but {path} was made with {value}; give the same options to resume")


class WayOn:
    """Asked after an interruption, the option with which a command goes on where it was, or starts anew if it cannot yet.

    Args:
        run_folder: made before or by the command. overwrite: whether an earlier run in it is deleted; until then what it holds is
            none of the command's. needed: name of the file in it that going on needs.
    """

    def __init__(self, run_folder, overwrite, needed="checkpoint.pt"):
        self.folder, self.overwrite, self.needed = Path(run_folder), overwrite, needed
        self.before = self._stamp()

    def _stamp(self):
        """When the folder's options.json, which every run begins with, was written; None without one."""
        path = self.folder / "options.json"
        return path.stat().st_mtime_ns if path.is_file() else None

    def __call__(self):
        begun = not self.overwrite or self._stamp() != self.before
        return to_resume(self.overwrite) if begun and (self.folder / self.needed).is_file() else "--overwrite"


def released_file(path):
    """Path of the generator of the released code: in a folder, or the file itself; None if there is none.

    Raises: UserError if a folder holds several.
    """
    path = Path(path)
    if path.is_file():
        return path if path.name.startswith(RELEASED_NAME) else None
    found = sorted(file for file in path.glob(f"{RELEASED_NAME}*") if file.is_file())
    if len(found) > 1:
        raise UserError(f"{path} holds {len(found)} files called {RELEASED_NAME}... (the first: {found[0].name}); name one")
    return found[0] if found else None


def released_generator(file):
    """State dictionary of a generator of the released code, with the channels back in the image's order.

    Raises: UserError if the file is not one.
    """
    state = read_tensors(file)
    if not is_state(state):
        raise UserError(f"{file} does not hold a state dictionary of tensors")
    # Input channel RELEASED_ORDER[c] of ours must meet the weights the released code used for its channel c.
    back = [RELEASED_ORDER.index(channel) for channel in range(3)]
    try:
        first = {"conv0_0.conv1.weight": state["conv0_0.conv1.weight"][:, back]}
        return state | first | {name: state[name][back] for name in ("final.weight", "final.bias")}
    except (KeyError, IndexError) as error:
        raise UserError(f"{file} is not a generator of released STIG: a tensor is missing or of another shape ({error})") from error
