"""One step of GAN training: discriminator, generator, moving average, and everything a checkpoint needs."""

import contextlib
import copy
import dataclasses

import torch

from models.batch_norm import share_statistics
from models.gan import Discriminator, Generator, from_image, to_image, update_average
from models.gan_losses import discriminator_loss, generator_loss, gradient_penalty, spectral_loss
from models.optimisers import load_optimiser
from utils.devices import sent

BETAS = (0.5, 0.999)


@dataclasses.dataclass(frozen=True)
class GanConfig:
    """Everything that decides the networks and their objective; each weight is applied once, in `GanTrainer`."""

    size: int = 64
    setup: str = "BASELINE"
    dim: int = 32
    latent_dim: int = 128
    adversarial: str = "gan"
    penalty: str = "none"
    penalty_sample: str = "line"
    penalty_weight: float = 10.0
    critic_steps: int = 1
    spectral_loss: float = 0.0
    ema: float = 0.0

    def generator(self):
        """A new `Generator`."""
        return Generator(self.size, self.setup, self.dim, self.latent_dim)

    def discriminator(self):
        """A new `Discriminator`; a gradient penalty needs one that does not mix the batch."""
        return Discriminator(self.size, self.dim, "batch" if self.penalty == "none" else "layer")


class GanTrainer:
    """Networks and optimisers of one GAN.

    Args:
        config: `GanConfig`.
        lr: Adam's rate of both networks.
        processes: `Processes` that share each batch; every one of them has a trainer on its device, and all stay alike.
    """

    def __init__(self, config, lr, processes):
        self.config, self.processes = config, processes
        self.generator = config.generator().to(processes.device)
        self.discriminator = config.discriminator().to(processes.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False) if config.ema else None
        self.generator_optimiser = torch.optim.Adam(self.generator.parameters(), lr, BETAS)
        self.discriminator_optimiser = torch.optim.Adam(self.discriminator.parameters(), lr, BETAS)
        self.steps = 0
        for network in (self.generator, self.discriminator):
            share_statistics(network, self.processes)

    @property
    def sampler(self):
        """The generator to draw from: the moving average where there is one."""
        return self.generator if self.average is None else self.average

    def latent(self, count):
        """(count, latent_dim) drawn from torch's CPU generator, so that every device sees the same."""
        latent = self.processes.draw(lambda whole: torch.randn(whole, self.config.latent_dim), count)
        return sent(latent, self.processes.device)

    def discriminator_step(self, real, fake):
        """Update the discriminator on images (N, 3, S, S) in [-1, 1]; the fakes' graph is not followed.

        Returns: dict of unweighted, detached scalars `discriminator` and, with a gradient penalty, `penalty`.
        """
        config = self.config
        loss = discriminator_loss(config.adversarial, self.discriminator(real), self.discriminator(fake.detach()))
        terms, total = {"discriminator": loss.detach()}, loss
        if config.penalty != "none":
            penalty = gradient_penalty(self.discriminator, real, fake, config.penalty, config.penalty_sample, self.processes)
            terms["penalty"] = penalty.detach()
            total = loss + config.penalty_weight * penalty
        self._descend(total, self.discriminator, self.discriminator_optimiser)
        return terms

    def _descend(self, total, network, optimiser):
        optimiser.zero_grad(set_to_none=True)
        self.processes.backward(total, network.parameters())
        optimiser.step()

    def update_generator(self, total):
        """Update the generator by the gradient of a loss, whose graph came about with a `fixed_discriminator`."""
        self._descend(total, self.generator, self.generator_optimiser)

    @contextlib.contextmanager
    def fixed_discriminator(self):
        """Context in which the discriminator judges, and no gradient of its weights is computed."""
        self.discriminator.requires_grad_(False)
        try:
            yield
        finally:
            self.discriminator.requires_grad_(True)

    def generator_step(self, real):
        """Update the generator against the current discriminator; `real` (N, 3, S, S) serves the spectral loss alone.

        Returns: dict of unweighted, detached scalars `generator` and, if it is on, `spectral`.
        """
        config = self.config
        fake = self.generator(self.latent(len(real)))
        with self.fixed_discriminator():
            loss = generator_loss(config.adversarial, self.discriminator(fake))
        terms, total = {"generator": loss.detach()}, loss
        if config.spectral_loss:
            spectral = spectral_loss(to_image(fake), to_image(real), self.processes)
            terms["spectral"] = spectral.detach()
            total = loss + config.spectral_loss * spectral
        self.update_generator(total)
        if self.average is not None:
            done = self.steps // config.critic_steps  # generator steps, this one included
            update_average(self.average, self.generator, min(config.ema, (1 + done) / (10 + done)))  # or the start would stay in it
        return terms

    def step(self, real_image, whole=None):
        """One discriminator step and, every `critic_steps`, one generator step.

        Args:
            real_image: (N, 3, S, S) in [0, 1].
            whole: images in the batch over all processes, of which this one's are given; None = all are here.
        Returns: dict of unweighted, detached scalars, means over the images given; the generator's only when it was updated.
        """
        self.processes.begin(whole or len(real_image))
        real = from_image(real_image)
        with torch.no_grad():
            fake = self.generator(self.latent(len(real)))
        terms = self.discriminator_step(real, fake)
        self.steps += 1
        if self.steps % self.config.critic_steps == 0:
            terms |= self.generator_step(real)
        return terms

    def state_dict(self):
        """Plain dictionary for a checkpoint."""
        return {
            "config": dataclasses.asdict(self.config),
            "generator": self.generator.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_optimiser": self.generator_optimiser.state_dict(),
            "discriminator_optimiser": self.discriminator_optimiser.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state):
        """Undo `state_dict`."""
        for name in ("generator", "discriminator"):
            getattr(self, name).load_state_dict(state[name])
            load_optimiser(getattr(self, f"{name}_optimiser"), state[f"{name}_optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.steps = int(state["steps"])


def restore_generator(state):
    """The generator to draw from out of `GanTrainer.state_dict`, in evaluation mode on the CPU."""
    generator = GanConfig(**state["config"]).generator()
    generator.load_state_dict(state["generator"] if state["average"] is None else state["average"])
    return generator.eval()
