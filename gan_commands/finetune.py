"""gan.py finetune: change a generator's spectrum with the Fourier dissimilarity of pairs, an adversarial loss, or both."""

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.copies import file_sum
from gan_commands import figures
from gan_commands.common import DETECTOR, JUDGED, KIND, draw, load_run, run_checkpoint, weights_digest
from gan_commands.detection import SavedDetector, SplitDetector, features_of
from gan_commands.pairs import open_pairs, pairs_weights
from gan_commands.run import GanRun
from models.classical_detectors import CLASSICAL
from models.gan import from_image, to_image
from models.gan_losses import fourier_dissimilarity, generator_loss, high_frequencies, one_sided_magnitude
from models.gan_training import GanConfig, GanTrainer
from utils.ahead import read_ahead
from utils.arguments import as_plain
from utils.checkpoint import digest_of, fitting
from utils.devices import double_device, sent, to_double
from utils.distributed import Processes, resolve_device
from utils.errors import UserError, warn
from utils.files import file_hash
from utils.interrupts import StopRequest, exit_stopped
from utils.logging import ScalarLog
from utils.resume import read_resumed
from utils.run_dir import check_run_folder, open_run_folder, run_folder
from utils.seeding import seed_everything
from utils.tables import read_csv

SHOWN, FEWEST_PAIRS = 8, 10
LOG_EVERY = 20  # steps between two looks at their numbers, for which a GPU has to be waited for


def default_threshold(size):
    """20 at 256 px, and as much of the spectrum at other sizes."""
    return round(20 * size / 256)


def start_trainer(checkpoint, lr, processes):
    """`GanTrainer` with the networks of a trained run (its average where it has one) and fresh optimisers."""
    config = dataclasses.replace(GanConfig(**checkpoint["config"]), ema=0.0)
    trainer = GanTrainer(config, lr, processes)
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
        with trainer.fixed_discriminator():
            adversarial = generator_loss(trainer.config.adversarial, trainer.discriminator(fake))
        terms["adversarial"] = adversarial.detach()
        total = total + options.adv * adversarial
    trainer.update_generator(total)
    trainer.steps += 1
    return terms


class SampleJudge:
    """How many fresh samples of a generator, none of which gan.py sample writes, a detector calls fake.

    The detector is either fitted here, on half of the pairs' reals and as many fakes of the untouched generator, or one that
    detect.py saved. `real_right` is the share of reals (the other half, or those that detect.py did not train it on) that it calls
    real.

    Attributes: made_by, by which the detector is known again: its name, or the hash of its file.
    """

    def __init__(self, name, real, checkpoint, count, seed, device):
        self.count, self.seed, self.device = count, seed, device
        self.made_by = name if name in CLASSICAL else None

        def reals(indices):
            return (real[index][None].to(device) for index in indices[:count])

        if name in CLASSICAL:
            try:
                real_features = features_of(name, reals(range(len(real))))
            except ValueError as error:
                if isinstance(error, UserError):  # an image that cannot be read
                    raise
                raise UserError(f"--detector {name}: {error}; give another detector") from error
            fake_features = features_of(name, draw(checkpoint, len(real_features), seed, device, DETECTOR))
            fitted = SplitDetector(name, real_features, fake_features, 0.5, seed)
            self._called_fake = lambda batches: fitted.called_fake(features_of(name, batches))
            self.real_right = 1 - fitted.called_fake(fitted.unseen_real)
        elif Path(name).is_file():
            saved, self.made_by = SavedDetector(name, checkpoint["config"]["size"], device), file_hash(name)
            self._called_fake, unseen = saved.called_fake, saved.unseen(real.paths.names)
            if not unseen:
                warn(f"{name} was trained on all reals of the pairs (or others of their names): real_right is of those it knows")
            self.real_right = 1 - self._called_fake(reals(unseen or range(len(real))))
        else:
            raise UserError(f"--detector {name} is neither {', '.join(CLASSICAL)} nor a detector.pt of detect.py; give one of them")

    def __call__(self, checkpoint):
        """Share of the samples of a seed that are called fake."""
        return self._called_fake(draw(checkpoint, self.count, self.seed, self.device, JUDGED))


def open_inputs(options):
    """Checkpoint, pairs and threshold of the options; UserError where they do not fit each other."""
    checkpoint = load_run(options.generator, options.checkpoint)
    real, _, latents = open_pairs(options.pairs, options.num_workers)
    config = checkpoint["config"]
    if latents.shape[1] != config["latent_dim"] or real[0].shape[-1] != config["size"]:
        raise UserError(f"the pairs in {options.pairs} do not fit the generator {options.generator}; make them with gan.py invert")
    least = max(options.batch_size, FEWEST_PAIRS)
    if len(real) < least:
        raise UserError(
            f"{options.pairs} holds {len(real)} pairs, but --batch_size {options.batch_size} and a detector need {least}; invert "
            "more images (gan.py invert)"
        )
    if pairs_weights(options.pairs) not in (None, weights_digest(checkpoint)):
        raise UserError(
            f"the pairs in {options.pairs} are of other weights than the generator {options.generator} has; run gan.py invert again"
        )
    threshold = default_threshold(config["size"]) if options.threshold is None else options.threshold
    magnitude = one_sided_magnitude(real[0][None])
    try:
        high_frequencies(magnitude, threshold)
    except ValueError as error:
        raise UserError(f"--threshold: {error}") from error
    return checkpoint, real, latents, threshold


class FinetuneRun(GanRun):
    """One fine-tuning: passes over the pairs.

    Args:
        checkpoint: of the generator to start from. threshold: of the Fourier dissimilarity.
        pairs, reals, detector: by which latents, photographs and the detector are known again.
    Attributes: sums, of each term over the steps of the current epoch, {name: 0-d tensor}.
    """

    def __init__(self, options, checkpoint, threshold, pairs, reals, detector, device):
        super().__init__(options, start_trainer(checkpoint, options.lr, Processes(device)))
        self.threshold, self.sums = threshold, {}
        self.origin, self.pairs, self.reals, self.detector = weights_digest(checkpoint), pairs, reals, detector
        self._unlogged = []  # step and terms of what is not logged yet

    @property
    def finished(self):
        return self.epoch >= self.options.epochs

    def own_state(self):
        known_by = {name: getattr(self, name) for name in ("origin", "pairs", "reals", "detector")}
        return {"sums": self.sums, **known_by}

    def load_own_state(self, checkpoint):
        if checkpoint.get("origin", self.origin) != self.origin:
            raise UserError(
                f"the generator {self.options.generator} has other weights than when {self.options.dst} began; start again with "
                "--overwrite"
            )
        if any(checkpoint.get(name, own) != own for name, own in (("pairs", self.pairs), ("reals", self.reals))):
            raise UserError(
                f"the pairs in {self.options.pairs} are others than when {self.options.dst} began; start again with --overwrite"
            )
        if checkpoint.get("detector", self.detector) != self.detector:
            raise UserError(
                f"the detector {self.options.detector} is another than when {self.options.dst} began; put that back, or start again"
                " with --overwrite"
            )
        where = double_device(self.processes.device)
        self.sums = {name: torch.as_tensor(total, dtype=torch.float64, device=where) for name, total in checkpoint["sums"].items()}

    def train_epoch(self, real, latents, log, stop):
        """The rest of a pass over the pairs, in an order that depends on seed and epoch alone; False if the user asked to stop."""
        size = self.options.batch_size
        order = np.random.default_rng([self.options.seed, self.epoch]).permutation(len(real))
        batches = order[: len(real) // size * size].reshape(-1, size)
        bar = tqdm(total=len(batches), initial=self.batch, desc=f"epoch {self.epoch + 1}", unit="step", leave=False, delay=1)

        def read(chosen):
            return torch.stack([real[int(index)] for index in chosen]), latents[chosen]

        with bar:
            for parts in read_ahead(read, batches[self.batch :], self.options.num_workers):
                real_image, latent = (sent(part, self.processes.device) for part in parts)
                terms = finetune_step(self.trainer, real_image, latent, self.options, self.threshold)
                self.batch += 1
                self._count(terms)
                bar.update()
                stopping = stop.asked
                if stopping or self.batch % LOG_EVERY == 0 or self.batch == len(batches):
                    self._write_terms(log)
                if stopping:
                    return False
        return True

    def _count(self, terms):
        """Add the terms of a step to what is summed and logged; a GPU is not waited for."""
        self.sums = {name: self.sums.get(name, 0) + to_double(value) for name, value in terms.items()}
        self._unlogged.append((self.trainer.steps, terms))

    def _write_terms(self, log):
        """Check and log the terms of each step since the last call."""
        values = torch.stack([torch.stack([*terms.values()]) for _, terms in self._unlogged]).tolist()
        for (step, terms), row in zip(self._unlogged, values, strict=True):
            numbers = dict(zip(terms, row, strict=True))
            self.check_finite(numbers, step)
            log.write(step, numbers)
        self._unlogged = []

    def end_epoch(self, judge, log):
        """Judge, log and save at the end of an epoch."""
        self.check_networks()
        called_fake = judge(self.trainer.state_dict())
        means = {name: total.item() / self.batch for name, total in self.sums.items()}
        numbers = {"epoch": self.epoch + 1, **means, "called_fake": called_fake, "real_right": judge.real_right}
        log.write(self.trainer.steps, numbers, table="epochs")
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        self.save()
        shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        print(f"epoch {self.epoch}: {shown}, called fake {called_fake:.3f}")

    def draw_figures(self, checkpoint, untouched):
        """Loss curves, share called fake (`untouched` before), and samples of the first generator and of this one."""
        rows = read_numbers(self.folder / "log.csv")
        epochs = read_numbers(self.folder / "epochs.csv", self.epoch)
        rates = [untouched, *(row["called_fake"] for row in epochs)]
        steps = self.trainer.steps
        figures.loss_curves(rows, steps // self.epoch, self.folder / "losses.png", lost=steps - len(rows))
        figures.rate_curve(rates, self.options.detector, self.folder / "detection.png")
        states = checkpoint, self.trainer.state_dict()
        samples = [draw(state, SHOWN, self.options.seed, self.processes.device) for state in states]
        figures.samples_before_after(*(torch.cat(list(batches)) for batches in samples), self.folder / "samples.png")


def read_numbers(path, least=1):
    """Rows of a CSV file that `ScalarLog` wrote, without their step: list of {name: number}, exact for float32.

    Raises: UserError if it is not there or has fewer rows than `least`.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing, and with it the numbers so far; start again with --overwrite")
    rows = read_csv(path, lambda row: {name: float(np.float32(value)) for name, value in row.items() if name != "step"})
    if len(rows) < least:
        raise UserError(f"{path} has lost the numbers so far ({len(rows)} of at least {least} rows); start again with --overwrite")
    return rows


def finetune(options):
    """Fine-tune, judge every epoch, and draw the figures; or stop where the user asks to (then exit code 130)."""
    device = resolve_device(options.device)
    inputs = (run_checkpoint(options.generator, options.checkpoint), options.pairs, options.detector)
    check_run_folder(options.dst, options.overwrite, options.resume, inputs=inputs)
    checkpoint, real, latents, threshold = open_inputs(options)
    options = dataclasses.replace(options, threshold=threshold)
    resumed = read_resumed(run_folder(options.dst), KIND, options) if options.resume else None
    seed_everything(options.seed, options.deterministic)
    judge = SampleJudge(options.detector, real, checkpoint, options.n, options.seed, device)
    untouched = judge(checkpoint)
    print(f"{options.detector} calls {untouched:.3f} of the untouched samples fake and {judge.real_right:.3f} of the reals real")
    with fitting(run_checkpoint(options.generator, options.checkpoint)):
        known_by = digest_of({"latents": latents}), file_sum(real.paths), judge.made_by
        run = FinetuneRun(options, checkpoint, threshold, *known_by, device)
    if resumed:
        with fitting(run.folder / "checkpoint.pt"):
            run.load(resumed)
    folder = open_run_folder(options.dst, options.overwrite, options.resume, inputs=inputs, settings=as_plain(options))
    with ScalarLog(folder, run.trainer.steps if resumed else None, run.epoch) as log, StopRequest() as stop:
        while not run.finished:
            if not run.train_epoch(real, latents, log, stop):
                run.save()
                break
            run.end_epoch(judge, log)
    if not run.finished:
        exit_stopped(run.trainer.steps, options.overwrite, run.processes)
    run.draw_figures(checkpoint, untouched)
    print(
        f"done; epochs.csv, losses.png, detection.png and samples.png: {folder}; draw images with "
        f"gan.py sample --dst {shlex.quote(options.dst)} --out DIR"
    )
