"""gan.py train: a GAN of one family and set-up on photographs."""

import dataclasses
import shlex

from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchvision.utils import make_grid
from tqdm import tqdm

from data.copies import file_sum
from data.streams import files_of, open_stream
from gan_commands.common import GRID, KIND
from gan_commands.monitor import GanMonitor, choose_monitor
from gan_commands.run import GanRun
from models.gan import generate, seeded_latents
from models.gan_training import GanConfig, GanTrainer
from models.optimisers import load_scheduler
from utils.arguments import as_plain
from utils.checkpoint import fitting
from utils.devices import sent
from utils.errors import UserError
from utils.interrupts import StopRequest, exit_stopped
from utils.logging import open_log
from utils.pictures import to_uint8, write_png
from utils.resume import read_resumed
from utils.run_dir import check_run_folder, open_run_folder, run_folder
from utils.seeding import seed_everything

LOWEST_RATE = 1e-6
GRID_IMAGES = 64


def config_of(options):
    """The `GanConfig` in the options."""
    return GanConfig(**{field.name: getattr(options, field.name) for field in dataclasses.fields(GanConfig)})


class Run(GanRun):
    """One training run: the trainer, its schedule and everything that makes it resumable.

    All processes go through the same steps; the main one alone writes, and has a log.

    Args:
        images: {"count", "bytes" (`file_sum`)} of what is trained on, by which it is known again.
    Attributes: best, the best score so far; stale, epochs since.
    """

    PROGRESS = GanRun.PROGRESS | {"best": float, "stale": int}

    def __init__(self, options, images, processes):
        super().__init__(options, GanTrainer(config_of(options), options.lr, processes))
        self.images = images
        # one factor per plateau, such that a rate that falls in every epoch ends at LOWEST_RATE (published)
        factor = min((LOWEST_RATE / options.lr) ** (1 / options.epochs), 0.999)
        self.schedulers = [
            ReduceLROnPlateau(optimiser, factor=factor, patience=1, threshold=0)
            for optimiser in (self.trainer.generator_optimiser, self.trainer.discriminator_optimiser)
        ]
        self.best, self.stale = float("inf"), 0

    @property
    def log_every(self):
        """Steps from one row of log.csv to the next; the generator is updated in these, too."""
        return self.options.log_frequency * self.options.critic_steps

    @property
    def finished(self):
        return self.epoch >= self.options.epochs or self.stale >= self.options.patience

    def own_state(self):
        return {"schedulers": [scheduler.state_dict() for scheduler in self.schedulers], "images": self.images}

    def load_own_state(self, checkpoint):
        if checkpoint.get("images", self.images) != self.images:
            raise UserError(
                f"the images in {self.options.data} ({self.images['count']} now) are others than when {self.options.dst} began; put"
                " those back, or start again with --overwrite"
            )
        for scheduler, state in zip(self.schedulers, checkpoint["schedulers"], strict=True):
            load_scheduler(scheduler, state)

    def train_epoch(self, stream, log, stop):
        """The rest of the current epoch; False if the user asked to stop before its end."""
        bar = tqdm(
            total=stream.steps_per_epoch, initial=self.batch, desc=f"epoch {self.epoch + 1}", unit="step", leave=False, delay=1
        )
        part = (self.processes.rank, self.processes.world)
        with bar:
            for real_image in stream.batches(self.epoch, self.batch, part):
                terms = self.trainer.step(sent(real_image, self.processes.device), stream.batch_size)
                self.batch += 1
                bar.update()
                left = (self.options.epochs - self.epoch) * stream.steps_per_epoch - self.batch
                last = left < self.options.critic_steps  # generator steps end with this one, or did
                if self.trainer.steps % (self.options.critic_steps if last else self.log_every) == 0:
                    self._write_terms(terms, log, bar)
                if self.processes.any(stop.asked):
                    return False
        return True

    def _write_terms(self, terms, log, bar):
        numbers = self.processes.numbers(terms)
        self.check_finite(numbers)
        if self.processes.main:
            log.write(self.trainer.steps, {"epoch": self.epoch + 1, **numbers})
        bar.set_postfix({name: f"{value:.3f}" for name, value in numbers.items()}, refresh=False)

    def end_epoch(self, monitor, log):
        """Score, rate decay, pictures and checkpoints at the end of an epoch."""
        self.check_networks()
        score = monitor.score(self.trainer.sampler)
        self.check_finite({monitor.kind: score})
        rate = self.trainer.generator_optimiser.param_groups[0]["lr"]
        if self.processes.main:
            log.write(self.trainer.steps, {"epoch": self.epoch + 1, monitor.kind: score, "lr": rate}, table="epochs")
            self._write_grid(log)
        for scheduler in self.schedulers:
            scheduler.step(score)
        improved = score < self.best
        self.best, self.stale = (score, 0) if improved else (self.best, self.stale + 1)
        self.epoch, self.batch = self.epoch + 1, 0
        for name in ("best.pt", "checkpoint.pt") if improved else ("checkpoint.pt",):
            self.save(name)
        print(f"epoch {self.epoch}: {monitor.kind} {score:.4g}{' (best so far)' if improved else ''}, lr {rate:.3g}")

    def _write_grid(self, log):
        latent = seeded_latents(range(GRID_IMAGES), self.options.latent_dim, self.options.seed, GRID)
        picture = to_uint8(make_grid(generate(self.trainer.sampler, latent), nrow=8))
        write_png(self.folder / "sample" / f"epoch_{self.epoch + 1:04d}.png", picture)
        log.add_image("samples", picture, self.trainer.steps)


def read_run(options):
    """What the main process reads before a training; everything is checked, and nothing written.

    Returns: the options with their monitor, the path of its weights, the checkpoint to resume or None, the stream of images, and by
        what these are known again.
    """
    folder = check_run_folder(options.dst, options.overwrite, options.resume, inputs=files_of(options.data))
    kind, weights = choose_monitor(options.monitor, options.inception_weights)
    options = dataclasses.replace(options, monitor=kind)
    resumed = read_resumed(folder, KIND, options) if options.resume else None
    reading = (options.fit, options.skip_bad, options.cache_gb, options.num_workers)
    stream = open_stream(options.data, options.size, options.batch_size, options.seed, *reading)
    total = options.epochs * stream.steps_per_epoch
    if total < options.critic_steps:
        raise UserError(f"--critic_steps {options.critic_steps}: in {total} steps the generator would never be trained; give less")
    images = stream.images.paths
    return options, weights, resumed, stream, {"count": len(images), "bytes": file_sum(images)}


def told_floor(kind, floor):
    """The floor of a monitor in words."""
    return (
        "too few photographs, or too low a --monitor_samples, for a floor"
        if floor is None
        else f"two halves of the photographs: {kind} {floor:.4g}"
    )


def open_run(options):
    """Make the run's folder, with the options in it."""
    open_run_folder(options.dst, options.overwrite, options.resume, settings=as_plain(options))


def train(options, processes, study=None):
    """Train until the epochs are done, the score stops falling, or the user asks to stop (then exit code 130).

    Args:
        options: `GanTrainOptions`.
        processes: `Processes` that share each batch.
        study: options of the command that this training is a part of, if any.
    Raises: UserError for whatever is missing or does not fit, or a batch of fewer images than processes.
    """
    if options.batch_size < processes.world:
        raise UserError(f"--batch_size {options.batch_size} is less than one image for each of the {processes.world} processes")
    options, weights, resumed, stream, images = processes.once(lambda: read_run(options))
    folder, device, kind = run_folder(options.dst), processes.device, options.monitor
    print(f"training {options.adversarial} {options.setup} at {options.size} px on {device}; results in {folder}")

    seed_everything(options.seed, options.deterministic)
    run = Run(options, images, processes)
    if resumed:
        with fitting(folder / "checkpoint.pt"):
            run.load(resumed)
    monitor = None  # of a finished run nothing is scored
    if not run.finished:
        monitor = GanMonitor(kind, weights, stream.once(), options.monitor_samples, options.seed, processes)
        print(f"{kind}, lower is better; {told_floor(kind, processes.once(monitor.floor))}")
    processes.once(lambda: open_run(options))
    resume_step = run.trainer.steps if resumed else None
    with open_log(folder, resume_step, processes, run.epoch, run.log_every) as log, StopRequest(processes.world > 1) as stop:
        while not run.finished:
            if not run.train_epoch(stream, log, stop):
                run.save()
                break
            run.end_epoch(monitor, log)
    if not run.finished:
        exit_stopped(run.trainer.steps, (study or options).overwrite, processes)
    early = f" of {options.epochs}: {run.stale} in a row were no better (--patience)" if run.epoch < options.epochs else ""
    print(
        f"done after {run.epoch} epoch{'s' * (run.epoch > 1)}{early}; best {kind} {run.best:.4g} in epoch {run.epoch - run.stale}; "
        f"draw images with gan.py sample --dst {shlex.quote(options.dst)} --out DIR"
    )
    if processes.any(stop.asked):  # while the last epoch was scored; a study would begin its next training
        raise KeyboardInterrupt
