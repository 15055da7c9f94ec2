"""gan.py study setups: several last layers under one budget, and what detectors trained on BASELINE make of the others."""

import contextlib
import dataclasses
import functools

import numpy as np
from torch.utils.data import Subset

from data.streams import files_of, open_photographs, open_stream
from gan_commands.common import BATCH, KIND, draw, images_of, load_run
from gan_commands.detection import SplitDetector, features_of, training_rows
from gan_commands.monitor import GanMonitor, choose_monitor
from gan_commands.options import GanTrainOptions
from gan_commands.train import train
from models.gan import SETUPS
from models.gan_losses import ADVERSARIAL
from utils.arguments import as_plain
from utils.decay import DECAY_NAMES
from utils.distributed import Processes, resolve_device
from utils.errors import UserError
from utils.files import read_json, write_json, write_text
from utils.measure import batches
from utils.resume import read_resumed
from utils.run_dir import OPTIONS, check_run_folder, open_run_folder, run_folder
from utils.seeding import seed_everything
from utils.tables import format_table, write_csv

PUBLISHED_FID = {  # CelebA, 128 px; columns gan, lsgan, wgan-gp (Chandrasegaran et al., CVPR 2021)
    "BASELINE": (88.60, 73.26, 60.60),
    "N.1.5": (87.52, 70.69, 48.69),
    "Z.1.5": (69.14, 60.29, 47.73),
    "B.1.5": (84.65, 78.66, 52.18),
    "N.1.7": (90.80, 73.09, 60.11),
    "Z.1.7": (71.45, 59.55, 43.10),
    "B.1.7": (79.92, 76.33, 55.28),
    "N.1.3": (93.54, 74.07, 58.35),
    "Z.1.3": (65.46, 61.45, 56.91),
    "B.1.3": (76.04, 81.97, 58.55),
    "N.3.5": (73.63, 78.31, 55.47),
    "Z.3.5": (68.41, 66.27, 57.59),
    "B.3.5": (80.89, 72.29, 54.84),
}


def setup_options(options, setup):
    """`GanTrainOptions` of results/<dst>/<setup>: those of the study, to continue what is begun."""
    dst = f"{options.dst}/{setup}"
    names = {field.name for field in dataclasses.fields(GanTrainOptions)}
    values = {name: value for name, value in vars(options).items() if name in names}
    begun = (run_folder(dst) / "checkpoint.pt").is_file()
    return GanTrainOptions(**values | {"setup": setup, "dst": dst, "resume": begun, "overwrite": not begun})


def is_study(folder):
    """Whether a folder is that of a study of set-ups, as far as it says so legibly."""
    with contextlib.suppress(UserError):
        return (folder / OPTIONS).is_file() and "setups" in read_json(folder / OPTIONS)
    return False


def check_begun(options):
    """UserError if what is to be continued is no study, or a set-up was begun with other options."""
    if not is_study(run_folder(options.dst)):
        raise UserError(f"{run_folder(options.dst)} is no gan.py study setups and cannot be resumed as one; choose another --dst")
    for setup in options.setups:
        own = setup_options(options, setup)
        if own.resume:
            read_resumed(run_folder(own.dst), KIND, own)


def train_setup(options, setup):
    """Train a set-up, or continue it; returns its run's name."""
    own = setup_options(options, setup)
    train(own, Processes(resolve_device(options.device)), study=options)
    return own.dst


def open_reals(options):
    """The reals of the comparison and which of them are used; UserError if they, or those to train on, are too few."""

    def reading(cache_gb):
        return options.fit, options.skip_bad, cache_gb, options.num_workers

    images = open_stream(options.data, options.size, options.batch_size, options.seed, *reading(options.cache_gb)).images
    if options.reference:
        images = open_photographs(options.reference, options.size, *reading(options.cache_gb - images.cached_gb))
    chosen = images_of(images, options.n, options.seed)
    if training_rows(len(chosen), options.train_fraction) >= len(chosen):  # of fakes there are as many or more
        where = options.reference or options.data
        raise UserError(f"{len(chosen)} images in {where} leave none to judge the detectors; give more, or change --train_fraction")
    return images, chosen


def detection_rates(real, fakes, options):
    """Detectors of BASELINE on every set-up.

    Args:
        real: (N, 3) decay features. fakes: dict set-up -> (M, 3).
    Returns: list of (detector, set-up or "real", rates of the repeats): share called fake, for "real" called real.
    """
    rows = []
    for classifier in options.detectors:
        repeats = []
        for repeat in range(options.repeats):
            detector = SplitDetector(classifier, real, fakes["BASELINE"], options.train_fraction, options.seed + repeat)
            rates = {"real": 1 - detector.called_fake(detector.unseen_real)}
            for setup, features in fakes.items():
                rates[setup] = detector.called_fake(detector.unseen_fake if setup == "BASELINE" else features)
            repeats.append(rates)
        rows += [(classifier, name, [rates[name] for rates in repeats]) for name in repeats[0]]
    return rows


def score_and_features(monitor, batches):
    """Distance of images to the monitor's photographs, and their decay features (N, 3); they are drawn once for both."""
    features = []

    def noted():
        for image in batches:
            features.append(features_of("svm", [image]))
            yield image

    score = monitor.distance(monitor.summary(noted()))
    return score, np.concatenate(features)


def setups(options):
    """Train every set-up, measure it, and write the table beside the published FIDs."""
    device = resolve_device(options.device)
    kind, weights = choose_monitor(options.monitor, options.inception_weights)
    options = dataclasses.replace(options, monitor=kind)
    inputs = [path for data in (options.data, options.reference) if data for path in files_of(data)]
    parts = SETUPS if is_study(run_folder(options.dst)) else ()
    check_run_folder(options.dst, options.overwrite, options.resume, inputs=inputs, parts=parts)
    if options.resume:
        check_begun(options)
    images, chosen = open_reals(options)
    folder = open_run_folder(options.dst, options.overwrite, options.resume, parts=parts, settings=as_plain(options))
    runs = {setup: train_setup(options, setup) for setup in options.setups}

    seed_everything(options.seed, options.deterministic)
    reals = functools.partial(batches, Subset(images, chosen), "photographs", "cpu", BATCH, options.num_workers)
    monitor = GanMonitor(kind, weights, reals(), options.n, options.seed, Processes(device))
    real = features_of("svm", reals())
    scores, fakes, epochs = {}, {}, {}
    for setup, dst in runs.items():
        run = load_run(dst)
        epochs[setup] = run["progress"]["epoch"]
        scores[setup], fakes[setup] = score_and_features(monitor, draw(run, options.n, options.seed, device))
    features = [(name, *row) for name, table in ({"real": real} | fakes).items() for row in table.tolist()]
    write_csv(folder / "decay.csv", ("source", *DECAY_NAMES), features)
    rates = detection_rates(real, fakes, options)
    header = ("detector", "source", "mean", *(f"run_{number}" for number in range(options.repeats)))
    write_csv(folder / "detection.csv", header, [(d, name, float(np.mean(values)), *values) for d, name, values in rates])
    table = {}
    for setup in runs:
        own = {detector: float(np.mean(values)) for detector, name, values in rates if name == setup}
        published = PUBLISHED_FID[setup][ADVERSARIAL.index(options.adversarial)]
        table[setup] = {"epochs": epochs[setup], "score": scores[setup], **own, "published": published}
    called_real = {detector: float(np.mean(values)) for detector, name, values in rates if name == "real"}
    table["real"] = {"score": monitor.floor(), **called_real}
    write_json(folder / "table.json", table)
    found = {detector: f"{detector} finds" for detector in options.detectors}
    text = format_table(
        table, {"epochs": "best epoch", "score": kind.upper(), **found, "published": "published FID (CelebA, 128 px)"}
    )
    write_text(folder / "table.md", f"{text}\n\n{legend(kind, options)}\n")
    print(f"{text}\n\n{legend(kind, options)}\nWritten to {folder / 'table.md'}")


def legend(kind, options):
    """What the columns of the table mean."""
    return (
        f"{kind.upper()}: distance of {options.n} fakes to the reals, lower is better; of the reals: two halves of them, "
        "the floor (of half as many images, so good fakes may lie below it). <detector> finds: share of a set-up's fakes "
        "that a detector on decay features calls fake, which was trained on reals and BASELINE's fakes; of the reals, the share it "
        "calls real. The published FID is of other photographs and another size: its order compares, its values do not."
    )
