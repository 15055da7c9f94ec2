"""The refiners that the quality benchmark judges: to add one is to add a line to ROWS.

A row is either a list of train.py options, trained once per seed, or a function of benchmarks/quality_filters.py that needs no
training.
"""

import functools

import train
from benchmarks.quality_data import HOME
from benchmarks.quality_filters import fitted_filter, matched_profiles, rgb_cepstral_filter, ring_shrunk_filter
from inference import trained_model
from options import as_plain, parse_train
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.run_dir import read_json, run_folder

ROWS = {
    "linear": functools.partial(fitted_filter, kind="linear"),
    "shrunk": ring_shrunk_filter,
    "cepstral": functools.partial(fitted_filter, kind="cepstral"),
    "lifter": functools.partial(fitted_filter, kind="lifter"),
    "cepstral_rgb": rgb_cepstral_filter,
    "matched_profiles": matched_profiles,
    "default": [],
    "released": ["--preset", "released"],
    "paper": [
        *["--generator", "direct", "--base", "identity", "--whiten", "False", "--norm", "batch", "--ema", "0"],
        *["--nce_levels", "0,1,2,3,4"],
    ],
    "base_identity": ["--base", "identity"],
    "base_linear": ["--base", "linear"],
    "no_whiten": ["--whiten", "False"],
    "adversarial": ["--lambda_gan", "20", "--lambda_nce", "2"],
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
