"""Refine any folder of generated images with a trained checkpoint or a filter."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import Subset

from data.copies import file_sum, images_seen
from data.folder import all_of_size, load_folder, refuse_mixed, refuse_same, require_one_size
from data.listing import list_images
from data.reading import header_info
from data.shards import is_shards, list_shards
from data.training import ONE_IMAGE, trained_fakes
from models.refiners import released_model, trained_model
from options import PRESETS, InferenceOptions, parse_inference
from utils.arguments import as_plain, free_on_resume
from utils.checkpoint import digest_of, fitting, load_checkpoint
from utils.errors import UserError, script, warn
from utils.files import read_json, real_path
from utils.filter_fitting import fitted_filters
from utils.filters import check_filter, filter_refiner
from utils.interrupts import leaving
from utils.launch import run_processes
from utils.measure import batches
from utils.pictures import to_8bit
from utils.released import released_file, released_generator
from utils.result_files import output_names, write_pictures
from utils.resume import WayOn, check_same_options
from utils.run_dir import OPTIONS, RESULTS, check_run_folder, open_run_folder, run_folder
from utils.seeding import seed_everything


@dataclasses.dataclass(frozen=True)
class Refiner:
    """What refines: function (N, 3, size, size) -> (N, 3, size, size) in [0, 1], on one device.

    `fit` is how images of other sizes were brought to `size` when it was made, `origin` a text by which it is known again.
    """

    size: int
    fit: str
    refine: Callable
    origin: str


def fitted_filter(options, size, device):
    """The filter from --fake to --real, on the CPU, and by what the images it was fitted on are known again."""
    refuse_same(options.real, options.fake)
    sides = [
        load_folder(folder, size, options.fit, options.skip_bad, 0.0, options.num_workers)[0]
        for folder in (options.real, options.fake)
    ]
    for side, images in zip(("real", "fake"), sides, strict=True):
        if len(images) < 2 and options.method != "linear":
            warn(ONE_IMAGE.format(side))
    named = ((side, f"spectra of {side.paths[0].parent}") for side in sides)
    origin = " + ".join(str(file_sum(side.paths)) for side in sides)
    fitted = fitted_filters([options.method], *named, device, options.num_workers, options.period)
    return fitted[options.method], f"fitted on files of {origin}"


def own_size(options):
    """The side that all images to refine and to fit on have; UserError if they differ or it is none that --size could be."""
    checked = (
        load_folder(
            folder, None, skip_bad=options.skip_bad, num_workers=options.num_workers, recursive=recursive, tell=lambda text: None
        )
        for folder, recursive in ((options.inference_data, True), (options.real, False), (options.fake, False))
    )
    infos = [found for _, found in checked]
    require_one_size(*infos, square=True)
    first = infos[0][0]
    if first.width % 16:
        raise UserError(
            f"{first.path} is {first.width} x {first.height}, no multiple of 16; give a --size that is one, with --fit crop"
        )
    return first.width


def refiner_of_folders(options, processes):
    """`Refiner` of a filter that is fitted on --real and --fake."""
    size = options.size or processes.once(lambda: own_size(options))
    chosen = dataclasses.replace(options, fit=options.fit or "resize")
    fitted, origin = processes.once(lambda: fitted_filter(chosen, size, processes.device))
    return Refiner(size, chosen.fit, filter_refiner(fitted, processes.device), origin)


def released_refiner(file, size, device):
    """`Refiner` of a generator of the released code; UserError if the file does not fit the network."""
    state = released_generator(file)
    try:
        model = released_model(state, size, PRESETS["released"]).to(device)
    except ValueError as error:
        raise UserError(f"{file} is not a released generator: {error}") from error
    return Refiner(size, "resize", model.refine, digest_of(model.state_dict()))


def trained_refiner(path, options, device):
    """`Refiner` of the checkpoint of a training: its network, or the filter that --method names."""
    checkpoint = load_checkpoint(path, "stig")
    with fitting(path):
        size, fit = checkpoint["settings"]["size"], checkpoint["options"]["fit"]
    if options.size not in (None, size):
        raise UserError(f"{path} was trained at {size} px; leave --size {options.size} out or give another checkpoint")
    with fitting(path):
        if options.method != "stig":
            kept = check_filter(checkpoint["filters"][options.method], size)
            return Refiner(size, fit, filter_refiner(kept, device), digest_of(kept))
        model = trained_model(checkpoint).to(device)
    return Refiner(size, fit, model.refine, digest_of(model.state_dict()))


def open_refiner(options, processes):
    """`Refiner` that --method and --inference_params ask for; UserError for whatever is missing or does not fit."""
    if options.real:
        return refiner_of_folders(options, processes)
    path, released = Path(options.inference_params), released_file(options.inference_params)
    if released and options.method != "stig":
        raise UserError(f"{path} is a released checkpoint and holds no filter; give --real and --fake instead")
    if released:
        return released_refiner(released, options.size or 256, processes.device)
    if path.is_dir() and not (path / "checkpoint.pt").is_file():
        raise UserError(
            f"{path} holds neither checkpoint.pt, as a training run does from its first checkpoint on, nor a Generator... file of "
            "the released code; name another"
        )
    return trained_refiner(path / "checkpoint.pt" if path.is_dir() else path, options, processes.device)


def made_with(options):
    """Paths of the fakes that the refiner was trained or fitted on, as far as that is known."""
    if options.real:
        return list_shards(options.fake) if is_shards(options.fake) else list_images(options.fake)
    path = Path(options.inference_params)
    return trained_fakes(path if path.is_dir() else path.parent)


def check_begun(path, made, names, changed):
    """What is at `path`; UserError if what --resume goes on with was begun otherwise.

    Args:
        path: of the options.json that the run was begun with. made: what it would hold now. names: of all results, below refined/.
        changed: time in ns of the images' last change; what has changed since the run began is refined again (`_is_finished`).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist, so there is nothing to resume; start again with --overwrite")
    found, refined = read_json(path, "start again with --overwrite"), path.parent / "refined"
    compared = {"refiner", "inference_params"} if "refiner" in found else {"refiner"}  # weights, wherever they lie
    check_same_options(path, found, made, free_on_resume(InferenceOptions) | compared | {"seen", "bytes"})
    if found.get("refiner", made["refiner"]) != made["refiner"]:
        raise UserError(
            f"{path.parent} was begun by another refiner: it was trained anew since, or the images it is fitted on changed; "
            "start again with --overwrite"
        )
    images = made["inference_data"]
    if found.get("bytes", made["bytes"]) != made["bytes"] and changed <= path.stat().st_mtime_ns:
        raise UserError(
            f"{path.parent} was begun on other images than those that are in {images} now; start again with --overwrite"
        )
    whole = [file for file in refined.rglob("*.png") if file.is_file() and not file.name.startswith(".")]
    others = {file.relative_to(refined) for file in whole} - set(names)
    if others:
        raise UserError(
            f"{refined} holds images ({len(others)}, the first: {min(others)}) that would not be made of what is in "
            f"{images} now: some were added, removed or renamed since, or cannot be read any more; start again "
            "with --overwrite"
        )
    return found


def open_run(options, refiner):
    """The images to refine, the names of the results, and the run folder, made when everything has been checked."""
    fit, size, reading = options.fit or refiner.fit, refiner.size, (options.skip_bad, 0.0, options.num_workers)
    fakes, infos = load_folder(options.inference_data, size, fit, *reading, recursive=True)
    if options.fit is None and fit == "crop" and not all_of_size(infos, size):
        warn(f"images are cut to their centre, {size} x {size}, as those were that the refiner was made with (--fit crop)")
    names = output_names(fakes.paths, Path(options.inference_data))
    seen = images_seen(made_with(options), fakes.paths)
    if seen:
        warn(
            f"the refiner was made with {seen} of the {len(fakes)} images to refine: judged by those it looks better than by others"
        )
    made = as_plain(dataclasses.replace(options, fit=fit)) | {
        "refiner": refiner.origin,
        "seen": seen,
        "bytes": file_sum(fakes.paths),
    }
    path = run_folder(options.dst) / OPTIONS
    if options.resume:
        begun = check_begun(path, made, names, fakes.paths.stamps()[:, 1:].max())
        made["seen"] = seen or begun.get("seen")  # what it was made with may have been deleted since
    run = open_run_folder(options.dst, options.overwrite, options.resume, settings=made)
    return fakes, names, run


def refine_folder(options, processes):
    """Refine this process's part of the images."""
    seed_everything(options.seed, options.deterministic)
    inputs = (options.inference_data, options.inference_params, options.real, options.fake)
    run = processes.once(lambda: check_run_folder(options.dst, options.overwrite, options.resume, inputs=inputs))
    if real_path(run).is_relative_to(real_path(options.inference_data)):
        raise UserError(f"{run} lies in {options.inference_data}, which is read with all that is below it; choose another --dst")
    refuse_mixed(options.inference_data)
    if processes.main and options.real and real_path(options.real) == real_path(options.inference_data):
        warn(f"{options.real} holds the photographs: they are refined as if they had been generated")
    refiner = open_refiner(options, processes)
    if processes.main and options.fit not in (None, "none", refiner.fit):
        warn(
            f"what refines was made with --fit {refiner.fit}: its frequencies are not those of images brought to size by "
            f"{options.fit}"
        )
    folder = Path(options.inference_data)
    if processes.main and folder.name == "refined" and any((folder.parent / name).exists() for name in (OPTIONS, "fake")):
        warn(f"{folder} holds images that were refined already; the gain that fakes need comes on top of what they got")
    fakes, names, run = processes.once(lambda: open_run(options, refiner))
    places = [run / part for part in ("refined", *(["refined_mag"] if options.save_mag else []))]
    mine, changed = processes.block(len(fakes), options.batch_size), fakes.paths.stamps()[:, 1:].max(1)
    left = [index for index in mine if not all(_is_finished(place / names[index], changed[index]) for place in places)]
    names = iter([names[index] for index in left])
    for fake_image in batches(Subset(fakes, left), "refining", processes.device, options.batch_size, options.num_workers):
        write_pictures(run, "refined", [next(names) for _ in fake_image], to_8bit(refiner.refine(fake_image)), options.save_mag)
    processes.wait()
    print(f"{len(fakes)} refined images: {run / 'refined'}")


def _is_finished(path, changed):
    """Whether a PNG is there, whole, and no older than a time in ns: what --resume need not refine again.

    That time is an image's last change of content or entry: a file that is copied or moved may keep an old time of content.
    """
    return path.is_file() and path.stat().st_mtime_ns >= changed and header_info(path, path.read_bytes) is not None


@script(several=True)
def main(argv=None):
    options = parse_inference(argv)
    run = RESULTS / options.dst
    with leaving(run, WayOn(run, options.overwrite, OPTIONS)):
        run_processes(refine_folder, options, __file__, argv)


if __name__ == "__main__":
    main()
