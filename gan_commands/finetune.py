"""gan.py finetune: repair a generator's spectrum with the Fourier dissimilarity of pairs, an adversarial loss, or both."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gan_commands import figures
from gan_commands.common import DETECTOR, KIND, default_threshold, draw, load_run
from gan_commands.detection import SavedDetector, SplitDetector, features_of
from gan_commands.pairs import open_pairs
from models.classical_detectors import CLASSICAL
from models.gan import from_image, to_image
from models.gan_losses import fourier_dissimilarity, generator_loss, high_frequencies, one_sided_magnitude
from models.gan_training import GanConfig, GanTrainer
from options import as_plain
from utils.checkpoint import save_checkpoint
from utils.distributed import resolve_device
from utils.errors import UserError
from utils.logging import ScalarLog
from utils.run_dir import open_run_folder, run_folder, write_json
from utils.seeding import seed_everything

SHOWN = 8


def start_trainer(checkpoint, lr, device):
    """`GanTrainer` with the networks of a trained run (its average where it has one) and fresh optimisers."""
    config = dataclasses.replace(GanConfig(**checkpoint["config"]), ema=0.0)
    trainer = GanTrainer(config, lr, device)
    trainer.generator.load_state_dict(checkpoint["average"] or checkpoint["generator"])
    trainer.discriminator.load_state_dict(checkpoint["discriminator"])
    # the running BatchNorm statistics stay: with them the latents were found, and with them images are drawn
    trainer.generator.eval()
    return trainer


def finetune_step(trainer, real_image, latent, options, threshold):
    """One step on a batch of pairs; each weight of the objective is applied here and nowhere else.

    Args:
        real_image: (N, 3, S, S) in [0, 1]. latent: (N, latent_dim), that of each real.
    Returns: dict of unweighted, detached scalars: `dissimilarity` and, with the adversarial term, `adversarial`.
    """
    fake = trainer.generator(latent)
    dissimilarity = fourier_dissimilarity(to_image(fake), real_image, options.metric, threshold)
    terms, total = {"dissimilarity": dissimilarity.detach()}, options.lambda_fourier * dissimilarity
    if options.adv:
        trainer.discriminator_step(from_image(real_image), fake)
        adversarial = generator_loss(trainer.config.adversarial, trainer.discriminator(fake))
        terms["adversarial"] = adversarial.detach()
        total = total + options.adv * adversarial
    trainer.generator_optimiser.zero_grad(set_to_none=True)
    total.backward()
    trainer.generator_optimiser.step()
    trainer.steps += 1
    return terms


class Judge:
    """How many fresh samples of a generator a detector calls fake.

    The detector is either fitted here, on half of the pairs' reals and as many fakes of the untouched generator, or one that
    detect.py saved. `real_right` is the share of reals (the other half, or all) that it calls real.
    """

    def __init__(self, name, real, checkpoint, count, seed, device):
        self.count, self.seed, self.device = count, seed, device

        def reals():
            return (real[index][None].to(device) for index in range(min(count, len(real))))

        if name in CLASSICAL:
            real_features = features_of(name, reals())
            fake_features = features_of(name, draw(checkpoint, len(real_features), seed, device, DETECTOR))
            fitted = SplitDetector(name, real_features, fake_features, 0.5, seed)
            self._called_fake = lambda batches: fitted.called_fake(features_of(name, batches))
            self.real_right = 1 - fitted.called_fake(fitted.unseen_real)
        elif Path(name).is_file():
            self._called_fake = SavedDetector(name, checkpoint["config"]["size"], device).called_fake
            self.real_right = 1 - self._called_fake(reals())
        else:
            raise UserError(f"--detector {name} is neither {', '.join(CLASSICAL)} nor a detector.pt of detect.py; give one of them")

    def __call__(self, checkpoint):
        """Share of the samples of a seed that are called fake."""
        return self._called_fake(draw(checkpoint, self.count, self.seed, self.device))


def open_inputs(options):
    """Checkpoint, pairs and threshold of the options; UserError where they do not fit each other."""
    checkpoint = load_run(options.generator, options.checkpoint)
    real, _, latents = open_pairs(options.pairs)
    config = checkpoint["config"]
    if latents.shape[1] != config["latent_dim"] or real[0].shape[-1] != config["size"]:
        raise UserError(f"the pairs in {options.pairs} do not fit the generator {options.generator}; make them with gan.py invert")
    if len(real) < max(options.batch_size, 10):
        raise UserError(f"{options.pairs} holds {len(real)} pairs, too few for batches of {options.batch_size} and a detector")
    threshold = default_threshold(config["size"]) if options.threshold is None else options.threshold
    try:
        high_frequencies(one_sided_magnitude(real[0][None]), threshold)
    except ValueError as error:
        raise UserError(f"--threshold: {error}") from error
    return checkpoint, real, latents, threshold


def finetune(options):
    """Fine-tune, judge every epoch, and draw the figures."""
    device = resolve_device(options.device)
    checkpoint, real, latents, threshold = open_inputs(options)
    judge = Judge(options.detector, real, checkpoint, options.n, options.seed, device)
    folder = open_run_folder(options.dst, options.overwrite, inputs=(run_folder(options.generator), options.pairs))
    write_json(folder / "options.json", as_plain(dataclasses.replace(options, threshold=threshold)))
    seed_everything(options.seed, options.deterministic)
    trainer = start_trainer(checkpoint, options.lr, device)
    before = torch.cat(list(draw(checkpoint, SHOWN, options.seed, device)))
    log, steps, rates = ScalarLog(folder), [], [judge(checkpoint)]
    print(f"{options.detector} calls {rates[0]:.3f} of the untouched samples fake and {judge.real_right:.3f} of the reals real")
    for epoch in range(options.epochs):
        terms = run_epoch(trainer, real, latents, options, threshold, epoch, device)
        for step, row in enumerate(terms, start=len(steps) + 1):
            log.write(step, row)
        steps += terms
        rates.append(judge(trainer.state()))
        means = {name: float(np.mean([row[name] for row in terms])) for name in terms[0]}
        log.write(len(steps), {"epoch": epoch, **means, "called_fake": rates[-1], "real_right": judge.real_right}, table="epochs")
        save_checkpoint(folder / "checkpoint.pt", KIND, trainer.state())
        shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        print(f"epoch {epoch + 1}: {shown}, called fake {rates[-1]:.3f}")
    log.close()
    figures.loss_curves(steps, len(steps) // options.epochs, folder / "losses.png")
    figures.rate_curve(rates, options.detector, folder / "detection.png")
    after = torch.cat(list(draw(trainer.state(), SHOWN, options.seed, device)))
    figures.before_after(before, after, folder / "samples.png")


def run_epoch(trainer, real, latents, options, threshold, epoch, device):
    """One pass over the pairs in an order that depends on seed and epoch alone; returns a row of numbers per step."""
    order = np.random.default_rng([options.seed, epoch]).permutation(len(real))
    rows = []
    starts = range(0, len(real) - options.batch_size + 1, options.batch_size)
    for start in tqdm(starts, desc=f"epoch {epoch + 1}", unit="step", leave=False, delay=1):
        chosen = order[start : start + options.batch_size]
        real_image = torch.stack([real[int(index)] for index in chosen]).to(device)
        terms = finetune_step(trainer, real_image, latents[chosen].to(device), options, threshold)
        rows.append({name: value.item() for name, value in terms.items()})
    return rows
