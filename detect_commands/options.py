"""Options of detect.py, made as those in the other options.py."""

import dataclasses

from options import CachedReading, ResumableRun, SharedMachine
from utils.arguments import (
    as_options,
    flag,
    frozen,
    group,
    images_list,
    images_option,
    make_parser,
    name_list,
    number,
    option,
    refuse_unread,
    reworded,
    side,
    switch,
)
from utils.filters import FILTERS

_DECAY_PROTOCOL = {"runs": 10, "num_samples": 1000, "split": 0.1, "lr": None}  # as in the published study of decay features
_FEATURE_PROTOCOL = _DECAY_PROTOCOL | {"split": 0.8}
DETECT_DEFAULTS = {  # what an option left out means for each classifier
    "cnn": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 2e-4},
    "cnn_whitened": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 1e-3},
    "vit": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 2e-4},
    "resnet50": {"runs": 1, "num_samples": None, "split": 0.8, "lr": 1e-4},
    "knn": _DECAY_PROTOCOL,
    "svm": _DECAY_PROTOCOL,
    "mlp": _DECAY_PROTOCOL,
    "logreg": _FEATURE_PROTOCOL,
    "coherence": _FEATURE_PROTOCOL,
    "coherence8": _FEATURE_PROTOCOL,
}

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


@group("what to do")
class Detecting:
    """Mode, detectors and images."""

    mode: str = option(
        "train and evaluate; compare fakes, filtered and refined images; or write decay features of folders",
        "detect",
        choices=("detect", "before_after", "features"),
    )
    is_train: bool = switch("False evaluates detectors that are there already", True)
    classifier: tuple = option(
        "cnn, vit (paper); cnn_whitened (the cnn on bins in units of their spread over the training images: finds more than cnn, "
        "and loses more by JPEG and resizing); "
        "resnet50; knn, svm, mlp (decay features); logreg (radial profile); coherence "
        "(whether phases of frequencies agree with those of their aliases, which no correction of magnitudes changes); coherence8 "
        "(aliases at eighths of the sampling rate, too: for generators that end in three doublings of the size, such as decoders "
        "of latent diffusion)",
        ("cnn",),
        type=name_list(DETECT_DEFAULTS),
        metavar="NAME[,NAME...]",
    )
    domain: str | None = option(
        "cnn, vit: spectrum (default) or image; cnn_whitened: the spectrum of opponent colours (default) or of red, green and "
        "blue (spectrum); resnet50: image; others: spectrum",
        choices=("spectrum", "opponent", "image"),
    )
    real: str | None = images_option("folder (or tar shards) of photographs")
    fake: str | None = images_option("folder (or tar shards) of generated images to train on")
    eval_root: tuple = images_option(
        "more folders (or tar shards) of generated images to evaluate on (before_after: the refined ones)",
        default=(),
        type=images_list,
        metavar="DIR|SHARDS[,...]",
    )
    filters: tuple = option(
        f"before_after: filters ({', '.join(FILTERS)}, or none) to set beside the refined images, each with a detector of its own "
        "to train; those of the run in --dst or, if it has none of this size or images are named, fitted on half of what is not "
        "for testing",
        ("linear", "cepstral"),
        type=lambda text: () if text == "none" else name_list(FILTERS)(text),
        metavar="NAME[,NAME...]",
    )
    robustness: bool = flag("evaluate again after JPEG, resizing, blur and noise")


@group("size")
class DetectSize:
    """The side of all images."""

    size: int | None = option("side of the images; left out, all must have one size already", type=side)


@group("protocol (each default depends on the classifier)")
class Protocol:
    """How often, and on how many images."""

    runs: int | None = option(
        "independent splits and trainings, of seeds --seed, --seed + 1, ... (networks 1, others 10)", type=number(int, 1)
    )
    num_samples: int | None = option("images per class and run (networks all, others 1000)", type=number(int, 2))
    split: float | None = option(
        "share for training, the rest is for testing (knn, svm, mlp 0.1, others 0.8)", type=number(float, 0.01, 0.99)
    )


@group("training a detector")
class DetectorTraining:
    """What decides one training."""

    lr: float | None = option(
        "networks' rate (cnn, vit: 2e-4; cnn_whitened: 1e-3; resnet50: 1e-4)", type=number(float, 0, open_low=True)
    )
    class_epoch: int = option("networks: passes over the training images", 20, type=number(int, 1))
    class_batch_size: int = option("networks: images per step, over all processes", 32, type=number(int, 1))
    patience: int = option("networks: stop after so many epochs without progress; 0: never", 10, type=number(int, 0))
    augment: float = option("resnet50: probability of blur and of JPEG in training", 0.5, type=number(float, 0, 1))
    vit_weights: str = option("what the vit starts from", "imagenet", metavar="imagenet|none|PATH")
    resnet_weights: str = option("what the resnet50 starts from", "imagenet", metavar="imagenet|none|PATH")
    profile_corners: bool = switch(
        "logreg: also the frequencies that only the spectrum's corners hold; False keeps the complete rings", True
    )


@frozen
class DetectOptions(Detecting, DetectSize, CachedReading, Protocol, DetectorTraining, SharedMachine, ResumableRun):
    """Options of detect.py; None in runs, num_samples, split, lr means the classifier's own default."""

    overwrite: bool = reworded(ResumableRun, "overwrite", "train anew in an existing results/<dst>/<classifier>_classifier")
    resume: bool = reworded(
        ResumableRun, "resume", "continue interrupted training in an existing results/<dst>/<classifier>_classifier"
    )

    def of(self, classifier):
        """These options with the classifier's defaults filled in."""
        own = {name: value for name, value in DETECT_DEFAULTS[classifier].items() if getattr(self, name) is None}
        return dataclasses.replace(self, **own)


_NETWORKS = tuple(name for name, protocol in DETECT_DEFAULTS.items() if protocol["lr"])
READ_BY = dict.fromkeys(("lr", "class_epoch", "class_batch_size", "patience"), _NETWORKS) | {  # option -> classifiers that read it
    "vit_weights": ("vit",),
    "resnet_weights": ("resnet50",),
    "augment": ("resnet50",),
    "profile_corners": ("logreg",),
}
_OF_DETECTORS = ("is_train", "classifier", "domain", "runs", "num_samples", "split", "seed", "deterministic", "timeout", *READ_BY)
MODES_OF = dict.fromkeys(_OF_DETECTORS, ("detect", "before_after")) | {  # option -> modes that read it; others: all
    "filters": ("before_after",),
    "robustness": ("detect",),
    "resume": ("detect", "before_after"),
    "profile_corners": ("detect", "before_after", "features"),
}
_ONLY_TO_TRAIN = ("overwrite", "resume", "runs", "split", *set(READ_BY) - {"class_batch_size", "profile_corners"})


def unread_options(options):
    """Options of detect.py that were given another value than their default and that nothing would read: [(names, why)]."""
    given = [field.name for field in dataclasses.fields(options) if getattr(options, field.name) != field.default]
    reading = {name: set(users) & set(options.classifier) for name, users in READ_BY.items() if options.mode != "features"}
    return [
        ([name for name in given if options.mode not in MODES_OF.get(name, (options.mode,))], f"with --mode {options.mode}"),
        ([name for name in given if not reading.get(name, True)], f"on {', '.join(options.classifier)}"),
        (
            [name for name in given if name in _ONLY_TO_TRAIN and not options.is_train],
            "with --is_train False: saved detectors are judged as they are, on what they were not trained on",
        ),
    ]


def parse_detect(argv=None):
    """Command line -> `DetectOptions`."""
    parser = make_parser("detect.py", DETECT_TEXT, DetectOptions)
    options = as_options(DetectOptions, parser, argv)
    refuse_unread(parser, vars(options), ("fit",), "size", None)
    if options.overwrite and options.resume:
        parser.error("--overwrite and --resume exclude each other; give one of them")
    if not options.is_train and options.mode == "before_after":
        parser.error("--mode before_after trains detectors of refined images; leave --is_train False out")
    for names, why in unread_options(options):
        if names:
            parser.error(f"{' and '.join(f'--{name}' for name in names)} {'have' if len(names) > 1 else 'has'} no effect {why}")
    if options.mode == "before_after" and len(options.eval_root) > 1:
        parser.error("--mode before_after takes one --eval_root, the folder of refined images")
    return options
