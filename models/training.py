"""One training step of STIG and everything that must survive between two of them."""

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.checkpoint import load_optimiser, load_scheduler
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
    Attributes: step, the number of finished steps.
    """

    def __init__(self, model, lr, total_steps, ema, processes=None, lr_d=1.0):
        self.model, self.step, self.processes = model, 0, processes or Processes()
        sides = {
            "generator": [*model.generator.parameters(), *model.heads.parameters()],
            "discriminator": model.discriminator_parameters(),
        }
        self.optimisers = {side: torch.optim.Adam(p, lr * (lr_d if side == 'discriminator' else 1), betas=(0.5, 0.999), fused=True) for side, p in sides.items()}
        self.schedules = {
            side: torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, total_steps))
            for side, optimiser in self.optimisers.items()
        }
        average = get_ema_multi_avg_fn(ema)
        self.averaged = AveragedModel(model.generator, multi_avg_fn=average, use_buffers=True) if ema else None
        for compiled in ("encode", "decode") if ema else ():  # what STIG.compile_networks made is bound to the trained generator
            vars(self.averaged.module).pop(compiled, None)
        model.share_batches(self.processes)

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
        translation = self.model.translate(fake_image, real_image)
        d_terms = self.model.discriminator_loss(translation)
        self._descend("discriminator", d_terms["total"])
        self.model.freeze_discriminators(True)
        g_terms = self.model.generator_loss(translation)
        self._descend("generator", g_terms["total"])
        self.model.freeze_discriminators(False)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model.generator)
        self.step += 1
        terms = {"loss_g": g_terms.pop("total"), "loss_d": d_terms.pop("total"), **g_terms, **d_terms}
        return {name: term.detach() for name, term in terms.items()}

    def largest_weight(self):
        """Largest absolute value of a parameter, as a number; not finite if any is not, which a finite loss may leave behind."""
        return torch.stack([parameter.detach().abs().max() for parameter in self.model.parameters()]).max().item()

    def _descend(self, side, loss):
        self.optimisers[side].zero_grad(set_to_none=True)
        self.processes.backward(loss, [p for group in self.optimisers[side].param_groups for p in group["params"]])
        self.optimisers[side].step()
        self.schedules[side].step()

    def state_dict(self):
        """Tensors and plain values from which `load_state_dict` goes on exactly."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimisers": {side: optimiser.state_dict() for side, optimiser in self.optimisers.items()},
            "schedules": {side: schedule.state_dict() for side, schedule in self.schedules.items()},
        }

    def load_state_dict(self, state):
        """Undo `state_dict` on a trainer built with the same arguments."""
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        for side in self.optimisers:
            load_optimiser(self.optimisers[side], state["optimisers"][side])
            load_scheduler(self.schedules[side], state["schedules"][side])
