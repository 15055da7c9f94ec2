"""Measure fake and refined images against real ones: FID and KID of images or of spectra, log frequency distance, profile gap."""

from pathlib import Path

from data.copies import seen_by_refiner, told_copies
from data.differences import class_differences
from data.folder import load_folder, refuse_same, require_one_size
from options import parse_eval
from utils.arguments import as_plain
from utils.errors import UserError, script, warn
from utils.files import check_place, read_json, real_path, write_json
from utils.launch import run_processes
from utils.measure import FeatureDistances, Reader, measure_spectra
from utils.metrics import TITLES
from utils.run_dir import run_folder, unfinished_evaluation
from utils.seeding import seed_everything
from utils.tables import format_table, software_versions

COLUMNS = {
    "image_fid": {"image_fid": "image FID", "image_kid": "image KID", "image_kid_std": "± subsets"},
    "magnitude_fid": {"magnitude_fid": "magnitude FID", "magnitude_kid": "magnitude KID", "magnitude_kid_std": "± subsets"},
    "lfd": {name: TITLES[name] for name in ("lfd_8bit", "lfd")},
    "psd": {name: TITLES[name] for name in ("gap", "gap_upper")},
}
FID_IMAGES = 2048


def plan(options):
    """What to read and where to write: {role: folder}, JSON path, folder of the cached statistics.

    Raises: UserError if there is no such run, or nothing can be written there.
    """
    if options.eval_root:
        run = run_folder(options.eval_root)
        if not (run / "eval").is_dir():
            where = f"{run / 'eval'} does not exist in {Path.cwd()}"
            raise UserError(f"{where}; train.py makes it at its end, or name folders by --real and --fake")
        paths = {role: run / "eval" / role for role in ("real", "fake", "refined")}
    else:
        run = None
        paths = {role: Path(folder) for role, folder in vars(options).items() if role in ("real", "fake", "refined") and folder}
        for role in paths.keys() - {"real"}:
            refuse_same(paths["real"], paths[role])
    if real_path(paths.get("fake", "")) == real_path(paths.get("refined", "")) and "refined" in paths:
        raise UserError(f"{paths['fake']} is given for --fake and for --refined; give the refined images, or leave --refined out")
    home = run_folder(options.dst) if options.dst else run
    out = Path(options.out) if options.out else home / f"eval_{options.eval_mode}.json"
    read = next((path for path in paths.values() if real_path(out.parent) == real_path(path)), None)
    if read:
        raise UserError(f"{out} would lie among the images of {read} that are measured; give another --dst or --out")
    if out.is_dir():
        raise UserError(f"{out} is a folder and cannot be written as a file; give another --dst or --out")
    if out.is_file():
        check_replaced(out, paths if options.dst else None)
    picture = out.with_suffix(".png")
    drawn = out.is_file() and "profiles" in read_json(out)  # the picture of an earlier result
    if options.out and options.eval_mode in ("psd", "all") and picture.exists() and not drawn:
        raise UserError(f"{picture} is there and would become the picture of the profiles; give another --out")
    check_place(out.parent)
    return paths, out, (home or out.parent) / "statistics"


def check_replaced(out, paths):
    """UserError unless the file `out`, to be replaced, is an earlier result, and of the same folders unless `paths` is None."""
    found = read_json(out, "move it away, or give another --out")
    folders = found.get("folders", paths) or {}
    has_folders = isinstance(folders, dict) and all(isinstance(place, str | Path) for place in folders.values())
    if not {"mode", "rows"} <= found.keys() or not has_folders:
        raise UserError(f"{out} is there and is no result of eval.py; move it away, or give another --out")
    measured, wanted = ({role: real_path(path) for role, path in (places or {}).items()} for places in (folders, paths))
    if wanted and measured != wanted:
        raise UserError(f"{out} is of other folders ({', '.join(map(str, folders.values()))}); choose another --dst or --out")


def open_folders(paths, options, at_least):
    """Check and open every folder: {role: ImageFolder} of one image size, and warnings."""
    folders, infos = {}, {}
    for role, path in paths.items():
        arguments = {"skip_bad": options.skip_bad, "num_workers": options.num_workers}
        folders[role], infos[role] = load_folder(path, options.size, options.fit, **arguments)
        if len(folders[role]) < at_least:
            raise UserError(f"{path} holds {len(folders[role])} of the {at_least} images that this --eval_mode needs at least")
    if options.size is None:
        require_one_size(*infos.values())
    copies = told_copies(*(images.paths for images in folders.values()))
    seen = seen_by_refiner(paths["refined"]) if "refined" in paths else []
    unfinished = unfinished_evaluation(run_folder(options.eval_root)) if options.eval_root else []
    return folders, class_differences(*((folders[role], infos[role]) for role in ("real", "fake"))) + copies + seen + unfinished


def open_magnitudes(paths, folders, options):
    """The run's pictures of log-magnitudes; none if they are to be computed (another size, say, or newer images)."""
    paths = {role: path.with_name(f"{role}_mag") for role, path in paths.items()}
    if not options.eval_root or options.size is not None or not all(path.is_dir() for path in paths.values()):
        return None
    mags, _ = open_folders(paths, options, at_least=1)
    for role, mag in mags.items():
        if [path.name for path in mag.paths] != [Path(path).with_suffix(".png").name for path in folders[role].paths]:
            raise UserError(f"{paths[role]} does not hold one picture for each image of {role}; delete it, and it will be computed")
    written = {role: [part[role].paths.stamps()[:, 1:].max(1) for part in (folders, mags)] for role in mags}
    return mags if all((picture >= image).all() for image, picture in written.values()) else None


def doubtful_counts(counts, fid):
    """Warnings about numbers of images, {role: count}; `fid`: whether an FID is asked for."""
    warnings = []
    if fid and min(counts.values()) < FID_IMAGES:
        warnings.append(
            f"FID of fewer than {FID_IMAGES} images is mostly bias, and the floor's, of half as many, is larger still: trust KID"
        )
    if counts["real"] == 1:
        warnings.append("there is one real image, so the table has no floor")
    if counts.get("refined", counts["fake"]) != counts["fake"]:
        made = f"{counts['refined']} refined images for {counts['fake']} fakes"
        warnings.append(
            f"{made}: if they were made of these, the refining was interrupted (go on with inference.py --resume), or some lie in "
            "subfolders, which are not read"
        )
    return warnings


def measure(options, processes, modes, paths, cache):
    """Check and open everything, then measure.

    Returns: the JSON's content, and {role: SpectrumMean} (empty unless the modes need spectra); of use in the main process alone.
    """
    read = Reader(processes, options.batch_size, options.num_workers)
    fid_modes = [mode for mode in modes if mode.endswith("_fid")]
    features = FeatureDistances(options.inception_weights, cache, options.seed, read) if fid_modes else None

    def open_all():
        folders, warnings = open_folders(paths, options, at_least=4 if fid_modes else 1)
        return folders, warnings, open_magnitudes(paths, folders, options) if "magnitude_fid" in modes else None

    folders, warnings, mags = processes.once(open_all)
    counts = {role: len(images) for role, images in folders.items()}
    warnings += doubtful_counts(counts, bool(fid_modes))
    for warning in warnings:
        warn(warning)

    backend, measured, spectra = {"device": str(processes.device)}, [], {}
    if fid_modes:
        backend |= {"features": "pytorch-fid InceptionV3, 2048 dimensions", "weights_sha256": features.weights_hash}
    if "image_fid" in modes:
        measured.append(features.rows("image", folders))
    if "magnitude_fid" in modes:
        measured.append(features.rows("magnitude", mags or folders, from_images=not mags))
        backend["magnitudes"] = "saved pictures" if mags else "computed from the images"
    if len(fid_modes) < len(modes):
        spectra, rows = measure_spectra(folders, read)
        measured.append(rows)

    result = {"count": counts, "size": list(folders["real"][0].shape[1:]), "backend": backend, "warnings": warnings, "rows": {}}
    for role in measured[0]:
        count = [counts["real"] // 2, counts["real"] - counts["real"] // 2] if role == "floor" else [counts["real"], counts[role]]
        values = {name: value for rows in measured for name, value in rows[role].items()}
        wanted = tuple(name for mode in modes for name in COLUMNS[mode])
        result["rows"][role] = {"n": count} | {k: v for k, v in values.items() if k.removesuffix("_spread") in wanted}
    return result, spectra


def run_evaluation(options, processes):
    """Measure together with the other processes; the main one writes and returns the JSON's content."""
    seed_everything(options.seed, options.deterministic)
    modes = list(COLUMNS) if options.eval_mode == "all" else [options.eval_mode]
    paths, out, cache = plan(options)
    result, spectra = measure(options, processes, modes, paths, cache)
    if not processes.main:
        return None
    profiles = {role: spectrum.profile for role, spectrum in spectra.items()} if "psd" in modes else {}
    if profiles:
        result["profiles"] = {role: profile.tolist() for role, profile in profiles.items()}
    result = {"mode": options.eval_mode, "direction": "lower is better", **result, "versions": software_versions()}
    result |= {"folders": {role: str(path) for role, path in paths.items()}, "options": as_plain(options)}
    if not profiles and out.is_file() and "profiles" in read_json(out):  # whose picture would stay beside other numbers
        out.with_suffix(".png").unlink(missing_ok=True)
    write_json(out, result)
    if profiles:  # after the result, by which it is known as ours
        from utils.plots import profile_figure  # matplotlib is slow to import, and most modes draw nothing

        profile_figure(profiles, out.with_suffix(".png"))
    print(format_table(result["rows"], {"n": "real, other"} | {k: v for mode in modes for k, v in COLUMNS[mode].items()}))
    drawn = f", profiles drawn in {out.with_suffix('.png')}" if profiles else ""
    floor = "; floor = halves of the real images against each other" if "floor" in result["rows"] else ""
    print(f"Lower is better{floor}. Written to {out}{drawn}")
    return result


@script(several=True)
def main(argv=None):
    """Run eval.py; returns what it writes as JSON (None where several processes did it)."""
    return run_processes(run_evaluation, parse_eval(argv), __file__, argv)


if __name__ == "__main__":
    main()
