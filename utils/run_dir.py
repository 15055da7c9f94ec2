"""Run folders under results/: which may be made, deleted or gone on with, and by whom."""

import os
from pathlib import Path

from utils.errors import UserError
from utils.files import check_place, delete, read_json, real_path, sweep, write_json
from utils.locks import NAME, held_by_another, hold

RESULTS = Path("results")
OPTIONS = "options.json"  # in every run
REPORT = "report.md"  # of a training, written when all else is there


def run_folder(dst, root=None):
    """Path of results/<dst>; UserError if `dst` is empty or leaves results/."""
    root = RESULTS if root is None else Path(root)
    folder = root / dst
    if not dst or real_path(root) not in real_path(folder).parents:
        link = next((path for path in (folder, *folder.parents) if root in path.parents and path.is_symlink()), None)
        if dst and link:
            raise UserError(f"{link} is a link that leads out of {root}/; make {root} itself a link, or choose another name")
        raise UserError(f"{dst!r} does not name a folder inside {root}/; give a plain name such as my_run")
    return folder


def refuse_deleting(folder, inputs, advice):
    """UserError, ending with this advice, if a folder that is to be deleted holds one of the inputs or is a part of it.

    Args:
        inputs: paths; None among them is passed over.
    """
    for path in filter(None, inputs):
        inside, around = real_path(path).is_relative_to(real_path(folder)), real_path(folder).is_relative_to(real_path(path))
        if inside or around:
            lost = path if inside else f"{folder}, a part of {path}"
            raise UserError(f"--overwrite would delete {lost}, which this command reads; {advice}")


def _refuse_deleting_runs(folder, root, parts):
    """UserError if a folder that is to be deleted holds another run, or is no run and a part of one below `root`.

    Args:
        parts: names of folders in it that are runs and parts of its own.
    """
    if (folder / OPTIONS).is_file():
        own = _dst_of(folder / OPTIONS), folder.relative_to(root).as_posix()  # they differ if it was renamed
        for path in folder.rglob(OPTIONS):
            if _dst_of(path) not in (None, *own) and path.parent not in (folder / part for part in parts):
                raise UserError(f"--overwrite would delete {path.parent}, another run; move it, or choose another --dst")
        return
    inside = min((path.parent for path in folder.rglob(OPTIONS)), default=None)
    around = next((path for path in folder.parents if root in path.parents and (path / OPTIONS).is_file()), None)
    if inside or around:
        lost = f"{inside}, which is in it" if inside else f"{folder}, a part of {around}"
        raise UserError(f"{folder} is no run, and --overwrite would delete {lost}; choose another --dst")


def _filled_by_another(folder, option):
    return UserError(f"another process is filling {folder}; wait for it, stop it, or choose another {option}")


def refuse_held(folder, option="--out"):
    """UserError, naming the option that gave it, if another process is filling a folder."""
    if held_by_another(folder):
        raise _filled_by_another(folder, option)


def claim(folder, option="--out"):
    """Make a folder, if it is not there, and hold it until `let_go`; UserError if another process is faster."""
    folder.mkdir(parents=True, exist_ok=True)
    if not hold(folder):
        raise _filled_by_another(folder, option)
    sweep(folder)


def _dst_of(path):
    """--dst of the run that an options.json is of; None if it does not say."""
    try:
        return read_json(path).get("dst")
    except UserError:
        return None


def unfinished_evaluation(run):
    """Sentences (none or one): a run of train.py has no report yet, so its eval/ may lack images."""
    if not (run / OPTIONS).is_file() or (run / REPORT).is_file():
        return []
    return [
        f"{run} has no {REPORT}: its closing evaluation was not finished, so images may be missing from {run / 'eval'}; go on "
        "with train.py --resume first"
    ]


def check_run_folder(dst, overwrite=False, resume=None, root=None, inputs=(), parts=()):
    """Path of results/<dst> after every refusal of `open_run_folder`, with nothing made or deleted: to be called before long work.

    Args:
        dst, root: as `run_folder`.
        overwrite, resume: what the user asked for; a script that cannot resume gives None.
        inputs: files and folders that the run reads (None among them is passed over); they must not be deleted by `overwrite`.
        parts: names of runs in the folder that are parts of this one, which `overwrite` may delete.
    Raises: UserError if the folder exists and neither is asked for, or cannot be used, or another process is filling it.
    """
    folder = run_folder(dst, root)
    if overwrite and resume:
        raise UserError("--overwrite and --resume exclude each other; give one of them")
    if resume and not folder.is_dir():
        raise UserError(f"{folder} does not exist, so there is nothing to resume; leave --resume out")
    if os.path.lexists(folder) and (not folder.is_dir() or (overwrite and folder.is_symlink())):
        raise UserError(f"{folder} is a {'link' if folder.is_symlink() else 'file'} and no folder of a run; choose another --dst")
    if folder.exists() and not (overwrite or resume):
        choices = "--overwrite replaces it" if resume is None else "--resume continues it, --overwrite replaces it"
        raise UserError(f"{folder} exists already; {choices}, or choose another --dst")
    for held in [folder, *(path.parent for path in (folder.rglob(NAME) if overwrite else ()))]:
        refuse_held(held, "--dst")
    if overwrite and folder.exists():
        refuse_deleting(folder, inputs, "choose another --dst")
        _refuse_deleting_runs(folder, RESULTS if root is None else Path(root), parts)
    for place in (folder, folder.parent) if overwrite else (folder,):
        check_place(place)
    for place, _, _ in os.walk(folder) if overwrite else ():
        check_place(place)
    return folder


def open_run_folder(dst, overwrite=False, resume=None, root=None, inputs=(), parts=(), settings=None):
    """Make results/<dst>, with the settings in its options.json, and return it.

    An existing folder is deleted with `overwrite`, kept with `resume`, and refused otherwise: arguments and errors as
    `check_run_folder`. Until `utils.locks.let_go`, or the end of this process, other processes are refused.

    Args:
        settings: plain options of the command, by name; None leaves what is there.
    """
    folder = check_run_folder(dst, overwrite, resume, root, inputs, parts)
    claim(folder, "--dst")
    for path in sorted(folder.iterdir(), key=lambda path: path.name == OPTIONS) if overwrite else ():
        if path.name != NAME:
            delete(path)  # last of all that by which the folder is known as this run
    if settings is not None:
        write_json(folder / OPTIONS, settings)
    return folder
