"""Options of gan.py: one class for each sub-command and study, made as those in the other options.py."""

import argparse
import functools

from models.gan import SETUPS
from models.gan_losses import METRICS, PENALTIES, PENALTY_SAMPLES
from models.gan_training import GanConfig
from options import CachedReading, Machine, Reading, ResumableRun, RunFolder, SharedMachine
from utils.arguments import (
    HelpFormatter,
    Parser,
    fill,
    flag,
    frozen,
    group,
    image_size,
    images_option,
    name_list,
    number,
    option,
    parsed,
    path_option,
    refuse_unread,
    reworded,
    run_name,
    side,
)

GAN_FAMILIES = {  # published settings of each loss
    "gan": {"lr": 1e-4, "critic_steps": 1, "epochs": 50, "penalty": "none"},
    "lsgan": {"lr": 1e-4, "critic_steps": 1, "epochs": 50, "penalty": "none"},
    "wgan-gp": {"lr": 2e-4, "critic_steps": 5, "epochs": 100, "penalty": "zero"},
}
FINETUNE_RATES = {(0, True): 1e-4, (1, True): 1e-5, (1, False): 1e-6}  # (adversarial term, Fourier term) -> published rate
DETECTORS = ("knn", "svm", "mlp")  # of the set-ups

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

photographs_option = functools.partial(
    images_option,
    "folder in datasets/, any folder tree (of one that holds real/ and fake/, the photographs), or quoted tar shards such as "
    "'photos-{000000..000007}.tar'",
    metavar="NAME|DIR|SHARDS",
    required=True,
)
PAIRS = "folder that `gan.py invert` wrote"


def power_of_two(text, least=8):
    """Argparse type: 8, 16, 32, ... 1024."""
    value = number(int, least, 1024)(text)
    if value & (value - 1):
        raise argparse.ArgumentTypeError(f"{value} is not a power of two; the generator doubles 4 x 4 until it is reached")
    return value


# ------------------------------------------------------------------------------------------------------ groups that are shared


@group("data")
class GanData:
    """What a GAN is trained on."""

    data: str = photographs_option()
    size: int = option("side of the images in pixels, a power of two from 8", GanConfig.size, type=power_of_two)


@group("networks")
class GanNetworks:
    """Loss and size of a GAN."""

    adversarial: str = option("loss: DCGAN, LSGAN or WGAN with gradient penalty", GanConfig.adversarial, choices=GAN_FAMILIES)
    dim: int = option("channels before the last layer", GanConfig.dim, type=number(int, 1, 512))
    latent_dim: int = option("length of the latent vector", GanConfig.latent_dim, type=number(int, 1, 4096))


@group("training (without a value: the published one of --adversarial)")
class GanSteps:
    """How a GAN is trained; None means the value in GAN_FAMILIES."""

    epochs: int | None = option("passes over the data: 50, 50, 100", type=number(int, 1))
    batch_size: int = option("images per step", 64, type=number(int, 2))
    lr: float | None = option("Adam's rate: 1e-4, 1e-4, 2e-4", type=number(float, 0, open_low=True))
    critic_steps: int | None = option("discriminator steps per generator step: 1, 1, 5", type=number(int, 1))
    penalty: str | None = option(
        "on the norm of the discriminator's gradient: zero and one pull it there, lipschitz down to one: none, none, zero",
        choices=PENALTIES,
    )
    penalty_sample: str = option(
        "at which images: between reals and fakes, at either, or (dragan) between reals and noisy reals",
        GanConfig.penalty_sample,
        choices=PENALTY_SAMPLES,
    )
    penalty_weight: float = option("its weight", GanConfig.penalty_weight, type=number(float, 0, open_low=True))
    spectral_loss: float = option(
        "weight of the spectral regularisation (power profile)", GanConfig.spectral_loss, type=number(float, 0)
    )
    ema: float = option("decay of an averaged generator that is used; 0: none", GanConfig.ema, type=number(float, 0, 0.99999))


@group("monitoring")
class GanMonitoring:
    """What is measured while a GAN is trained."""

    monitor: str | None = option(
        "what drives rate decay, early stopping and best.pt; unset: fid, or lfd where the Inception weights are missing",
        choices=("fid", "kid", "lfd"),
    )
    monitor_samples: int = option("fakes per epoch that it is measured on", 10_000, type=number(int, 2))
    inception_weights: str | None = path_option("pytorch-fid's weights file, where it cannot be downloaded", "PATH", free=True)
    patience: int = option("epochs without a better score before training stops", 5, type=number(int, 1))
    log_frequency: int = option("generator steps between rows of log.csv", 20, free=True, type=number(int, 1))


@frozen
class GanTraining(GanData, CachedReading, GanNetworks, GanSteps, GanMonitoring):
    """What `train` and `study setups` share."""


@group("reading images")
class GanReading(Reading):
    """How images are read that no GAN is trained on."""

    fit: str = reworded(Reading, "fit", "images of another size: resize, crop, or none (refuse them)")


# ------------------------------------------------------------------------------------------------------------- sub-commands


@frozen
class GanTrainOptions(GanTraining, SharedMachine, ResumableRun):
    """Options of gan.py train."""

    setup: str = option("last upsampling, see above", GanConfig.setup, choices=SETUPS)
    batch_size: int = reworded(GanSteps, "batch_size", "images per step, over all processes")


@frozen
class TrainedRun:
    """The training that a sub-command reads; where it goes on, the weights must be the same, whatever they are called by then."""

    dst: str = option("the trained run results/<dst>", free=True, required=True, type=run_name)
    checkpoint: str = option("its best epoch by the monitor, or its last", "best", free=True, choices=("best", "last"))


@frozen
class GanSampleOptions(SharedMachine, TrainedRun):
    """Options of gan.py sample."""

    n: int = option("number of images; the first of a seed are always the same", 1000, type=number(int, 1, 10**6))
    out: str = path_option("folder to fill, such as datasets/photos/fake; continued if begun", required=True)
    overwrite: bool = flag("delete the images in DIR first")
    batch_size: int = option("images at once; does not change them", 64, type=number(int, 1))
    num_workers: int = reworded(Machine, "num_workers", "threads that write the images; 0: none")


@frozen
class GanInvertOptions(GanReading, Machine, TrainedRun):
    """Options of gan.py invert."""

    data: str = photographs_option()
    n: int | None = option("only the first n images", type=number(int, 1))
    out: str = path_option("folder for real/, fake/ and latent/ of the pairs that are kept", free=True, required=True)
    steps: int = option("Adam steps per image", 200, type=number(int, 1))
    lr: float = option("Adam's rate", 0.05, type=number(float, 0, open_low=True))
    threshold: float = option("pairs with a larger final loss are dropped", 0.3, type=number(float, 0))
    batch_size: int = option("images at once; they do not influence each other", 64, free=True, type=number(int, 1))
    overwrite: bool = flag("delete DIR's pairs first", free=True)


@group("objective: adv * adversarial loss + lambda_fourier * dissimilarity")
class FinetuneObjective:
    """The terms of the generator's loss."""

    adv: int = option("adversarial term on or off", 1, type=int, choices=(0, 1))
    lambda_fourier: float = option("weight of the Fourier dissimilarity", 1e3, type=number(float, 0))
    metric: str = option("dissimilarity: L1, Frobenius, or 1 - cosine", "cos", choices=METRICS)
    threshold: int | None = option("frequencies below it do not count; unset: 20 per 256 pixels", type=number(int, 0))


@group("training")
class FinetuneSteps:
    """How long and how fast, and who judges."""

    lr: float | None = option(
        "Adam's rate; unset: 1e-4 Fourier, 1e-5 both, 1e-6 adversarial only", type=number(float, 0, open_low=True)
    )
    epochs: int = option("passes over the pairs, in whole batches", 20, type=number(int, 1))
    batch_size: int = option("pairs per step", 16, type=number(int, 2))
    n: int = option("fresh samples per epoch that the detector judges", 10_000, type=number(int, 20))
    detector: str = option(
        "knn, svm, mlp, logreg, coherence, coherence8, fitted on fakes of the untouched generator; or a detector.pt of detect.py",
        "svm",
        metavar="NAME|PATH",
    )


@frozen
class GanFinetuneOptions(FinetuneObjective, FinetuneSteps, Machine, ResumableRun):
    """Options of gan.py finetune."""

    generator: str = option("the trained run results/<generator> to start from", required=True, type=run_name)
    checkpoint: str = reworded(TrainedRun, "checkpoint", "its best epoch by the monitor, or its last", free=False)
    pairs: str = path_option(PAIRS, required=True)


@frozen
class GanShardOptions(GanReading):
    """Options of gan.py shard."""

    data: str = photographs_option()
    out: str = option("shards are PREFIX-000000.tar, PREFIX-000001.tar, ...", required=True, metavar="PREFIX")
    per_shard: int = option("images per shard", 10_000, type=number(int, 1))
    size: int = option("their side, a multiple of 16; gan.py train takes powers of two", 128, type=image_size)
    overwrite: bool = flag("replace shards that exist")
    num_workers: int = reworded(Machine, "num_workers", "processes that check images, threads that read and pack them")


# ------------------------------------------------------------------------------------------------------------------ studies


@frozen
class GanSpectrumOptions(GanReading, Machine, RunFolder):
    """Options of gan.py study spectrum."""

    real: str = images_option("folder (or quoted tar shards) of photographs", required=True)
    inputs: tuple = option(
        "runs in results/, folders of images or quoted tar shards, as NAME or LABEL=NAME", required=True, nargs="+"
    )
    n: int = option("images of each that are used", 1000, type=number(int, 2))
    size: int | None = option("bring images to this size; unset: all must have one size already", type=side)


@frozen
class GanTruncationOptions(Machine, RunFolder):
    """Options of gan.py study truncation."""

    pairs: str = path_option(PAIRS, required=True)
    n: int = option("pairs that are used", 1000, type=number(int, 1))


@group("study")
class SetupsStudy:
    """What is compared, and by which detectors."""

    setups: tuple = option("comma-separated, or all; BASELINE is needed", SETUPS, type=name_list(SETUPS, everything=True))
    reference: str | None = images_option("reals to compare with, as --data; unset: the training images", metavar="NAME|DIR|SHARDS")
    n: int = option("fakes per set-up (and reals) that the detectors see", 1000, type=number(int, 20))
    detectors: tuple = option("on decay features, comma-separated", DETECTORS, type=name_list(DETECTORS, everything=True))
    train_fraction: float = option("share of images they are trained on", 0.1, type=number(float, 0.01, 0.9))
    repeats: int = option("independent splits, averaged", 10, type=number(int, 1))


@frozen
class GanSetupsOptions(SetupsStudy, GanTraining, Machine, ResumableRun):
    """Options of gan.py study setups: those of train, for several set-ups."""

    setup: str = GanConfig.setup  # no option: each training has another one
    size: int = reworded(
        GanData, "size", "side of the images in pixels, a power of two from 16", type=functools.partial(power_of_two, least=16)
    )


# ------------------------------------------------------------------------------------------------------------------- gan.py

COMMANDS = {  # name -> options, help
    "train": (GanTrainOptions, "train a GAN on photographs"),
    "sample": (GanSampleOptions, "write generated images"),
    "invert": (GanInvertOptions, "find the latents of photographs"),
    "finetune": (GanFinetuneOptions, "fine-tune a generator with a Fourier loss"),
    "shard": (GanShardOptions, "pack images into tar shards"),
}
STUDIES = {
    "spectrum": (GanSpectrumOptions, "compare the spectra of runs or folders"),
    "truncation": (GanTruncationOptions, "dissimilarity against its threshold"),
    "setups": (GanSetupsOptions, "train several set-ups under one budget and compare"),
}


DESCRIPTIONS = {  # of sub-commands whose options need more than a line
    "train": """Train a GAN on photographs.

  python gan.py train --data photos --size 64 --adversarial lsgan --setup N.1.5 --dst my_gan

--setup: BASELINE ends in a transposed convolution; others in an upsampling (N nearest neighbour, B bilinear, Z zero insertion),
then 1 or 3 convolutions of 3, 5 or 7 pixels: N.1.5. What each does to the spectrum: docs/generators.md.""",
}


def gan_parser():
    """Parser of gan.py with its sub-commands."""
    parser = Parser(prog="gan.py", description=GAN_TEXT, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (cls, text) in COMMANDS.items():
        _add(commands, name, cls, text)
    text = "Studies of what a generator does to the spectrum; python gan.py study STUDY --help explains each."
    study = commands.add_parser("study", help=" | ".join(STUDIES), description=text, formatter_class=HelpFormatter)
    studies = study.add_subparsers(dest="study", required=True, metavar="STUDY")
    for name, (cls, text) in STUDIES.items():
        _add(studies, name, cls, text)
    return parser


def _add(commands, name, cls, text):
    """Add the parser of a sub-command, which is its own option `parser`, to speak of its mistakes."""
    examples = [line for line in GAN_TEXT.splitlines() if f" {name} " in line and line.startswith("  python")]
    described = DESCRIPTIONS.get(name, "\n\n".join([f"{text[0].upper()}{text[1:]}.", *examples]))
    parser = commands.add_parser(name, help=text, description=described, formatter_class=HelpFormatter)
    fill(parser, cls)
    parser.set_defaults(parser=parser)


def parse_gan(argv=None):
    """Command line -> name of the sub-command (or study) and its options, published defaults filled in."""
    values = parsed(gan_parser(), argv)
    parser, command = values.pop("parser"), values.pop("command")
    command = values.pop("study", command)
    if command in ("train", "setups"):
        family = GAN_FAMILIES[values["adversarial"]]
        values |= {name: value for name, value in family.items() if values[name] is None}
        refuse_unread(parser, values, ("penalty_weight", "penalty_sample"), "penalty", "none")
    if command == "setups" and "BASELINE" not in values["setups"]:
        parser.error("argument --setups: BASELINE is needed, its fakes train the detectors")
    if command == "finetune":
        terms = (values["adv"], values["lambda_fourier"] > 0)
        if terms not in FINETUNE_RATES:
            parser.error("--adv 0 with --lambda_fourier 0 leaves no loss; give at least one of them")
        values["lr"] = values["lr"] or FINETUNE_RATES[terms]
    if command == "spectrum":
        refuse_unread(parser, values, ("fit",), "size", None)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return command, (COMMANDS | STUDIES)[command][0](**values)
