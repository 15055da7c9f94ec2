"""The refiners that the quality benchmark judges: to add one is to add a line to ROWS.

A row is either a list of train.py options, trained once per seed, or a function (real, fake, device) -> refine that needs no
training: real and fake are the images it may fit itself on, (N, 3, S, S) float32 in [0, 1] on the device, and refine takes any
batch of fakes like them and returns the refined images, (B, 3, S, S); they are clamped to [0, 1] afterwards.
"""

import functools

import torch

import train
from benchmarks.quality_data import HOME
from inference import filter_refiner, trained_model
from options import as_plain, parse_train
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.fft import fourier
from utils.linear_filter import FLOOR, RunningMoments, diagonal_gain, fit_linear_filter
from utils.profiles import radial_rings, ring_means
from utils.run_dir import read_json, run_folder


def linear_filter(real, fake, device, kind="linear"):
    """One of the linear filters that train.py fits."""
    return filter_refiner(fit_linear_filter(kind, *(functools.partial(images.split, 16) for images in (real, fake))), device)


def ring_shrunk_filter(real, fake, device, ring_doubt=4, bin_doubt=2):
    """The plain linear filter with its noise shrunk in rings, which the cepstral filter replaced.

    Each ring's mean log-gain is pulled to 0, and each bin's to that of its ring, by 1 - doubt variance / difference^2, at least 0.
    """
    moments = {part: [RunningMoments(), RunningMoments()] for part in ("rings", "bins")}
    rings = radial_rings(*real.shape[-2:])
    for side, images in enumerate((real, fake)):
        for image in images:
            log_spectrum = fourier(image).abs().clamp_min(FLOOR).log().double()
            moments["bins"][side].update(log_spectrum)
            moments["rings"][side].update(ring_means(log_spectrum, rings))
    log_gain = torch.zeros(())
    for part, doubt in (("rings", ring_doubt), ("bins", bin_doubt)):
        a, b = moments[part]
        excess = a.mean - b.mean - log_gain
        variance = a.variance_of_mean + b.variance_of_mean
        log_gain = log_gain + (1 - doubt * variance / excess.square().clamp_min(1e-12)).clamp_min(0) * excess
        if part == "rings":
            log_gain = log_gain[:, rings.to(device)]  # (C, R) -> (C, H, W)
    log_gain[:, real.shape[-2] // 2, real.shape[-1] // 2] = 0
    return filter_refiner(diagonal_gain(log_gain).float(), device)


ROWS = {
    "linear": linear_filter,
    "shrunk": ring_shrunk_filter,
    "cepstral": functools.partial(linear_filter, kind="cepstral"),
    "default": [],
    "released": ["--preset", "released"],
    "paper": ["--generator", "direct", "--base", "identity", "--norm", "batch", "--nce_levels", "0,1,2,3,4", "--ema", "0"],
    "base_identity": ["--base", "identity"],
    "base_linear": ["--base", "linear"],
    "whiten": ["--whiten", "True"],
    "whiten_no_nce": ["--whiten", "True", "--lambda_nce", "0"],
    "direct": ["--generator", "direct"],
    "levels_all": ["--nce_levels", "0,1,2,3,4"],
    "no_nce": ["--lambda_nce", "0"],
    "no_average": ["--ema", "0"],
    "bicubic": ["--upsample", "bicubic"],
    "batch_norm": ["--norm", "batch"],
    "stretch": ["--image_range", "stretch"],
    "abs": ["--inverse", "abs"],
}


def is_trained(row):
    """Whether a row is trained, and therefore has seeds."""
    return isinstance(ROWS.get(row), list)


def open_row(row, seed, case, options, device):
    """Fit or train a row, or open its finished training.

    Args:
        row: a name of ROWS. seed: of the training, None for rows without. case: `quality_data.Case`.
        options: further options of train.py.
    Returns: function that refines fakes, and one that passes reals through, None for rows that know no reals.
    """
    if not is_trained(row):
        return ROWS[row](case.fit_real.pixels.to(device), case.fit_fake.pixels.to(device), device), None
    model = trained_model(load_checkpoint(train_row(row, seed, case, options) / "checkpoint.pt", "stig")).to(device)
    return model.refine, functools.partial(model.refine, is_real=True)


def train_row(row, seed, case, options):
    """The run folder of a training, which is finished, gone on with or started as its folder says.

    Raises: UserError if the finished training had other options.
    """
    dst = f"{HOME}/{case.name}_{case.size}_{case.part}_{row}_{seed}"
    fitted, judged = case.folders
    arguments = ["--data", fitted, "--test_data", judged, "--size", str(case.size), "--fit", "none", "--seed", seed, "--dst", dst]
    arguments += [*ROWS[row], *options]
    run = run_folder(dst)
    if not (run / "table.json").exists():
        train.main([*arguments, "--resume" if (run / "checkpoint.pt").exists() else "--overwrite"])
        return run
    wanted, made = as_plain(parse_train(arguments)), read_json(run / "options.json")
    for name in wanted.keys() & made.keys() - train.FREE_ON_RESUME:
        if wanted[name] != made[name]:
            raise UserError(f"{run} was trained with {name} = {made[name]}, not {wanted[name]}; delete it to have it trained anew")
    return run
