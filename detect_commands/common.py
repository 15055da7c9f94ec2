"""What the modes of detect.py share: folders, splits, benches, judging."""

import functools
from pathlib import Path

from data.folder import refuse_same
from detect_commands.bench import Bench
from detect_commands.judges import domains
from detect_commands.protocol import split_names
from detect_commands.records import read_records
from detect_commands.report import Judged
from models.detectors import PRETRAINED
from utils.aliases import check_aliases
from utils.detection import scores_with_intervals
from utils.errors import UserError
from utils.pretrained import pretrained_weights
from utils.run_dir import run_folder


def check_domains(options):
    """UserError, before any image is read, if a classifier cannot look at --domain."""
    for classifier in options.classifier:
        if options.domain not in (None, *domains(classifier)):
            choices = " or the ".join(domains(classifier))
            raise UserError(f"--domain {options.domain}: {classifier} looks at the {choices}; leave the option out")


def run_folders(options):
    """Real and fake folder: those named, or the run's own; UserError if they are one, or there is no such run."""
    run = run_folder(options.dst) / "eval"
    for named, place in ((options.real, run / "real"), (options.fake, run / "fake")):
        if not named and options.is_train and not place.is_dir():
            raise UserError(f"{place} does not exist in {Path.cwd()}; train.py makes it at its end, or name --real and --fake")
    folders = {"real": Path(options.real or run / "real"), "fake": Path(options.fake or run / "fake")}
    refuse_same(*folders.values())
    return folders


def make_benches(options, size, processes):
    """One bench per classifier, everything checked and every weight read before any training."""
    print(f"using {processes.device}, images of {size} x {size}")
    choices = {"vit": ("--vit_weights", options.vit_weights), "resnet50": ("--resnet_weights", options.resnet_weights)}
    benches = []
    periods = {"--classifier coherence": 4, "--classifier coherence8": 8, "--filters polyphase": 4}
    for option, period in periods.items():
        if option.split()[1] in (*options.classifier, *options.filters):
            try:
                check_aliases(size, size, period)
            except ValueError as error:
                raise UserError(f"{option}: {error}; give a --size that is one, with --fit crop") from error
    for classifier in options.classifier:
        weights = None
        if options.is_train and classifier in choices:
            option, choice = choices[classifier]
            read = functools.partial(pretrained_weights, choice, PRETRAINED[classifier].url, option)
            weights = functools.partial(processes.once, read)
        benches.append(Bench(classifier, size, options.of(classifier), processes, weights))
    return benches


def work_of(bench, processes, work, *arguments):
    """What `work(bench, *arguments)` returns: all processes do it together, or the main one for all if they do not share it."""
    do = functools.partial(work, bench, *arguments)
    return do() if bench.shared else processes.once(do)


def part_of(options, name, keep=False):
    """Arguments of `check_run_folder` for the folder results/<dst>/<name>; --resume begins one that is not there yet."""
    root = run_folder(options.dst)
    return name, options.overwrite, keep or (options.resume and (root / name).is_dir()), root


def splits_of(bench, options, real, fake, for_filters=False):
    """The split of each run, with enough images for the bench's classifier; `for_filters` as `split_names`."""
    own, seeds = bench.options, range(options.seed, options.seed + bench.options.runs)
    splits = [split_names(real, fake, own.num_samples, own.split, seed, bench.classifier, for_filters) for seed in seeds]
    for names in splits:
        bench.check(names)
    return splits


def check_records(options, kind):
    """UserError if what an earlier call left for the table of this one is damaged."""
    read_records(run_folder(options.dst), kind, options.classifier if options.overwrite else ())


def judge_rows(bench, judge, run, trained_on, real, generated, perturbations=("none",)):
    """`Judged` rows of one detector: `real` and each of `generated` is (image set, indices)."""
    rows = []
    for perturbation in perturbations:
        real_scores = judge.scores(*real, perturbation)
        for images, indices in generated:
            scores = real_scores, judge.scores(images, indices, perturbation)
            measures = scores_with_intervals(*scores, judge.threshold)
            sides = {"real": real, "fake": (images, indices)}
            names = {side: [judged.names[index] for index in chosen] for side, (judged, chosen) in sides.items()}
            rows.append(Judged(bench.classifier, trained_on, images.label, perturbation, run, measures, *scores, names))
    return rows
