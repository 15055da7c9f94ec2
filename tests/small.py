"""What several tests share: options of the smallest network, and pictures to try things on."""

import contextlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.fft import apply_gain
from utils.linear_filter import diagonal_gain
from utils.profiles import radial_rings

SMALL_NETWORK = ["--width", "8", "--sigma", "4", "--log_frequency", "1"]  # of train.py, with an objective that fits small images
SIZE = 32
TINY_VIT = {"patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 32}


def draw(folder, count, seed, size=32):
    """Smooth random pictures as PNG."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{index:02d}.png")


def draw_tiny(folder, reals, fakes, size=32):
    """The folder, with datasets/tiny in it."""
    draw(folder / "datasets/tiny/real", reals, 1, size)
    draw(folder / "datasets/tiny/fake", fakes, 2, size)
    return folder


def tar_of(path, members):
    """The path of a tar that holds these members, {name: content}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents(folder):
    """What all files below a folder hold, by path."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def told(main, arguments, capsys):
    """What `main` says when it exits with 2."""
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def refused(main, arguments, capsys):
    """The sentence that `main` prints when it exits with 2 and leaves nothing behind."""
    before = set(Path("results").rglob("*"))
    error = told(main, arguments, capsys).strip().splitlines()[-1]
    assert before == set(Path("results").rglob("*"))
    assert "error: " in error
    return error


@contextlib.contextmanager
def holding(code, *arguments):
    """A process that runs `code`, which holds a folder, and says so; it is killed in the end, and its lock goes with it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[1]}
    with subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


class Trap:
    """Writes a file when it is unpickled carelessly."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def photographs(count, seed, shade=1.0):
    """Noise with a falling spectrum whose channels cohere: (N, 3, SIZE, SIZE) around 0.5."""
    generator = torch.Generator().manual_seed(seed)
    grey, colour = (torch.randn(count, channels, SIZE, SIZE, generator=generator) for channels in (1, 3))
    fall = -(1 + radial_rings(SIZE, SIZE)).log().expand(3, -1, -1)
    return 0.5 + 0.1 * apply_gain(grey + shade * 0.3 * colour, diagonal_gain(fall))


def smooth_gain_with_peaks():
    """Log gain (3, SIZE, SIZE): a high band that is weak, and a lattice of peaks."""
    gain = -0.05 * radial_rings(SIZE, SIZE).float().expand(3, -1, -1)
    gain = gain.clone()
    gain[:, ::8, ::8] += 1.5
    gain[:, SIZE // 2, SIZE // 2] = 0
    return gain


def upsampled(count, seed, mode="bilinear", factor=2):
    """`photographs` of half the size (or another fraction), enlarged, with a little noise of their own."""
    generator = torch.Generator().manual_seed(seed + 50)
    small = photographs(count, seed)[..., ::factor, ::factor]
    own = 0.002 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return torch.nn.functional.interpolate(small, scale_factor=factor, mode=mode) + own
