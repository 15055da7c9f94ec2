"""What a training and a fine-tuning of a GAN share: where they are, and a checkpoint from which they go on bit for bit."""

from typing import ClassVar

from gan_commands.common import KIND
from utils.arguments import as_plain
from utils.checkpoint import check_state, save_checkpoint
from utils.errors import check_finite
from utils.run_dir import run_folder
from utils.seeding import random_state, set_random_state


class GanRun:
    """A trainer that goes through epochs of batches.

    Args:
        options: of the command; `dst` names the run's folder.
        trainer: `GanTrainer`; of its processes the main one alone writes.
    Attributes: epoch and batch, where the next step is.
    """

    PROGRESS: ClassVar = {"epoch": int, "batch": int}  # attributes that a checkpoint keeps as numbers, and their types

    def __init__(self, options, trainer):
        self.options, self.folder, self.trainer, self.processes = options, run_folder(options.dst), trainer, trainer.processes
        self.epoch, self.batch = 0, 0

    def own_state(self):
        """What a checkpoint needs beside trainer, progress and random state: {name: tensors or plain values}."""
        raise NotImplementedError

    def load_own_state(self, checkpoint):
        """Undo `own_state`, given the content of the whole checkpoint."""
        raise NotImplementedError

    def check_finite(self, numbers, step=None):
        """UserError if one of {name: float} at this step (by default the trainer's) is infinite or not a number."""
        check_finite(numbers, self.trainer.steps if step is None else step, self._when_not_finite())

    def check_networks(self):
        """UserError, as `check_finite`, if a training has come to networks or optimisers that are not finite."""
        check_state(self.trainer.state_dict(), self.trainer.steps, self._when_not_finite())

    def _when_not_finite(self):
        kept = "the last epoch is kept: " if (self.folder / "checkpoint.pt").is_file() else ""
        return f"{kept}try a lower --lr, with --overwrite or another --dst"

    def save(self, name="checkpoint.pt"):
        """Write results/<dst>/<name> with everything that `load` needs, in the main process; UserError as `check_networks`."""
        if not self.processes.main:
            return
        self.check_networks()
        content = {
            "progress": {key: getattr(self, key) for key in self.PROGRESS},
            **self.own_state(),
            "random": random_state(),
            "options": as_plain(self.options),
        }
        save_checkpoint(self.folder / name, KIND, self.trainer.state_dict() | content)

    def load(self, checkpoint):
        """Continue where `save` was called."""
        self.trainer.load_state_dict(checkpoint)
        self.load_own_state(checkpoint)
        for key, kind in self.PROGRESS.items():
            setattr(self, key, kind(checkpoint["progress"][key]))
        set_random_state(checkpoint["random"])
