"""Seconds per training step, images/s, peak memory and what they come to beside two floors, for variants of the same step.

    python -m benchmarks.step --sizes 64,128 --variants plain,eager
    python -m benchmarks.step --sizes 256 --batches 1,16 --variants plain,eager,graph,amp+graph,amp+compile+graph --device 0

Variants: plain computes the same numbers the obvious way (the encoder runs again for queries and keys of each image, SSIM has
the full 35 x 35 window, profiles use a mask per ring); eager is train.py's step; graph, amp and compile are its --cuda_graphs,
--amp and --compile (graph on a GPU only). "Speed-up" is images/s over that of a size's first row. Floors: counted
floating-point operations at the measured rate of a large matrix product in the precision of the convolutions, and the bytes
that convolutions read and write at the measured rate of a large copy. On a CPU variants run in turn; memory is that of the
whole process there.
"""

import argparse
import functools
import gc
import statistics
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import benchmark_parser, image_sizes, peak_mib, seconds
from models import stig
from models.losses import ssim
from models.recording import WARM_UP
from models.stig import STIG, Objective
from models.training import Trainer
from utils.arguments import number, number_list
from utils.distributed import resolve_device
from utils.errors import script
from utils.profiles import chessboard_profile, chessboard_rings, to_grey
from utils.seeding import seed_everything
from utils.tables import format_table

PARTS = {"plain", "eager", "graph", "amp", "compile"}
CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


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


def variant(text):
    """Argparse type: parts of PARTS joined by +."""
    parts = frozenset(text.split("+"))
    if parts - PARTS or (parts & {"plain", "eager"} and len(parts) > 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not plain, eager, or some of graph, amp and compile joined by +")
    return parts


def make_step(size, batch, args, device, parts, warm_up):
    """Functions that do one training step of a variant, after so many that warm it up, and its forward pass alone, unrecorded."""
    torch.manual_seed(0)
    model = STIG(size, Objective(nce_levels=args.levels), width=args.width, amp="amp" in parts).to(device)
    plain = "plain" in parts
    model.reuse_features = not plain
    if "compile" in parts:
        model.generator.compile_parts()
    trainer = Trainer(model, 8e-5, 1000, 0.99, record="graph" in parts)
    images = torch.rand(2, batch, 3, size, size, device=device)

    def step():
        stig.ssim, stig.chessboard_profile = (plain_ssim, plain_profile) if plain else (ssim, chessboard_profile)
        trainer.train_step(*images)

    for _ in range(max(warm_up, WARM_UP + 1 if "graph" in parts else 0)):
        step()
    return step, lambda: model.translate(*images)


class ConvolutionBytes(TorchDispatchMode):
    """Adds up the bytes of what convolutions and their gradients read and write, each tensor once per call."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in CONVOLUTIONS:
            tensors = [*args, *(out if isinstance(out, tuple) else (out,))]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, torch.Tensor))
        return out


def counted(size, batch, args, device, amp):
    """Floating-point operations of a step, and bytes of its convolutions."""
    gc.collect()  # trainers are cycles, and that of a row before may keep its recording's memory
    step, _ = make_step(size, batch, args, device, {"amp"} if amp else {"eager"}, 1)
    with FlopCounterMode(display=False) as operations, ConvolutionBytes() as moved:
        step()
    return operations.get_total_flops(), moved.total


@functools.cache
def device_rates(device, amp):
    """Measured floating-point operations and bytes per second: a large matrix product and a large copy, the best of five."""
    dtype = torch.bfloat16 if amp else torch.float32
    side = 8192 if device.type == "cuda" else 500 if amp else 2500  # a CPU without bfloat16 takes a minute for a large one
    a, b = torch.rand(2, side, side, device=device, dtype=dtype)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # as convolutions compute
    products, copies = ([seconds(work, device) for _ in range(6)][1:] for work in (lambda: a @ b, lambda: a.copy_(b)))
    torch.backends.cuda.matmul.allow_tf32 = False
    return 2 * side**3 / min(products), 2 * a.numel() * a.element_size() / min(copies)


def measure(size, batch, args, device, variants):
    """Rows of variants of one size and batch, which take turns."""
    steps, peaks, times, forward = {}, {}, {parts: [] for parts in variants}, {parts: [] for parts in variants}
    for parts in variants:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        if "compile" in parts:
            torch.compiler.reset()  # it gives up on a function that has been compiled for many shapes
        steps[parts] = make_step(size, batch, args, device, parts, args.warm_up)
        peaks[parts] = peak_mib(device)
    for _ in range(args.turns):
        for parts, (step, translate) in steps.items():
            times[parts].append(seconds(lambda step=step: [step() for _ in range(args.steps)], device) / args.steps)
            forward[parts].append(seconds(translate, device))
    median = statistics.median
    return {p: {"step": median(times[p]), "forward": median(forward[p]), "memory": peaks[p]} for p in variants}


def finish_row(row, batch, found, rates):
    """Add rates and floors to a row of `measure`."""
    (operations, moved), (rate, bandwidth) = found, rates
    return {
        "step": 1e3 * row["step"],
        "forward": 1e3 * row["forward"],
        "images": 2 * batch / row["step"],
        "gflop": operations / 1e9,
        "rate": rate / 1e12,
        "floor": row["step"] * rate / operations,
        "gb": moved / 1e9,
        "byte_floor": row["step"] * bandwidth / moved,
        "memory": None if row["memory"] is None else row["memory"] / 2**10,
    }


TITLES = {
    "step": "ms/step",
    "forward": "forward alone",
    "images": "images/s",
    "speedup": "speed-up",
    "gflop": "GFLOP counted",
    "rate": "matrix product TFLOP/s",
    "floor": "x operations' floor",
    "gb": "GB moved",
    "byte_floor": "x bytes' floor",
    "memory": "peak GiB",
}


def print_profile(size, batch, args, device, parts):
    """The kernels that most of a step's time goes to."""
    step, _ = make_step(size, batch, args, device, parts, args.warm_up)
    with torch.profiler.profile() as profiler:
        step()
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: getattr(event, key), reverse=True)
    total = sum(getattr(event, key) for event in events)
    print(f"\nkernels of a step, {size} px, batch {batch}, {'+'.join(sorted(parts))}: {total / 1e3:.1f} ms in all")
    for event in events[: args.profile]:
        print(f"  {getattr(event, key) / total:6.1%} {event.count:5} x  {event.key[:100]}")


@script
def main(argv=None):
    """Print one table, and profiles where they are asked for."""
    parser = benchmark_parser("step", __doc__)
    parser.add_argument("--sizes", type=image_sizes, default=(64, 128), help="image sides in pixels, multiples of 16")
    parser.add_argument("--batches", type=number_list(1), default=(1,), help="pairs per step")
    variants = {"type": lambda text: list(map(variant, text.split(","))), "default": "eager"}
    parser.add_argument("--variants", **variants, help="plain, eager, and graph, amp, compile joined by +; comma-separated")
    parser.add_argument("--width", type=number(int, 1), default=64, help="channels of the generator's first level")
    parser.add_argument("--levels", type=number_list(0, 4), default=(0,), help="NCE levels")
    parser.add_argument("--turns", type=number(int, 1), default=3, help="rounds in which the variants take turns")
    parser.add_argument("--steps", type=number(int, 1), default=1, help="per turn")
    parser.add_argument("--warm_up", type=number(int, 1), default=1, help="steps before; at least 4 of graphs")
    parser.add_argument("--profile", type=number(int, 0), default=0, metavar="N", help="print the N kernels that take longest")
    parser.add_argument("--device", default="auto", help="as train.py")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    if device.type != "cuda" and any("graph" in parts for parts in args.variants):
        parser.error("argument --variants: graph needs a CUDA GPU")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # whose streams record a step
    seed_everything(0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    count, rows = functools.cache(lambda *case: counted(*case[:2], args, device, case[2])), {}
    for size in args.sizes:
        first = None
        for batch in args.batches:
            # those alive together share a GPU's memory
            for group in [args.variants] if device.type == "cpu" else [[parts] for parts in args.variants]:
                for parts, row in measure(size, batch, args, device, group).items():
                    amp = "amp" in parts
                    row = finish_row(row, batch, count(size, batch, amp), device_rates(device, amp))
                    first = first or row["images"]
                    title = f"{size} px, batch {batch}, {'+'.join(sorted(parts))}"
                    rows[title] = row | {"speedup": row["images"] / first}
                    print(f"{title}: {row['step']:.1f} ms", file=sys.stderr, flush=True)
                gc.collect()
    print(f"{name}, torch {torch.__version__}, width {args.width}, NCE levels {args.levels}\n")
    print(format_table(rows, TITLES))
    if args.profile:
        print_profile(args.sizes[-1], args.batches[-1], args, device, args.variants[-1])


if __name__ == "__main__":
    main()
