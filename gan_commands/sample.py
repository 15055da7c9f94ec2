"""gan.py sample: numbered PNGs out of a trained generator."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from gan_commands.common import SAMPLE, draw_batches, load_run, sampling_generator
from utils.distributed import resolve_device
from utils.errors import UserError
from utils.run_dir import read_json, write_json, write_png
from utils.seeding import seed_everything

ORIGIN = ".sample.json"  # in the filled folder: where its images are from


def open_sample_folder(folder, origin, overwrite):
    """Make or continue a folder of samples; UserError if it holds anything else."""
    path = folder / ORIGIN
    if not path.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files that gan.py sample did not write; choose another --out")
    if path.is_file() and overwrite:
        for image in folder.glob("[0-9]*.png"):
            image.unlink()
    elif path.is_file() and read_json(path) != origin:
        raise UserError(f"{folder} holds samples of another run or seed; --overwrite replaces them, or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, origin)


def sample(options):
    """Write the images 000000.png, ... that are not there yet."""
    device = resolve_device(options.device)
    seed_everything(options.seed, options.deterministic)
    checkpoint = load_run(options.dst, options.checkpoint)
    folder = Path(options.out)
    origin = {"run": options.dst, "checkpoint": options.checkpoint, "steps": checkpoint["steps"], "seed": options.seed}
    open_sample_folder(folder, origin, options.overwrite)
    fill_folder(checkpoint, folder, options.n, options.seed, device, options.batch_size, options.num_workers)
    print(f"{options.n} images of {options.dst} in {folder}")


def fill_folder(checkpoint, folder, count, seed, device, batch_size=64, num_workers=0):
    """Draw the images 0..count - 1 of a seed that a folder lacks and write them as PNG."""
    missing = [index for index in range(count) if not (folder / f"{index:06d}.png").is_file()]
    generator = sampling_generator(checkpoint, device)
    with ThreadPoolExecutor(max(1, num_workers)) as pool, tqdm(total=len(missing), desc="drawing", unit="image", delay=1) as bar:
        write = pool.map if num_workers else map
        for indices, images in draw_batches(generator, missing, seed, SAMPLE, batch_size):
            list(write(write_png, [folder / f"{index:06d}.png" for index in indices], images))
            bar.update(len(indices))
