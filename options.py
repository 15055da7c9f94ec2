"""Every command-line option: one parser and one frozen dataclass per script."""

import argparse
import dataclasses
import math


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
    """Shows defaults and keeps the layout of the examples."""


def add_machine_options(parser):
    """Options that every script has."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto (first GPU, else CPU) | cpu | mps | a GPU number such as 0 | cuda:1")
    group.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=42, help="the same seed gives the same run")
    group.add_argument("--deterministic", action="store_true", help="use only reproducible kernels (bit-identical, may be slower)")
    group.add_argument(
        "--num_workers", type=number(int, 0, 64), default=0, help="processes that read images; 0 reads in the main process"
    )


def add_run_options(parser, resume=True):
    """Options of scripts that fill results/<dst>."""
    group = parser.add_argument_group("run folder")
    group.add_argument("--dst", required=True, help="name of the run: everything goes to results/<dst>")
    group.add_argument("--overwrite", action="store_true", help="delete an existing results/<dst> first")
    if resume:
        group.add_argument("--resume", action="store_true", help="continue an interrupted results/<dst>")


def add_reading_options(parser):
    """Options of scripts that read images of any size."""
    group = parser.add_argument_group("reading images")
    group.add_argument(
        "--fit",
        choices=("resize", "crop", "none"),
        default="resize",
        help="images of another size: resize (as the released code; erases the artefacts being studied), centre crop, or refuse",
    )
    group.add_argument("--skip_bad", action="store_true", help="leave unreadable files out (they are named) instead of stopping")
    group.add_argument(
        "--cache_gb", type=number(float, 0), default=2.0, help="memory for decoded images; 0 reads from disk each time"
    )


def as_options(cls, parser, argv):
    """Parse `argv` and return the frozen dataclass `cls` with one field per option."""
    return cls(**vars(parser.parse_args(argv)))


def as_plain(options):
    """Options dataclass -> dictionary of plain values, for options.json and checkpoints."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(options).items()}
