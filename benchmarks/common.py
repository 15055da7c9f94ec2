"""What several benchmarks need: a parser, time, memory, and pictures to read."""

import argparse
import io
import sys
import time

import numpy as np
import torch
from PIL import Image

from utils.arguments import HelpFormatter, image_size


def synchronise(device):
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function, device):
    """Wall time of one call, device work included."""
    synchronise(device)
    start = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - start


def best_times(parts, rounds, warm_up=1):
    """Seconds of each part in its best round; the parts take turns. Rounds to warm up do not count.

    Args:
        parts: {name: function}, each of which waits for its device itself.
    """
    times = {name: [] for name in parts}
    for _ in range(rounds + warm_up):
        for name, part in parts.items():
            times[name].append(seconds(part, torch.device("cpu")))
    return {name: min(values[warm_up:]) for name, values in times.items()}


def for_each(function, values):
    """Call a function on every value and keep nothing."""
    for value in values:
        function(value)


def peak_mib(device=None):
    """Largest memory so far, MiB: of a GPU's tensors, or of this process; None where the system does not say."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def draw_pictures(count, size):
    """PNGs of smooth colours with a little noise, as bytes: they decode at the speed of photographs."""
    generator, cells = np.random.default_rng(0), max(2, size // 16)
    pictures = []
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        noisy = (smooth + generator.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "PNG", compress_level=1)
        pictures.append(buffer.getvalue())
    return pictures


def image_sizes(text):
    """Argparse type: comma-separated `image_size`s -> tuple."""
    return tuple(map(image_size, text.split(",")))


def benchmark_parser(name, text):
    """Parser of benchmarks.<name>, whose help begins with the module's own text and shows defaults; options have one name each."""
    return argparse.ArgumentParser(prog=f"benchmarks.{name}", description=text, formatter_class=HelpFormatter, allow_abbrev=False)
