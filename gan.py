"""Small GANs that make fakes, and studies of what their last upsampling does to the spectrum; see docs/generators.md."""

import contextlib
import importlib
from pathlib import Path

from gan_commands.options import parse_gan
from utils.errors import refuse_several, script
from utils.interrupts import leaving
from utils.launch import run_processes
from utils.resume import WayOn
from utils.run_dir import OPTIONS, RESULTS

SHARED = ("train", "sample")  # by several processes
# What says in a folder outside of results/ whose its images are: ORIGIN and PAIRS of modules that are slow to import.
FILLED = {"sample": ".sample.json", "invert": "pairs.json"}


def filled(command, options):
    """Context in which a sub-command fills a folder: interrupted, it says what is kept there and what it needs to go on."""
    if command == "shard":
        return contextlib.nullcontext()  # keeps nothing, and needs nothing
    if command in FILLED:
        folder, name = Path(options.out), FILLED[command]
        return leaving(folder, WayOn(folder, True, name, name, "--overwrite left out") if options.overwrite else "")
    folder = RESULTS / options.dst
    if command in ("train", "finetune", "setups"):
        return leaving(folder, WayOn(folder, options.overwrite, *([OPTIONS] if command == "setups" else [])))
    return leaving(folder, "--overwrite")


@script(several=True)
def main(argv=None):
    command, options = parse_gan(argv)
    with filled(command, options):
        if command not in SHARED:
            refuse_several(f"gan.py {command}")
        # each command is a function in a module of its name, imported when it is wanted, for that takes seconds
        run = getattr(importlib.import_module(f"gan_commands.{command}"), command)
        if command in SHARED:
            run_processes(run, options, __file__, argv)
        else:
            run(options)


if __name__ == "__main__":
    main()
