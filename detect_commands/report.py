"""Tables, CSV files and pictures of how well detectors do."""

import dataclasses
import math

import numpy as np

from utils.detection import MEASURES, curves
from utils.errors import warn
from utils.files import write_text
from utils.plots import legible, plt, save_figure
from utils.tables import format_table, write_csv

INTERVAL_NOTE = (
    "Mean over runs of each number, its 95 % interval for images drawn anew (shares: Wilson's, joined by Newcombe's method for the "
    "accuracies; ap: Wilson's, as if a share of the fakes; auc: Newcombe's of 2006; the ends are averaged over runs, and say "
    "nothing of how runs differ) and, after ±, the standard deviation over runs."
)

MATRIX = "detection_matrix.md"
FEW = 20  # images of a class: that all are judged right leaves a sixth of all such images open


@dataclasses.dataclass(frozen=True)
class Judged:
    """One detector of one run on one folder of generated images."""

    classifier: str
    trained_on: str
    generator: str
    perturbation: str
    run: int
    measures: dict  # name -> (value, low, high)
    real_scores: np.ndarray
    fake_scores: np.ndarray
    names: dict | None = None  # "real", "fake" -> names of the images, in the order of their scores


def told_few(rows):
    """Warn where fewer than `FEW` images of a class judge in each run, and return that as sentences for a report: one or none."""
    count = min(len(scores) for row in rows for scores in (row.real_scores, row.fake_scores))
    if count >= FEW:
        return []
    text = (
        f"only {count} images of a class judge in each run: with all {count} judged right, {3.84 / (count + 3.84):.0%} of all such "
        "images may still be judged wrong (Wilson's 95 % interval)"
    )
    warn(f"{rows[0].classifier}: {text}")
    return [f"Warning: {text}"]


def summary(rows, measure):
    """Mean, low, high and standard deviation of a measure over the runs in `rows`; not-a-number without any."""
    if not rows:
        return (math.nan,) * 4
    values = np.array([row.measures[measure] for row in rows])  # (runs, 3)
    return (*values.mean(0).tolist(), float(values[:, 0].std(ddof=1)) if len(values) > 1 else 0.0)


def cell(rows, measure):
    """A table's cell: 0.93 [0.88, 0.97] ± 0.02."""
    if not rows:
        return "-"
    value, low, high, spread = summary(rows, measure)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" + (f" ± {spread:.3f}" if len(rows) > 1 else "")


def chosen(rows, **wanted):
    """The rows with these field values."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def distinct(rows, field):
    """Values of a field in the order they first occur."""
    return list(dict.fromkeys(getattr(row, field) for row in rows))


def write_runs_csv(path, rows):
    """One line per detector, generator, perturbation and measure: mean, std, interval, and a column per run."""
    runs = range(max(row.run for row in rows) + 1)
    fields = ("classifier", "trained_on", "generator", "perturbation")
    groups = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, field) for field in fields), []).append(row)
    body = []
    for key, same in groups.items():
        for measure in MEASURES:
            value, low, high, spread = summary(same, measure)
            by_run = {row.run: row.measures[measure][0] for row in same}
            counts = len(same[0].real_scores), len(same[0].fake_scores)
            body.append([*key, *counts, measure, value, spread, low, high, *(by_run.get(run, "") for run in runs)])
    write_csv(path, [*fields, "reals", "fakes", "measure", "mean", "std", "low", "high", *(f"run_{run}" for run in runs)], body)


def evaluation_text(rows):
    """Table of all measures of one classifier, a row per generator."""
    body = {}
    for name in distinct(rows, "generator"):
        own = chosen(rows, generator=name)
        counts = [len(own[0].real_scores), len(own[0].fake_scores)]
        body[name] = {"n": counts} | {measure: cell(own, measure) for measure in MEASURES}
    return format_table(body, {"n": "real, fake"} | {measure: measure for measure in MEASURES}, "generated images")


def generators_text(rows, field, measure):
    """Table of one measure, a row per value of a field and a column per generator."""
    generators, body = distinct(rows, "generator"), {}
    for name in distinct(rows, field):
        body[name] = {other: cell(chosen(rows, generator=other, **{field: name}), measure) for other in generators}
    return format_table(body, {other: other for other in generators}, measure)


def matrix(rows, measure):
    """Detector x generator: (classifiers, generators, (C, G) array of means over runs)."""
    classifiers, generators = distinct(rows, "classifier"), distinct(rows, "generator")
    means = [[summary(chosen(rows, classifier=c, generator=g), measure)[0] for g in generators] for c in classifiers]
    return classifiers, generators, np.array(means)


def matrix_figure(rows, measures, path):
    """Heat maps of the matrix, one per measure."""
    classifiers, generators, _ = matrix(rows, measures[0])
    size = (1.6 + 1.5 * len(generators)) * len(measures), 1.6 + 0.6 * len(classifiers)
    figure, axes = plt.subplots(1, len(measures), figsize=size, layout="constrained", squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        values = matrix(rows, measure)[2]
        axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value > 0.6 else "black"
            axis.text(column, row, "-" if math.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
        axis.set_xticks(range(len(generators)), map(legible, generators), rotation=20, ha="right", fontsize=8)
        axis.set_yticks(range(len(classifiers)), classifiers, fontsize=8)
        axis.set_title(measure, fontsize=9)
    save_figure(figure, path)


def curves_figure(rows, path):
    """ROC and precision-recall curves of every generator, one thin line per run; `rows` are of one classifier."""
    figure, (roc, precision) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for number, generator in enumerate(distinct(rows, "generator")):
        for row in chosen(rows, generator=generator):
            lines = curves(row.real_scores, row.fake_scores)
            style = {
                "color": f"C{number % 10}",
                "lw": 1,
                "alpha": 0.7,
                "label": legible(generator) if row.run == rows[0].run else None,
            }
            roc.plot(lines["false_positive"], lines["true_positive"], **style)
            precision.plot(lines["recall"], lines["precision"], **style)
            chance = len(row.fake_scores) / (len(row.fake_scores) + len(row.real_scores))
            precision.axhline(chance, color=style["color"], lw=0.8, ls=":")
    roc.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
    roc.set(xlabel="reals called fake", ylabel="fakes called fake", title="ROC", xlim=(0, 1), ylim=(0, 1.02))
    precision.set(xlabel="recall of fakes", ylabel="precision", title="precision and recall", xlim=(0, 1), ylim=(0, 1.02))
    roc.legend(fontsize=8, loc="lower right")
    save_figure(figure, path)


def robustness_figure(rows, path):
    """Balanced accuracy over the perturbations, one line per generator."""
    names = distinct(rows, "perturbation")
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for generator in distinct(rows, "generator"):
        numbers = np.array([summary(chosen(rows, generator=generator, perturbation=name), "balanced_accuracy") for name in names])
        spread = np.abs(numbers[:, 1:3] - numbers[:, :1]).T
        axis.errorbar(range(len(names)), numbers[:, 0], yerr=spread, marker="o", capsize=3, lw=1, label=legible(generator))
    axis.axhline(0.5, color="grey", lw=0.8, ls=":")
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="balanced_accuracy", ylim=(0, 1.03))
    axis.legend(fontsize=8)
    save_figure(figure, path)


def legend():
    """What each measure means, as a Markdown list."""
    return "\n".join(f"- `{name}`: {text}" for name, text in MEASURES.items())


def write_evaluation(folder, rows, notes):
    """evaluation.md, curves.png and, with perturbations, robustness.png of one classifier's `Judged` rows.

    Args:
        notes: sentences for the top of evaluation.md.
    Returns: the table as Markdown.
    """
    plain = chosen(rows, perturbation="none")
    table = evaluation_text(plain)
    parts = [
        f"# {rows[0].classifier} trained on {rows[0].trained_on}",
        *notes,
        table,
        INTERVAL_NOTE,
        legend(),
        "![curves](curves.png)",
    ]
    perturbed = {row.generator for row in rows if row.perturbation != "none"}  # of an earlier call's folders perhaps not
    if perturbed:
        shown = [row for row in rows if row.generator in perturbed]
        parts += ["## Robustness", generators_text(shown, "perturbation", "balanced_accuracy"), "![robustness](robustness.png)"]
        robustness_figure(shown, folder / "robustness.png")
    curves_figure(plain, folder / "curves.png")
    write_text(folder / "evaluation.md", "\n\n".join(parts) + "\n")
    return table


def write_matrix(folder, rows, notes):
    """detection_matrix.md, .csv and .png in `folder`: every classifier on every folder of generated images.

    Args:
        notes: sentences for the top.
    Returns: the first table as Markdown.
    """
    measures = ("balanced_accuracy", "fake_right", "auc")
    plain = chosen(rows, perturbation="none")
    tables = [generators_text(plain, "classifier", measure) for measure in measures]
    parts = ["# Detector x generator", *notes, *tables, INTERVAL_NOTE, legend(), "![matrix](detection_matrix.png)"]
    write_text(folder / MATRIX, "\n\n".join(parts) + "\n")
    write_runs_csv(folder / "detection_matrix.csv", plain)
    matrix_figure(plain, measures, folder / "detection_matrix.png")
    return tables[0]


def write_before_after(path, rows, notes):
    """detection.md and .csv: detectors trained on the fakes, and afresh, on fakes, filtered and refined images.

    Returns: the first table as Markdown.
    """
    tables, generators = [], distinct(rows, "generator")
    for measure in ("balanced_accuracy", "auc", "fake_right"):
        body = {}
        for classifier in distinct(rows, "classifier"):
            own = chosen(rows, classifier=classifier)
            for how, trained_on in (("trained on fakes", "fake"), ("trained afresh on each", None)):
                cells = {name: cell(chosen(own, trained_on=trained_on or name, generator=name), measure) for name in generators}
                body[f"{classifier}, {how}"] = cells
        tables.append(format_table(body, {name: name for name in generators}, measure))
    parts = ["# Detection before and after refinement", *notes, *tables, INTERVAL_NOTE, legend()]
    write_text(path, "\n\n".join(parts) + "\n")
    write_runs_csv(path.with_suffix(".csv"), rows)
    return tables[0]
