"""detect.py --mode detect: train each classifier, judge it on images it never saw, set all side by side."""

from pathlib import Path

from data.copies import images_seen
from data.folder import refuse_same
from data.listing import ImagePaths
from data.shards import is_shards, list_shards
from detect_commands.common import check_domains, check_records, judge_rows, make_benches, part_of, run_folders, splits_of, work_of
from detect_commands.image_sets import open_sets
from detect_commands.protocol import unseen
from detect_commands.records import Record, beside, keep, setting_of, setting_text
from detect_commands.report import MATRIX, chosen, distinct, told_few, write_evaluation, write_matrix
from utils.arguments import as_plain
from utils.errors import UserError
from utils.files import check_place, real_path
from utils.perturbations import PERTURBATIONS
from utils.run_dir import check_run_folder, claim, open_run_folder, refuse_held, run_folder


def find_home(options, classifier):
    """Where the detectors of one classifier are or will be, and whether they are finished and kept; nothing is made or deleted."""
    name = f"{classifier}_classifier"
    home = run_folder(options.dst) / name
    if not options.is_train:
        if not home.is_dir():
            raise UserError(f"{home} does not exist; train the detector first with --is_train True")
        if not any(home.glob("run_*/detector.pt")):
            raise UserError(f"{home} holds no finished detector; train it first with --is_train True")
        check_place(home)
        refuse_held(home, "--dst")
        return home, True
    runs = options.of(classifier).runs
    finished = all((home / f"run_{run:02d}" / "detector.pt").is_file() for run in range(runs))
    keep = bool(options.eval_root) and finished and not options.overwrite
    return check_run_folder(*part_of(options, name, keep)), keep


def open_home(options, classifier):
    """Make or find the folder of `find_home`, and those of its runs; says so when finished detectors are kept."""
    home, keep = find_home(options, classifier)
    if not options.is_train:
        claim(home, "--dst")
        return home, sorted(path.parent for path in home.glob("run_*/detector.pt"))
    open_run_folder(*part_of(options, home.name, keep), settings=as_plain(options))
    if keep:
        print(f"{home} is finished; training again would give the same, so only the evaluation is done")
    return home, [home / f"run_{run:02d}" for run in range(options.of(classifier).runs)]


def unseen_by(content, options, sets, count):
    """Of a detector's checkpoint: (reals, their indices) and a list of (generated images, indices) that may judge it."""
    sides = [(images, "real" if role == "real" else "fake") for role, images in sets.items()]
    (real, *generated) = [(images, unseen(images, side, content, count, options.seed)) for images, side in sides]
    return real, generated


def left_out(content, judged, count):
    """Lines of a report, one per other folder of which a detector saw versions of some images.

    Args:
        content: the detector's checkpoint.
        judged: (images, indices that may judge) of folders. count: --num_samples.
    """
    trained, lines = {real_path(content["training"][side]) for side in ("real", "fake")}, []
    for images, indices in judged:
        asked = min(len(images), count or len(images))
        if real_path(images.folder) not in trained and len(indices) < asked:
            lines.append(
                f"{images.label}: {asked - len(indices)} of {asked} images are left out, the detector knows versions of them"
            )
    return lines


def copies_of_training(content, judged):
    """Lines of a report on judged images that a detector was trained on, as files of whatever names; arguments as `left_out`."""
    lines = []
    for side, sets in (("real", judged[:1]), ("fake", judged[1:])):
        folder, names = content["training"][side], content["names"][side]
        known = {name for part in ("train", "validation") for name in names[part]}
        try:
            used = list_shards(folder) if is_shards(folder) else ImagePaths(folder, sorted(known))
        except UserError:  # they are gone
            continue
        used = used.take([index for index, name in enumerate(used.names) if name in known])
        for images, indices in sets:
            seen = images_seen(used, images.images.paths.take(indices))
            if seen:
                lines.append(
                    f"Warning: {images.label}: {seen} of {len(indices)} images are copies, byte for byte, of images that the "
                    "detector was trained on: what it finds looks too good; leave them out"
                )
    return lines


def check_detectors(benches, options, sets):
    """UserError for whatever would stop the work on any classifier later; nothing is made or deleted."""
    check_records(options, "classifier")
    homes = {bench: find_home(options, bench.classifier) for bench in benches}
    for bench, (home, kept) in homes.items():
        for folder in () if options.is_train else sorted(home.glob("run_*")):
            bench.check_finished(folder)
        if options.is_train:
            training = bench.training(sets["real"], sets["fake"])
            for run, names in enumerate(splits_of(bench, options, sets["real"], sets["fake"])):
                if kept or options.resume:
                    bench.check_finished(home / f"run_{run:02d}", bench.origin(sets["real"], sets["fake"], names))
                unseen_by({"training": training, "names": names}, options, sets, bench.options.num_samples)
    begun = [bench.classifier for bench, (_, kept) in homes.items() if not kept]
    if begun and options.eval_root:
        print(f"training {', '.join(begun)} first, then evaluating (--is_train False only evaluates)")


def detect_with(bench, options, sets):
    """Train or read every run of one classifier and judge it.

    Returns: `Judged` rows, their setting, where the detectors are, and `left_out` and `copies_of_training` of the first run that
        has any.
    """
    home, runs = bench.processes.once(lambda: open_home(options, bench.classifier))
    splits = splits_of(bench, options, sets["real"], sets["fake"]) if options.is_train else []
    rows, reals, lines = [], [], []
    for run, folder in enumerate(runs):
        if options.is_train:
            judge, content = bench.fit(folder, sets["real"], sets["fake"], splits[run], run)
        else:
            judge, content = bench.load(folder)
        real, generated = unseen_by(content, options, sets, bench.options.num_samples)
        perturbations = PERTURBATIONS if options.robustness else ("none",)
        rows += judge_rows(bench, judge, run, content["trained_on"], real, generated, perturbations)
        reals.append([real[0].names[index] for index in real[1]])
        if not lines:
            lines = left_out(content, [real, *generated], bench.options.num_samples)
            if not options.is_train:  # a training compares its folders as it begins
                lines += copies_of_training(content, [real, *generated])
    setting = setting_of(bench, content["training"], len(runs), reals, {"real": sets["real"]}, [images for images, _ in generated])
    return rows, setting, home, lines


def open_named(options):
    """The sets that are trained and judged on, as `open_sets` gives them."""
    folders = run_folders(options)
    if not options.is_train and not options.fake and options.eval_root and not folders["fake"].is_dir():
        del folders["fake"]
    others = {real_path(folder): Path(folder) for folder in reversed(options.eval_root)}  # each once, by its first name
    if "fake" in folders:
        others.pop(real_path(folders["fake"]), None)  # judged anyway
    for folder in others.values():
        refuse_same(folders["real"], folder)
    named = enumerate(reversed(others.values()))
    return open_sets(folders | {f"other {i}": folder for i, folder in named}, options)


def detect(options, processes):
    """Train and evaluate each classifier, and set them side by side."""
    check_domains(options)
    sets, size, warnings = processes.once(lambda: open_named(options))
    benches = make_benches(options, size, processes)
    processes.once(lambda: check_detectors(benches, options, sets))
    for bench in benches:
        rows, setting, home, lines = work_of(bench, processes, detect_with, options, sets)
        if processes.main:
            record = keep(home, Record(setting, rows, [*warnings, *lines, *told_few(rows)]))
            rows = record.rows
            counts = 'No image judges a detector that was trained on it; "real, fake": how many judge it, in each run.'
            print("", home, *lines, write_evaluation(home, rows, [counts, setting_text([record]), *record.warnings]), sep="\n")
            if options.robustness:
                print(f"After JPEG, resizing, blur and noise: {home / 'evaluation.md'}")
    if processes.main:
        tell_matrix(options)


def tell_matrix(options):
    """Write and print the table of all classifiers in results/<dst>, if they or generators are several, or it is there."""
    rows, notes = beside(run_folder(options.dst), "classifier", options.classifier)
    rows = chosen(rows, perturbation="none")
    several = max(len(distinct(rows, field)) for field in ("classifier", "generator")) > 1
    if several or (run_folder(options.dst) / MATRIX).exists():
        print(f"\n{write_matrix(run_folder(options.dst), rows, notes)}")
