"""Arguments made of dataclasses: each option of a script is one field, from which its argument of the parser is made.

A class of options has as bases the groups that its help shows, in that order.
"""

import argparse
import dataclasses
import math
import re
from pathlib import PurePath

# ------------------------------------------------------------------------------------------------------- types of arguments


MOST = 2**31 - 1  # of whole numbers without another bound


def number(kind, low=None, high=None, open_low=False):
    """Argparse type: an int or float within [low, high] (or above low, if `open_low`), with a teaching error."""

    if kind is int and high is None:
        high = MOST

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        too_low = low is not None and (value < low or (open_low and value == low))
        if too_low or (high is not None and value > high) or not math.isfinite(value):
            bounds = [] if low is None else [f"{'more than' if open_low else 'at least'} {low}"]
            bounds += ["finite"] if high is None else [f"at most {high}"]
            raise argparse.ArgumentTypeError(f"{text[:20]} is out of range: give a number that is {' and '.join(bounds)}")
        return value

    return parse


def boolean(text):
    """Argparse type: true or false."""
    value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return value


def side(text):
    """Argparse type: side of images in pixels."""
    return number(int, 16, 8192)(text)


def image_size(text):
    """Argparse type: a positive multiple of 16."""
    value = side(text)
    if value % 16:
        raise argparse.ArgumentTypeError(f"{value} is not a multiple of 16; networks here halve it four times")
    return value


def number_list(low=None, high=None):
    """Argparse type: comma-separated whole numbers -> tuple."""
    return lambda text: tuple(number(int, low, high)(part) for part in text.split(","))


def name_list(choices, everything=False):
    """Argparse type: comma-separated names out of `choices` -> tuple.

    A name given twice counts once. With `everything`, `all` stands for all of them.
    """

    def parse(text):
        names = tuple(choices) if everything and text == "all" else tuple(dict.fromkeys(text.split(",")))
        unknown = [name for name in names if name not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join((*choices, *(['all'] if everything else [])))}")
        return names

    return parse


def name_in(folder):
    """Argparse type: the name of something in `folder`, which may stand before it, as a shell completes it."""

    def parse(text):
        parts = PurePath(text).parts
        if parts == (folder,) and text.endswith("/"):
            raise argparse.ArgumentTypeError(f"{text} is where they all are; give the name of one")
        if parts[0:1] == (folder,) and len(parts) > 1:
            return PurePath(*parts[1:]).as_posix()
        return text.rstrip("/") or text

    return parse


data_name = name_in("datasets")


def run_name(text):
    """Argparse type: the name of a run in results/, of characters that TensorBoard and other programs can write."""
    if not text.isprintable() or not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no name; give one of letters, digits and the like, such as my_run")
    return name_in("results")(text)


def tidy_path(text):
    """Argparse type: a path without what does not matter in it, such as the slash that a shell's completion adds."""
    return str(PurePath(text)) if text else text


def images_list(text):
    """Argparse type: comma-separated folders or patterns of shards -> tuple; a comma within braces is the pattern's."""
    parts = tuple(tidy_path(part) for part in re.split(r",(?![^{]*\})", text) if part)
    if not parts:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; give folders or patterns of shards, separated by commas")
    return parts


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, where there is one, as they are typed, and keeps the layout of the examples."""

    def _get_help_string(self, action):
        if action.required or action.nargs == 0 or action.default is None:
            return action.help
        if isinstance(action.default, tuple):  # comma-separated on the command line
            return f"{action.help} (default: {','.join(map(str, action.default)) or 'none'})"
        return super()._get_help_string(action)


# ------------------------------------------------------------------------------------------------- from fields to arguments

frozen = dataclasses.dataclass(frozen=True, kw_only=True)


def option(help, default=None, free=False, **arguments):
    """A field that is the option `--<its name>`; `arguments` are further ones of argparse's `add_argument`.

    It is `free` if interrupted work may go on with another value.
    """
    metadata = {"help": help, "free": free, **arguments}
    if arguments.get("required"):
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata={"default": default, **metadata})


def flag(help, free=False):
    """A field that is an option without a value: True where it is given."""
    return option(help, False, free, action="store_true")


def switch(help, default, free=False):
    """A field that is an option `--name True|False`."""
    return option(help, default, free, type=boolean, metavar="True|False")


def images_option(help, **arguments):
    """A field that names images, by a folder or by tar shards."""
    return option(help, **{"metavar": "DIR|SHARDS", "type": tidy_path, **arguments})


def path_option(help, metavar="DIR", **arguments):
    """A field that is the path of a folder (or of what else `metavar` says)."""
    return option(help, metavar=metavar, type=tidy_path, **arguments)


def reworded(cls, name, help, **changes):
    """The option `name` of the class `cls` with another help text, and other `changes` to what `option` takes."""
    return option(**cls.__dataclass_fields__[name].metadata | {"help": help, **changes})


def free_on_resume(options):
    """Names of the options, of a class or of one of its objects, that interrupted work may go on with other values of."""
    return {field.name for field in dataclasses.fields(options) if field.metadata.get("free")}


def group(title):
    """Class decorator: a frozen dataclass whose options stand together in the help, under `title`."""

    def decorate(cls):
        cls.TITLE = title
        return frozen(cls)

    return decorate


def fill(parser, cls):
    """Add an argument for each option of `cls`: its own first, without a title, then its groups in the order of its bases."""
    fields = {
        field.name: {name: value for name, value in field.metadata.items() if name != "free"}
        for field in dataclasses.fields(cls)
        if field.metadata
    }
    groups = {}  # title -> names; of groups with one title the first one counts, which is derived from the others
    for base in cls.__mro__:
        if "TITLE" in vars(base):
            groups.setdefault(base.TITLE, [field.name for field in dataclasses.fields(base)])
    grouped = {name for names in groups.values() for name in names}
    places = [(parser, [name for name in fields if name not in grouped])]
    places += [(parser.add_argument_group(title), names) for title, names in groups.items()]
    for place, names in places:
        for name in names:
            place.add_argument(f"--{name}", **fields[name])


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one sentence, without the usage of all options before it; options have one name each."""

    def __init__(self, **arguments):
        super().__init__(**arguments, allow_abbrev=False)

    def error(self, message):
        """Print the message and end with exit code 2."""
        if message.startswith("unrecognized arguments") and ".tar" in message:
            message += "; put a pattern of shards in quotes"
        self.exit(2, f"error: {message}; python {self.prog} --help shows all options\n")


def make_parser(script, text, cls):
    """The parser of a script: `text` above the options of `cls`."""
    parser = Parser(prog=script, description=text, formatter_class=HelpFormatter)
    fill(parser, cls)
    return parser


def parsed(parser, argv):
    """Parse `argv`: {option: value}; an empty text is a mistake."""
    namespace, unknown = parser.parse_known_args(argv)
    values = vars(namespace)
    parser = values.get("parser", parser)  # of a sub-command
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    for name, value in values.items():
        if value == "":
            parser.error(f"argument --{name}: it is empty; give a value, or leave the option out")
    return values


def as_options(cls, parser, argv):
    """Parse `argv` and return the frozen dataclass `cls` with one field per option."""
    return cls(**parsed(parser, argv))


def refuse_unread(parser, values, names, switch, off):
    """The parser's error if some of these options were given though the option `switch` is `off`, and nothing reads them."""
    given = [name for name in names if values[name] != parser.get_default(name)]
    if values[switch] == off and given:
        why = f"without --{switch}" if off is None else f"with --{switch} {off}; leave one of them out"
        parser.error(f"argument --{given[0]}: has no effect {why}")


def as_plain(options):
    """Options dataclass -> dictionary of plain values, for options.json and checkpoints."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(options).items()}


def as_arguments(options, defaults):
    """Options dataclass -> the shortest list of arguments that gives it; `defaults` (a dict) go before those of its fields."""
    arguments = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != defaults.get(field.name, field.default):
            arguments.append(f"--{field.name}")
            if field.metadata.get("action") != "store_true":
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                arguments[-1:] = [f"--{field.name}={text}"] if text.startswith("-") else [f"--{field.name}", text]
    return arguments
