"""Train and evaluate detectors of generated images; say honestly how well they do on images they were not trained on."""

import importlib

from detect_commands.options import parse_detect
from utils.distributed import resolve_device
from utils.errors import refuse_several, script
from utils.interrupts import leaving, to_resume
from utils.launch import run_processes
from utils.run_dir import RESULTS


@script(several=True)
def main(argv=None):
    """Run detect.py."""
    options = parse_detect(argv)
    way_on = "--overwrite" if options.mode == "features" else to_resume(options.overwrite)
    with leaving(RESULTS / options.dst, way_on if options.is_train else ""):
        # each mode is a function in a module of its name, imported when it is wanted, for that takes seconds
        run = getattr(importlib.import_module(f"detect_commands.{options.mode}"), options.mode)
        if options.mode == "features":
            refuse_several("detect.py --mode features")
            resolve_device(options.device)  # works on the CPU, but a wrong name or a list of devices is a mistake all the same
            run(options)
            return
        run_processes(run, options, __file__, argv)


if __name__ == "__main__":
    main()
