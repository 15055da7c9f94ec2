"""Command-line options of train.py, inference.py and eval.py: what each can be given, and what belongs together.

Those of detect.py and gan.py are in detect_commands/options.py and gan_commands/options.py, made of the same parts.
"""

import dataclasses

from models.stig import Objective
from utils.aliases import PERIOD, PERIODS
from utils.arguments import (
    as_options,
    data_name,
    flag,
    frozen,
    group,
    image_size,
    images_option,
    make_parser,
    number,
    number_list,
    option,
    path_option,
    refuse_unread,
    reworded,
    run_name,
    side,
    switch,
)
from utils.filters import FILTERS

# ------------------------------------------------------------------------------------------------- groups that scripts share


def period_option():
    """How far apart the aliases are that the filter polyphase knows."""
    return option(
        "filter polyphase: pixels after which what upsampling left repeats; 8 where a decoder enlarged eight times, as those of "
        "latent diffusion do (four times the weights, up to four times the time)",
        PERIOD,
        type=int,
        choices=PERIODS,
    )


DEVICES = "auto (first GPU, else Apple's, else CPU) | cpu | mps | a GPU number such as 0 | cuda:1"


@group("machine")
class Machine:
    """Where and how reproducibly something is computed."""

    device: str = option(DEVICES, "auto", free=True)
    seed: int = option("the same seed gives the same run", 42, type=number(int, 0, 2**31 - 1))
    deterministic: bool = flag("use only reproducible kernels (bit-identical, may be slower)")
    num_workers: int = option(
        "processes that check images, threads that read ahead; 0: none", 0, free=True, type=number(int, 0, 64)
    )


@group("machine")
class SharedMachine(Machine):
    """The same, for work that several processes can share."""

    device: str = reworded(
        Machine,
        "device",
        f"{DEVICES} | several, such as 0,1: one process for each; under torchrun, auto gives each process its GPU",
    )
    timeout: float = option(
        "minutes that a process waits for the others before it counts them as lost",
        30.0,
        free=True,
        type=number(float, 0.1, 1e6),
    )


@group("run folder")
class RunFolder:
    """The folder that is filled."""

    dst: str = option("name of the run: everything goes to results/<dst>", free=True, required=True, type=run_name)
    overwrite: bool = flag("delete an existing results/<dst> first", free=True)


@group("run folder")
class ResumableRun(RunFolder):
    """The same, of a run that can be interrupted."""

    resume: bool = flag("continue an interrupted results/<dst>", free=True)


FIT = (
    "images of another size: resize (as the released code; erases the artefacts being studied), crop (the centre, to within 7 "
    "pixels), or none (refuse them)"
)


@group("reading images")
class Reading:
    """How images of any size are read."""

    fit: str = option(FIT, "resize", choices=("resize", "crop", "none"))
    skip_bad: bool = flag("leave unreadable files out (they are named) instead of stopping")


@group("reading images")
class CachedReading(Reading):
    """The same, of images that are read more than once."""

    cache_gb: float = option("memory for decoded images; 0 reads from disk each time", 2.0, free=True, type=number(float, 0))


# ----------------------------------------------------------------------------------------------------------------- train.py

PRESETS = {
    "default": {},
    "released": {
        "generator": "direct",
        "base": "identity",
        "centre": False,
        "whiten": False,
        "norm": "batch",
        "upsample": "bicubic",
        "nce_levels": (0,),
        "lambda_nce": 20.0,
        "image_range": "stretch",
        "inverse": "abs",
        "compensate_rounding": False,
        "rolled_real_profile": True,
        "ema": 0.0,
    },
}

TRAIN_TEXT = """Train STIG: translate the log-magnitude spectrum of generated images towards that of photographs.

  python train.py --data demo --size 64 --fit crop --holdout 0.25 --epoch 2 --dst first_try
  python train.py --data my_set --size 256 --fit crop --holdout 0.2 --dst my_run --device 0
  python train.py --data my_set --size 256 --fit crop --batch_size 4 --dst my_run --device 0,1
  torchrun --standalone --nproc_per_node=4 train.py --data my_set --size 256 --fit crop --batch_size 4 --dst my_run

Photographs lie in datasets/<data>/real, generated images in datasets/<data>/fake, or both in tar shards beside each other:
datasets/<data>/real-000000.tar, ..., fake-000000.tar, ... (gan.py shard writes such). Everything the run writes goes to
results/<dst>: sample/, tensorboard/, log.csv, checkpoint.pt, eval/ and report.md."""


@group("data")
class TrainData:
    """What is trained and evaluated on."""

    data: str = option(
        "folder in datasets/ with real/ and fake/, or shards of both; 'demo' is made on first use", required=True, type=data_name
    )
    test_data: str | None = option(
        "name of another folder in datasets/ to evaluate on at the end, instead of --holdout", type=data_name
    )
    holdout: float = option(
        "fraction kept out of training and evaluated on; not together with --test_data", 0.0, type=number(float, 0, 0.9)
    )
    size: int = option("side of the images in pixels, a multiple of 16", 256, type=image_size)


@group("training")
class TrainSteps:
    """How long, how fast and in what form."""

    epoch: int = option("passes over the fakes; fixed from the start, as --lr falls to 0 over them", 10, type=number(int, 1))
    batch_size: int = option("pairs per step, over all processes", 1, type=number(int, 1))
    lr: float = option("Adam's rate: constant for 20 %%, then to 0", 8e-5, type=number(float, 0, open_low=True))
    ema: float = option("decay of the averaged generator that is used; 0: none", 0.99, type=number(float, 0, 0.99999))
    amp: bool = flag(
        "bfloat16 networks, faster on GPUs and on CPUs with AVX-512 BF16, far slower on others; spectra and losses stay float32"
    )
    compile: bool = flag(
        "compile and fuse what lies between the generator's convolutions (slower start, faster steps on a GPU, slower ones on a "
        "CPU)"
    )
    cuda_graphs: bool = switch("on one GPU, record a step's kernels once and replay them, unless --deterministic", True, free=True)


@group("model")
class TrainModel:
    """What maps a fake to its refined image."""

    preset: str = option(
        "released: the published code's behaviour, for comparison; it sets "
        f"{', '.join(f'--{name}' for name in PRESETS['released'])}, unless they are given",
        "default",
        choices=PRESETS,
    )
    generator: str = option("correct the input, or draw it anew", "residual", choices=("residual", "direct"))
    base: str = option(
        "what the generator starts from: the fake, or the fake after a filter (linear; cepstral: its noise removed; "
        "lifter: that and each image's own spectrum spread as photographs' are; polyphase: before both, what upsampling left in "
        "common between frequencies and their aliases taken out)",
        "polyphase",
        choices=("identity", *FILTERS),
    )
    period: int = period_option()
    centre: bool = switch(
        "take from the network's corrections their mean over fakes, which is the filter's business: without a filter (--base "
        "identity) or with --generator direct this has no effect",
        True,
    )
    whiten: bool = switch("networks see each bin of the magnitude relative to its mean and deviation over the training reals", True)
    width: int = option("channels of the generator's first level; 16 is a fast one for laptops", 64, type=number(int, 1))
    norm: str = option("normalisation in the generator", "instance", choices=("instance", "batch", "none"))
    upsample: str = option("upsampling in the generator", "bilinear", choices=("bilinear", "bicubic"))
    image_range: str = option("how refined images come to [0, 1]", Objective.image_range, choices=("clamp", "stretch"))
    inverse: str = option("what is kept of the inverse transform", Objective.inverse, choices=("real", "abs"))
    compensate_rounding: bool = switch(
        "take from refined images the noise that rounding to 8 bit will add", Objective.compensate_rounding
    )
    rolled_real_profile: bool = switch(
        "as the released code does, weigh the colours of the real profile in the wrong order", Objective.rolled_real_profile
    )


@group("objective (each weight is applied once)")
class TrainObjective:
    """The terms of the generator's loss."""

    lambda_gan: float = option("PatchGAN on the magnitude", Objective.lambda_gan, type=number(float, 0))
    lambda_psd: float = option("spectral discriminator on the chessboard profile", Objective.lambda_psd, type=number(float, 0))
    lambda_nce: float = option(
        "patch-wise contrastive cross-entropy of fake after --base and refined, and of real and identity image; "
        "mean over --nce_levels",
        Objective.lambda_nce,
        type=number(float, 0),
    )
    lambda_identity: float = option("1 - SSIM of real and identity image", Objective.lambda_identity, type=number(float, 0))
    lambda_fake_identity: float = option(
        "1 - SSIM of fake after --base and refined", Objective.lambda_fake_identity, type=number(float, 0)
    )
    lambda_lf: float = option("low frequencies stay as --base leaves them", Objective.lambda_lf, type=number(float, 0))
    nce_levels: tuple = option("encoder levels, such as 0,1,2,3,4", Objective.nce_levels, type=number_list(0, 4))
    sigma: int = option("half the side of the low-frequency box in bins", Objective.sigma, type=number(int, 1))
    tau: float = option("temperature of the contrastive term", Objective.tau, type=number(float, 0, open_low=True))
    patches: int = option(
        "positions per level and image in the contrastive term; all where there are no more", Objective.patches, type=number(int, 2)
    )


@group("output")
class TrainOutput:
    """How often something is written."""

    sample_frequency: int = option("steps between pictures and monitor numbers", 200, free=True, type=number(int, 1))
    save_frequency: int = option("steps between checkpoints", 500, free=True, type=number(int, 1))
    log_frequency: int = option("steps between rows of log.csv", 10, free=True, type=number(int, 1))


@frozen
class TrainOptions(TrainData, CachedReading, TrainSteps, TrainModel, TrainObjective, TrainOutput, SharedMachine, ResumableRun):
    """Options of train.py."""


def parse_train(argv=None):
    """Command line -> `TrainOptions`; a preset sets defaults that explicit options override."""
    parser = make_parser("train.py", TRAIN_TEXT, TrainOptions)
    preset = parser.parse_args(argv).preset
    parser.set_defaults(**PRESETS[preset])
    options = as_options(TrainOptions, parser, argv)
    if options.holdout and options.test_data:
        parser.error("--holdout keeps images out of training to evaluate on them, --test_data evaluates on others: give one")
    if options.sigma > options.size // 2:
        parser.error(f"argument --sigma: {options.sigma} is out of range for --size {options.size}: give 1 to {options.size // 2}")
    if not any(getattr(options, field.name) for field in dataclasses.fields(TrainObjective) if field.name.startswith("lambda_")):
        parser.error("every --lambda_ is 0, which leaves no loss; give at least one of them")
    if options.compile and options.norm != "instance" and options.upsample != "bilinear":
        parser.error(f"--compile has no effect with --norm {options.norm} --upsample {options.upsample}; leave it out")
    read_with = {"lambda_nce": ("tau", "patches", "nce_levels"), "lambda_lf": ("sigma",), "lambda_psd": ("rolled_real_profile",)}
    for weight, names in read_with.items():
        refuse_unread(parser, vars(options), names, weight, 0)
    if options.norm == "batch" and options.size == 16:
        parser.error("argument --norm: batch needs more than the one pixel of the coarsest level of --size 16; change one of them")
    without = options.base == "identity" or options.generator == "direct"
    return dataclasses.replace(options, centre=options.centre and not without)


# ------------------------------------------------------------------------------------------------------------- inference.py

INFERENCE_TEXT = """Refine a folder of generated images; names, subfolders and order stay, the format becomes PNG.

  python inference.py --inference_data more_fakes --inference_params results/my_run/checkpoint.pt --dst refined_more
  python inference.py --inference_data more_fakes --method polyphase --real photos --fake fakes --dst filtered_more
  python inference.py --inference_data 'fakes-{000000..000003}.tar' --inference_params results/my_run/checkpoint.pt --dst shards

The images go to results/<dst>/refined, those of shards under their keys. A checkpoint of the released code (the folder with
Generator... files) works too."""


@group("refining")
class Refining:
    """What is refined, and by what."""

    inference_data: str = images_option(
        "folder of generated images, its subfolders count too; or tar shards such as 'fakes-{000000..000003}.tar'", required=True
    )
    inference_params: str | None = path_option(
        "checkpoint.pt of train.py, the folder of a run, a generator of the released code, or a folder with one", "PATH"
    )
    method: str = option(
        "the network, or only a filter (as --base of train.py), of the checkpoint or of --real and --fake",
        "stig",
        choices=("stig", *FILTERS),
    )
    real: str | None = images_option("folder (or tar shards) of photographs to fit the filter on")
    fake: str | None = images_option("folder (or tar shards) of generated images to fit the filter on")
    period: int = period_option()
    size: int | None = option(
        "side of the images in pixels; default: the checkpoint's (a released one's is 256), and of a filter fitted on --real "
        "and --fake that of all the images",
        type=image_size,
    )
    batch_size: int = option("images at once; changes them by rounding at most", 4, free=True, type=number(int, 1))
    save_mag: bool = flag("write pictures of the log-magnitudes to refined_mag as well")


@group("reading images")
class RefinedReading(Reading):
    """How the images are read; None in fit means as the checkpoint was trained."""

    fit: str | None = reworded(Reading, "fit", f"{FIT}; unset: as the checkpoint was trained, else resize", default=None)


@frozen
class InferenceOptions(Refining, RefinedReading, SharedMachine, ResumableRun):
    """Options of inference.py."""

    seed: int = reworded(Machine, "seed", "as in the other scripts; refining draws no random numbers")


def parse_inference(argv=None):
    """Command line -> `InferenceOptions`."""
    parser = make_parser("inference.py", INFERENCE_TEXT, InferenceOptions)
    options = as_options(InferenceOptions, parser, argv)
    if (options.real is None) != (options.fake is None):
        parser.error("--real and --fake belong together; give both or neither")
    if options.real and options.inference_params:
        parser.error("a filter is that of --inference_params, or is fitted on --real and --fake: give one or the other")
    if options.real and options.method == "stig":
        parser.error(f"--real and --fake fit a filter; add --method and one of {', '.join(FILTERS)}")
    if options.real and options.fit and options.size is None:
        parser.error("argument --fit: has no effect without --size: a filter is fitted to images of one size as they are")
    if options.period != PERIOD and (options.method != "polyphase" or not options.real):
        parser.error("argument --period: has no effect but on --method polyphase that is fitted on --real and --fake; leave it out")
    if not options.real and not options.inference_params:
        parser.error("give --inference_params CHECKPOINT, or --method linear with --real and --fake")
    return options


# ------------------------------------------------------------------------------------------------------------------ eval.py

EVAL_TEXT = """Measure fake and refined images against real ones. Every number is a distance: lower is better, and the row
'floor' shows two halves of the real images against each other. These are half as many images: as many other photographs as a row
has would show an LFD about 0.7 lower and gaps 1.4 times smaller, so a row may lie below the floor (n fakes against m reals: an LFD
higher by log((n + m) / 4n)).

  python eval.py --eval_root my_run --eval_mode lfd
  python eval.py --real photos --fake generated --eval_mode psd --dst photos_vs_generated

Writes results/<run>/eval_<mode>.json; psd draws the profiles beside it."""


@group("what to measure: a run, or any folders")
class MeasuredFolders:
    """Images and metrics."""

    eval_root: str | None = option(
        "a run: results/NAME/eval/{real,fake,refined} and their _mag folders", metavar="NAME", type=run_name
    )
    real: str | None = images_option("folder (or tar shards) of photographs, instead of --eval_root")
    fake: str | None = images_option("folder (or tar shards) of generated images")
    refined: str | None = images_option("folder (or tar shards) of refined images (may be left out)")
    eval_mode: str = option(
        "FID and KID of the images or of the pictures of their log-magnitude, log frequency distance, profile gap, or all",
        "magnitude_fid",
        choices=("image_fid", "magnitude_fid", "lfd", "psd", "all"),
    )
    inception_weights: str | None = path_option("pytorch-fid's weights file, where it cannot be downloaded", "PATH")


@group("where the result goes")
class ResultPlace:
    """The folder or the file of the result."""

    dst: str | None = option("results/NAME instead of the measured run; needed with --real", metavar="NAME", type=run_name)
    out: str | None = path_option(
        "this .json file instead (an earlier result is replaced); beside it psd draws a .png, and the statistics of FID are kept, "
        "unless a run is measured",
        "FILE",
    )


@group("reading images")
class MeasuredReading(Reading):
    """How the images are read, at their own size if they have one."""

    fit: str = reworded(
        Reading,
        "fit",
        "how --size is reached: resize (erases the artefacts being studied), crop (the centre, to within 7 pixels), none (refuse)",
    )
    size: int | None = option("side to bring images to; without it all must be of one size", type=side)
    batch_size: int = option("images at once; does not change the result", 16, type=number(int, 1))


@frozen
class EvalOptions(MeasuredFolders, ResultPlace, MeasuredReading, SharedMachine):
    """Options of eval.py."""

    seed: int = reworded(Machine, "seed", "which images the subsets of KID draw; nothing else is random")


def parse_eval(argv=None):
    """Command line -> `EvalOptions`."""
    parser = make_parser("eval.py", EVAL_TEXT, EvalOptions)
    options = as_options(EvalOptions, parser, argv)
    folders = [options.real, options.fake, options.refined]
    if options.eval_root and any(folders):
        parser.error("--eval_root names a run, --real, --fake and --refined name folders: give one or the other")
    if not options.eval_root and not (options.real and options.fake):
        parser.error("give --eval_root NAME, or --real DIR and --fake DIR")
    if not options.eval_root and not (options.dst or options.out):
        parser.error("with --real and --fake, say where the result goes: --dst NAME or --out FILE")
    if options.dst and options.out:
        parser.error("--dst and --out both say where the result goes; give one of them")
    if options.out and not options.out.endswith(".json"):
        parser.error(f"argument --out: {options.out} must end in .json")
    refuse_unread(parser, vars(options), ("fit",), "size", None)
    for mode in ("lfd", "psd"):
        refuse_unread(parser, vars(options), ("inception_weights",), "eval_mode", mode)
    return options
