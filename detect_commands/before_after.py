"""detect.py --mode before_after: detectors trained on fakes, and afresh, asked about fakes, filtered fakes and refined ones."""

import functools
from pathlib import Path

from data.folder import refuse_same
from detect_commands.common import check_domains, check_records, judge_rows, make_benches, part_of, run_folders, splits_of, work_of
from detect_commands.image_sets import filtered_sets, filters_between, open_sets
from detect_commands.protocol import PARTS
from detect_commands.records import Record, beside, keep, setting_of
from detect_commands.report import distinct, told_few, write_before_after
from utils.arguments import as_plain
from utils.checkpoint import fitting, load_checkpoint
from utils.errors import UserError
from utils.filters import FILTERS, check_filter, filters_legend
from utils.run_dir import check_run_folder, open_run_folder, run_folder
from utils.seeding import seed_everything


def before_after_home(bench, options):
    """Arguments of `check_run_folder` for the folder of one classifier."""
    return part_of(options, f"{bench.classifier}_before_after")


def filters_of_run(options, size):
    """Filters of the training run whose own images are judged, {kind: tensors by name}; None if there is none of that size."""
    if not options.filters:
        return {}
    path = run_folder(options.dst) / "checkpoint.pt"
    if options.real or options.fake or options.eval_root or not path.is_file():
        return None
    checkpoint = load_checkpoint(path, "stig")
    with fitting(path):
        if checkpoint["settings"]["size"] != size:
            return None
        return {kind: check_filter(checkpoint["filters"][kind], size) for kind in options.filters}


def filters_source(filters):
    """Where filters are from, in words; arguments as `before_after_with`."""
    if filters is None:
        return "fitted on half of the images that are not for testing, which no detector was trained on"
    return "those of the run"


def told_counts(rows):
    """How many images judge, in words; classifiers keep different shares for testing."""
    counts = {row.classifier: (len(row.real_scores), len(row.fake_scores)) for row in rows}
    told = (f"{name}: {real} reals and {fake} fakes (or their refined versions)" for name, (real, fake) in counts.items())
    return f"For testing in each run: {'; '.join(told)}."


def check_before_after(benches, options, real, fake, refined, for_filters):
    """As `check_detectors`."""
    check_records(options, "before_after")
    for bench in benches:
        check_run_folder(*before_after_home(bench, options))
        home = run_folder(options.dst) / f"{bench.classifier}_before_after"
        for run, names in enumerate(splits_of(bench, options, real, fake, for_filters)):
            for part in PARTS:
                refined.indices(names["fake"][part])
            for images in (fake, refined) if options.resume else ():
                bench.check_finished(home / images.label / f"run_{run:02d}", bench.origin(real, images, names))


def before_after_with(bench, options, real, fake, refined, filters):
    """`Judged` rows of one classifier, trained on fakes and afresh, their setting, and where the detectors are.

    Args:
        filters: {kind: tensors by name}; None: they are fitted in each run.
    """
    processes, rows, reals = bench.processes, [], []
    home = processes.once(lambda: open_run_folder(*before_after_home(bench, options), settings=as_plain(options)))
    for run, names in enumerate(splits_of(bench, options, real, fake, for_filters=filters is None)):
        if filters is None:
            used = (real, names["real"]["filters"], fake, names["fake"]["filters"])
            fitted = processes.once(functools.partial(filters_between, options.filters, *used, processes.device))
        else:
            fitted = filters
        filtered = filtered_sets(fitted, fake, are_fixed=filters is not None)
        tests = {images.label: (images, images.indices(names["fake"]["test"])) for images in (fake, *filtered, refined)}
        for label, (images, _) in tests.items():
            folder = home / label / f"run_{run:02d}"
            judge, _ = bench.fit(folder, real, images, names, run)
            asked = list(tests.values()) if label == "fake" else [tests[label]]
            rows += judge_rows(bench, judge, run, label, (real, real.indices(names["real"]["test"])), asked)
        reals.append(names["real"]["test"])
    sides = {"real": real, "fake": fake, "refined": refined}
    training = bench.training(real, fake)
    return rows, setting_of(bench, training, len(reals), reals, sides, filters_fitted=filters is None), home


def before_after(options, processes):
    """Detectors trained on fakes, and afresh, asked about fakes, filtered fakes and refined ones."""
    check_domains(options)
    seed_everything(options.seed, options.deterministic)
    run_eval = run_folder(options.dst) / "eval"
    folders = run_folders(options) | {"refined": Path(options.eval_root[0]) if options.eval_root else run_eval / "refined"}
    if not options.eval_root and not folders["refined"].is_dir():
        raise UserError(f"{folders['refined']} does not exist; give the folder of the refined images by --eval_root")
    refuse_same(folders["real"], folders["refined"])
    sets, size, warnings = processes.once(lambda: open_sets(folders, options))
    real, fake, refined = (sets[name] for name in ("real", "fake", "refined"))
    fake.label, refined.label = "fake", "refined"
    benches = make_benches(options, size, processes)
    filters = processes.once(lambda: filters_of_run(options, size))
    processes.once(lambda: check_before_after(benches, options, real, fake, refined, for_filters=filters is None))
    for bench in benches:
        rows, setting, home = work_of(bench, processes, before_after_with, options, real, fake, refined, filters)
        if processes.main:
            keep(home, Record(setting, rows, [*warnings, *told_few(rows)]))
    if not processes.main:
        return
    rows, notes = beside(run_folder(options.dst), "before_after", options.classifier)
    shown = [kind for kind in FILTERS if kind in distinct(rows, "generator")]
    how = (
        "Trained on fakes: what a detector of today makes of refined images. Trained afresh: what is left to find once refined "
        "images are known. Columns: `refined`, the images given as such"
    )
    if shown:
        how += (
            f"; filters, {filters_source(filters)}, and named as `--method` of `inference.py` calls them: {filters_legend(shown)}"
        )
    path = run_folder(options.dst) / "detection.md"
    print(f"{write_before_after(path, rows, [told_counts(rows), how, *notes])}\nWritten to {path}")
