"""Fakes of a diffusion model, to refine and to detect: a small DDPM, trained on a folder of photographs and drawn from by DDIM.

    python -m benchmarks.diffusion --data my_photos --size 32 --steps 10000 --n 800 --out datasets/my_ddpm_set/fake

The model and its samplers are the library diffusers': pip install diffusers. The objective is the published one (the mean squared
error of the predicted noise, 1,000 noise levels, linear schedule: Ho, Jain, Abbeel 2020), the network is far smaller than the
published ones. What is trained lies in results/<dst>; with more --steps and another --out it is trained on, and a command that was
stopped goes on from the last thousand steps.
"""

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from benchmarks.common import benchmark_parser
from data.copies import file_sum
from data.streams import open_stream
from models.gan import from_image, seeded_latents, to_image, update_average
from models.optimisers import load_optimiser
from utils.arguments import image_size, number, run_name
from utils.checkpoint import check_state, fitting, load_checkpoint, save_checkpoint
from utils.devices import sent
from utils.distributed import resolve_device
from utils.errors import UserError, check_finite, script
from utils.files import atomic_folder, check_place
from utils.interrupts import leaving
from utils.pictures import to_8bit, write_png
from utils.run_dir import claim, refuse_held, run_folder
from utils.seeding import seed_everything

KIND = "ddpm"
LEVELS = 1000  # of noise
NOISY = 900  # level at which hardly anything is seen of an image
SAVED = 1000  # steps between checkpoints
DECAY = 0.999  # of the averaged weights, which images are drawn by
WARM_UP = 500  # steps until the full rate
DRAWN = 64  # images at once
GROUPS = 8  # of channels that are normalised together
KEPT = ("data", "size", "batch_size", "lr", "width", "seed")  # options that must be the same where a training goes on


def channels(text):
    """Argparse type: a multiple of GROUPS."""
    value = number(int, GROUPS)(text)
    if value % GROUPS:
        raise argparse.ArgumentTypeError(f"{value} is no multiple of {GROUPS}")
    return value


def draw_steps(text):
    """Argparse type: steps of which the first is at nearly pure noise, which drawing begins with."""
    value = number(int, 1, LEVELS)(text)
    first = (value - 1) * (LEVELS // value)
    if first < NOISY:
        raise argparse.ArgumentTypeError(f"{value} would begin at level {first} of {LEVELS}, where images show; try 50 or 100")
    return value


def parse(argv=None):
    """Command line -> options."""
    parser = benchmark_parser("diffusion", __doc__)
    parser.add_argument("--data", required=True, help="photographs: folder in datasets/ or any other, or tar shards")
    parser.add_argument("--size", type=image_size, default=32, help="side of the images; others are refused")
    parser.add_argument("--steps", type=number(int, 1), default=10_000, help="of training, in all")
    parser.add_argument("--batch_size", type=number(int, 1), default=32, help="images per step")
    parser.add_argument("--lr", type=number(float, 0, open_low=True), default=4e-4, help="Adam's rate, after a warm-up")
    parser.add_argument("--width", type=channels, default=32, help="channels at full size; twice and four times below")
    parser.add_argument("--draw_steps", type=draw_steps, default=50, help="of a drawing")
    parser.add_argument("--eta", type=number(float, 0, 1), default=0.0, help="noise while drawing: 0 is DDIM, 1 as DDPM")
    parser.add_argument("--n", type=number(int, 1), default=1000, help="images to draw")
    parser.add_argument("--out", required=True, help="folder to draw them into, such as datasets/my_ddpm_set/fake")
    parser.add_argument("--dst", type=run_name, default="my_ddpm", help="the model is kept in results/<dst>")
    parser.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=0, help="of weights, order, noise and drawings")
    parser.add_argument("--device", default="auto", help="as train.py")
    return parser.parse_args(argv)


def load_diffusers():
    """The library diffusers; UserError if it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise UserError("diffusion models need the library diffusers, which is not installed; pip install diffusers") from error
    return diffusers


def make_network(size, width):
    """A U-Net of three scales with attention at the smallest: image (N, 3, S, S) in [-1, 1] with noise, level -> the noise."""
    return load_diffusers().UNet2DModel(
        sample_size=size,
        layers_per_block=1,
        block_out_channels=(width, 2 * width, 4 * width),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=GROUPS,
        attention_head_dim=2 * width,
    )


class Training:
    """A network, its average and optimiser, how many steps they have seen, and of which images."""

    def __init__(self, options, device):
        self.options, self.device, self.steps, self.images = options, device, 0, None
        self.network = make_network(options.size, options.width).to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.network.parameters(), options.lr)
        self.levels = load_diffusers().DDPMScheduler(LEVELS)

    def step(self, image, generator):
        """One step on images (N, 3, S, S) in [0, 1], half of them mirrored; returns the loss, a tensor."""
        flip = torch.rand(len(image), 1, 1, 1, generator=generator) < 0.5
        noise = torch.randn(image.shape, generator=generator)
        level = torch.randint(LEVELS, (len(image),), generator=generator)
        image, noise, level = (sent(x, self.device) for x in (from_image(torch.where(flip, image.flip(-1), image)), noise, level))
        loss = F.mse_loss(self.network(self.levels.add_noise(image, noise, level), level).sample, noise)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.lr * min(1, (self.steps + 1) / WARM_UP)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        update_average(self.average, self.network, min(DECAY, (1 + self.steps) / (10 + self.steps)))
        return loss.detach()

    def go_on_with(self, images):
        """Note what is trained on (`ImageFolder`); UserError if it was something else before."""
        found = {"count": len(images), "bytes": file_sum(images.paths)}
        if self.images not in (None, found):
            raise UserError(
                f"{self.options.dst} was trained on other images than are in {self.options.data} now; give another --dst"
            )
        self.images = found

    def save(self, path):
        """Write a checkpoint from which `load` goes on."""
        parts = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimiser")}
        kept = {"images": self.images, "options": {name: getattr(self.options, name) for name in KEPT}}
        check_state(parts, self.steps, "try a lower --lr and another --dst")
        save_checkpoint(path, KIND, parts | {"steps": self.steps} | kept, "go on with the same command")

    def load(self, path):
        """Undo `save`; UserError if the checkpoint is of other options."""
        checkpoint = load_checkpoint(path, KIND)
        with fitting(path):
            for name, value in checkpoint["options"].items():
                if value != getattr(self.options, name):
                    raise UserError(f"{path} was trained with --{name} {value}; give the same, or another --dst")
            self.network.load_state_dict(checkpoint["network"])
            self.average.load_state_dict(checkpoint["average"])
            load_optimiser(self.optimiser, checkpoint["optimiser"])
            self.steps, self.images = int(checkpoint["steps"]), checkpoint.get("images")  # of older ones it is not known


def train(training, stream, path):
    """Train until the steps are done, with a checkpoint every thousand and at the end."""
    total, mean = training.options.steps, None
    with tqdm(total=total, initial=training.steps, desc="training", unit="step") as bar:
        while training.steps < total:
            epoch, batch = divmod(training.steps, stream.steps_per_epoch)
            for image in stream.batches(epoch, batch):
                generator = torch.Generator().manual_seed(training.options.seed * 10**9 + training.steps)
                loss = float(training.step(image, generator))
                check_finite({"loss": loss}, training.steps, "try a lower --lr and another --dst")
                mean = loss if mean is None else mean + 0.01 * (loss - mean)
                bar.update()
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                if training.steps % SAVED == 0 or training.steps == total:
                    training.save(path)
                if training.steps == total:
                    break


@torch.no_grad()
def draw(training, numbers):
    """8-bit images (N, 3, S, S) in [0, 1] of these numbers, by the averaged weights."""
    options = training.options
    scheduler = load_diffusers().DDIMScheduler(LEVELS)
    scheduler.set_timesteps(options.draw_steps)
    size = (3, options.size, options.size)

    def noise(stream):
        return sent(seeded_latents(numbers, 3 * options.size**2, options.seed, stream).float().reshape(-1, *size), training.device)

    image = noise(0)
    for place, level in enumerate(scheduler.timesteps.tolist()):
        variance = noise(1 + place) if options.eta else None
        predicted = training.average(image, level).sample
        image = scheduler.step(predicted, level, image, eta=options.eta, variance_noise=variance).prev_sample
    return to_8bit(to_image(image)).cpu()


def draw_folder(training, folder):
    """Draw images 000000.png, ... into a new folder, all or none."""
    count = training.options.n
    with atomic_folder(folder) as temporary, tqdm(total=count, desc="drawing", unit="image") as bar:
        for start in range(0, count, DRAWN):
            numbers = range(start, min(start + DRAWN, count))
            for index, image in zip(numbers, draw(training, numbers), strict=True):
                write_png(temporary / f"{index:06d}.png", image)
            bar.update(len(numbers))


@script
def main(argv=None):
    """Train, or go on, and draw."""
    options = parse(argv)
    folder, path = Path(options.out), run_folder(options.dst) / "ddpm.pt"
    check_place(folder)
    check_place(path.parent)
    if folder.exists():
        raise UserError(f"{folder} is there already; delete it, or choose another --out")
    load_diffusers()
    device = resolve_device(options.device)
    seed_everything(options.seed)
    training = Training(options, device)
    with leaving(path.parent, ""):
        refuse_held(path.parent, "--dst")
        if path.is_file():
            training.load(path)
        if training.steps > options.steps:
            raise UserError(f"{path} has {training.steps} steps already; give --steps {training.steps} or more, or another --dst")
        if training.steps < options.steps:
            stream = open_stream(options.data, options.size, options.batch_size, options.seed, "none")
            training.go_on_with(stream.images)
            claim(path.parent, "--dst")
            train(training, stream, path)
        draw_folder(training, folder)
    print(f"{options.n} images of {training.steps} steps in {folder}")


if __name__ == "__main__":
    main()
