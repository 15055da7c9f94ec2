"""Train STIG on datasets/<data>/{real,fake}; everything it writes goes to results/<dst>."""

import contextlib
import functools
import os
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from data.pairs import PairLoader, save_holdout, scene_keys
from data.training import inputs_of, training_sets
from models.recording import NotRecorded
from models.refiners import settings_of
from models.stig import STIG
from models.training import Trainer
from options import PRESETS, parse_train
from utils.arguments import as_arguments, as_plain
from utils.checkpoint import check_state, fitting, save_checkpoint
from utils.errors import UserError, Warnings, check_finite, out_of_memory, script
from utils.filter_fitting import fitted_filters, fitting_batches, fitting_indices
from utils.filters import FILTERS, check_filter, to_device
from utils.interrupts import StopRequest, exit_stopped, leaving
from utils.launch import run_processes
from utils.logging import open_log
from utils.monitor import Monitor
from utils.report import evaluate_refiner, run_section, write_report
from utils.resume import WayOn, read_resumed
from utils.run_dir import RESULTS, check_run_folder, open_run_folder, run_folder
from utils.seeding import random_state, seed_everything, set_random_state
from utils.whitening import fit_whitening


def fit_spectra(sets, options, device):
    """What is fitted before training, kept on the CPU: the filters (dict over FILTERS), and the whitening or None."""
    real, fake = ((sets[f"train_{side}"], f"spectra of {side}") for side in ("real", "fake"))
    filters = fitted_filters(FILTERS, real, fake, device, options.num_workers, options.period)
    if 2 * len(fitting_indices(sets["train_fake"])) < len(sets["train_fake"]):
        filters["polyphase"].pop("unseen")  # most fakes that are trained on are unseen as they are
    return filters, fit_whitening(fitting_batches(*real, device, options.num_workers)).cpu() if options.whiten else None


def check_compiler(device):
    """UserError if torch cannot compile for a device: it needs a C++ compiler, and Triton for a GPU."""
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler's own errors are called in this torch
        if out_of_memory(error):
            raise
        raise UserError(f"--compile: torch finds no compiler that works here ({_reason(error)}); leave the option out") from error


def _reason(error):
    """First line of an error that says something."""
    return next(line for line in [*str(error).splitlines(), type(error).__name__] if line.strip())


@contextlib.contextmanager
def compiling():
    """Context in which parts of a step may be compiled: UserError if that fails, as after a compilation that was killed."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")) or out_of_memory(error):
            raise
        kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR", Path(tempfile.gettempdir(), "torchinductor_*"))
        advice = f"delete {kept}, where torch keeps what it has compiled, or leave the option out"
        raise UserError(f"--compile: torch could not compile a part of the step ({_reason(error)}); {advice}") from error


def when_not_finite(run):
    """What to do about a training that came to something that is no number."""
    kept = f"{run / 'checkpoint.pt'} keeps the last good state if one was saved"
    return f"{kept}: try a lower --lr, or undo what was changed from the defaults (weights, --tau, --preset, --amp)"


def save_run(run, trainer, filters, options):
    """Write checkpoint.pt, with all that refining and --resume need; UserError, and nothing written, if a number is not finite."""
    state = trainer.state_dict()
    check_state(state, trainer.step, when_not_finite(run))
    content = {"settings": settings_of(vars(options)), "filters": filters, "options": as_plain(options), "random": random_state()}
    save_checkpoint(run / "checkpoint.pt", "stig", state | content)


def train(trainer, loader, options, run, filters, log, monitor):
    """The training loop; returns True when all steps are done, False when the user asked to stop.

    All processes go through the same steps; the main one alone writes to `run` and `log`.
    """
    total, processes = options.epoch * loader.steps_per_epoch, trainer.processes
    bar = tqdm(total=total, initial=trainer.step, desc="training", unit="step", dynamic_ncols=True)
    images, since = 0, time.perf_counter()
    with StopRequest(patient=processes.world > 1) as stop, bar:
        while trainer.step < total:
            epoch, start = divmod(trainer.step, loader.steps_per_epoch)
            for real_image, fake_image in loader.batches(epoch, start):
                pair = (image.to(monitor.device, non_blocking=True) for image in (fake_image, real_image))
                whole, lr = loader.whole(trainer.step % loader.steps_per_epoch), trainer.lr
                with compiling():
                    terms = trainer.train_step(*pair, whole)
                step, last = trainer.step, trainer.step == total
                images += whole
                bar.update()
                stopping = processes.any(stop.asked)
                saving = step % options.save_frequency == 0 or last or stopping
                logging = saving or step % options.log_frequency == 0 or step % options.sample_frequency == 0
                if logging:
                    numbers = processes.numbers(terms)
                    check_finite(numbers, step, when_not_finite(run))
                    rate = images / (time.perf_counter() - since)
                    if processes.main:
                        log.write(step, {"epoch": epoch + 1, **numbers, "lr": lr, "images_per_s": rate})
                    bar.set_postfix({name: f"{numbers[name]:.3f}" for name in ("loss_g", "loss_d", "nce_fake", "g_patch")})
                if processes.main and saving:  # before anything is drawn
                    save_run(run, trainer, filters, options)
                if processes.main and (step % options.sample_frequency == 0 or last):
                    monitor.show(step, log)
                if logging:  # neither pictures nor checkpoints count
                    images, since = 0, time.perf_counter()
                if stopping:
                    return False
        return not processes.any(stop.asked)  # the last step's pictures and checkpoint take their time


def command_of(options):
    """The command that makes a run with these options, as a list of words."""
    place = {"overwrite": options.overwrite, "resume": options.resume}  # these say what was there before
    return ["python", "train.py", *as_arguments(options, PRESETS[options.preset] | place)]


def read_run(options):
    """What the main process reads first: warnings, the checkpoint to resume or None, and what `training_sets` returns."""
    run = check_run_folder(options.dst, options.overwrite, options.resume, inputs=inputs_of(options))
    resumed = read_resumed(run, "stig", options) if options.resume else None
    warnings = Warnings()
    sets = training_sets(options, run / "images.json" if resumed else None, warnings)
    if options.lambda_lf and 2 * options.sigma >= options.size:
        warnings(
            f"--sigma {options.sigma} makes all of a spectrum of {options.size} px low frequencies, which are to stay: give less"
        )
    fakes = len(sets[0]["train_fake"])
    if options.batch_size > fakes:
        warnings(f"--batch_size {options.batch_size} is more than the {fakes} fakes; every step takes all of them")
    return list(warnings), resumed, *sets


def open_run(options, split):
    """Make the run's folder, with the options and the split in it; a run that goes on keeps what tells the images it began with."""
    run = open_run_folder(options.dst, options.overwrite, options.resume, settings=as_plain(options))
    if not options.resume:
        save_holdout(run / "images.json", split, options.holdout, options.seed)


def fitted_parts(options, sets, resumed, processes):
    """Filters and whitening of a run: those of the checkpoint that is resumed, or fitted now."""
    if not resumed:
        return processes.once(lambda: fit_spectra(sets, options, processes.device))
    with fitting(run_folder(options.dst) / "checkpoint.pt"):
        filters = {kind: check_filter(resumed["filters"][kind], options.size) for kind in FILTERS}
        return filters, resumed["model"].get("whitening")


def make_trainer(options, filters, whitening, steps, resumed, processes):
    """The `Trainer` of a run of so many steps, in the state of the checkpoint that is resumed or at its beginning."""
    model = STIG.from_settings(settings_of(vars(options)), filters.get(options.base), whitening, options.amp).to(processes.device)
    if options.compile:
        model.generator.compile_parts()
    record = options.cuda_graphs and not options.deterministic
    trainer = Trainer(model, options.lr, steps, options.ema, processes, record)
    if resumed:
        with fitting(run_folder(options.dst) / "checkpoint.pt"):
            trainer.load_state_dict(resumed)
            set_random_state(resumed["random"])
    return trainer


def evaluate(options, refine, filters, sets, source, warnings, examples, device):
    """Refine and measure the test images, write the report and say where it is."""
    run, shown = run_folder(options.dst), {kind: to_device(filters[kind], device) for kind in FILTERS}
    real, fake = sets["test_real"], sets["test_fake"]
    keys = scene_keys(real.paths, fake.paths)
    rows = evaluate_refiner(refine, shown, real, fake, keys, run / "eval", device, options.num_workers)
    section = run_section(command_of(options), sets, warnings)
    title, in_sample = f"{options.dst}: evaluated on {source}", sets["test_fake"] is sets["train_fake"]
    print(write_report(run, rows, title, examples(), section, options.base, in_sample))
    print(f"report: {run / 'report.md'}; pictures: {run / 'eval'}")


def run_training(options, processes):
    """Train, evaluate and report, together with the other processes; nothing is written or deleted before all is ready."""
    device, run = processes.device, run_folder(options.dst)
    if options.batch_size < processes.world:
        raise UserError(f"--batch_size {options.batch_size} is less than one pair for each of the {processes.world} processes")
    warnings, resumed, sets, source, split = processes.once(lambda: read_run(options))
    print(f"training on {device}, {len(sets['train_fake'])} fakes and {len(sets['train_real'])} reals; results in {run}")
    if options.compile:
        check_compiler(device)
    seed_everything(options.seed, options.deterministic)
    filters, whitening = fitted_parts(options, sets, resumed, processes)
    part, pin = (processes.rank, processes.world), device.type == "cuda"
    loader = PairLoader(sets["train_real"], sets["train_fake"], options.batch_size, options.seed, options.num_workers, part, pin)
    trainer = make_trainer(options, filters, whitening, options.epoch * loader.steps_per_epoch, resumed, processes)
    model = trainer.model
    processes.once(lambda: open_run(options, split))

    def refine(image, is_real=False):
        return model.refine(image, trainer.refiner, is_real=is_real)

    identify = functools.partial(refine, is_real=True)
    monitor = Monitor(refine, identify, sets["test_real"], sets["test_fake"], run / "sample", device)
    try:
        with open_log(run, trainer.step if resumed else None, processes) as log:
            finished = train(trainer, loader, options, run, filters, log, monitor)
    except NotRecorded as error:
        raise UserError(f"{error}; give --cuda_graphs False") from error
    if not finished:
        exit_stopped(trainer.step, options.overwrite, processes)
    processes.send_no_more_tensors()
    if processes.main:
        model.amp = False  # as inference.py refines
        evaluate(options, refine, filters, sets, source, warnings, monitor.examples, device)


@script(several=True)
def main(argv=None):
    options = parse_train(argv)
    run = RESULTS / options.dst
    with leaving(run, WayOn(run, options.overwrite)):
        run_processes(run_training, options, __file__, argv)


if __name__ == "__main__":
    main()
