"""Scalars to TensorBoard and to CSV files of a run folder."""

import contextlib
import csv
import os
import threading
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from utils.checkpoint import fitting
from utils.errors import warn
from utils.files import write_text

TABLES = ("log", "epochs", "monitor")


class ScalarLog:
    """Writes results/<dst>/tensorboard and results/<dst>/<table>.csv; a context, at whose end TensorBoard has everything.

    Args:
        run_folder: the run's folder.
        resume_step: rows after this step are dropped (they will be written again); None starts anew.
        epochs: how many are finished; later rows of epochs.csv are dropped, too, which may be of the same step.
        first: the first step of which log.csv has a row.
    """

    def __init__(self, run_folder, resume_step=None, epochs=None, first=1):
        self.folder = Path(run_folder)
        self._columns = {}
        self._purge = None if resume_step is None else resume_step + 1
        for path in (self.folder / f"{table}.csv" for table in TABLES if resume_step is not None):
            if path.is_file():
                self._trim(path, resume_step, epochs if path.stem == "epochs" else None)
        if resume_step and resume_step >= first and "log" not in self._columns:
            warn(f"{self.folder / 'log.csv'} has nothing of the {resume_step} steps so far; it goes on without them")

    def _trim(self, path, last_step, epochs):
        with fitting(path), path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
            if not rows or rows[0][:1] != ["step"]:
                return
            kept = [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) <= last_step]
            if epochs is not None:
                kept = [row for row in kept if float(row[rows[0].index("epoch")]) <= epochs]
        write_text(path, "".join(",".join(row) + "\n" for row in (rows[0], *kept)))
        self._columns[path.stem] = rows[0][1:]

    def write(self, step, scalars, table="log"):
        """Append one row {name: number} to <table>.csv, of TABLES, and TensorBoard; a table's names must stay the same."""
        path = self.folder / f"{table}.csv"
        new = table not in self._columns
        columns = self._columns.setdefault(table, list(scalars))
        if set(columns) != set(scalars):
            raise ValueError(f"{path} has the columns {columns}, not {list(scalars)}")
        with self._naming(path), path.open("w" if new else "a", newline="", encoding="utf-8") as file:
            if new:
                file.write(",".join(["step", *columns]) + "\n")
            file.write(",".join([str(step), *(f"{float(scalars[name]):.9g}" for name in columns)]) + "\n")
        with self._naming():
            for name, value in scalars.items():
                self._writer.add_scalar(f"{table}/{name}", float(value), step)

    def add_image(self, name, image, step):
        """Add an (H, W, 3) uint8 picture to TensorBoard."""
        with self._naming():
            self._writer.add_image(name, image, step, dataformats="HWC")

    @contextlib.contextmanager
    def _naming(self, path=None):
        """Context in which errors name the file: a full disk's do not, nor does what stopped TensorBoard's thread."""
        try:
            yield
        except OSError as error:
            error.filename = os.fsdecode(error.filename or path or self.folder / "tensorboard")
            raise

    def _hear(self, failure):
        """For `threading.excepthook`: what stops TensorBoard's thread is raised by the next call, and need not be printed."""
        if not type(failure.thread).__module__.startswith("tensorboard"):
            self._hook(failure)

    def __enter__(self):
        self._hook, threading.excepthook = threading.excepthook, self._hear
        try:
            with self._naming():
                self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge)
        except BaseException:
            threading.excepthook = self._hook
            raise
        return self

    def __exit__(self, *_):
        try:
            with self._naming():
                self._writer.close()
        finally:
            threading.excepthook = self._hook


def open_log(run_folder, resume_step, processes, epochs=None, first=1):
    """Context that gives the run's `ScalarLog` in the main process and None in the others."""
    return ScalarLog(run_folder, resume_step, epochs, first) if processes.main else contextlib.nullcontext()
