"""Tables and figures from the quality benchmark's numbers, and their place in docs/."""

from pathlib import Path

import numpy as np

from benchmarks.quality_judge import COLUMNS, DETECTORS
from utils.errors import UserError
from utils.fft import normalised_log_mag
from utils.files import write_text
from utils.metrics import psnr
from utils.pictures import to_uint8
from utils.plots import plt, save_figure
from utils.tables import format_table

DOCS = Path("docs")
JUDGES = {name: title for name, title in COLUMNS.items() if name.removeprefix("seen_") in DETECTORS}
DISTANCES = {name: title for name, title in COLUMNS.items() if name not in JUDGES}


def cells(seeds):
    """Cells of a row's line: {column: text or number}, mean ± standard deviation over several seeds, an interval for one.

    Args:
        seeds: {seed: numbers}.
    """
    line, numbers = {}, list(seeds.values())
    for column in COLUMNS:
        values = [one[column] for one in numbers if column in one]
        if len(values) > 1:
            line[column] = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        elif values:
            interval = numbers[0].get(f"{column}_interval")
            line[column] = f"{values[0]:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else values[0]
    return line


def set_tables(name, record):
    """Heading and both tables (distances, detectors) of one set as Markdown.

    Args:
        record: {"settings": {...}, "rows": {row: {seed: numbers}}}.
    """
    lines = {row: cells(numbers) for row, numbers in record["rows"].items()}
    tables = []
    for columns in (DISTANCES, JUDGES):
        titles = {column: title for column, title in columns.items() if any(column in line for line in lines.values())}
        tables.append(format_table(lines, titles))
    settings = record["settings"]
    fitted, judged = (" + ".join(map(str, settings[key])) for key in ("fitted", "judged"))
    heading = (
        f"**{name}**, {settings['size']} px: fitted on {fitted} images (real + fake), judged on {judged} ({settings['part']})."
    )
    return "\n\n".join([heading, *tables])


def write_docs(path, tag, text):
    """Replace what stands between the markers of `tag` in a Markdown file; the text around stays.

    Raises: UserError if the file or the markers are missing.
    """
    begin, end = (f"<!-- {tag}: {word} -->" for word in ("begin", "end"))
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise UserError(f"{path} lacks the lines {begin} and {end}; add them where the tables of this run belong")
    write_text(path, f"{before}{begin}\n\n{text}\n\n{end}{after}")


def set_figure(name, record, path):
    """Left: each row's mean log power minus that of the judged reals, over frequency; right: the detectors with intervals.

    The bands are one standard deviation over images, around 0 the reals' own. Of several seeds the first is drawn.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained", width_ratios=(3, 2))
    rows = {row: next(iter(seeds.values())) for row, seeds in record["rows"].items()}
    judges = [column for column in JUDGES if any(column in numbers for numbers in rows.values())]
    for place, (row, numbers) in enumerate(rows.items()):
        real, spread = np.array(numbers["real_profile"]), np.array(numbers["real_profile_std"])
        if not place:
            left.fill_between(np.arange(len(real)), -spread, spread, color="black", alpha=0.1, lw=0, label="real")
        difference, deviation = np.array(numbers["profile"]) - real, np.array(numbers["profile_std"])
        (line,) = left.plot(difference, label=row, lw=1.3, color=f"C{place % 10}")
        for sign in (-1, 1):
            left.plot(difference + sign * deviation, color=line.get_color(), lw=0.5, ls=":")
        known = [column for column in judges if column in numbers]
        values = np.array([numbers[column] for column in known])
        reach = np.abs(np.array([numbers[f"{column}_interval"] for column in known]).T - values)
        where = np.array([judges.index(column) for column in known]) + 0.7 * ((place + 0.5) / len(rows) - 0.5)
        right.errorbar(where, values, reach, fmt="o", ms=4, lw=1, color=line.get_color())
    left.axhline(0, color="black", lw=0.6)
    left.set(xlabel="radial frequency (bins)", ylabel="mean log power minus real")
    left.set_title(
        f"{name}, {record['settings']['size']} px, {record['settings']['part']}; dotted: ± deviation over images", fontsize=9
    )
    figure.legend(loc="outside lower center", ncols=len(rows) + 1, fontsize=8)
    right.axhline(0.5, color="black", lw=0.6)
    right.set_xticks(range(len(judges)), [JUDGES[column] for column in judges], fontsize=8, rotation=40, ha="right")
    right.set_ylim(0, 1.05)
    right.set_title("balanced accuracy of detectors, 95 %", fontsize=9)
    save_figure(figure, path)


def pictures(fake, refined, title, path):
    """Best, median and worst image by PSNR to the fake: before, after, difference x 8 on grey, and both log spectra."""
    quality = psnr(refined.pixels, fake.pixels)
    order = quality.argsort(descending=True).tolist()
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    figure, axes = plt.subplots(len(chosen), 5, figsize=(9, 2 * len(chosen)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for (word, index), line in zip(chosen.items(), axes, strict=True):
        before, after = fake.pixels[index], refined.pixels[index]
        images = {
            f"{word}: {fake.names[index]}": before,
            f"{quality[index]:.1f} dB": after,
            "difference x 8": (after - before) * 8 + 0.5,
        }
        for (words, image), axis in zip(images.items(), line, strict=False):
            axis.imshow(to_uint8(image), interpolation="nearest")
            axis.set_title(words, fontsize=8)
        for image, words, axis in ((before, "spectrum before", line[3]), (after, "spectrum after", line[4])):
            axis.imshow(normalised_log_mag(image[None])[0].mean(0).numpy(), cmap="viridis", vmin=-1, vmax=0.6)
            axis.set_title(words, fontsize=8)
        for axis in line:
            axis.set_axis_off()
    save_figure(figure, path)
