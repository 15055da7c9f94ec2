"""Judge refiners on images that nobody tuned them on: fitted on one part of a set, judged on another.

    python -m benchmarks.quality --rows fake,linear,shrunk,floor
    python -m benchmarks.quality --sets demo --rows fake,shrunk,default,floor --seeds 0,1,2 --epoch 10

Choices are made with `--part validation`: fitted on a quarter of the images, judged on another quarter. `--part test` is for the
end: fitted on both of these, judged on the other half, which is not even read before. To add a row: benchmarks/quality_rows.py.
"""

import argparse

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.quality_data import HOME, PARTS, Images, available_sets, open_case
from benchmarks.quality_judge import COLUMNS, LEGEND, Judge, mean_psnr
from benchmarks.quality_rows import ROWS
from options import image_size
from utils.distributed import resolve_device
from utils.errors import script
from utils.report import to_8bit
from utils.run_dir import RESULTS, read_json, write_json
from utils.tables import format_table

BATCH = 8


def parse(argv=None):
    """Command line -> options, and what is left for train.py."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", help="folders of datasets/ with real/ and fake/, or demo; default: all that are there")
    parser.add_argument("--rows", default="fake,linear,shrunk,floor", help=f"of fake, floor, {', '.join(ROWS)}")
    parser.add_argument("--part", choices=PARTS, default="validation", help="what is judged")
    parser.add_argument("--size", type=image_size, default=128, help="side of the centre crops; never resized")
    parser.add_argument("--quick", action="store_true", help="leave the CNN detector out")
    parser.add_argument("--device", default="auto", help="where refiners run; judging is done on the CPU")
    options = parser.parse_args(argv)
    options.sets = options.sets.split(",") if options.sets else available_sets()
    options.rows = options.rows.split(",")
    unknown = [row for row in options.rows if row not in ("fake", "floor", *ROWS)]
    if unknown:
        parser.error(f"argument --rows: {unknown[0]} is not one of fake, floor, {', '.join(ROWS)}")
    return options


def refine_images(refine, images, device):
    """`Images` after a refiner, as 8-bit files would hold them."""
    parts = [to_8bit(refine(part.to(device))).cpu() for part in images.pixels.split(BATCH)]
    return Images(images.names, torch.cat(parts))


def judge_refiner(judge, case, refine, device):
    """Numbers of a refiner: those of its refined fakes, and what it does to a real that is passed as if it were a fake."""
    as_fake = refine_images(refine, case.real, device)
    numbers = judge(refine_images(refine, case.fake, device), refined=True)
    return numbers | {"psnr_as_fake": mean_psnr(as_fake.pixels, case.real.pixels)}


def judge_row(row, judge, case, device):
    """Numbers of one row of one case."""
    if row == "fake":
        return judge(case.fake)
    if row == "floor":
        return judge(case.fit_real.take(len(case.real)))
    sides = (images.pixels.to(device) for images in (case.fit_real, case.fit_fake))
    return judge_refiner(judge, case, ROWS[row](*sides, device), device)


def shown(numbers):
    """Cells of the table from the numbers of a row's seeds: mean ± standard deviation over several, an interval for one."""
    cells = {}
    for column in COLUMNS:
        values = [one[column] for one in numbers if column in one]
        if len(values) > 1:
            cells[column] = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        elif values:
            interval = numbers[0].get(f"{column}_interval")
            cells[column] = f"{values[0]:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else values[0]
    return cells


@script
def main(argv=None):
    """Judge the rows of every set, print the tables and keep the numbers."""
    options = parse(argv)
    device = resolve_device(options.device)
    path = RESULTS / HOME / f"{options.part}_{options.size}.json"
    results = read_json(path) if path.exists() else {}
    for name in options.sets:
        case = open_case(name, options.size, options.part)
        judge = Judge(case, options.quick)
        for row in tqdm(options.rows, desc=name, unit="row", leave=False):
            results.setdefault(name, {})[row] = {"-": judge_row(row, judge, case, device)}
            write_json(path, results)
        table = {row: shown(list(results[name][row].values())) for row in options.rows}
        titles = {column: title for column, title in COLUMNS.items() if any(column in cells for cells in table.values())}
        print(f"\n{name}, {options.size} px: fitted on {len(case.fit_real)} + {len(case.fit_fake)} images, judged on ", end="")
        print(f"{len(case.real)} + {len(case.fake)} ({options.part})\n\n{format_table(table, titles)}")
    print(f"\n{LEGEND}\n\nnumbers: {path}")


if __name__ == "__main__":
    main()
