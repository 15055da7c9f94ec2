"""Small GANs that make fakes, and studies of what their last upsampling does to the spectrum; see docs/generators.md."""

from pathlib import Path

from gan_commands.finetune import finetune
from gan_commands.invert import invert
from gan_commands.options import parse_gan
from gan_commands.sample import sample
from gan_commands.setups import compare_setups
from gan_commands.shard import shard
from gan_commands.spectrum import compare_spectra
from gan_commands.train import train
from gan_commands.truncation import study_truncation
from utils.checkpoint import WayOn
from utils.errors import refuse_several, script
from utils.interrupts import leaving, to_resume
from utils.launch import run_processes
from utils.run_dir import RESULTS

SHARED = {"train": train, "sample": sample}  # by several processes
COMMANDS = {
    "invert": invert,
    "finetune": finetune,
    "shard": shard,
    "spectrum": compare_spectra,
    "truncation": study_truncation,
    "setups": compare_setups,
}


def filled(command, options):
    """The folder that a sub-command fills, and what it needs to go on there after an interruption, as `leaving` takes them."""
    if command == "shard":
        return Path(options.out).parent, "--overwrite"
    if command in ("sample", "invert"):
        return Path(options.out), "--overwrite left out" if options.overwrite else ""
    folder = RESULTS / options.dst
    if command in ("train", "finetune"):
        return folder, WayOn(folder, options.overwrite)
    return folder, to_resume(options.overwrite) if command == "setups" else "--overwrite"


@script(several=True)
def main(argv=None):
    command, options = parse_gan(argv)
    folder, option = filled(command, options)
    with leaving(folder, option):
        if command in SHARED:
            run_processes(SHARED[command], options, __file__, argv)
            return
        refuse_several(f"gan.py {command}")
        COMMANDS[command](options)


if __name__ == "__main__":
    main()
