"""benchmarks.super_resolution: fakes of pretrained networks that enlarge, here of tiny ones in the same format."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import told

from benchmarks import super_resolution
from benchmarks.super_resolution import main

NEAREST = "Interp up 1 1 data {out} 0=1 1=2.0 2=2.0"  # twice the size, each pixel four times
MEAN = "Pooling mean 1 1 raised output 0=1 1=3 2=1"  # of 3 x 3 pixels; without padding, so borders are lost
CONVOLUTION = "Convolution last 1 1 data output 0=3 1=1 5=1 6=9"  # has weights, which a .bin holds


def write_network(path, *layers):
    """A network of ncnn without weights: PATH.param and an empty PATH.bin."""
    lines = ["7767517", f"{len(layers) + 1} {len(layers) + 1}", "Input input 0 1 data", *layers]
    path.with_suffix(".param").write_text("\n".join(lines) + "\n")
    path.with_suffix(".bin").write_bytes(b"")
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Pictures a_real.png and b.jpg of 32 x 48 pixels below tmp_path/photos, and networks beside it."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    Path("photos").mkdir()
    Image.fromarray(pixels[0]).save("photos/a_real.png")
    Image.fromarray(pixels[1]).save("photos/b.jpg")
    write_network(Path("nearest.param"), NEAREST.format(out="output"))
    write_network(Path("blurred.param"), NEAREST.format(out="raised"), MEAN)
    return pixels


def draw(out, network="nearest.param", *more):
    """What a run leaves: {name: pixels (H, W, 3)}."""
    main(["--photos", "photos", "--network", network, "--threads", "1", "--out", out, *more])
    return {path.name: np.asarray(Image.open(path)).astype(float) for path in sorted(Path(out).iterdir())}


def refusal(capsys, *arguments):
    """The sentence that a mistake gets; nothing is left."""
    said = told(lambda arguments: draw("refused", *arguments), arguments, capsys)
    assert not Path("refused").exists()
    return said


def test_a_photograph_is_reduced_and_enlarged_in_its_place(photos, capsys):
    fakes = draw("fakes")
    assert list(fakes) == ["a_real.png", "b.png"] and fakes["b.png"].shape == (32, 48, 3)
    small = Image.fromarray(photos[0]).resize((24, 16), Image.Resampling.BICUBIC)
    assert (fakes["a_real.png"] == np.asarray(small).repeat(2, 0).repeat(2, 1)).all()
    assert "2 images, enlarged 2 times, in fakes" in capsys.readouterr().out


def test_borders_that_a_network_loses_are_cut_off_evenly(photos):
    sharp, blurred = (draw(name, f"{name}.param")["a_real.png"] for name in ("nearest", "blurred"))
    padded = np.pad(sharp, ((1, 1), (1, 1), (0, 0)), "symmetric")
    means = sum(padded[i : i + 32, j : j + 48] for i in range(3) for j in range(3)) / 9
    assert np.abs(blurred - means).max() <= 0.51


def test_networks_that_halve_images_of_any_size(photos):
    """Of what is halved an odd row is lost; sides are made multiples of 8, and the picture stays in its place."""
    halved = "Pooling half 1 1 data halved 0=1 1=2 2=2"
    write_network(Path("strided.param"), halved, "Interp up 1 1 halved output 0=1 1=4.0 2=4.0")
    for size in ("24", "26", "30"):  # 12, 13 and 15 once reduced
        fakes = draw(f"strided_{size}", "strided.param", "--size", size)
        photo = Image.open("photos/a_real.png")
        left, top = ((side - int(size)) // 2 // 8 * 8 for side in photo.size)
        cut = photo.crop((left, top, left + int(size), top + int(size)))
        small = np.asarray(cut.resize((int(size) // 2,) * 2, Image.Resampling.BICUBIC)).astype(float)
        padded = np.pad(small, ((20, 36), (20, 36), (0, 0)), "symmetric")[:56, :56]
        means = padded.reshape(28, 2, 28, 2, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1)
        wanted = means[40 : 40 + int(size), 40 : 40 + int(size)]
        assert np.abs(fakes["a_real.png"] - wanted).max() <= 0.51, size


def test_values_that_are_not_finite(photos, capsys, monkeypatch):
    monkeypatch.setattr(
        super_resolution, "output", lambda network, array: np.full((3, 2 * array.shape[1], 2 * array.shape[2]), np.nan)
    )
    assert "not finite" in refusal(capsys)


def test_crops(photos):
    fakes = draw("crops", "nearest.param", "--size", "16")
    small = Image.fromarray(photos[0][8:24, 16:32]).resize((8, 8), Image.Resampling.BICUBIC)
    assert (fakes["a_real.png"] == np.asarray(small).repeat(2, 0).repeat(2, 1)).all()


def test_mistakes(photos, capsys, monkeypatch):
    assert "absent.param does not exist" in refusal(capsys, "absent.param")
    assert "19 x 19 pixels cannot be divided by the network's 2; give a --size" in refusal(capsys, "nearest.param", "--size", "19")
    write_network(Path("same.param"), "Pooling output 1 1 data output 0=1 1=3 2=1")
    assert "enlarges no images" in refusal(capsys, "same.param")
    write_network(Path("lost.param"), NEAREST.format(out="raised"), MEAN.replace("1=3", "1=83"))
    assert "loses 41 pixels of each border; a whole number up to 40 is made up for" in refusal(capsys, "lost.param")
    Path("lost.bin").unlink()
    assert "lost.bin does not exist" in refusal(capsys, "lost.param")
    write_network(Path("cut.param"), CONVOLUTION)
    assert "no network that ncnn can read" in refusal(capsys, "cut.param")
    draw("fakes")
    assert "fakes is there already" in told(lambda _: draw("fakes"), (), capsys)
    monkeypatch.setitem(sys.modules, "ncnn", None)
    assert "pip install ncnn" in refusal(capsys)
