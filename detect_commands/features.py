"""detect.py --mode features: decay features and log radial profiles as tables."""

from pathlib import Path

import numpy as np

from detect_commands.common import run_folders
from detect_commands.image_sets import open_sets
from utils.arguments import as_plain
from utils.decay import DECAY_NAMES, decay_features
from utils.errors import UserError
from utils.files import atomic_path
from utils.profiles import log_profile
from utils.run_dir import check_run_folder, open_run_folder, run_folder
from utils.tables import write_csv


def features(options):
    """results/<dst>/features/<folder>.csv (decay features) and .npz (with the log radial profile) of every folder named."""
    named = {"real": options.real, "fake": options.fake} | {f"other {i}": folder for i, folder in enumerate(options.eval_root)}
    folders = {role: Path(folder) for role, folder in named.items() if folder} or run_folders(options)
    place = "features", options.overwrite, None, run_folder(options.dst)
    check_run_folder(*place)
    sets, _, _ = open_sets(folders, options)
    files = {}
    for label in (images.label for images in sets.values()):
        other = files.setdefault(label.replace("/", "_"), label)
        if other != label:
            raise UserError(
                f"{other} and {label} would both be written to {label.replace('/', '_')}.csv; measure them with two --dst"
            )
    home = open_run_folder(*place, settings=as_plain(options))
    for images in sets.values():
        everything = range(len(images))
        decay = images.features(decay_features, "decay", everything)
        profile = images.features(lambda image: log_profile(image, corners=options.profile_corners), "profile", everything)
        path = home / f"{images.label.replace('/', '_')}.csv"
        write_csv(path, ["name", *DECAY_NAMES], [[name, *map(float, row)] for name, row in zip(images.names, decay, strict=True)])
        with atomic_path(path.with_suffix(".npz")) as temporary:
            np.savez(temporary, names=np.array(images.names), decay=decay, log_profile=profile)
        print(f"{path}: {len(images)} images")
