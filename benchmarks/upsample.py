"""x2 upsampling with its gradient: torch's own kernel beside the two matrix products that bicubic upsampling uses,
and bilinear upsampling on GPUs with `--deterministic`.

    python -m benchmarks.upsample --device 0

Maps are random numbers, no images are needed.
"""

import statistics

import torch
import torch.nn.functional as F

from benchmarks.common import benchmark_parser, seconds
from models.nested_unet import upsample_as_products
from utils.arguments import number
from utils.distributed import resolve_device
from utils.errors import script
from utils.tables import format_table

MAPS = ((64, 128), (128, 128), (512, 16))  # channels and side before upsampling, as in a 256-px generator


def once(function, x, gradient):
    """Function that raises x and takes the gradient."""

    def run():
        function(x).backward(gradient)
        x.grad = None

    return run


def compare(channels, side, mode, args, device):
    """Median seconds of both and their median ratio, over turns taken alternately."""
    x = torch.rand(args.batch, channels, side, side, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.rand(args.batch, channels, 2 * side, 2 * side, device=device).contiguous(memory_format=torch.channels_last)
    kernel = once(lambda x: F.interpolate(x, scale_factor=2, mode=mode, align_corners=False), x, gradient)
    products = once(lambda x: upsample_as_products(x, mode), x, gradient)
    kernel(), products()
    pairs = [(seconds(kernel, device), seconds(products, device)) for _ in range(args.turns)]
    return {
        "kernel": 1e3 * statistics.median(a for a, _ in pairs),
        "products": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
    }


@script
def main(argv=None):
    """Print one table."""
    parser = benchmark_parser("upsample", __doc__)
    parser.add_argument("--batch", type=number(int, 1), default=2, help="maps at once")
    parser.add_argument("--turns", type=number(int, 1), default=9, help="rounds in which both take turns")
    parser.add_argument("--device", default="auto", help="as train.py")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    rows = {
        f"{mode}, {channels} x {side} x {side}": compare(channels, side, mode, args, device)
        for mode in ("bilinear", "bicubic")
        for channels, side in MAPS
    }
    print(format_table(rows, {"kernel": "interpolate, ms", "products": "products, ms", "ratio": "products / interpolate"}))


if __name__ == "__main__":
    main()
