"""gan.py sample: numbered PNGs out of a trained generator."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from data.reading import header_info
from data.shards import is_shards
from data.streams import find_photographs
from gan_commands.common import SAMPLE, draw_batches, load_run, sampling_generator, weights_digest
from utils.errors import UserError
from utils.files import check_place, read_json, real_path, write_json
from utils.pictures import write_png
from utils.run_dir import claim, refuse_held
from utils.seeding import seed_everything

ORIGIN = ".sample.json"  # in the filled folder: where its images are from


def open_sample_folder(folder, origin, overwrite):
    """Make or continue a folder of samples; UserError if it holds anything else."""
    check_place(folder)
    refuse_held(folder)
    path = folder / ORIGIN
    if not path.is_file() and folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise UserError(f"{folder} holds files that gan.py sample did not write; choose another --out")
    begun = origin if overwrite or not path.is_file() else read_json(path, "replace it and the samples with --overwrite")
    if any(begun.get(name) != origin[name] for name in ("weights", "seed")):
        raise UserError(f"{folder} holds samples of another generator or seed; --overwrite replaces them, or choose another --out")
    claim(folder)
    for image in folder.glob(6 * "[0-9]" + ".png") if overwrite else ():
        image.unlink()
    write_json(path, origin)


def photographs_of(checkpoint):
    """Folder of the photographs that a run was trained on; None if it knows none, or they are in shards or gone."""
    data = checkpoint.get("options", {}).get("data")
    try:
        return None if data is None or is_shards(data) else find_photographs(data)
    except UserError:
        return None


def open_run(options):
    """The run's checkpoint, and the numbers of the images that the folder, made here, lacks."""
    checkpoint, folder = load_run(options.dst, options.checkpoint), Path(options.out)
    photographs = photographs_of(checkpoint)
    if photographs and real_path(folder).is_relative_to(real_path(photographs)):
        raise UserError(f"--out {folder} lies in {photographs}, the photographs: fakes would count as such; choose another")
    origin = {"run": options.dst, "checkpoint": options.checkpoint, "steps": checkpoint["steps"], "seed": options.seed}
    origin["weights"] = weights_digest(checkpoint)
    open_sample_folder(folder, origin, options.overwrite)
    paths = [folder / f"{index:06d}.png" for index in range(options.n)]
    return checkpoint, [index for index, path in enumerate(paths) if header_info(path, path.read_bytes) is None]  # or damaged


def sample(options, processes):
    """Write the images 000000.png, ... that are not there yet, this process its part of them."""
    seed_everything(options.seed, options.deterministic)
    checkpoint, missing = processes.once(lambda: open_run(options))
    part = processes.block(len(missing), options.batch_size)
    draw_files(checkpoint, missing[part.start : part.stop], options, processes.device)
    processes.wait()
    drawn = f"{options.n} images of {options.dst} in {options.out}"
    more = sum(path.suffix == ".png" for path in Path(options.out).iterdir()) - options.n
    print(f"{drawn}, and {more} that were there already (--overwrite deletes them first)" if more > 0 else drawn)


def draw_files(checkpoint, numbers, options, device):
    """Draw the images of these numbers and write them as PNG."""
    generator, folder = sampling_generator(checkpoint, device), Path(options.out)
    workers = options.num_workers
    with ThreadPoolExecutor(max(1, workers)) as pool, tqdm(total=len(numbers), desc="drawing", unit="image", delay=1) as bar:
        write = pool.map if workers else map
        for indices, images in draw_batches(generator, numbers, options.seed, SAMPLE, options.batch_size):
            list(write(write_png, [folder / f"{index:06d}.png" for index in indices], images))
            bar.update(len(indices))
