"""Train and evaluate detectors of generated images; say honestly how well they do on images they were not trained on."""

from pathlib import Path

import numpy as np

from data.detection import open_sets, split_names
from models.detector_bench import Bench
from models.detectors import PRETRAINED
from options import as_plain, parse_detect
from utils.decay import DECAY_NAMES, decay_features
from utils.detection import log_profile, scores_with_intervals
from utils.detection_report import Judged, write_before_after, write_evaluation, write_matrix
from utils.detector_protocol import linear_filter_of, unseen, unseen_reals
from utils.distributed import resolve_device
from utils.errors import UserError, script
from utils.perturbations import PERTURBATIONS
from utils.pretrained import pretrained_weights
from utils.run_dir import atomic_path, open_run_folder, run_folder, write_json
from utils.tables import write_csv


def run_folders(options):
    """Real and fake folder: those named, or the run's own."""
    run = run_folder(options.dst) / "eval"
    return {"real": Path(options.real or run / "real"), "fake": Path(options.fake or run / "fake")}


def make_benches(options, size):
    """One bench per classifier, everything checked and every weight read before any training."""
    device = resolve_device(options.device)
    print(f"using {device}, images of {size} x {size}")
    choices = {"vit": ("--vit_weights", options.vit_weights), "resnet50": ("--resnet_weights", options.resnet_weights)}
    benches = []
    for classifier in options.classifier:
        weights = None
        if options.is_train and classifier in choices:
            option, choice = choices[classifier]
            weights = pretrained_weights(choice, PRETRAINED[classifier].url, option)
        benches.append(Bench(classifier, size, as_plain(options.of(classifier)), device, weights))
    return benches


def open_home(options, classifier, runs):
    """Make or find results/<dst>/<classifier>_classifier; says so when finished detectors are kept."""
    name, root = f"{classifier}_classifier", run_folder(options.dst)
    home = root / name
    if not options.is_train:
        if not home.is_dir():
            raise UserError(f"{home} does not exist; train the detector first with --is_train True")
        return home
    finished = all((home / f"run_{run:02d}" / "detector.pt").is_file() for run in range(runs))
    keep = bool(options.eval_root) and finished and not options.overwrite
    resume = keep or (options.resume and home.is_dir())
    home = open_run_folder(name, options.overwrite, resume, root)
    if keep:
        print(f"{home} is finished; training again would give the same, so only the evaluation is done")
    elif options.eval_root:
        print(f"--is_train True with --eval_root: training {classifier} first, then evaluating; --is_train False only evaluates")
    write_json(home / "options.json", as_plain(options))
    return home


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
    """Train or read every run of one classifier and judge it: `Judged` rows, and where the detectors are."""
    own, seed = options.of(bench.classifier), options.seed
    home = open_home(options, bench.classifier, own.runs)
    runs = range(own.runs) if options.is_train else range(len(list(home.glob("run_*/detector.pt"))))
    if not runs:
        raise UserError(f"{home} holds no finished detector; train it first with --is_train True")
    rows = []
    for run in runs:
        folder = home / f"run_{run:02d}"
        if options.is_train:
            names = split_names(sets["real"], sets["fake"], own.num_samples, own.split, seed + run)
            judge, content = bench.fit(folder, sets["real"], sets["fake"], names, run)
        else:
            judge, content = bench.load(folder)
        real = sets["real"], unseen_reals(sets["real"], content, own.num_samples, seed)
        others = [images for role, images in sets.items() if role != "real"]
        generated = [(images, unseen(images, content, own.num_samples, seed)) for images in others]
        perturbations = PERTURBATIONS if options.robustness else ("none",)
        rows += judge_rows(bench, judge, run, content["trained_on"], real, generated, perturbations)
    return rows, home


def detect(options):
    """Train and evaluate each classifier, and set them side by side."""
    folders = run_folders(options)
    if not options.is_train and not options.fake and options.eval_root and not folders["fake"].is_dir():
        del folders["fake"]
    folders |= {f"other {i}": Path(folder) for i, folder in enumerate(options.eval_root)}
    sets, size, warnings = open_sets(folders, options)
    every = []
    for bench in make_benches(options, size):
        rows, home = detect_with(bench, options, sets)
        counts = f"{len(rows[0].real_scores)} reals and {len(rows[0].fake_scores)} fakes that no detector was trained on, per run."
        print(f"\n{home}\n{write_evaluation(home, rows, [counts, *warnings])}")
        every += rows
    if len(sets) > 2 or len(options.classifier) > 1:
        print(f"\n{write_matrix(run_folder(options.dst), every)}")


def before_after(options):
    """Detectors trained on fakes, and afresh, asked about fakes, linearly filtered fakes and refined ones."""
    run_eval = run_folder(options.dst) / "eval"
    folders = run_folders(options) | {"refined": Path(options.eval_root[0]) if options.eval_root else run_eval / "refined"}
    sets, size, warnings = open_sets(folders, options)
    real, fake, refined = (sets[name] for name in ("real", "fake", "refined"))
    fake.label, refined.label = "fake", "refined"
    rows = []
    for bench in make_benches(options, size):
        own = options.of(bench.classifier)
        home = open_run_folder(f"{bench.classifier}_before_after", options.overwrite, options.resume, run_folder(options.dst))
        for run in range(own.runs):
            names = split_names(real, fake, own.num_samples, own.split, options.seed + run)
            learned = [
                images.indices(names[side]["train"] + names[side]["validation"])
                for side, images in (("real", real), ("fake", fake))
            ]
            filtered = linear_filter_of(real, learned[0], fake, learned[1])
            tests = {images.label: (images, images.indices(names["fake"]["test"])) for images in (fake, filtered, refined)}
            for label, (images, _) in tests.items():
                folder = home / label.replace(" ", "_") / f"run_{run:02d}"
                judge, _ = bench.fit(folder, real, images, names, run)
                asked = list(tests.values()) if label == "fake" else [tests[label]]
                rows += judge_rows(bench, judge, run, label, (real, real.indices(names["real"]["test"])), asked)
    counts = (
        f"{len(rows[0].real_scores)} reals and {len(rows[0].fake_scores)} fakes (or their refined versions) per run for testing."
    )
    how = (
        "Trained on fakes: what a detector of today makes of refined images. Trained afresh: what is left to find once refined "
        "images are known. The linear filter (cepstral) is fitted on the same training part."
    )
    print(write_before_after(run_folder(options.dst) / "detection.md", rows, [counts, how, *warnings]))


def features(options):
    """results/<dst>/features/<folder>.csv (decay features) and .npz (with the log radial profile) of every folder named."""
    named = {"real": options.real, "fake": options.fake} | {f"other {i}": folder for i, folder in enumerate(options.eval_root)}
    folders = {role: Path(folder) for role, folder in named.items() if folder} or run_folders(options)
    sets, _, _ = open_sets(folders, options)
    home = open_run_folder("features", options.overwrite, options.resume, run_folder(options.dst))
    for images in sets.values():
        everything = range(len(images))
        decay = images.features(decay_features, "decay", everything)
        profile = images.features(lambda image: log_profile(image, corners=options.profile_corners), "profile", everything)
        path = home / f"{images.label.replace('/', '_')}.csv"
        write_csv(path, ["name", *DECAY_NAMES], [[name, *map(float, row)] for name, row in zip(images.names, decay, strict=True)])
        with atomic_path(path.with_suffix(".npz")) as temporary:
            np.savez(temporary, names=np.array(images.names), decay=decay, log_profile=profile)
        print(f"{path}: {len(images)} images")


@script
def main(argv=None):
    """Run detect.py."""
    options = parse_detect(argv)
    {"detect": detect, "before_after": before_after, "features": features}[options.mode](options)


if __name__ == "__main__":
    main()
