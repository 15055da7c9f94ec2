"""Judge refiners on images that nobody tuned them on: fitted on one part of a set, judged on another.

    python -m benchmarks.quality --sets my_set --size 256
    python -m benchmarks.quality --sets demo --rows fake,shrunk,default,floor --seeds 0,1,2 --epoch 10

Choices are made with `--part validation`: fitted on a quarter of the images, judged on another quarter. `--part test` is for the
end: fitted on both of these, judged on the other half, which is not even read before. To add a row: benchmarks/quality_rows.py.
Options that are not listed here go to train.py; finished trainings in results/quality are not repeated, nor is a row judged again
while images, checkpoint, libraries and the code that refines and judges are the same. Several calls may run at once.
"""

import contextlib
import functools
import hashlib
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import quality_judge
from benchmarks.common import benchmark_parser
from benchmarks.quality_code import hash_of, modules_behind
from benchmarks.quality_data import HOME, PARTS, Images, available_sets, open_case
from benchmarks.quality_judge import CLASSICAL, CNNS, LEGEND, Judge, mean_psnr
from benchmarks.quality_report import DOCS, pictures, set_figure, set_tables, write_docs
from benchmarks.quality_rows import ROWS, is_trained, prepare_row
from options import parse_train
from utils.arguments import image_size, name_list, number, number_list
from utils.distributed import resolve_device
from utils.errors import script
from utils.files import file_hash, read_json, write_json
from utils.locks import lock
from utils.pictures import to_8bit
from utils.run_dir import RESULTS
from utils.tables import software_versions

BATCH = 8
IN_DOCS = ("demo_74", "polyphase")  # of which docs/ has a picture: it shows no photographs
FIXED = ("--data", "--test_data", "--size", "--fit", "--seed", "--dst", "--holdout")  # options of train.py that the protocol sets


def parse(argv=None):
    """Command line -> options; `options.train` holds what train.py gets."""
    parser = benchmark_parser("quality", __doc__)
    add_common(parser, ("fake", "linear", "polyphase", "floor"))
    parser.add_argument("--seeds", type=number_list(0), default=(0,), help="of rows that are trained, such as 0,1,2")
    parser.add_argument("--part", choices=PARTS, default="validation", help="what is judged")
    parser.add_argument("--quick", action="store_true", help="leave the CNN detectors out")
    parser.add_argument("--inception_weights", metavar="PATH", help="pytorch-fid's weights: judge by KID and FID, too")
    parser.add_argument("--pictures", action="store_true", help="show each refiner's best, median and worst image")
    parser.add_argument(
        "--write_docs",
        action="store_true",
        help="put the tables (in place of those of this size), figures and the demo's pictures into docs/; with --part test only",
    )
    options, options.train = parser.parse_known_args(argv)
    if options.write_docs and options.part != "test":
        parser.error("argument --write_docs: docs/quality_tables.md has the tables of --part test; give that, too")
    if options.write_docs and options.quick:
        parser.error("argument --write_docs: docs/quality_tables.md has the CNN detectors, too; leave --quick out")
    return completed(options, parser)


def add_common(parser, rows):
    """Add the options that benchmarks.quality and benchmarks.splits share: sets, rows, size, epoch, device."""
    known = ("fake", "floor", *ROWS)
    parser.add_argument(
        "--sets", help="folders of datasets/ with real/ and fake/, or demo; default: all in datasets/ that are large enough"
    )
    parser.add_argument("--rows", default=rows, type=name_list(known), metavar="ROW[,ROW...]", help=f"of {', '.join(known)}")
    parser.add_argument("--size", type=image_size, default=128, help="side of the centre crops; never resized")
    parser.add_argument("--epoch", type=number(int, 1), help="of rows that are trained; default: train.py's")
    parser.add_argument("--device", default="auto", help="where refiners are trained and run; they are judged on the CPU")


def completed(options, parser):
    """The options with the names of the sets that are meant, and in `options.train` all that train.py gets."""
    options.sets = options.sets.split(",") if options.sets else available_sets(options.size)
    if options.train and not any(map(is_trained, options.rows)):
        parser.error(f"{options.train[0]} is no option of this benchmark, and no row is trained")
    fixed = [option for option in (text.partition("=")[0] for text in options.train) if option in FIXED]
    if fixed:
        parser.error(f"{fixed[0]} is not for you to give: the protocol sets it")
    options.train += ["--epoch", str(options.epoch)] if options.epoch else []
    options.train += ["--device", options.device]
    for row in filter(is_trained, options.rows):
        arguments = ["--data", "x", "--dst", "x", "--size", str(options.size), *ROWS[row], *options.train]
        parse_train(arguments)  # a mistake is told before the first row is judged
    return options


def refine_images(refine, images, device):
    """`Images` after a refiner, as 8-bit files would hold them."""
    parts = [to_8bit(refine(part.to(device))).cpu() for part in images.pixels.split(BATCH)]
    return Images(images.names, torch.cat(parts))


def judge_refiner(judge, case, refined, refine, identify, device):
    """Numbers of a refiner: how the refined fakes (`Images`) look to the judge, and what it does to reals.

    Args:
        refine: function of a batch. identify: what it does to a batch of known reals, or None.
    """
    numbers = judge(refined, refined=True)
    for column, function in (("psnr_identity", identify), ("psnr_as_fake", refine)):
        if function:
            numbers[column] = mean_psnr(refine_images(function, case.real, device).pixels, case.real.pixels)
    return numbers


def draw_row(row, case, refined, options):
    """Pictures of a row's best, median and worst image."""
    for folder in [RESULTS / HOME, *([DOCS / "figures"] if options.write_docs and (case.name, row) == IN_DOCS else [])]:
        name = f"{case.name}_{case.size}_{case.part}_{row}.png"
        pictures(case.fake, refined, f"{case.name}, {case.size} px, {case.part}: {row}", folder / f"quality_{name}")


def fingerprint(case, networks_hash):
    """Hash of everything that decides a row's numbers but the row: images, the code that judges, and versions of libraries."""
    digest = hashlib.sha256(hash_of(modules_behind(quality_judge), [networks_hash, software_versions()]).encode())
    for images in (case.fit_real, case.fit_fake, case.real, case.fake):
        digest.update("/".join(images.names).encode() + images.pixels.numpy().tobytes())
    return digest.hexdigest()


def new_record(case, networks_hash):
    """The record of a case of which nothing is known: {"made_by", "settings", "rows": {row: {seed: numbers}}, "refiners"}.

    "refiners" holds what made each of the numbers, {row: {seed: made_by of `prepare_row`}}.
    """
    counts = {"fitted": [len(case.fit_real), len(case.fit_fake)], "judged": [len(case.real), len(case.fake)]}
    settings = {"size": case.size, "part": case.part, **counts}
    return {"made_by": fingerprint(case, networks_hash), "settings": settings, "rows": {}, "refiners": {}}


def read_record(path, name, new):
    """All results in a file (none if it is not there), and the record of a case in them: `new` if images or judge are others."""
    results = read_json(path) if path.exists() else {}
    found = results.get(name, {})
    return results, {"refiners": {}} | (found if found.get("made_by") == new["made_by"] else new)


@contextlib.contextmanager
def locked(path):
    """Context in which no other process is that has asked for the same path: to read a file, change it and write it again.

    The lock is a hidden file beside it, which stays; a process that dies lets go of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("a") as file:
        lock(file)
        yield  # closing the file lets go


def keep(path, name, new, row, seed, numbers, made_by):
    """Add the numbers of a row to the file, beside what other calls have written meanwhile; returns the case's record.

    Seeds of the row that were made otherwise are dropped: a mean over them would mean nothing.
    """
    with locked(path):
        results, record = read_record(path, name, new)
        if results.get(name, new)["made_by"] != new["made_by"]:
            print(f"{name}: its numbers were made of other images or by other code; they are dropped", file=sys.stderr)
        refiners = {s: made for s, made in record["refiners"].get(row, {}).items() if made["how"] == made_by["how"]}
        dropped = sorted(record["rows"].get(row, {}).keys() - refiners.keys() - {seed})
        if dropped:
            print(f"{name}, {row}: seeds made by other code are dropped ({', '.join(dropped)})", file=sys.stderr)
        rows = {s: found for s, found in record["rows"].get(row, {}).items() if s in refiners}
        record["rows"][row], record["refiners"][row] = rows | {seed: numbers}, refiners | {seed: made_by}
        results[name] = record
        write_json(path, results)
    return record


def open_inception(weights, device):
    """{"inception": function (N, 3, H, W) -> (N, 2048)}, hash of its code and weights; ({}, None) without weights."""
    if weights is None:
        return {}, None
    from utils import inception  # slow to import

    weights = inception.find_weights(weights)
    network = inception.load_inception(weights, device)
    used = hash_of([inception], file_hash(weights))
    return {"inception": lambda image: inception.inception_features(network, image.to(device))}, used


def judge_set(case, path, options, device, networks, networks_hash):
    """Judge what is not known of a set's rows; returns its record with the rows and seeds asked for alone."""
    new = new_record(case, networks_hash)
    record = read_record(path, case.name, new)[1]
    judge = functools.cache(lambda: Judge(case, CLASSICAL + CNNS * (not options.quick), networks))
    asked = {row: {} for row in options.rows}
    for row in tqdm(options.rows, desc=case.name, unit="row", leave=False):
        for place, seed in enumerate(map(str, options.seeds) if is_trained(row) else "-"):
            made_by, start = prepare_row(row, seed, case, options.train, device)
            known = record["refiners"].get(row, {}).get(seed) == made_by
            drawn = options.pictures and place == 0 and start is not None
            if start is not None and (drawn or not known):
                refine, identify = start()
                refined = refine_images(refine, case.fake, device)
            if not known:
                if start is None:
                    numbers = judge()(case.fake) if row == "fake" else judge().floor()
                else:
                    numbers = judge_refiner(judge(), case, refined, refine, identify, device)
                record = keep(path, case.name, new, row, seed, numbers, made_by)
            if drawn:
                draw_row(row, case, refined, options)
            asked[row][seed] = record["rows"][row][seed]
    return record | {"rows": asked}


@script
def main(argv=None):
    """Judge the rows of every set, print the tables and keep the numbers; returns them."""
    options = parse(argv)
    device = resolve_device(options.device)
    networks, networks_hash = open_inception(options.inception_weights, device)
    path, tables, judged = RESULTS / HOME / f"{options.part}_{options.size}{'_quick' if options.quick else ''}.json", [], {}
    for name in options.sets:
        asked = judge_set(open_case(name, options.size, options.part), path, options, device, networks, networks_hash)
        figure = DOCS / "figures" if options.write_docs else RESULTS / HOME
        set_figure(name, asked, figure / f"quality_{name}_{options.size}_{options.part}.png")
        judged[name] = asked
        tables.append(set_tables(name, asked))
        print(f"\n{tables[-1]}")
    results = read_json(path)
    print(f"\n{legend(judged)}\n\nnumbers: {path}")
    if options.write_docs:
        write_docs(DOCS / "quality_tables.md", f"{options.part} {options.size}", "\n\n".join(tables))
    return results


def legend(results):
    """What the columns mean, and that some are left out where they are."""
    rows = [seeds for record in results.values() for seeds in record["rows"].values()]
    measured = any("kid_inception" in numbers for seeds in rows for numbers in seeds.values())
    return LEGEND + ("" if measured else " KID and FID need --inception_weights and are left out.")


if __name__ == "__main__":
    main()
