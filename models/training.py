"""One training step of STIG and everything that must survive between two of them."""

import contextlib

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.optimisers import load_optimiser, load_scheduler, parameters_of
from models.recording import StepRecorder
from utils.distributed import Processes


def rate_factor(step, total_steps):
    """Learning-rate factor before step `step` (0, 1, ...): 1 for the first 20 % of all steps, then linear to 0 (paper)."""
    constant = total_steps / 5
    return 1.0 if step < constant else max(0.0, (total_steps - step) / (total_steps - constant))


class Trainer:
    """The model with its optimisers, schedules and averaged generator.

    Args:
        model: `STIG` on its device.
        lr: Adam's learning rate; betas are (0.5, 0.999).
        total_steps: steps of the whole training, for the schedule.
        ema: decay of the averaged generator in [0, 1); 0 keeps none.
        processes: `Processes` that share each batch; every one of them has a trainer, and all stay alike.
        record: on a GPU, record the passes of a step once and replay them (`StepRecorder`); one process only.
    Attributes: step, the number of finished steps.
    """

    def __init__(self, model, lr, total_steps, ema, processes=None, record=False):
        self.model, self.step, self.processes = model, 0, processes or Processes()
        self._usual = 0  # images in a batch, but for the last one of an epoch
        sides = {
            "generator": [*model.generator.parameters(), *model.heads.parameters()],
            "discriminator": model.discriminator_parameters(),
        }
        self.optimisers = {side: torch.optim.Adam(p, lr, betas=(0.5, 0.999), fused=True) for side, p in sides.items()}
        self.schedules = {
            side: torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, total_steps))
            for side, optimiser in self.optimisers.items()
        }
        self.averaged = AveragedModel(model.generator, use_buffers=True) if ema else None
        self._ema, self._average, self._averaged_pairs = ema, get_ema_multi_avg_fn(ema), []
        model.share_batches(self.processes)
        records = record and self.processes.world == 1 and next(model.parameters()).is_cuda
        self._passes = StepRecorder(self._descents, self.optimisers) if records else self._descents

    @property
    def refiner(self):
        """The generator to use on images: the averaged one if there is one."""
        return self.model.generator if self.averaged is None else self.averaged.module

    @property
    def lr(self):
        """Learning rate of the next step."""
        return self.schedules["generator"].get_last_lr()[0]

    def train_step(self, fake_image, real_image, whole=None):
        """One step on a batch of pairs (N, 3, H, W) in [0, 1]: the discriminators first, then the generator against them.

        Args:
            whole: pairs in the batch over all processes, of which this one's are given; None = all are here.
        Returns: dict name -> 0-d tensor of every unweighted term, the two weighted totals `loss_d` and `loss_g` among them: means
            over the pairs given.
        """
        self.processes.begin(whole or len(fake_image))
        self._usual, terms = max(self._usual, len(fake_image)), {}
        with self._compiled_for(len(fake_image)):
            for side, found in self._passes(fake_image, real_image, *self.model.draw_positions(fake_image)):
                self.optimisers[side].step()
                self.schedules[side].step()
                terms |= found
        if self.averaged is not None:
            self._update_average()
        self.step += 1
        return terms

    def _update_average(self):
        """`AveragedModel.update_parameters`, which copies a number to the GPU for each kind of tensor, and waits for it.

        The centre follows corrections at the rate at which the weights that make them are averaged, not the centre that follows
        them already.
        """
        if self.averaged.n_averaged == 0:
            self.averaged.update_parameters(self.model.generator)
            return
        if self.model.generator.centre is not None:
            self.averaged.module.follow(self.model.generator.latest, 1 - self._ema)
        if not self._averaged_pairs:
            own, current = (part.state_dict() for part in (self.averaged.module, self.model.generator))
            pairs = [(own[name], current[name]) for name in own if name != "centre"]
            kinds = ([pair for pair in pairs if pair[0].is_floating_point() is floats] for floats in (True, False))
            self._averaged_pairs = [list(map(list, zip(*kind, strict=True))) for kind in kinds if kind]
        for averages, currents in self._averaged_pairs:
            self._average(averages, currents, None)
        self.averaged.n_averaged += 1

    def _compiled_for(self, count):
        """Context in which nothing is compiled for a batch of another size than most: that would take longer than the batch."""
        usual = count == self._usual or not self.model.generator.compiled
        return contextlib.nullcontext() if usual else self.model.generator.as_if_not_compiled()

    def _descents(self, fake_image, real_image, *positions):
        """What a step computes: yields "discriminator" and then "generator", when its gradients are there, with its terms."""
        translation = self.model.translate(fake_image, real_image)
        yield "discriminator", self._gradients("discriminator", self.model.discriminator_loss(translation))
        self.model.freeze_discriminators(True)
        yield "generator", self._gradients("generator", self.model.generator_loss(translation, positions))
        self.model.freeze_discriminators(False)

    def _gradients(self, side, terms):
        """Leave the gradients of `total` with one side's parameters; returns the terms as `train_step` does."""
        self.optimisers[side].zero_grad(set_to_none=True)
        self.processes.backward(terms["total"], parameters_of(self.optimisers[side]))
        total = {"loss_g" if side == "generator" else "loss_d": terms.pop("total").detach()}
        return total | {name: term.detach() for name, term in terms.items()}

    def state_dict(self):
        """Tensors and plain values from which `load_state_dict` goes on exactly."""
        return {
            "step": self.step,
            "usual": self._usual,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimisers": {side: optimiser.state_dict() for side, optimiser in self.optimisers.items()},
            "schedules": {side: schedule.state_dict() for side, schedule in self.schedules.items()},
        }

    def load_state_dict(self, state):
        """Undo `state_dict` on a trainer built with the same arguments."""
        self.step, self._usual = int(state["step"]), int(state.get("usual", 0))
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        for side in self.optimisers:
            load_optimiser(self.optimisers[side], state["optimisers"][side])
            load_scheduler(self.schedules[side], state["schedules"][side])
