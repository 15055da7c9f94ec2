"""Tables as text and CSV, and the versions of what made the numbers in them."""

import csv
import importlib.metadata
import io
import platform

from utils.checkpoint import fitting
from utils.files import write_text


def format_table(rows, titles, corner=""):
    """Markdown table that is aligned as plain text, too.

    Args:
        rows: {row name: {column: number, text or list of them}}; a missing cell is shown as "-".
        titles: {column: title}, in order. corner: title of the rows' names.
    Returns: str without a final newline; floats with three decimals, small ones with three significant digits.
    """

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
        if isinstance(value, list):
            return ", ".join(map(cell, value))
        return "-" if value is None else str(value)

    lines = [[corner, *titles.values()]]
    lines += [[name, *(cell(row.get(column)) for column in titles)] for name, row in rows.items()]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(lines[0]))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([text[0], rule, *text[1:]])


def write_csv(path, header, rows):
    """Write rows of values as CSV, floats with six digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    write_text(path, buffer.getvalue())


def read_csv(path, read):
    """read(row) for each row of a CSV file, {column: text}; UserError if the file or what `read` makes of it is damaged."""
    with fitting(path), path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [read(row) for row in csv.DictReader(file)]


def software_versions():
    """{"python": version, package: version} of what decides the numbers."""
    packages = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow", "pytorch-fid")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
