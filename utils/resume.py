"""Going on with what was interrupted: with which checkpoint, under which options, and what the user is told."""

from pathlib import Path

from utils.arguments import as_plain, free_on_resume
from utils.checkpoint import fitting, load_checkpoint
from utils.errors import UserError
from utils.interrupts import to_resume


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
            none of the command's. needed: name of the file in it that going on needs. first: of the one that is written first.
        way: the option to go on with; None: `to_resume`.
    """

    def __init__(self, run_folder, overwrite, needed="checkpoint.pt", first="options.json", way=None):
        self.folder, self.overwrite, self.needed, self.first = Path(run_folder), overwrite, needed, first
        self.way = way or to_resume(overwrite)
        self.before = self._stamp()

    def _stamp(self):
        """When the folder's first file was written; None without one."""
        path = self.folder / self.first
        return path.stat().st_mtime_ns if path.is_file() else None

    def __call__(self):
        begun = not self.overwrite or self._stamp() != self.before
        return self.way if begun and (self.folder / self.needed).is_file() else "--overwrite"
