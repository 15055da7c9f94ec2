"""The evaluation that ends a training: folders of pictures, the table of numbers and report.md."""

import functools
import math
import shlex
from pathlib import Path

import numpy as np
import torch

from utils.detector_features import classical_features
from utils.files import write_json, write_text
from utils.filters import FILTERS, filtered, filters_legend
from utils.fresh_detector import fresh_accuracy
from utils.measure import batches, evenly_spaced, refined_at_once
from utils.metrics import PSNR_CEILING, TITLES, SpectrumFolds, psnr, spectral_distances, ssim
from utils.pictures import to_8bit
from utils.result_files import drop_others, flat_names, write_pictures
from utils.run_dir import REPORT
from utils.tables import format_table, software_versions

COLUMNS = {
    name: TITLES.get(name, f"fresh {name}")
    for name in ("lfd_8bit", "lfd", "gap", "gap_upper", "logreg", "coherence", "psnr", "ssim")
}
LOOKED_AT = {  # what fresh detectors look at
    name: functools.partial(classical_features, name, corners=True) for name in ("logreg", "coherence")
}
NEARLY = {"lfd": 0.1, "gap": 0.02, "gap_upper": 0.02, "logreg": 0.05, "coherence": 0.05}  # least differences that are spoken of
FEWEST_REALS = 4  # that tell how far photographs differ
DETECTED_IMAGES = 2000  # of a class, evenly spaced: an interval 0.03 wide, and a bounded memory
SHOWN_WARNINGS = 20
IN_SAMPLE = (
    "These are the images trained on: rows look better than they would on others, the filters' most of all, which may lie far "
    "below the floor, and fresh detectors may find less than chance. For numbers of new images train with `--holdout` or "
    "`--test_data`."
)
ROWS = (
    "Rows: `refined` is the network; between `fake` and it are the filters, named as `--method` of `inference.py` and `--base` of "
    f"`train.py` call them: {filters_legend(FILTERS)}."
)
LEGEND = (
    "LFD and gaps: lower is better. Fresh detectors: balanced accuracy of a logistic regression on radial profiles, and on the "
    "coherence of frequencies with their aliases, trained to tell the row from real and judged by cross-validation (at most "
    f"{DETECTED_IMAGES} images of each; none with fewer than ten scenes of a class); 0.5 is chance. Floor: two halves of the reals "
    "against each other, that is half as many images as in the rows: its LFD is therefore about 0.7 and its gaps 1.4 times higher "
    "than what other photographs, as many as the row has, would show, and a row may lie below it. (That is where a row has as many "
    "images as there are reals; n photographs beside m reals show an LFD that is log((n + m) / 4n) higher, and gaps that are the "
    "root of (n + m) / 4n times the floor's.) PSNR and SSIM tell how much a "
    f"fake was changed; equal images count as {PSNR_CEILING:g} dB. Differences below 0.1 in LFD, "
    "0.02 in gaps and 0.05 in detectors are called about the same. With few images more is needed: a quarter of the range that the "
    "floor has over splits of the reals, and in detectors two standard deviations of a share of so many images. In the pictures of "
    "differences red is more than in the reals, blue less."
)


class ReportRow:
    """Running numbers of one row of the table.

    Args:
        keys: of each image that will come, as `fold_numbers` takes them; detectors see `DETECTED_IMAGES` of the images.
    Attributes:
        keys: of the images that detectors see.
    """

    def __init__(self, keys):
        self.spectra = SpectrumFolds()
        self._psnr, self._ssim = [], []
        self.features = {name: [] for name in LOOKED_AT}
        chosen = evenly_spaced(len(keys), DETECTED_IMAGES)
        self.keys = [keys[index] for index in chosen]
        self._next, self._detected = 0, set(chosen)

    def update(self, image, source=None):
        """Add images (N, 3, H, W) in [0, 1] and, where they were made from fakes, those fakes."""
        self.spectra.update(image)
        detected = [offset for offset in range(len(image)) if self._next + offset in self._detected]
        self._next += len(image)
        for name, features in LOOKED_AT.items() if detected else ():
            self.features[name].append(features(image[detected]).cpu())
        if source is not None:
            self._psnr.append(psnr(image, source).clamp_max(PSNR_CEILING).cpu())
            self._ssim.append(ssim(image, source).cpu())

    @functools.cached_property
    def floor(self):
        """`SpectrumFolds.floor` of all images, which are there by then: at 1,024 px it takes seconds."""
        return self.spectra.floor()

    def numbers(self, real):
        """Dictionary over `COLUMNS` against the `ReportRow` reals; what a row does not have is None."""
        numbers = spectral_distances(real.spectra.total, self.spectra.total)
        for name in LOOKED_AT:
            numbers[name] = detector_accuracy(real.features[name], self.features[name], (real.keys, self.keys))
        numbers["psnr"] = float(torch.cat(self._psnr).mean()) if self._psnr else None
        numbers["ssim"] = float(torch.cat(self._ssim).mean()) if self._ssim else None
        return numbers


def detector_accuracy(real_features, other_features, keys):
    """Balanced accuracy of a fresh detector on lists of (N, F) features, or None with images of fewer than ten scenes a class."""
    real, other = torch.cat(real_features), torch.cat(other_features)
    return fresh_accuracy(real.numpy(), other.numpy(), keys)[0] if min(len(set(side)) for side in keys) >= 10 else None


def evaluate_refiner(refine, filters, real, fake, keys, folder, device, num_workers=0):
    """Refine every fake, write all pictures and measure every row on the 8-bit images.

    Args:
        refine: function (N, 3, H, W) -> (N, 3, H, W), on `device`.
        filters: dict name of FILTERS -> filter (`utils.filters`) on `device` to show beside it.
        real, fake: datasets of images of one size with `.paths`.
        keys: of the reals and of the fakes, as `fold_numbers` takes them.
        folder: where real, fake, refined and their _mag folders go.
        num_workers: threads that read ahead.
    Returns: dict row name -> `ReportRow`: real, fake, each filter, refined.
    """
    rows = {name: ReportRow(keys[name != "real"]) for name in ("real", "fake", *filters, "refined")}
    names = {role: flat_names(images.paths) for role, images in (("real", real), ("fake", fake), ("refined", fake))}
    for role, files in names.items():
        drop_others(folder, role, files)
    real_names, fake_names = iter(names["real"]), iter(names["fake"])
    together = min(16, refined_at_once(real[0].shape[-1]))
    for image in map(to_8bit, batches(real, "writing reals", device, together, num_workers)):
        write_pictures(folder, "real", [next(real_names) for _ in image], image)
        rows["real"].update(image)
    for image in map(to_8bit, batches(fake, "refining fakes", device, together, num_workers)):
        files, refined_image = [next(fake_names) for _ in image], to_8bit(refine(image))
        write_pictures(folder, "fake", files, image)
        write_pictures(folder, "refined", files, refined_image)
        rows["fake"].update(image)
        rows["refined"].update(refined_image, image)
        for name, fitted in filters.items():
            rows[name].update(to_8bit(filtered(image, fitted)), image)
    return rows


def table_numbers(rows):
    """Numbers of every row but real, and of the floor (a single real has none): dict row -> dict over `COLUMNS`."""
    table = {name: row.numbers(rows["real"]) for name, row in rows.items() if name != "real"}
    if rows["real"].spectra.total.count < 2:
        return table
    floor = rows["real"].floor
    table["floor (two halves of real)"] = {column: floor.get(column) for column in COLUMNS}
    return table


def least_differences(rows):
    """Differences that are spoken of: those of `NEARLY`, or more where there are few images; none with fewer than `FEWEST_REALS`.

    Distances: a quarter of the range that the floor has over the splits of the reals. Detectors: two standard deviations of a share
    of so many images.
    """
    if rows["real"].spectra.total.count < FEWEST_REALS:
        return {}
    deviation = math.sqrt(sum(1 / len(rows[name].keys) for name in ("real", "fake"))) / 4  # of the mean of two shares near a half
    floor, least = rows["real"].floor, {name: max(NEARLY[name], 2 * deviation) for name in LOOKED_AT}
    return least | {name: max(NEARLY[name], -np.subtract(*floor[f"{name}_spread"]) / 4) for name in ("lfd", "gap", "gap_upper")}


def verdict(table, least, base="identity"):
    """Sentences: where refined is better, about the same, or worse than the fakes, the plain filter, and what it starts from.

    Args:
        table: as `table_numbers`. least: as `least_differences`.
        base: what training starts from (`--base`): a name of FILTERS, or "identity".
    """
    if not least:
        few = f"Fewer than {FEWEST_REALS} real images do not tell how far photographs differ from one another"
        return f"{few}, so nothing is called better or worse."
    judged = {"lfd": "LFD", "gap": "the profile gap", "gap_upper": "the upper-half gap"}
    judged |= {name: f"the fresh {name}" for name in LOOKED_AT}
    labels = {"fake": "the fakes", "linear": "the plain filter (`linear`)"}
    if base not in ("identity", *labels):
        labels[base] = f"the filter that training starts from (`{base}`)"
    sentences, advice = [], ""
    for other, label in labels.items():
        found = {"better": [], "about the same": [], "worse": []}
        for column, words in judged.items():
            values = [table[row][column] for row in ("refined", other)]
            if None not in values:
                least_value = 0.5 if column in LOOKED_AT else 0  # a detector below chance is no better than chance
                own, rest = [max(value, least_value) for value in values]
                gain = rest - own
                found["better" if gain > least[column] else "worse" if gain < -least[column] else "about the same"].append(words)
        said = "; ".join(f"{how} in {', '.join(words)}" for how, words in found.items() if words)
        sentences.append(f"Against {label}, refined is {said}.")
        if other == base and found["worse"] and not found["better"]:
            advice = f" Training made it worse: `--method {base}` of `inference.py` refines by the filter alone."
    return " ".join(sentences) + advice


def run_section(command, sets, warnings):
    """How a run was made, as Markdown.

    Args:
        command: list of words. sets: dict "train_real", "train_fake" -> images. warnings: sentences that the user was told.
    """
    counts = f"Trained on {len(sets['train_real'])} real and {len(sets['train_fake'])} fake images."
    versions = ", ".join(f"{name} {version}" for name, version in software_versions().items())
    told = [f"- {text}" for text in warnings[:SHOWN_WARNINGS]] or ["There were no warnings."]
    if len(warnings) > SHOWN_WARNINGS:
        told.append(f"- and {len(warnings) - SHOWN_WARNINGS} more")
    return "\n\n".join(
        ["## The run", f"```\n{shlex.join(command)}\n```", f"{counts} Made by {versions}.", "### Warnings", "\n".join(told)]
    )


def write_report(run_folder, rows, title, examples, section, base, in_sample=False):
    """Write report.md, table.json and the pictures beside it.

    Args:
        run_folder: results/<dst>.
        rows: as `evaluate_refiner` gives them.
        title: what was evaluated, one line.
        examples: dict "fake", "refined", "real" -> (3, H, W) in [0, 1].
        section: how the run was made, Markdown. base: what training started from, as `verdict`. in_sample: whether the images
            measured are those that were trained on.
    Returns: the text printed at the end of a run.
    """
    from utils import plots  # matplotlib is slow to import, and most of a training's processes draw nothing

    run_folder = Path(run_folder)
    table = table_numbers(rows)
    totals = {name: row.spectra.total for name, row in rows.items()}
    spectra = {name: totals[name].log_mag for name in ("fake", "refined", "real")}
    profiles = {name: total.profile for name, total in totals.items()}
    plots.overview_figure(examples, spectra, profiles, run_folder / "overview.png")
    plots.spectra_figure(spectra, run_folder / "spectra.png")
    plots.profile_figure(profiles, run_folder / "profiles.png")
    said = verdict(table, least_differences(rows), base) + (f" {IN_SAMPLE}" if in_sample else "")
    text = f"{format_table(table, COLUMNS)}\n\n{said}"
    counts = f"{rows['real'].spectra.total.count} real and {rows['fake'].spectra.total.count} fake images"
    pictures = "![overview](overview.png)\n\n![mean spectra](spectra.png)\n\n![profiles](profiles.png)\n"
    write_json(run_folder / "table.json", table)
    write_text(run_folder / REPORT, f"# {title}\n\n{counts}.\n\n{text}\n\n{ROWS}\n\n{LEGEND}\n\n{section}\n\n{pictures}")
    return text
