"""gan.py study spectrum: runs and folders of images side by side in the Fourier domain."""

import argparse
import functools
from pathlib import Path

import numpy as np
from torch.utils.data import Subset

from data.folder import load_folder, require_one_size
from data.shards import expand_pattern, is_shards
from gan_commands import figures
from gan_commands.common import BATCH, draw, images_of, load_run
from utils.arguments import as_plain, run_name
from utils.decay import DECAY_NAMES, SMALLEST_SIDE, decay_features
from utils.distributed import resolve_device
from utils.errors import UserError
from utils.measure import batches
from utils.metrics import TITLES, SpectrumFolds, spectral_distances
from utils.plots import spectra_figure
from utils.run_dir import check_run_folder, open_run_folder, run_folder
from utils.seeding import seed_everything
from utils.tables import format_table, write_csv

DECAY_TITLES = ("decay exponent", "reduced spectrum where the fit begins", "reduced spectrum at its end")
LEGEND = (
    "LFD and gaps: lower is better, and higher the fewer images there are: with half as many on both sides LFD comes out about 0.7 "
    "higher and gaps 1.4 times, though nothing else changed. The reals' row compares two halves of them, of so many images each."
)
COLUMNS = {
    "images": "images",
    "lfd": TITLES["lfd"],
    "gap_upper": TITLES["gap_upper"],
    "exponent_mean": "decay exponent",
    "exponent_std": "its std",
}


def read_folder(folder, options, at_least=1):
    """Side S of a folder's images, and a function giving batches (N, 3, S, S) of at most --n of them.

    Raises: UserError if they are of several sizes or kinds, or too few.
    """
    reading = (options.size, options.fit, options.skip_bad)
    images, infos = load_folder(folder, *reading, num_workers=options.num_workers, recursive=True)
    if options.size is None:
        require_one_size(infos, square=True)
        if infos[0].width < SMALLEST_SIDE:
            least = f"{SMALLEST_SIDE} px or more"
            raise UserError(f"{folder} holds images of {infos[0].width} px; decay features need {least}: give others")
    if len(images) < at_least:
        raise UserError(f"{folder} holds one image; its two halves are compared, so at least {at_least} are needed: add some")
    chosen = Subset(images, images_of(images, options.n, options.seed))
    return options.size or infos[0].width, functools.partial(batches, chosen, folder.name, "cpu", BATCH, options.num_workers)


def _is_images(name):
    """Whether --inputs names a folder of images, or tar shards, and not a run."""
    return is_shards(name) or (Path(name).is_dir() and not (Path(name) / "checkpoint.pt").is_file())


def _files_of(name):
    """What lies where images are: shards, or their folder."""
    return expand_pattern(name) if is_shards(name) else [name]


def label_of(text):
    """`LABEL=NAME` or `NAME` -> (label, name); UserError if there is no name."""
    label, separator, name = text.partition("=")
    if text and Path(text).is_dir():  # which may have such a sign in its name
        return Path(text).name, text
    if not text or (separator and not (label and name)):
        raise UserError(f"--inputs {text!r} names nothing; give a run, a folder or shards, or LABEL= and one of them")
    return (label, name) if separator else (text, text)


def _run_of(name):
    """Folder of the run that one of --inputs names; UserError if it cannot be a run's name."""
    try:
        return run_folder(run_name(name))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--inputs {name}: {error}") from error


def sources(options, device):
    """dict label -> function giving batches of images of one size: "real" and every input, all checked before any is measured."""
    found = {"real": read_folder(Path(options.real), options, at_least=2)}
    for text in options.inputs:
        label, name = label_of(text)
        if label in found:
            raise UserError(f"--inputs: two inputs are called {label}; name them as LABEL=NAME")
        if _is_images(name):
            found[label] = read_folder(Path(name), options)
        elif _run_of(name).is_dir():
            checkpoint = load_run(run_name(name))
            found[label] = checkpoint["config"]["size"], functools.partial(draw, checkpoint, options.n, options.seed, device)
        else:
            raise UserError(f"--inputs {name} is neither a folder nor a run in results/; check the name")
    if len({size for size, _ in found.values()}) > 1:
        sizes = ", ".join(f"{label} {size} px" for label, (size, _) in found.items())
        raise UserError(f"the images have several sizes ({sizes}); give --size and --fit crop, or other inputs")
    return {label: read for label, (_, read) in found.items()}


def spectrum(options):
    """Measure every source once; write summary.csv, profiles.csv, decay.csv and the figures."""
    device = resolve_device(options.device)
    seed_everything(options.seed, options.deterministic)
    names = [label_of(text)[1] for text in options.inputs]
    places = [options.real, *(name if _is_images(name) else _run_of(name) for name in names)]
    inputs = [path for place in places for path in _files_of(place)]
    check_run_folder(options.dst, options.overwrite, inputs=inputs)
    readers = sources(options, device)
    folds, decay = {}, {}
    for label, read in readers.items():
        folds[label], rows = SpectrumFolds(), []
        for image in read():
            folds[label].update(image.to(device))
            rows.append(decay_features(image.to(device)).cpu().numpy())
        decay[label] = np.concatenate(rows)
    spectra = {label: fold.total for label, fold in folds.items()}
    folder = open_run_folder(options.dst, options.overwrite, inputs=inputs, settings=as_plain(options))
    print(write_results(folder, spectra, decay, folds["real"].floor()))
    print(f"tables and figures are in {folder}")


def write_results(folder, spectra, decay, floor):
    """All files of the study; returns the summary as a table."""
    summary = {}
    for label, mean_spectrum in spectra.items():
        distances = floor if label == "real" else spectral_distances(spectra["real"], mean_spectrum)
        exponent = decay[label][:, 0]
        numbers = {name: distances[name] for name in ("lfd", "lfd_8bit", "gap", "gap_upper")}
        shape = {"exponent_mean": float(exponent.mean()), "exponent_std": float(exponent.std())}
        count = mean_spectrum.count // 2 if label == "real" else mean_spectrum.count
        summary["real (two halves)" if label == "real" else label] = {"images": count, **numbers, **shape}
    columns = list(next(iter(summary.values())))
    write_csv(folder / "summary.csv", ("source", *columns), [(label, *row.values()) for label, row in summary.items()])
    profiles = [
        (label, ring, mean, std)
        for label, mean_spectrum in spectra.items()
        for ring, (mean, std) in enumerate(zip(mean_spectrum.profile.tolist(), mean_spectrum.profile_std.tolist(), strict=True))
    ]
    write_csv(folder / "profiles.csv", ("source", "ring", "mean_log_power", "std"), profiles)
    write_csv(
        folder / "decay.csv", ("source", *DECAY_NAMES), [(label, *row) for label, table in decay.items() for row in table.tolist()]
    )
    spectra_figure({label: mean_spectrum.log_mag for label, mean_spectrum in spectra.items()}, folder / "spectra.png")
    figures.profile_bands(spectra, folder / "profiles.png")
    figures.violins(decay, DECAY_TITLES, folder / "decay.png")
    return f"{format_table(summary, COLUMNS)}\n\n{LEGEND}"
