"""A folder of many small images: seconds to start, memory, and reading beside bare decoding. Needs no data: it makes a tree and
deletes it.

    python -m benchmarks.input
    python -m benchmarks.input --n 10000 --size 256

Start-up is timed once per row, each in its turn, on the same files; reading takes turns and the best round counts.
"""

import contextlib
import io
import itertools
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import benchmark_parser, best_times, draw_pictures, for_each, peak_mib
from data.checking import check_images
from data.folder import ImageFolder, load_folder
from data.listing import list_images
from data.pairs import PairLoader, load_holdout, save_holdout, split_holdout
from data.reading import inspect
from utils.arguments import number
from utils.errors import script
from utils.tables import format_table

DISTINCT = 500  # pictures that differ; the files repeat them
PER_SHARD = 10_000


def make_tree(root, count, pictures):
    """Write root/images/*.png and the same in root/images-*.tar, dated long ago. Returns the folder and the shards' pattern."""
    folder = root / "images"
    folder.mkdir()
    shards = -(-count // PER_SHARD)
    for shard in range(shards):
        with tarfile.open(root / f"images-{shard:06d}.tar", "w") as tar:
            for index in range(shard * PER_SHARD, min((shard + 1) * PER_SHARD, count)):
                picture, name = pictures[index % DISTINCT], f"{index:07d}.png"
                (folder / name).write_bytes(picture)
                os.utime(folder / name, (10**9, 10**9))
                member = tarfile.TarInfo(name)
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
        os.utime(root / f"images-{shard:06d}.tar", (10**9, 10**9))
    return folder, root / f"images-{{000000..{shards - 1:06d}}}.tar"


class Stopwatch:
    """Rows of start-up: seconds, and growth of the peak memory."""

    def __init__(self, count):
        self.count, self.rows, self.start_mib = count, {}, peak_mib()

    def __call__(self, name, function):
        """Time a function; returns its value."""
        start = time.perf_counter()
        value = function()
        row = {"seconds": time.perf_counter() - start}
        row["per_second"] = round(self.count / row["seconds"])
        row["mib"] = round(peak_mib() - self.start_mib, 1) if self.start_mib else None
        self.rows[name] = row
        return value


def startup(folder, pattern, count, num_workers, root):
    """Rows of everything that happens before the first image is needed, and seconds that decoding every image would take."""
    watch = Stopwatch(count)
    paths = watch("listing", lambda: list_images(folder))
    sample = paths.take(range(0, count, max(1, count // 2000)))
    start = time.perf_counter()
    for path in sample:
        inspect(path)
    decoding = (time.perf_counter() - start) / len(sample) * count
    watch("first check, one process", lambda: check_images(paths))
    forget(root)
    watch(f"first check, {num_workers} processes", lambda: check_images(paths, num_workers=num_workers))
    good, _ = watch("second check", lambda: check_images(paths))
    split = watch("holdout of a fifth", lambda: split_holdout(good, good, 0.2, 0))
    watch("writing images.json", lambda: save_holdout(root / "images.json", split, 0.2, 0))
    watch("reading it again", lambda: load_holdout(root / "images.json", good, good))
    watch("listing to second check, together", lambda: load_folder(folder, None))
    watch("shards: index and first check", lambda: load_folder(pattern, None, num_workers=num_workers))
    watch("shards: the same again", lambda: load_folder(pattern, None))
    watch.rows["decoding every image (extrapolated)"] = {"seconds": decoding, "per_second": round(count / decoding)}
    for row in watch.rows.values():
        row["ratio"] = row["seconds"] / decoding
    return watch.rows


def forget(root):
    """Delete what was remembered."""
    for file in (root / "cache").glob("*"):
        file.unlink()


def decode(content):
    """What no reading can do without."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def drain(loader, count):
    """Read pairs until `count` images have come."""
    batches = loader.batches(0)
    with contextlib.closing(batches):
        for _ in itertools.islice(batches, -(-count // (2 * loader.batch_size))):
            pass


def reading_parts(folder, pattern, count, num_workers):
    """{what: function that reads `count` images}."""
    plain, packed = (ImageFolder(load_folder(place, None)[0].paths) for place in (folder, pattern))
    drawn = np.random.default_rng(0).permutation(len(plain))[:count].tolist()
    contents = [plain.paths.content(index) for index in drawn]
    return {
        "bare decoding (floor)": lambda: for_each(decode, contents),
        "bytes of files, random order": lambda: for_each(plain.paths.content, drawn),
        "bytes of shards, random order": lambda: for_each(packed.paths.content, drawn),
        "images of the folder": lambda: for_each(plain.__getitem__, drawn),
        "images of the shards": lambda: for_each(packed.__getitem__, drawn),
        "pairs of the folder": lambda: drain(PairLoader(plain, plain, 16, 0), count),
        f"pairs of the folder, {num_workers} threads": lambda: drain(PairLoader(plain, plain, 16, 0, num_workers), count),
        f"pairs of the shards, {num_workers} threads": lambda: drain(PairLoader(packed, packed, 16, 0, num_workers), count),
    }


@script
def main(argv=None):
    """Print both tables."""
    parser = benchmark_parser("input", __doc__)
    parser.add_argument("--n", type=number(int, 1), default=100_000, help="images")
    parser.add_argument("--size", type=number(int, 1), default=64, help="their side in pixels")
    parser.add_argument("--num_workers", type=number(int, 0), default=2, help="processes and threads")
    parser.add_argument("--read", type=number(int, 1), default=3000, help="images that are read in each part")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="rounds of reading, the best counts")
    parser.add_argument("--folder", help="where the temporary tree is made (unset: the system's temporary folder)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        os.environ["STIG_CACHE"] = str(root / "cache")
        pictures = draw_pictures(DISTINCT, options.size)
        folder, pattern = make_tree(root, options.n, pictures)
        mean = sum(map(len, pictures)) / len(pictures)
        print(f"{options.n} PNGs of {options.size} px, {mean / 1024:.1f} KiB each; {os.cpu_count()} cores\n")
        rows = startup(folder, pattern, options.n, options.num_workers, root)
        titles = {"seconds": "seconds", "per_second": "images/s", "ratio": "time / decoding", "mib": "peak memory grew by, MiB"}
        print(format_table(rows, titles))
        count, before = min(options.read, options.n), peak_mib()
        times = best_times(reading_parts(folder, pattern, count, options.num_workers), options.rounds)
        floor = times["bare decoding (floor)"]
        rows = {part: {"rate": round(count / seconds), "ratio": seconds / floor} for part, seconds in times.items()}
        print("\n" + format_table(rows, {"rate": "images/s", "ratio": "time / floor"}))
        if before:
            kept = count * mean / 2**20
            print(f"\nreading: peak memory grew by {peak_mib() - before:.1f} MiB, {kept:.1f} of them bytes kept for the floor")


if __name__ == "__main__":
    main()
