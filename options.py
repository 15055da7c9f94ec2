"""Every command-line option: one parser and one frozen dataclass per script."""

import argparse
import dataclasses
import math

from models.gan import SETUPS
from models.gan_losses import PENALTIES, PENALTY_SAMPLES
from utils.filters import FILTERS


def number(kind, low=None, high=None, open_low=False):
    """Argparse type: an int or float within [low, high] (or above low, if `open_low`), with a teaching error."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        too_low = low is not None and (value < low or (open_low and value == low))
        if too_low or (high is not None and value > high) or not math.isfinite(value):
            bounds = f"{'more than' if open_low else 'at least'} {low}" if low is not None else ""
            bounds += f"{' and ' if bounds and high is not None else ''}{f'at most {high}' if high is not None else ''}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: give {bounds or 'a finite number'}")
        return value

    return parse


def boolean(text):
    """Argparse type for `--flag True|False`."""
    value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return value


def image_size(text):
    """Argparse type: a positive multiple of 16."""
    value = number(int, 16, 8192)(text)
    if value % 16:
        raise argparse.ArgumentTypeError(f"{value} is not a multiple of 16; the network halves the spectrum four times")
    return value


def number_list(kind, low=None, high=None):
    """Argparse type: comma-separated numbers -> tuple."""
    return lambda text: tuple(number(kind, low, high)(part) for part in text.split(","))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, where there is one, as they are typed, and keeps the layout of the examples."""

    def _get_help_string(self, action):
        if action.required or any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS)):
            return action.help
        if isinstance(action.default, tuple):  # comma-separated on the command line
            return f"{action.help} (default: {','.join(map(str, action.default)) or 'none'})"
        return super()._get_help_string(action)


def add_machine_options(parser, several=False, workers=True):
    """Options that every script has.

    Args:
        several: its work can be shared by several processes. workers: it reads images that are not in memory.
    """
    group = parser.add_argument_group("machine")
    devices = "auto (first GPU, else Apple's, else CPU) | cpu | mps | a GPU number such as 0 | cuda:1"
    devices += " | several, such as 0,1: one process for each; under torchrun, auto gives each process its GPU" if several else ""
    group.add_argument("--device", default="auto", help=devices)
    if several:
        group.add_argument(
            "--timeout",
            type=number(float, 0, open_low=True),
            default=30.0,
            help="minutes that a process waits for the others before it counts them as lost",
        )
    group.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=42, help="the same seed gives the same run")
    group.add_argument("--deterministic", action="store_true", help="use only reproducible kernels (bit-identical, may be slower)")
    if workers:
        group.add_argument(
            "--num_workers", type=number(int, 0, 64), default=0, help="workers that check and read images ahead; 0 reads when asked"
        )


def add_run_options(parser, resume=True):
    """Options of scripts that fill results/<dst>."""
    group = parser.add_argument_group("run folder")
    group.add_argument("--dst", required=True, help="name of the run: everything goes to results/<dst>")
    group.add_argument("--overwrite", action="store_true", help="delete an existing results/<dst> first")
    if resume:
        group.add_argument("--resume", action="store_true", help="continue an interrupted results/<dst>")


def add_reading_options(parser, cache=True, fit="resize"):
    """Options of scripts that read images of any size; `fit`: default, None for that of a checkpoint."""
    group = parser.add_argument_group("reading images")
    group.add_argument(
        "--fit",
        choices=("resize", "crop", "none"),
        default=fit,
        help="images of another size: resize (as the released code; erases the artefacts being studied), centre crop, or refuse"
        + ("; unset: as the checkpoint was trained, else resize" if fit is None else ""),
    )
    group.add_argument("--skip_bad", action="store_true", help="leave unreadable files out (they are named) instead of stopping")
    if cache:
        group.add_argument(
            "--cache_gb", type=number(float, 0), default=2.0, help="memory for decoded images; 0 reads from disk each time"
        )


def as_options(cls, parser, argv):
    """Parse `argv` and return the frozen dataclass `cls` with one field per option."""
    return cls(**vars(parser.parse_args(argv)))


def as_plain(options):
    """Options dataclass -> dictionary of plain values, for options.json and checkpoints."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(options).items()}


# --------------------------------------------------------------------------------------------------------------- train.py

PRESETS = {
    "default": {},
    "released": {
        "generator": "direct",
        "base": "identity",
        "whiten": False,
        "norm": "batch",
        "upsample": "bicubic",
        "nce_levels": (0,),
        "lambda_nce": 20.0,
        "image_range": "stretch",
        "inverse": "abs",
        "rolled_real_profile": True,
        "ema": 0.0,
    },
}


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of train.py; the parser below explains each."""

    data: str
    test_data: str | None
    holdout: float
    size: int
    fit: str
    skip_bad: bool
    cache_gb: float
    epoch: int
    batch_size: int
    lr: float
    preset: str
    generator: str
    base: str
    whiten: bool
    width: int
    norm: str
    upsample: str
    image_range: str
    inverse: str
    rolled_real_profile: bool
    ema: float
    lambda_gan: float
    lambda_psd: float
    lambda_nce: float
    lambda_identity: float
    lambda_fake_identity: float
    lambda_lf: float
    nce_levels: tuple
    sigma: int
    tau: float
    patches: int
    amp: bool
    compile: bool
    sample_frequency: int
    save_frequency: int
    log_frequency: int
    device: str
    timeout: float
    seed: int
    deterministic: bool
    num_workers: int
    dst: str
    overwrite: bool
    resume: bool


TRAIN_TEXT = """Train STIG: translate the log-magnitude spectrum of generated images towards that of photographs.

  python train.py --data demo --size 64 --epoch 2 --dst first_try
  python train.py --data my_set --size 256 --holdout 0.2 --dst my_run --device 0
  python train.py --data my_set --size 256 --batch_size 4 --dst my_run --device 0,1
  torchrun --standalone --nproc_per_node=4 train.py --data my_set --size 256 --batch_size 4 --dst my_run

Photographs lie in datasets/<data>/real, generated images in datasets/<data>/fake, or both in tar shards beside each other:
datasets/<data>/real-000000.tar, ..., fake-000000.tar, ... (gan.py shard writes such). Everything the run writes goes to
results/<dst>: sample/, tensorboard/, log.csv, checkpoint.pt, eval/ and report.md."""


def _add_train_data(parser):
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", required=True, help="folder in datasets/ with real/ and fake/, or shards of both; 'demo' is made on first use"
    )
    data.add_argument("--test_data", help="name of another folder in datasets/ to evaluate on at the end, instead of --holdout")
    data.add_argument("--holdout", type=number(float, 0, 0.9), default=0.0, help="fraction kept out of training and evaluated on")
    data.add_argument("--size", type=image_size, default=256, help="side of the images in pixels, a multiple of 16")
    add_reading_options(parser)


def train_parser():
    """Parser of train.py."""
    parser = argparse.ArgumentParser(prog="train.py", description=TRAIN_TEXT, formatter_class=HelpFormatter)
    _add_train_data(parser)

    run = parser.add_argument_group("training")
    run.add_argument("--epoch", type=number(int, 1), default=10, help="passes over the fakes")
    run.add_argument("--batch_size", type=number(int, 1), default=1, help="pairs per step, over all processes")
    run.add_argument("--lr", type=number(float, 0, open_low=True), default=8e-5, help="Adam's rate: constant for 20 %%, then to 0")
    run.add_argument(
        "--ema", type=number(float, 0, 0.99999), default=0.99, help="decay of the averaged generator that is used; 0: none"
    )
    run.add_argument("--amp", action="store_true", help="bfloat16 networks; spectra and losses stay float32")
    run.add_argument("--compile", action="store_true", help="compile the networks (slow start, faster steps on a GPU)")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--preset", choices=PRESETS, default="default", help="released: the published code's behaviour, for comparison"
    )
    model.add_argument("--generator", choices=("residual", "direct"), default="residual", help="correct the input, or draw it anew")
    model.add_argument(
        "--base",
        choices=("identity", *FILTERS),
        default="polyphase",
        help="what the generator starts from: the fake, or the fake after a filter (linear; cepstral: its noise removed; "
        "lifter: that and each image's own spectrum spread as photographs' are; polyphase: before both, what upsampling left in "
        "common between frequencies and their aliases taken out)",
    )
    model.add_argument(
        "--whiten",
        type=boolean,
        default=True,
        help="networks see each bin of the magnitude relative to its mean and deviation over the training reals",
    )
    model.add_argument(
        "--width", type=number(int, 1), default=64, help="channels of the generator's first level; 16 is a fast one for laptops"
    )
    model.add_argument("--norm", choices=("instance", "batch", "none"), default="instance", help="normalisation in the generator")
    model.add_argument("--upsample", choices=("bilinear", "bicubic"), default="bilinear", help="upsampling in the generator")
    model.add_argument("--image_range", choices=("clamp", "stretch"), default="clamp", help="how refined images come to [0, 1]")
    model.add_argument("--inverse", choices=("real", "abs"), default="real", help="what is kept of the inverse transform")
    model.add_argument(
        "--rolled_real_profile", type=boolean, default=False, help="grey weights of the real profile in the released channel order"
    )

    loss = parser.add_argument_group("objective (each weight is applied once)")
    weight = number(float, 0)
    loss.add_argument("--lambda_gan", type=weight, default=3.0, help="PatchGAN on the magnitude")
    loss.add_argument("--lambda_psd", type=weight, default=3.0, help="spectral discriminator on the chessboard profile")
    loss.add_argument(
        "--lambda_nce", type=weight, default=20.0, help="patch-wise contrastive cross-entropy, mean over --nce_levels"
    )
    loss.add_argument("--lambda_identity", type=weight, default=3.0, help="1 - SSIM of real and identity image")
    loss.add_argument("--lambda_fake_identity", type=weight, default=1.0, help="1 - SSIM of fake after --base and refined")
    loss.add_argument("--lambda_lf", type=weight, default=3.0, help="low frequencies stay as --base leaves them")
    loss.add_argument("--nce_levels", type=number_list(int, 0, 4), default=(0,), help="encoder levels, such as 0,1,2,3,4")
    loss.add_argument("--sigma", type=number(int, 1), default=8, help="half the side of the low-frequency box in bins")
    loss.add_argument("--tau", type=number(float, 0, open_low=True), default=0.07, help="temperature of the contrastive term")
    loss.add_argument("--patches", type=number(int, 2), default=256, help="positions per level and image in the contrastive term")

    output = parser.add_argument_group("output")
    output.add_argument("--sample_frequency", type=number(int, 1), default=200, help="steps between pictures and monitor numbers")
    output.add_argument("--save_frequency", type=number(int, 1), default=500, help="steps between checkpoints")
    output.add_argument("--log_frequency", type=number(int, 1), default=10, help="steps between rows of log.csv")
    add_machine_options(parser, several=True)
    add_run_options(parser)
    return parser


def parse_train(argv=None):
    """Command line -> `TrainOptions`; a preset sets defaults that explicit options override."""
    parser = train_parser()
    preset = parser.parse_args(argv).preset
    parser.set_defaults(**PRESETS[preset])
    options = as_options(TrainOptions, parser, argv)
    if options.holdout and options.test_data:
        parser.error("--holdout keeps images out of training to evaluate on them, --test_data evaluates on others: give one")
    if options.sigma > options.size // 2:
        parser.error(f"argument --sigma: {options.sigma} is out of range for --size {options.size}: give 1 to {options.size // 2}")
    if options.norm == "batch" and options.size == 16:
        parser.error("argument --norm: batch needs more than the one pixel of the coarsest level of --size 16; change one of them")
    return options


# ----------------------------------------------------------------------------------------------------------- inference.py


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of inference.py; the parser below explains each."""

    inference_data: str
    inference_params: str | None
    method: str
    real: str | None
    fake: str | None
    size: int | None
    fit: str | None
    skip_bad: bool
    batch_size: int
    save_mag: bool
    device: str
    timeout: float
    seed: int
    deterministic: bool
    num_workers: int
    dst: str
    overwrite: bool


INFERENCE_TEXT = """Refine a folder of generated images; names, subfolders and order stay, the format becomes PNG.

  python inference.py --inference_data more_fakes --inference_params results/my_run/checkpoint.pt --dst refined_more
  python inference.py --inference_data more_fakes --method cepstral --real photos --fake fakes --dst filtered_more
  python inference.py --inference_data 'fakes-{000000..000003}.tar' --inference_params results/my_run/checkpoint.pt --dst shards

The images go to results/<dst>/refined, those of shards under their keys. A checkpoint of the released code (the folder with
Generator... files) works too."""


def inference_parser():
    """Parser of inference.py."""
    parser = argparse.ArgumentParser(prog="inference.py", description=INFERENCE_TEXT, formatter_class=HelpFormatter)
    group = parser.add_argument_group("refining")
    group.add_argument(
        "--inference_data",
        required=True,
        metavar="DIR|SHARDS",
        help="folder of generated images, its subfolders count too; or tar shards such as 'fakes-{000000..000003}.tar'",
    )
    group.add_argument("--inference_params", help="checkpoint.pt of train.py, or a folder with a released checkpoint")
    group.add_argument(
        "--method",
        choices=("stig", *FILTERS),
        default="stig",
        help="the network, or only a filter (as --base of train.py), of the checkpoint or of --real and --fake",
    )
    group.add_argument("--real", help="folder of photographs to fit the filter on")
    group.add_argument("--fake", help="folder of generated images to fit the filter on")
    group.add_argument("--size", type=image_size, help="side of the images in pixels; default: the checkpoint's, else 256")
    group.add_argument("--batch_size", type=number(int, 1), default=4, help="images at once; no image's result depends on it")
    group.add_argument("--save_mag", action="store_true", help="write pictures of the log-magnitudes to refined_mag as well")
    add_reading_options(parser, cache=False, fit=None)
    add_machine_options(parser, several=True)
    add_run_options(parser, resume=False)
    return parser


def parse_inference(argv=None):
    """Command line -> `InferenceOptions`."""
    parser = inference_parser()
    options = as_options(InferenceOptions, parser, argv)
    if (options.real is None) != (options.fake is None):
        parser.error("--real and --fake belong together; give both or neither")
    if options.real and options.method == "stig":
        parser.error("--real and --fake fit a filter; add --method linear, cepstral, lifter or polyphase")
    if not options.real and not options.inference_params:
        parser.error("give --inference_params CHECKPOINT, or --method linear with --real and --fake")
    return options


# ---------------------------------------------------------------------------------------------------------------- eval.py


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """Options of eval.py."""

    eval_root: str | None
    eval_mode: str
    real: str | None
    fake: str | None
    refined: str | None
    dst: str | None
    out: str | None
    size: int | None
    fit: str
    skip_bad: bool
    inception_weights: str | None
    batch_size: int
    device: str
    timeout: float
    seed: int
    deterministic: bool
    num_workers: int


EVAL_TEXT = """Measure fake and refined images against real ones. Every number is a distance: lower is better, and the row
'floor' shows two halves of the real images against each other. These are half as many images: LFD of as many other photographs
would be about 0.7 lower, a gap 1.4 times, so a row may lie below the floor.

  python eval.py --eval_root my_run --eval_mode lfd
  python eval.py --real photos --fake generated --eval_mode psd --dst photos_vs_generated

Writes results/<run>/eval_<mode>.json; psd draws the profiles beside it."""


def eval_parser():
    """Parser of eval.py."""
    parser = argparse.ArgumentParser(prog="eval.py", description=EVAL_TEXT, formatter_class=HelpFormatter)
    what = parser.add_argument_group("what to measure: a run, or any folders")
    what.add_argument("--eval_root", metavar="NAME", help="a run: results/NAME/eval/{real,fake,refined} and their _mag folders")
    what.add_argument("--real", metavar="DIR", help="folder of photographs, instead of --eval_root")
    what.add_argument("--fake", metavar="DIR", help="folder of generated images")
    what.add_argument("--refined", metavar="DIR", help="folder of refined images (may be left out)")
    what.add_argument(
        "--eval_mode",
        choices=("image_fid", "magnitude_fid", "lfd", "psd", "all"),
        default="magnitude_fid",
        help="FID and KID of the images or of the pictures of their log-magnitude, log frequency distance, profile gap, or all",
    )
    what.add_argument("--inception_weights", metavar="PATH", help="pytorch-fid's weights file, where it cannot be downloaded")
    where = parser.add_argument_group("where the result goes")
    where.add_argument("--dst", metavar="NAME", help="results/NAME instead of the measured run; needed with --real")
    where.add_argument("--out", metavar="FILE", help="this .json file instead (an earlier result is replaced)")
    read = parser.add_argument_group("reading images")
    read.add_argument("--size", type=number(int, 16, 8192), help="side to bring images to; without it all must be of one size")
    read.add_argument(
        "--fit",
        choices=("resize", "crop", "none"),
        default="resize",
        help="how --size is reached: resize (erases the artefacts being studied), centre crop, or refuse other sizes",
    )
    read.add_argument("--skip_bad", action="store_true", help="leave unreadable files out (they are named) instead of stopping")
    read.add_argument("--batch_size", type=number(int, 1), default=16, help="images at once; does not change the result")
    add_machine_options(parser, several=True)
    return parser


def parse_eval(argv=None):
    """Command line -> `EvalOptions`."""
    parser = eval_parser()
    options = as_options(EvalOptions, parser, argv)
    folders = [options.real, options.fake, options.refined]
    if options.eval_root and any(folders):
        parser.error("--eval_root names a run, --real, --fake and --refined name folders: give one or the other")
    if not options.eval_root and not (options.real and options.fake):
        parser.error("give --eval_root NAME, or --real DIR and --fake DIR")
    if not options.eval_root and not (options.dst or options.out):
        parser.error("with --real and --fake, say where the result goes: --dst NAME or --out FILE")
    if options.out and not options.out.endswith(".json"):
        parser.error(f"argument --out: {options.out} must end in .json")
    return options


# ----------------------------------------------------------------------------------------------------------------- gan.py

GAN_FAMILIES = {  # published settings of each loss
    "gan": {"lr": 1e-4, "critic_steps": 1, "epochs": 50, "penalty": "none"},
    "lsgan": {"lr": 1e-4, "critic_steps": 1, "epochs": 50, "penalty": "none"},
    "wgan-gp": {"lr": 2e-4, "critic_steps": 5, "epochs": 100, "penalty": "zero"},
}
FINETUNE_RATES = {(0, True): 1e-4, (1, True): 1e-5, (1, False): 1e-6}  # (adversarial term, Fourier term) -> published rate


@dataclasses.dataclass(frozen=True)
class GanTrainingOptions:
    """What decides one GAN training; gan.py study setups makes one for each set-up."""

    data: str
    size: int
    setup: str
    adversarial: str
    dim: int
    latent_dim: int
    epochs: int
    batch_size: int
    lr: float
    critic_steps: int
    penalty: str
    penalty_sample: str
    penalty_weight: float
    spectral_loss: float
    ema: float
    monitor: str | None
    monitor_samples: int
    inception_weights: str | None
    patience: int
    log_frequency: int
    fit: str
    skip_bad: bool
    cache_gb: float
    device: str
    seed: int
    deterministic: bool
    num_workers: int
    dst: str
    overwrite: bool
    resume: bool


@dataclasses.dataclass(frozen=True)
class GanTrainOptions(GanTrainingOptions):
    """Options of gan.py train."""

    timeout: float


@dataclasses.dataclass(frozen=True)
class GanSetupsOptions(GanTrainingOptions):
    """Options of gan.py study setups: those of train, for several set-ups."""

    setups: tuple
    reference: str | None
    n: int
    detectors: tuple
    train_fraction: float
    repeats: int


@dataclasses.dataclass(frozen=True)
class GanSampleOptions:
    """Options of gan.py sample."""

    dst: str
    checkpoint: str
    n: int
    out: str
    overwrite: bool
    batch_size: int
    device: str
    timeout: float
    seed: int
    deterministic: bool
    num_workers: int


@dataclasses.dataclass(frozen=True)
class GanInvertOptions:
    """Options of gan.py invert."""

    dst: str
    checkpoint: str
    data: str
    n: int | None
    out: str
    steps: int
    lr: float
    threshold: float
    batch_size: int
    overwrite: bool
    fit: str
    skip_bad: bool
    device: str
    seed: int
    deterministic: bool
    num_workers: int


@dataclasses.dataclass(frozen=True)
class GanFinetuneOptions:
    """Options of gan.py finetune."""

    generator: str
    checkpoint: str
    pairs: str
    adv: int
    lambda_fourier: float
    metric: str
    threshold: int | None
    lr: float | None
    epochs: int
    batch_size: int
    n: int
    detector: str
    device: str
    seed: int
    deterministic: bool
    dst: str
    overwrite: bool
    resume: bool


@dataclasses.dataclass(frozen=True)
class GanSpectrumOptions:
    """Options of gan.py study spectrum."""

    real: str
    inputs: tuple
    n: int
    size: int | None
    fit: str
    skip_bad: bool
    device: str
    seed: int
    deterministic: bool
    num_workers: int
    dst: str
    overwrite: bool


@dataclasses.dataclass(frozen=True)
class GanTruncationOptions:
    """Options of gan.py study truncation."""

    pairs: str
    n: int
    device: str
    seed: int
    deterministic: bool
    dst: str
    overwrite: bool


@dataclasses.dataclass(frozen=True)
class GanShardOptions:
    """Options of gan.py shard."""

    data: str
    out: str
    per_shard: int
    size: int
    fit: str
    skip_bad: bool
    num_workers: int
    overwrite: bool


GAN_TEXT = """Small GANs: make fakes instead of looking for them, and study what the last upsampling does to their spectrum.

  python gan.py train --data photos --size 64 --adversarial lsgan --setup N.1.5 --dst my_gan
  python gan.py train --data photos --size 64 --batch_size 256 --dst my_gan --device 0,1
  python gan.py sample --dst my_gan --n 1000 --out datasets/photos/fake
  python gan.py invert --dst my_gan --data photos --out datasets/photo_pairs
  python gan.py finetune --generator my_gan --pairs datasets/photo_pairs --adv 0 --dst my_gan_fourier
  python gan.py study spectrum --real datasets/photos/real --inputs my_gan my_gan_fourier --dst my_study

--data names a folder in datasets/ (its subfolder real/ if there is one, with all folders below), any other folder, or tar
shards such as 'shards-{000000..000007}.tar'. Several processes (--device 0,1, or torchrun) share train and sample; the other
commands run in one."""

GAN_DATA_HELP = "folder in datasets/ (or its real/), any folder tree, or quoted tar shards such as 'photos-{000000..000007}.tar'"


def power_of_two(text):
    """Argparse type: 8, 16, 32, ... 1024."""
    value = number(int, 8, 1024)(text)
    if value & (value - 1):
        raise argparse.ArgumentTypeError(f"{value} is not a power of two; the generator doubles 4 x 4 until it is reached")
    return value


def name_list(choices):
    """Argparse type: comma-separated names out of `choices`, or `all` -> tuple."""

    def parse(text):
        names = tuple(choices) if text == "all" else tuple(text.split(","))
        unknown = [name for name in names if name not in choices]
        if unknown or len(set(names)) < len(names):
            raise argparse.ArgumentTypeError(f"{text!r}: give different names out of {', '.join(choices)}, or all")
        return names

    return parse


def _add_gan_training_options(parser, several=False):
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, help=GAN_DATA_HELP)
    data.add_argument("--size", type=power_of_two, default=64, help="side of the images in pixels, a power of two")
    add_reading_options(parser)

    model = parser.add_argument_group("networks")
    model.add_argument(
        "--adversarial", choices=GAN_FAMILIES, default="gan", help="loss: DCGAN, LSGAN or WGAN with gradient penalty"
    )
    model.add_argument("--dim", type=number(int, 1, 512), default=32, help="channels before the last layer")
    model.add_argument("--latent_dim", type=number(int, 1, 4096), default=128, help="length of the latent vector")

    run = parser.add_argument_group("training (without a value: the published one of --adversarial)")
    positive = number(float, 0, open_low=True)
    run.add_argument("--epochs", type=number(int, 1), help="passes over the data: 50, 50, 100")
    batch = "images per step, over all processes" if several else "images per step"
    run.add_argument("--batch_size", type=number(int, 2), default=64, help=batch)
    run.add_argument("--lr", type=positive, help="Adam's rate: 1e-4, 1e-4, 2e-4")
    run.add_argument("--critic_steps", type=number(int, 1), help="discriminator steps per generator step: 1, 1, 5")
    run.add_argument("--penalty", choices=PENALTIES, help="gradient penalty: none, none, zero(-centred)")
    run.add_argument("--penalty_sample", choices=PENALTY_SAMPLES, default="line", help="where it is taken")
    run.add_argument("--penalty_weight", type=number(float, 0), default=10.0, help="its weight")
    run.add_argument(
        "--spectral_loss", type=number(float, 0), default=0.0, help="weight of the spectral regularisation (power profile)"
    )
    run.add_argument(
        "--ema", type=number(float, 0, 0.99999), default=0.0, help="decay of an averaged generator that is used; 0: none"
    )

    watch = parser.add_argument_group("monitoring")
    watch.add_argument(
        "--monitor",
        choices=("fid", "kid", "lfd"),
        help="what drives rate decay, early stopping and best.pt; unset: fid, or lfd where the Inception weights are missing",
    )
    watch.add_argument("--monitor_samples", type=number(int, 2), default=10_000, help="fakes per epoch that it is measured on")
    watch.add_argument("--inception_weights", metavar="PATH", help="pytorch-fid's weights file, where it cannot be downloaded")
    watch.add_argument("--patience", type=number(int, 1), default=5, help="epochs without a better score before training stops")
    watch.add_argument("--log_frequency", type=number(int, 1), default=20, help="generator steps between rows of log.csv")
    add_machine_options(parser, several)
    add_run_options(parser)


def _add_gan_train(commands):
    parser = commands.add_parser("train", help="train a GAN on photographs", formatter_class=HelpFormatter)
    parser.add_argument("--setup", choices=SETUPS, default="BASELINE", help="last upsampling: see docs/generators.md")
    _add_gan_training_options(parser, several=True)


def _add_gan_setups(commands):
    parser = commands.add_parser("setups", help="train several set-ups under one budget and compare", formatter_class=HelpFormatter)
    study = parser.add_argument_group("study")
    study.add_argument("--setups", type=name_list(SETUPS), default=SETUPS, help="comma-separated, or all; BASELINE is needed")
    study.add_argument("--reference", help="reals to compare with, as --data; unset: the training images")
    study.add_argument("--n", type=number(int, 20), default=1000, help="fakes per set-up (and reals) that the detectors see")
    study.add_argument(
        "--detectors",
        type=name_list(("knn", "svm", "mlp")),
        default=("knn", "svm", "mlp"),
        help="on decay features, comma-separated",
    )
    study.add_argument("--train_fraction", type=number(float, 0.01, 0.9), default=0.1, help="share of images they are trained on")
    study.add_argument("--repeats", type=number(int, 1), default=10, help="independent splits, averaged")
    _add_gan_training_options(parser)
    parser.set_defaults(setup="BASELINE")


def _add_gan_reading(parser):
    group = parser.add_argument_group("reading images")
    group.add_argument(
        "--fit", choices=("resize", "crop", "none"), default="resize", help="images of another size: resize, crop, or refuse"
    )
    group.add_argument("--skip_bad", action="store_true", help="leave unreadable files out (they are named) instead of stopping")


def _add_gan_run_to_read(parser):
    parser.add_argument("--dst", required=True, help="the trained run results/<dst>")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="its best epoch by the monitor, or its last")


def _add_gan_sample(commands):
    parser = commands.add_parser("sample", help="write generated images", formatter_class=HelpFormatter)
    _add_gan_run_to_read(parser)
    parser.add_argument(
        "--n", type=number(int, 1, 10**6), default=1000, help="number of images; the first of a seed are always the same"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to fill, such as datasets/photos/fake; continued if begun"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete the images in DIR first")
    parser.add_argument("--batch_size", type=number(int, 1), default=64, help="images at once; does not change them")
    add_machine_options(parser, several=True)


def _add_gan_invert(commands):
    parser = commands.add_parser("invert", help="find the latents of photographs", formatter_class=HelpFormatter)
    _add_gan_run_to_read(parser)
    parser.add_argument("--data", required=True, help=GAN_DATA_HELP.split(", or")[0])
    parser.add_argument("--n", type=number(int, 1), help="only the first n images")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for real/, fake/ and latent/ of the pairs that are kept"
    )
    parser.add_argument("--steps", type=number(int, 1), default=200, help="Adam steps per image")
    parser.add_argument("--lr", type=number(float, 0, open_low=True), default=0.05, help="Adam's rate")
    parser.add_argument("--threshold", type=number(float, 0), default=0.3, help="pairs with a larger final loss are dropped")
    parser.add_argument("--batch_size", type=number(int, 1), default=64, help="images at once; they do not influence each other")
    parser.add_argument("--overwrite", action="store_true", help="delete DIR's real/, fake/ and latent/ first")
    _add_gan_reading(parser)
    add_machine_options(parser)


def _add_gan_finetune(commands):
    parser = commands.add_parser("finetune", help="repair a generator's spectrum", formatter_class=HelpFormatter)
    parser.add_argument("--generator", required=True, help="the trained run results/<generator> to start from")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="its best epoch by the monitor, or its last")
    parser.add_argument("--pairs", required=True, metavar="DIR", help="folder that `gan.py invert` wrote")
    loss = parser.add_argument_group("objective: adv * adversarial loss + lambda_fourier * dissimilarity")
    loss.add_argument("--adv", type=int, choices=(0, 1), default=1, help="adversarial term on or off")
    loss.add_argument("--lambda_fourier", type=number(float, 0), default=1e3, help="weight of the Fourier dissimilarity")
    loss.add_argument("--metric", choices=("1", "2", "cos"), default="cos", help="dissimilarity: L1, Frobenius, or 1 - cosine")
    loss.add_argument("--threshold", type=number(int, 0), help="frequencies below it do not count; unset: 20 per 256 pixels")
    run = parser.add_argument_group("training")
    run.add_argument(
        "--lr", type=number(float, 0, open_low=True), help="Adam's rate; unset: 1e-4 Fourier, 1e-5 both, 1e-6 adversarial only"
    )
    run.add_argument("--epochs", type=number(int, 1), default=20, help="passes over the pairs")
    run.add_argument("--batch_size", type=number(int, 2), default=16, help="pairs per step")
    run.add_argument("--n", type=number(int, 20), default=10_000, help="fresh samples per epoch that the detector judges")
    run.add_argument(
        "--detector",
        default="svm",
        metavar="NAME|PATH",
        help="knn, svm, mlp, logreg, coherence, fitted on fakes of the untouched generator; or a detector.pt of detect.py",
    )
    add_machine_options(parser, workers=False)
    add_run_options(parser)


def _add_gan_spectrum(commands):
    parser = commands.add_parser("spectrum", help="compare the spectra of runs or folders", formatter_class=HelpFormatter)
    parser.add_argument("--real", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--inputs", required=True, nargs="+", help="runs in results/ or folders of images, as NAME or LABEL=NAME")
    parser.add_argument("--n", type=number(int, 2), default=1000, help="images of each that are used")
    parser.add_argument(
        "--size", type=number(int, 16, 8192), help="bring images to this size; unset: all must have one size already"
    )
    _add_gan_reading(parser)
    add_machine_options(parser)
    add_run_options(parser, resume=False)


def _add_gan_truncation(commands):
    parser = commands.add_parser("truncation", help="dissimilarity against its threshold", formatter_class=HelpFormatter)
    parser.add_argument("--pairs", required=True, metavar="DIR", help="folder that `gan.py invert` wrote")
    parser.add_argument("--n", type=number(int, 1), default=1000, help="pairs that are used")
    add_machine_options(parser, workers=False)
    add_run_options(parser, resume=False)


def _add_gan_shard(commands):
    parser = commands.add_parser("shard", help="pack images into tar shards", formatter_class=HelpFormatter)
    parser.add_argument("--data", required=True, help=GAN_DATA_HELP.split(", or")[0])
    parser.add_argument("--out", required=True, metavar="PREFIX", help="shards are PREFIX-000000.tar, PREFIX-000001.tar, ...")
    parser.add_argument("--per_shard", type=number(int, 1), default=10_000, help="images per shard")
    parser.add_argument(
        "--size", type=image_size, default=128, help="their side, a multiple of 16; gan.py train takes powers of two"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace shards that exist")
    _add_gan_reading(parser)
    parser.add_argument("--num_workers", type=number(int, 0, 64), default=0, help="threads that check and read images")


def gan_parser():
    """Parser of gan.py with its sub-commands."""
    parser = argparse.ArgumentParser(prog="gan.py", description=GAN_TEXT, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_gan_train, _add_gan_sample, _add_gan_invert, _add_gan_finetune, _add_gan_shard):
        add(commands)
    study = commands.add_parser("study", help="spectrum | truncation | setups", formatter_class=HelpFormatter)
    studies = study.add_subparsers(dest="study", required=True, metavar="STUDY")
    for add in (_add_gan_spectrum, _add_gan_truncation, _add_gan_setups):
        add(studies)
    return parser


GAN_OPTIONS = {
    "train": GanTrainOptions,
    "sample": GanSampleOptions,
    "invert": GanInvertOptions,
    "finetune": GanFinetuneOptions,
    "shard": GanShardOptions,
    "spectrum": GanSpectrumOptions,
    "truncation": GanTruncationOptions,
    "setups": GanSetupsOptions,
}


def parse_gan(argv=None):
    """Command line -> name of the sub-command (or study) and its options, published defaults filled in."""
    parser = gan_parser()
    values = vars(parser.parse_args(argv))
    command = values.pop("command")
    command = values.pop("study", command)
    if command in ("train", "setups"):
        family = GAN_FAMILIES[values["adversarial"]]
        values |= {name: value for name, value in family.items() if values[name] is None}
    if command == "setups" and "BASELINE" not in values["setups"]:
        parser.error("argument --setups: BASELINE is needed, its fakes train the detectors")
    if command == "finetune":
        terms = (values["adv"], values["lambda_fourier"] > 0)
        if terms not in FINETUNE_RATES:
            parser.error("--adv 0 with --lambda_fourier 0 leaves no loss; give at least one of them")
        values["lr"] = values["lr"] or FINETUNE_RATES[terms]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return command, GAN_OPTIONS[command](**values)


# -------------------------------------------------------------------------------------------------------------- detect.py

_DECAY_PROTOCOL = {"runs": 10, "num_samples": 1000, "split": 0.1, "lr": None}  # lab protocol
_FEATURE_PROTOCOL = _DECAY_PROTOCOL | {"split": 0.8}
DETECT_DEFAULTS = {  # what an option left out means for each classifier
    "cnn": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 2e-4},
    "vit": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 2e-4},
    "resnet50": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 1e-4},
    "knn": _DECAY_PROTOCOL,
    "svm": _DECAY_PROTOCOL,
    "mlp": _DECAY_PROTOCOL,
    "logreg": _FEATURE_PROTOCOL,
    "coherence": _FEATURE_PROTOCOL,
}


@dataclasses.dataclass(frozen=True)
class DetectOptions:
    """Options of detect.py; None in runs, num_samples, split, lr means the classifier's own default."""

    mode: str
    is_train: bool
    classifier: tuple
    domain: str | None
    real: str | None
    fake: str | None
    eval_root: tuple
    robustness: bool
    size: int | None
    fit: str
    skip_bad: bool
    cache_gb: float
    runs: int | None
    num_samples: int | None
    split: float | None
    lr: float | None
    class_epoch: int
    class_batch_size: int
    patience: int
    augment: float
    vit_weights: str
    resnet_weights: str
    profile_corners: bool
    device: str
    timeout: float
    seed: int
    deterministic: bool
    num_workers: int
    dst: str
    overwrite: bool
    resume: bool

    def of(self, classifier):
        """These options with the classifier's defaults filled in."""
        own = {name: value for name, value in DETECT_DEFAULTS[classifier].items() if getattr(self, name) is None}
        return dataclasses.replace(self, **own)


DETECT_TEXT = """Train and evaluate detectors of generated images. Every number is of images no detector was trained on.

  python detect.py --is_train True --classifier cnn --lr 0.0002 --size 256 --class_epoch 20 --class_batch_size 32 --dst my_run
  python detect.py --classifier vit --size 256 --dst my_run --device 0,1
  python detect.py --is_train False --classifier cnn --size 256 --dst my_run --eval_root results/my_run/eval/refined
  python detect.py --classifier logreg,coherence,knn,svm,mlp --real photos --fake gan_a --eval_root gan_b,gan_c --dst matrix
  python detect.py --mode before_after --classifier logreg --dst my_run
  python detect.py --mode features --real photos --fake gan_a --dst features

Without --real and --fake the folders are results/<dst>/eval/real and .../fake. A detector goes to
results/<dst>/<classifier>_classifier/. Several processes (--device 0,1, or torchrun) share what the networks do; the other
classifiers work in the first process alone, and --mode features runs in one. Meant for research on image quality and on how
robust detectors are."""


def classifier_list(text):
    """Argparse type: comma-separated classifiers -> tuple."""
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in DETECT_DEFAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(DETECT_DEFAULTS)}")
    return names


def _add_detector_options(parser):
    fit = parser.add_argument_group("training a detector")
    fit.add_argument("--lr", type=number(float, 0, open_low=True), help="networks' rate (cnn, vit: 2e-4; resnet50: 1e-4)")
    fit.add_argument("--class_epoch", type=number(int, 1), default=20, help="networks: passes over the training images")
    fit.add_argument("--class_batch_size", type=number(int, 1), default=32, help="networks: images per step, over all processes")
    fit.add_argument(
        "--patience", type=number(int, 0), default=10, help="networks: stop after so many epochs without progress; 0: never"
    )
    fit.add_argument(
        "--augment", type=number(float, 0, 1), default=0.5, help="resnet50: probability of blur and of JPEG in training"
    )
    fit.add_argument("--vit_weights", metavar="imagenet|none|PATH", default="imagenet", help="what the vit starts from")
    fit.add_argument("--resnet_weights", metavar="imagenet|none|PATH", default="imagenet", help="what the resnet50 starts from")
    fit.add_argument(
        "--profile_corners",
        type=boolean,
        default=True,
        help="logreg: also the frequencies that only the spectrum's corners hold; False keeps the complete rings",
    )


def detect_parser():
    """Parser of detect.py."""
    parser = argparse.ArgumentParser(prog="detect.py", description=DETECT_TEXT, formatter_class=HelpFormatter)
    what = parser.add_argument_group("what to do")
    what.add_argument(
        "--mode",
        choices=("detect", "before_after", "features"),
        default="detect",
        help="train and evaluate; compare fakes, refined and linearly filtered images; or write decay features of folders",
    )
    what.add_argument("--is_train", type=boolean, default=True, help="False evaluates detectors that are there already")
    what.add_argument(
        "--classifier",
        type=classifier_list,
        default=("cnn",),
        metavar="NAME[,NAME...]",
        help="cnn, vit (paper), resnet50; knn, svm, mlp (decay features); logreg (radial profile); coherence (of "
        "frequencies with their aliases: phases, which no correction of magnitudes changes)",
    )
    what.add_argument(
        "--domain",
        choices=("spectrum", "image"),
        help="what cnn and vit look at (default spectrum); resnet50: image, others: spectrum",
    )
    what.add_argument("--real", metavar="DIR", help="folder of photographs")
    what.add_argument("--fake", metavar="DIR", help="folder of generated images to train on")
    what.add_argument(
        "--eval_root",
        type=lambda text: tuple(part for part in text.split(",") if part),
        default=(),
        metavar="DIR[,DIR...]",
        help="more folders of generated images to evaluate on (before_after: the refined ones)",
    )
    what.add_argument("--robustness", action="store_true", help="evaluate again after JPEG, resizing, blur and noise")
    read = parser.add_argument_group("size")
    read.add_argument("--size", type=number(int, 16, 8192), help="side of the images; left out, all must have one size already")
    add_reading_options(parser)
    protocol = parser.add_argument_group("protocol (each default depends on the classifier)")
    protocol.add_argument("--runs", type=number(int, 1), help="independent splits and trainings (networks 1, others 10)")
    protocol.add_argument("--num_samples", type=number(int, 2), help="images per class and run (networks all, others 1000)")
    protocol.add_argument(
        "--split",
        type=number(float, 0.01, 0.99),
        help="share for training, the rest is for testing (knn, svm, mlp 0.1, others 0.8)",
    )
    _add_detector_options(parser)
    add_machine_options(parser, several=True)
    add_run_options(parser)
    for action in parser._actions:
        if action.dest in ("overwrite", "resume"):
            action.help = {"overwrite": "train anew", "resume": "continue interrupted training"}[action.dest]
            action.help += " in an existing results/<dst>/<classifier>_classifier"
    return parser


def parse_detect(argv=None):
    """Command line -> `DetectOptions`."""
    parser = detect_parser()
    options = as_options(DetectOptions, parser, argv)
    if not options.is_train and (options.overwrite or options.resume):
        parser.error("--overwrite and --resume are for training; leave them out with --is_train False")
    if options.mode == "before_after" and len(options.eval_root) > 1:
        parser.error("--mode before_after takes one --eval_root, the folder of refined images")
    return options
