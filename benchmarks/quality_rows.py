"""The refiners that the quality benchmark judges: to add one is to add a line to ROWS.

A row is either a list of train.py options, trained once per seed, or a function of benchmarks/quality_filters.py that needs no
training.
"""

import functools

import train
from benchmarks import quality_filters
from benchmarks.quality_code import hash_of, modules_behind
from benchmarks.quality_data import HOME
from benchmarks.quality_filters import fitted_filter, matched_profiles, plain_rounding, rgb_cepstral_filter, ring_shrunk_filter
from data.copies import file_sum
from data.listing import DATASETS, list_images
from models import refiners
from models.refiners import trained_model
from options import TrainOptions, parse_train
from utils.arguments import as_plain, free_on_resume
from utils.checkpoint import load_checkpoint
from utils.devices import double_device
from utils.errors import UserError
from utils.files import file_hash, read_json
from utils.run_dir import run_folder

ROWS = {
    "linear": functools.partial(fitted_filter, kind="linear"),
    "shrunk": ring_shrunk_filter,
    "cepstral": functools.partial(fitted_filter, kind="cepstral"),
    "lifter": functools.partial(fitted_filter, kind="lifter"),
    "polyphase": functools.partial(fitted_filter, kind="polyphase"),
    "polyphase8": functools.partial(fitted_filter, kind="polyphase", period=8),
    "plain_rounding": plain_rounding,
    "cepstral_rgb": rgb_cepstral_filter,
    "matched_profiles": matched_profiles,
    "default": [],
    "released": ["--preset", "released"],
    "paper": [
        *["--generator", "direct", "--base", "identity", "--whiten", "False", "--norm", "batch", "--ema", "0"],
        *["--nce_levels", "0,1,2,3,4", "--compensate_rounding", "False"],
    ],
    "base_identity": ["--base", "identity"],
    "base_linear": ["--base", "linear"],
    "base_cepstral": ["--base", "cepstral"],
    "base_lifter": ["--base", "lifter"],
    "no_whiten": ["--whiten", "False"],
    "adversarial": ["--lambda_gan", "20", "--lambda_nce", "2"],
    "direct": ["--generator", "direct"],
    "levels_all": ["--nce_levels", "0,1,2,3,4"],
    "no_nce": ["--lambda_nce", "0"],
    "no_average": ["--ema", "0"],
    "bicubic": ["--upsample", "bicubic"],
    "batch_norm": ["--norm", "batch"],
}


def is_trained(row):
    """Whether a row is trained, and therefore has seeds."""
    return isinstance(ROWS.get(row), list)


def prepare_row(row, seed, case, options, device):
    """Make a row ready to be judged: one that is trained has its training finished, nothing else is fitted yet.

    Args:
        row: "fake", "floor" or a name of ROWS. seed: of the training, text; "-" for rows without. case: `quality_data.Case`.
        options: further options of train.py.
    Returns:
        made_by: what decides the refiner beside the images it is fitted on: {"how": hash of code and settings, which all seeds of a
            row share, "weights": hash of the trained checkpoint or None}.
        start: function without arguments that fits or loads the row -> function that refines fakes, and one that passes reals
            through, None for rows that know no reals; None for fake and floor, which have no refiner.
    """
    if row in ("fake", "floor"):
        return {"how": row, "weights": None}, None
    refiner = ROWS[row]
    if not is_trained(row):
        where = double_device(device)

        def fit():
            refine = refiner(case.fit_real.pixels.to(where), case.fit_fake.pixels.to(where), where)
            return lambda image: refine(image.to(where)), None

        function, settings = getattr(refiner, "func", refiner), getattr(refiner, "keywords", {})
        return {"how": hash_of(modules_behind(quality_filters), [function.__name__, settings, device.type]), "weights": None}, fit
    run = train_row(row, seed, case, options)
    free = free_on_resume(TrainOptions) | {"seed"}
    made = {name: value for name, value in read_json(run / "options.json").items() if name not in free}
    weights = file_hash(run / "checkpoint.pt")

    def load():
        model = trained_model(load_checkpoint(run / "checkpoint.pt", "stig")).to(device)
        return model.refine, functools.partial(model.refine, is_real=True)

    return {"how": hash_of(modules_behind(refiners), [made, device.type]), "weights": weights}, load


def train_row(row, seed, case, options):
    """The run folder of a training, which is finished, gone on with or started as its folder says.

    Raises: UserError if the finished training had other options or images.
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
    for name in wanted.keys() & made.keys() - free_on_resume(TrainOptions):
        if wanted[name] != made[name]:
            raise UserError(f"{run} was trained with {name} = {made[name]}, not {wanted[name]}; delete it to have it trained anew")
    used = {side: file_sum(list_images(DATASETS / fitted / side)) for side in ("real", "fake")}
    if read_json(run / "images.json").get("bytes", used) != used:
        raise UserError(f"{run} was trained on other images than are in {DATASETS / fitted} now; delete it to have it trained anew")
    return run
