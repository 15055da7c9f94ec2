"""What was judged, kept beside the detectors, so that the tables of a later call show it again where it was not measured anew.

Numbers stand in one table only if they are of one setting: the same folders with as many images, size, fit, seed, photographs and
protocol, as if one call had measured them all.
"""

import dataclasses
import hashlib
import itertools
import json

import numpy as np

from data.copies import file_sum
from detect_commands.image_sets import folder_labels
from detect_commands.options import DETECT_DEFAULTS
from detect_commands.report import Judged, write_runs_csv
from utils.checkpoint import fitting
from utils.files import read_json, write_text

SCORES = "scores.json"
MOVING = ".moving"  # in a classifier's folder, while tables of another setting are put aside
TABLES = (SCORES, "runs.csv", "evaluation.md", "curves.png", "robustness.png")
# Alike in one table.
SHARED = (
    *("real", "fake", "refined", "trained_real", "trained_fake", "trained_fit"),
    *("size", "fit", "seed", "filters_fitted", "intervals", "scores"),
)
PROTOCOL = ("runs", "split", "num_samples")  # alike, or each the classifier's own default


@dataclasses.dataclass(frozen=True)
class Record:
    """`Judged` rows of one classifier, their setting (`setting_of`), and the warnings about their images."""

    setting: dict
    rows: list
    warnings: list


def setting_of(bench, training, runs, reals, sides, generated=(), filters_fitted=None):
    """What may differ between two calls that judge detectors, as plain values.

    Args:
        bench: `Bench` of the classifier. training: how its detectors were trained, as `Bench.training`. runs: how many there are.
        reals: for each run, the names of the photographs that judged.
        sides: dict of the image sets that are alike in one table: "real", and "fake" and "refined" in mode before_after.
        generated: image sets of the generated images, where these may be others in another call.
        filters_fitted: in mode before_after, whether images are kept apart to fit filters on.
    """
    asked = {name: getattr(bench.options, name) for name in ("num_samples", "seed")}
    others = [images for images in generated if images.folder.as_posix() != training["fake"]]
    is_drawn = any(len(images) > (asked["num_samples"] or len(images)) for images in others)
    as_trained = all(training.get(name) == value for name, value in asked.items())
    names = "\n".join(itertools.chain.from_iterable(reals)).encode(errors="surrogateescape")
    return {
        "classifier": bench.classifier,
        "size": bench.size,
        "fit": bench.options.fit,
        **{name: f"{images.folder.as_posix()} ({len(images)} images)" for name, images in sides.items()},
        "trained_real": training["real"],
        "trained_fake": training["fake"],
        "trained_fit": training["fit"],
        "seed": training.get("seed"),
        "runs": runs,
        "split": training.get("split"),
        "num_samples": training.get("num_samples"),
        "filters_fitted": filters_fitted,
        "judged_by": asked if is_drawn and not as_trained else None,
        "intervals": "closed form",  # not of an earlier version, which drew images anew
        "scores": "margin",  # not probabilities, which were ties far from the border
        "detector": bench.identity() | training,
        "reals": hashlib.sha256(names).hexdigest(),
        "generated": {images.label: [images.folder.as_posix(), len(images)] for images in generated},
        "files": {images.folder.as_posix(): file_sum(images.images.paths) for images in (*sides.values(), *generated)},
    }


def difference(setting, other):
    """What keeps numbers of the `other` setting out of a table of this one, in words; None if nothing does."""

    def own(name):
        return all(each[name] == DETECT_DEFAULTS[each["classifier"]][name] for each in (setting, other))

    unlike = [name for name in (*SHARED, *PROTOCOL) if setting.get(name) != other.get(name)]
    for name in unlike:
        if name in SHARED or not own(name):
            return f"{name} {other.get(name)}, here {setting.get(name)}"
    if setting["classifier"] == other["classifier"] and setting["detector"] != other["detector"]:
        return "detectors trained otherwise"
    if not set(unlike) & set(PROTOCOL) and setting["reals"] != other["reals"]:
        return "judged by other photographs"
    samples = [each.get("judged_by") for each in (setting, other)]
    if samples[0] != samples[1] and (setting["classifier"] == other["classifier"] or not all(map(_by_default, (setting, other)))):
        return f"other folders judged by {_told_samples(samples[1])}, here {_told_samples(samples[0])}"
    counts, others = (dict(each["generated"].values()) for each in (setting, other))
    for folder in counts:
        if others.get(folder, counts[folder]) != counts[folder]:
            return f"{others[folder]} images in {folder}, here {counts[folder]}"
    files, others = (each.get("files", {}) for each in (setting, other))
    changed = next((folder for folder in files if others.get(folder, files[folder]) != files[folder]), None)
    return f"other images in {changed}" if changed else None


def _by_default(setting):
    """Whether other folders are judged by as many images as is the classifier's own default."""
    samples = setting.get("judged_by")
    return samples is None or samples["num_samples"] == DETECT_DEFAULTS[setting["classifier"]]["num_samples"]


def _told_samples(samples):
    """`judged_by` of a setting in words."""
    return f"at most {samples['num_samples']} images of each, --seed {samples['seed']}" if samples else "samples as in training"


def setting_text(records):
    """The setting of some records in words, for the top of a table."""
    shared = records[0].setting
    protocols = [
        f"{setting['classifier']}: {setting['runs']} run{'s' if setting['runs'] > 1 else ''}, --split {setting['split']}, "
        f"{'at most ' if setting['num_samples'] else ''}{setting['num_samples'] or 'all'} images of a class"
        for setting in (record.setting for record in records)
    ]
    judged = "" if shared["fit"] == shared["trained_fit"] else f"; they judge images brought to that size by --fit {shared['fit']}"
    judged += f"; of other folders they judge {_told_samples(shared['judged_by'])}" if shared.get("judged_by") else ""
    return (
        f"Photographs: {shared['real']}. Detectors trained on {shared['trained_real']} and {shared['trained_fake']}, at "
        f"{shared['size']} x {shared['size']} px, --fit {shared['trained_fit']}, --seed {shared['seed']}{judged}. "
        f"{'; '.join(protocols)}."
    )


def write_record(home, record):
    """Write home/scores.json and runs.csv."""
    rows = [vars(row) | {side: getattr(row, side).tolist() for side in ("real_scores", "fake_scores")} for row in record.rows]
    write_text(home / SCORES, json.dumps(vars(record) | {"rows": rows}) + "\n")
    write_runs_csv(home / "runs.csv", record.rows)


def read_record(home):
    """The `Record` in a folder, None if there is none; UserError if it is damaged."""
    if not (home / SCORES).is_file():
        return None
    advice = "delete it: the classifier is judged again the next time it is named"
    content = read_json(home / SCORES, advice)
    with fitting(home / SCORES, advice):
        record = Record(**content)
        difference(record.setting, record.setting)
        setting_text([record])
        arrays = [{side: np.array(row[side], float) for side in ("real_scores", "fake_scores")} for row in record.rows]
        return dataclasses.replace(record, rows=[Judged(**row | scores) for row, scores in zip(record.rows, arrays, strict=True)])


def read_records(root, kind, without=()):
    """{classifier: `Record`} of the folders root/<classifier>_<kind>, but those of the classifiers `without`."""
    found = {name: read_record(root / f"{name}_{kind}") for name in DETECT_DEFAULTS if name not in without}
    return {name: record for name, record in found.items() if record}


def relabelled(records):
    """The records with one name for each folder of generated images."""
    labels = folder_labels(folder for record in records for folder, _ in record.setting["generated"].values())
    found = []
    for record in records:
        named = {label: labels[folder] for label, (folder, _) in record.setting["generated"].items()}
        setting = record.setting | {"generated": {named[label]: value for label, value in record.setting["generated"].items()}}
        rows = [dataclasses.replace(row, generator=named.get(row.generator, row.generator)) for row in record.rows]
        found.append(dataclasses.replace(record, setting=setting, rows=rows))
    return found


def merged(old, new):
    """One record of the rows of both, which are of one setting; what both measured is the new one's."""
    old, new = relabelled([old, new])
    groups, mine = {}, {}
    for record, own in ((old, groups), (new, mine)):
        for row in record.rows:
            own.setdefault((row.trained_on, row.generator, row.perturbation), []).append(row)
    told = old.warnings if groups.keys() - mine.keys() else []  # of rows that are all measured anew nothing is left
    groups |= mine
    parts = {part: old.setting.get(part, {}) | new.setting.get(part, {}) for part in ("generated", "files")}
    setting, warnings = new.setting | parts, list(dict.fromkeys([*told, *new.warnings]))
    return Record(setting, [row for rows in groups.values() for row in rows], warnings)


def _put_aside(home):
    """Move the tables of a classifier to home/earlier_1 (or _2, ...), all or none; returns that folder."""
    number = next(number for number in itertools.count(1) if not (home / f"earlier_{number}").exists())
    moving = home / MOVING
    moving.mkdir()
    for name in (name for name in TABLES if (home / name).exists()):
        (home / name).rename(moving / name)
    return moving.rename(home / f"earlier_{number}")


def _undo_interrupted(home):
    """Take back what an interrupted `_put_aside` had moved."""
    moving = home / MOVING
    if moving.is_dir():
        for path in moving.iterdir():
            path.rename(home / path.name)
        moving.rmdir()


def keep(home, record):
    """Write a record to its classifier's folder, with the rows that an earlier call left there.

    Tables of another setting, or from before there were records, go to home/earlier_1 (or _2, ...), and the user is told.

    Returns: what was written.
    """
    _undo_interrupted(home)
    old = read_record(home)
    if old or (home / "evaluation.md").exists():
        reason = difference(record.setting, old.setting) if old else "they do not say which"
        if reason:
            aside = _put_aside(home)
            print(f"earlier tables of {home} are of another setting ({reason}) and now in {aside}")
        else:
            record = merged(old, record)
    write_record(home, record)
    return record


def beside(root, kind, asked):
    """What one table shows.

    Args:
        root, kind: as `read_records`.
        asked: classifiers of this call: they are shown whatever they are; others if they are of the same setting as all these.
    Returns: `Judged` rows, in a fixed order of classifiers, and sentences about them, of which the user is told what is not alike.
    """
    found, shown, notes = read_records(root, kind), [], []
    for name, record in found.items():
        reasons = {one: difference(found[one].setting, record.setting) for one in asked}
        one, reason = next(((one, reason) for one, reason in reasons.items() if reason), (None, None))
        if name in asked or not reason:
            shown.append(record)
        if name in asked and reason:
            notes.append(f"{name} is of another setting than {one} ({reason}).")
        elif reason:
            notes.append(f"Left out, being of another setting ({reason}): {root / f'{name}_{kind}' / 'runs.csv'}.")
    print("\n".join(notes), end="\n" * bool(notes))
    rows = [row for record in relabelled(shown) for row in record.rows]
    return rows, [setting_text(shown), *notes, *dict.fromkeys(text for record in shown for text in record.warnings)]
