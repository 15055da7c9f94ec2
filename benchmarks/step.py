"""Seconds per training step, its parts, images/s and peak memory, beside a plain variant of the same step.

    python -m benchmarks.step --sizes 64,128 --levels 0,1,2,3,4

The plain variant computes the same numbers the obvious way: the encoder runs again for queries and keys of each image, SSIM has
the full 35 x 35 window, profiles use a mask per ring. Both run in turn; ratios are medians over the turns.
"""

import argparse
import statistics

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import median_ratio, peak_mib, seconds
from models import stig
from models.losses import ssim
from models.stig import STIG, Objective
from models.training import Trainer
from options import number
from utils.distributed import resolve_device
from utils.profiles import chessboard_profile, chessboard_rings, to_grey
from utils.tables import format_table


def plain_ssim(image, other):
    """SSIM with the dense 35 x 35 window."""
    line = torch.exp(-(torch.arange(-17, 18, device=image.device) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line / line.sum() ** 2).expand(3, 1, -1, -1)

    def blur(x):
        return torch.nn.functional.conv2d(x, window, padding=17, groups=3)

    mean_x, mean_y = blur(image), blur(other)
    var_x, var_y, cov = blur(image**2) - mean_x**2, blur(other**2) - mean_y**2, blur(image * other) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return (luminance * (2 * cov + 9e-4) / (var_x + var_y + 9e-4)).mean()


def plain_profile(mag):
    """Chessboard profile with a mask per ring."""
    grey, rings = to_grey(mag), chessboard_rings(*mag.shape[-2:]).to(mag.device)
    profile = torch.stack([(grey * (rings == ring)).sum((1, 2)) / (rings == ring).sum() for ring in range(int(rings.max()) + 1)], 1)
    low, high = profile.amin(1, keepdim=True), profile.amax(1, keepdim=True)
    return (profile - low) / (high - low)


def make_step(size, args, device, plain):
    """A function that does one training step."""
    torch.manual_seed(0)
    model = STIG(size, Objective(nce_levels=args.levels), width=args.width, amp=args.amp and not plain).to(device)
    model.reuse_features = not plain
    trainer = Trainer(model, 8e-5, 1000, ema=0.999)
    images = torch.rand(2, args.batch, 3, size, size, device=device)

    def step():
        stig.ssim, stig.chessboard_profile = (plain_ssim, plain_profile) if plain else (ssim, chessboard_profile)
        trainer.train_step(*images)

    return step, model, images


def matrix_rate(device):
    """Measured float32 matrix products per second, in FLOP/s: the best of five."""
    side = 8192 if device.type == "cuda" else 2500
    a, b = torch.rand(2, side, side, device=device)
    a @ b
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(5))


def measure(size, args, device):
    """One row of the table."""
    step, model, images = make_step(size, args, device, plain=False)
    plain = make_step(size, args, device, plain=True)[0] if args.plain else None
    with FlopCounterMode(display=False) as counter:
        step()
    if plain:
        plain()
    ours, theirs, rates, forward = [], [], [], []
    for _ in range(args.turns):
        rates.append(matrix_rate(device))
        ours.append(seconds(step, device))
        forward.append(seconds(lambda: model.translate(*images), device))
        if plain:
            theirs.append(seconds(plain, device))
    median = statistics.median(ours)
    return {
        "step": median,
        "forward": statistics.median(forward),
        "images": 2 * args.batch / median,
        "gflop": counter.get_total_flops() / 1e9,
        "rate": statistics.median(rates) / 1e9,
        "floor": statistics.median(t * rate / counter.get_total_flops() for t, rate in zip(ours, rates, strict=True)),
        "plain": median_ratio(ours, theirs) if plain else None,
        "memory": None if (peak := peak_mib(device)) is None else peak / 2**10,
    }


TITLES = {
    "step": "s/step",
    "forward": "of it forward",
    "images": "images/s",
    "gflop": "GFLOP counted",
    "rate": "matrix product GFLOP/s",
    "floor": "x of that floor",
    "plain": "plain step / this step",
    "memory": "peak GiB",
}


def main(argv=None):
    """Print one table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--batch", type=number(int, 1), default=1)
    parser.add_argument("--width", type=number(int, 1), default=64, help="channels of the generator's first level")
    parser.add_argument("--levels", default="0,1,2,3,4")
    parser.add_argument("--turns", type=number(int, 1), default=3)
    parser.add_argument("--plain", action="store_true", help="measure the plain variant too (raises the CPU's peak memory)")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    args.levels = tuple(int(level) for level in args.levels.split(","))
    device = resolve_device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rows = {f"{size} px": measure(int(size), args, device) for size in args.sizes.split(",")}
    print(f"{name}, torch {torch.__version__}, batch {args.batch}, width {args.width}, NCE levels {args.levels}, amp {args.amp}\n")
    print(format_table(rows, TITLES))


if __name__ == "__main__":
    main()
