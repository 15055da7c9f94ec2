"""Train and evaluate detectors of generated images; say honestly how well they do on images they were not trained on."""

import functools
from pathlib import Path

import numpy as np

from data.folder import refuse_same, warn
from detect_commands.bench import Bench
from detect_commands.image_sets import as_notes, filtered_sets, open_sets
from detect_commands.protocol import split_names, unseen
from detect_commands.records import Record, beside, keep, read_records, setting_of, setting_text
from detect_commands.report import Judged, chosen, distinct, write_before_after, write_evaluation, write_matrix
from models.detectors import PRETRAINED
from options import as_plain, parse_detect
from utils.aliases import check_aliases
from utils.decay import DECAY_NAMES, decay_features
from utils.detection import log_profile, scores_with_intervals
from utils.distributed import resolve_device
from utils.errors import UserError, refuse_several, script
from utils.filters import FILTERS, filters_legend
from utils.interrupts import leaving
from utils.launch import run_processes
from utils.perturbations import PERTURBATIONS
from utils.pretrained import pretrained_weights
from utils.run_dir import (
    RESULTS,
    atomic_path,
    check_place,
    check_run_folder,
    open_run_folder,
    read_json,
    real_path,
    run_folder,
    write_json,
)
from utils.tables import write_csv


def run_folders(options):
    """Real and fake folder: those named, or the run's own; UserError if they are one."""
    run = run_folder(options.dst) / "eval"
    folders = {"real": Path(options.real or run / "real"), "fake": Path(options.fake or run / "fake")}
    refuse_same(*folders.values())
    return folders


def make_benches(options, size, processes):
    """One bench per classifier, everything checked and every weight read before any training."""
    print(f"using {processes.device}, images of {size} x {size}")
    choices = {"vit": ("--vit_weights", options.vit_weights), "resnet50": ("--resnet_weights", options.resnet_weights)}
    benches = []
    for option, names in (("--classifier coherence", options.classifier), ("--filters polyphase", options.filters)):
        if option.split()[1] in names:
            try:
                check_aliases(size, size)
            except ValueError as error:
                raise UserError(f"{option}: {error}; give --size") from error
    for classifier in options.classifier:
        weights = None
        if options.is_train and classifier in choices:
            option, choice = choices[classifier]
            url = PRETRAINED[classifier].url
            weights = processes.once(functools.partial(pretrained_weights, choice, url, option))
        benches.append(Bench(classifier, size, as_plain(options.of(classifier)), processes, weights))
    return benches


def work_of(bench, processes, work, *arguments):
    """What `work(bench, *arguments)` returns: all processes do it together, or the main one for all if they do not share it."""
    do = functools.partial(work, bench, *arguments)
    return do() if bench.shared else processes.once(do)


def part_of(options, name, keep=False):
    """Arguments of `check_run_folder` for the folder results/<dst>/<name>; --resume begins one that is not there yet."""
    root = run_folder(options.dst)
    return name, options.overwrite, keep or (options.resume and (root / name).is_dir()), root


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
        return home, True
    runs = options.of(classifier).runs
    finished = all((home / f"run_{run:02d}" / "detector.pt").is_file() for run in range(runs))
    keep = bool(options.eval_root) and finished and not options.overwrite
    return check_run_folder(*part_of(options, name, keep)), keep


def open_home(options, classifier):
    """Make or find the folder of `find_home`, and the number of its runs; says so when finished detectors are kept."""
    home, keep = find_home(options, classifier)
    if not options.is_train:
        return home, len(list(home.glob("run_*/detector.pt")))
    open_run_folder(*part_of(options, home.name, keep))
    if keep:
        print(f"{home} is finished; training again would give the same, so only the evaluation is done")
    elif options.eval_root:
        print(f"--is_train True with --eval_root: training {classifier} first, then evaluating; --is_train False only evaluates")
    write_json(home / "options.json", as_plain(options))
    return home, options.of(classifier).runs


def splits_of(bench, options, real, fake):
    """The split of each run, with enough images for the bench's classifier."""
    own = options.of(bench.classifier)
    splits = [split_names(real, fake, own.num_samples, own.split, options.seed + run, bench.classifier) for run in range(own.runs)]
    for names in splits:
        bench.check(names)
    return splits


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


def check_records(options, kind):
    """UserError if what an earlier call left for the table of this one is damaged."""
    read_records(run_folder(options.dst), kind, options.classifier if options.overwrite else ())


def check_detectors(benches, options, sets):
    """UserError for whatever would stop the work on any classifier later; nothing is made or deleted."""
    check_records(options, "classifier")
    for bench in benches:
        home, kept = find_home(options, bench.classifier)
        for folder in () if options.is_train else sorted(home.glob("run_*")):
            bench.check_finished(folder)
        if options.is_train:
            training = bench.training(sets["real"], sets["fake"])
            for run, names in enumerate(splits_of(bench, options, sets["real"], sets["fake"])):
                if kept or options.resume:
                    bench.check_finished(home / f"run_{run:02d}", bench.origin(sets["real"], sets["fake"], names))
                unseen_by({"training": training, "names": names}, options, sets, options.of(bench.classifier).num_samples)


def judge_rows(bench, judge, run, trained_on, real, generated, perturbations=("none",)):
    """`Judged` rows of one detector: `real` and each of `generated` is (image set, indices)."""
    rows = []
    for perturbation in perturbations:
        real_scores = judge.scores(*real, perturbation)
        for images, indices in generated:
            scores = real_scores, judge.scores(images, indices, perturbation)
            measures = scores_with_intervals(*scores, judge.threshold, seed=bench.settings["seed"])
            rows.append(Judged(bench.classifier, trained_on, images.label, perturbation, run, measures, *scores))
    return rows


def detect_with(bench, options, sets):
    """Train or read every run of one classifier and judge it.

    Returns: `Judged` rows, their setting, where the detectors are, and `left_out` of the first run.
    """
    home, runs = bench.processes.once(lambda: open_home(options, bench.classifier))
    splits = splits_of(bench, options, sets["real"], sets["fake"]) if options.is_train else []
    rows, reals, lines = [], [], []
    for run in range(runs):
        folder = home / f"run_{run:02d}"
        if options.is_train:
            judge, content = bench.fit(folder, sets["real"], sets["fake"], splits[run], run)
        else:
            judge, content = bench.load(folder)
        real, generated = unseen_by(content, options, sets, options.of(bench.classifier).num_samples)
        perturbations = PERTURBATIONS if options.robustness else ("none",)
        rows += judge_rows(bench, judge, run, content["trained_on"], real, generated, perturbations)
        reals.append([real[0].names[index] for index in real[1]])
        lines = lines or left_out(content, [real, *generated], options.of(bench.classifier).num_samples)
    setting = setting_of(bench, content["training"], runs, reals, {"real": sets["real"]}, [images for images, _ in generated])
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
    sets, size, warnings = processes.once(lambda: open_named(options))
    benches = make_benches(options, size, processes)
    processes.once(lambda: check_detectors(benches, options, sets))
    for bench in benches:
        rows, setting, home, lines = work_of(bench, processes, detect_with, options, sets)
        if processes.main:
            record = keep(home, Record(setting, rows, [*warnings, *lines]))
            rows = record.rows
            counts = (
                f"{len(rows[0].real_scores)} reals and {len(rows[0].fake_scores)} fakes that no detector was trained on, per run."
            )
            print(f"\n{home}\n{write_evaluation(home, rows, [counts, setting_text([record]), *record.warnings])}")
            if options.robustness:
                print(f"After JPEG, resizing, blur and noise: {home / 'evaluation.md'}")
    if processes.main:
        tell_matrix(options)


def tell_matrix(options):
    """Write and print the table of all classifiers in results/<dst>, if there are several or several generators."""
    rows, notes = beside(run_folder(options.dst), "classifier", options.classifier)
    rows = chosen(rows, perturbation="none")
    if max(len(distinct(rows, field)) for field in ("classifier", "generator")) > 1:
        print(f"\n{write_matrix(run_folder(options.dst), rows, notes)}")


def before_after_home(bench, options):
    """Arguments of `check_run_folder` for the folder of one classifier."""
    return part_of(options, f"{bench.classifier}_before_after")


def check_before_after(benches, options, real, fake, refined):
    """As `check_detectors`."""
    check_records(options, "before_after")
    for bench in benches:
        check_run_folder(*before_after_home(bench, options))
        for names in splits_of(bench, options, real, fake):
            for part in names["fake"].values():
                refined.indices(part)


def before_after_with(bench, options, real, fake, refined):
    """`Judged` rows of one classifier, trained on fakes and afresh, their setting, and where the detectors are."""
    processes, rows, reals = bench.processes, [], []
    home = processes.once(lambda: open_run_folder(*before_after_home(bench, options)))
    for run, names in enumerate(splits_of(bench, options, real, fake)):
        learned = [
            images.indices(names[side]["train"] + names[side]["validation"]) for side, images in (("real", real), ("fake", fake))
        ]
        filtered = filtered_sets(options.filters, real, learned[0], fake, learned[1], processes)
        tests = {images.label: (images, images.indices(names["fake"]["test"])) for images in (fake, *filtered, refined)}
        for label, (images, _) in tests.items():
            folder = home / label / f"run_{run:02d}"
            judge, _ = bench.fit(folder, real, images, names, run)
            asked = list(tests.values()) if label == "fake" else [tests[label]]
            rows += judge_rows(bench, judge, run, label, (real, real.indices(names["real"]["test"])), asked)
        reals.append(names["real"]["test"])
    sides = {"real": real, "fake": fake, "refined": refined}
    return rows, setting_of(bench, bench.training(real, fake), len(reals), reals, sides), home


def seen_by_refiner(run):
    """Warnings (none or one) that the refiner of a training run was fitted on the images that its run's folders hold."""
    paths = [run / name for name in ("images.json", "options.json")]
    if not all(path.is_file() for path in paths):
        return []
    split, made = map(read_json, paths)
    if split.get("fraction") != 0 or made.get("test_data"):
        return []
    return [
        f"the refiner of {run} was fitted on the images that judge it here, the filters beside it were not: `refined` looks better "
        "than new images would; train with --holdout or --test_data"
    ]


def before_after(options, processes):
    """Detectors trained on fakes, and afresh, asked about fakes, filtered fakes and refined ones."""
    run_eval = run_folder(options.dst) / "eval"
    folders = run_folders(options) | {"refined": Path(options.eval_root[0]) if options.eval_root else run_eval / "refined"}
    refuse_same(folders["real"], folders["refined"])
    sets, size, warnings = processes.once(lambda: open_sets(folders, options))
    own = [] if options.eval_root else processes.once(lambda: seen_by_refiner(run_folder(options.dst)))
    for text in own:
        warn(text)
    warnings = [*warnings, *as_notes(own)]
    real, fake, refined = (sets[name] for name in ("real", "fake", "refined"))
    fake.label, refined.label = "fake", "refined"
    benches = make_benches(options, size, processes)
    processes.once(lambda: check_before_after(benches, options, real, fake, refined))
    for bench in benches:
        rows, setting, home = work_of(bench, processes, before_after_with, options, real, fake, refined)
        if processes.main:
            keep(home, Record(setting, rows, warnings))
    if not processes.main:
        return
    rows, notes = beside(run_folder(options.dst), "before_after", options.classifier)
    filters = [kind for kind in FILTERS if kind in distinct(rows, "generator")]
    counts = (
        f"{len(rows[0].real_scores)} reals and {len(rows[0].fake_scores)} fakes (or their refined versions) per run for testing."
    )
    how = (
        "Trained on fakes: what a detector of today makes of refined images. Trained afresh: what is left to find once refined "
        "images are known. Columns: `refined`, the images given as such; filters, fitted on the same training part and named as "
        f"`--method` of `inference.py` calls them: {filters_legend(filters)}."
    )
    path = run_folder(options.dst) / "detection.md"
    print(f"{write_before_after(path, rows, [counts, how, *notes])}\nWritten to {path}")


def features(options):
    """results/<dst>/features/<folder>.csv (decay features) and .npz (with the log radial profile) of every folder named."""
    named = {"real": options.real, "fake": options.fake} | {f"other {i}": folder for i, folder in enumerate(options.eval_root)}
    folders = {role: Path(folder) for role, folder in named.items() if folder} or run_folders(options)
    check_run_folder(*part_of(options, "features"))
    sets, _, _ = open_sets(folders, options)
    files = {}
    for label in (images.label for images in sets.values()):
        other = files.setdefault(label.replace("/", "_"), label)
        if other != label:
            raise UserError(
                f"{other} and {label} would both be written to {label.replace('/', '_')}.csv; measure them with two --dst"
            )
    home = open_run_folder(*part_of(options, "features"))
    for images in sets.values():
        everything = range(len(images))
        decay = images.features(decay_features, "decay", everything)
        profile = images.features(lambda image: log_profile(image, corners=options.profile_corners), "profile", everything)
        path = home / f"{images.label.replace('/', '_')}.csv"
        write_csv(path, ["name", *DECAY_NAMES], [[name, *map(float, row)] for name, row in zip(images.names, decay, strict=True)])
        with atomic_path(path.with_suffix(".npz")) as temporary:
            np.savez(temporary, names=np.array(images.names), decay=decay, log_profile=profile)
        print(f"{path}: {len(images)} images")


@script(several=True)
def main(argv=None):
    """Run detect.py."""
    options = parse_detect(argv)
    with leaving(RESULTS / options.dst, "--resume" if options.is_train else ""):
        if options.mode == "features":
            refuse_several("detect.py --mode features")
            resolve_device(options.device)  # works on the CPU, but a wrong name or a list of devices is a mistake all the same
            features(options)
            return
        run_processes({"detect": detect, "before_after": before_after}[options.mode], options, __file__, argv)


if __name__ == "__main__":
    main()
