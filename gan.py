"""Small GANs that make fakes, and studies of what their last upsampling does to the spectrum; see docs/generators.md."""

from gan_commands.finetune import finetune
from gan_commands.invert import invert
from gan_commands.sample import sample
from gan_commands.setups import compare_setups
from gan_commands.shard import shard
from gan_commands.spectrum import compare_spectra
from gan_commands.train import train
from gan_commands.truncation import study_truncation
from options import parse_gan
from utils.errors import refuse_several, script
from utils.launch import run_processes

SHARED = {"train": train, "sample": sample}  # by several processes
COMMANDS = {
    "invert": invert,
    "finetune": finetune,
    "shard": shard,
    "spectrum": compare_spectra,
    "truncation": study_truncation,
    "setups": compare_setups,
}


@script(several=True)
def main(argv=None):
    command, options = parse_gan(argv)
    if command in SHARED:
        run_processes(SHARED[command], options, __file__, argv)
        return
    refuse_several(f"gan.py {command}")
    COMMANDS[command](options)


if __name__ == "__main__":
    main()
