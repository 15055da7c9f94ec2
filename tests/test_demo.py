import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import data.demo
from data.demo import dead_leaves, make_demo, through_generator, transposed_convolution
from data.differences import class_differences
from data.folder import load_folder
from utils.errors import UserError
from utils.fft import fourier
from utils.profiles import radial_rings, ring_means, to_grey

SIZE = 64


def digest(folder):
    files = sorted(folder.rglob("*.png"))
    assert files
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = make_demo(tmp_path_factory.mktemp("sets") / "demo", count=24, size=SIZE)
    return {side: load_folder(folder / side, SIZE, "none") for side in ("real", "fake")}


def power(images):
    return fourier(to_grey(torch.stack(list(images))).double()).abs().square()  # (N, H, W)


def test_it_is_a_data_set_without_a_leak(demo, capsys):
    assert [len(dataset) for dataset, _ in demo.values()] == [24, 24]
    assert class_differences(demo["real"], demo["fake"]) == [] and capsys.readouterr().err == ""


def test_reals_have_the_power_spectrum_of_photographs(demo):
    profile = ring_means(power(demo["real"][0]).mean(dim=0), radial_rings(SIZE, SIZE)).numpy()
    rings = np.arange(2, round(0.45 * SIZE))
    slope = np.polyfit(np.log(rings), np.log(profile[rings]), 1)[0]
    assert -2.5 < slope < -1.7


def test_reals_are_in_colour_and_hardly_clipped(demo):
    images = torch.stack(list(demo["real"][0]))
    assert (images[:, 0] - images[:, 2]).abs().mean() > 0.03 and images.std() > 0.1
    assert ((images == 0) | (images == 1)).float().mean() < 0.05


def test_fakes_have_checkerboard_peaks_and_a_weak_high_band(demo):
    real, fake = (power(demo[side][0]).log().mean(dim=0) for side in ("real", "fake"))
    change, half = fake - real, SIZE // 2
    for row, column in ((0, half), (half, 0)):  # Nyquist along each axis
        assert change[row, column] > 3
    for row, column in ((half // 2, half), (half, half // 2)):  # half of it
        assert change[row, column] > change[row - 3 : row + 4, column - 3 : column + 4].median() + 1
    profile = ring_means(change, radial_rings(SIZE, SIZE))
    assert profile[half // 2 + 4 : half - 1].mean() < -0.5 and profile[2 : half // 4].mean().abs() < 0.4


def test_fakes_show_other_scenes(demo):
    reals, fakes = (torch.stack(list(demo[side][0])).flatten(1) for side in ("real", "fake"))
    alike = torch.corrcoef(torch.cat([reals, fakes]) - torch.cat([reals, fakes]).mean(dim=1, keepdim=True)).fill_diagonal_(0)
    assert alike.abs().max() < 0.6


def test_the_same_seed_makes_the_same_pixels(tmp_path):
    first, again, other = (digest(make_demo(tmp_path / name, 3, 32, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again and len(set(first.values())) == 6
    assert not set(first.values()) & set(other.values())
    fewer = digest(make_demo(tmp_path / "d", 2, 32, 1))
    assert fewer == {name: value for name, value in first.items() if "0002" not in name}


@given(kernel=st.lists(st.floats(-1, 2), min_size=4, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_transposed_convolution_equals_torchs(kernel, seed):
    image = np.random.default_rng(seed).random((5, 7, 3))
    taps = torch.tensor(kernel, dtype=torch.float64)
    weight = torch.outer(taps, taps).expand(3, 1, 4, 4)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.conv_transpose2d(planes, weight, stride=2, padding=1, groups=3)[0].permute(1, 2, 0).numpy()
    got = transposed_convolution(image, kernel)
    np.testing.assert_allclose(got[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-12)


def test_an_even_surface_shows_the_pattern_alone():
    flat = through_generator(np.full((16, 16, 3), 0.5))
    assert 0.005 < np.ptp(flat) < 0.1 and abs(flat.mean() - 0.5) < 0.005
    assert np.allclose(flat[4:8, 4:8], flat[8:12, 8:12]) and not np.allclose(flat[4:8, 4:8], flat[6:10, 6:10])


def test_leaves_do_not_depend_on_chance_outside_the_generator():
    images = [dead_leaves(np.random.default_rng(7), 16) for _ in range(2)]
    assert np.array_equal(*images) and images[0].shape == (16, 16, 3) and images[0].min() >= 0 and images[0].max() <= 1


def test_nothing_is_left_of_a_failed_attempt(tmp_path, monkeypatch):
    def full(path, image):
        if path.name == "0001.png":
            raise OSError(28, "No space left on device")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")

    monkeypatch.setattr(data.demo, "write_png", full)
    with pytest.raises(OSError, match="No space"):
        make_demo(tmp_path / "demo", 2, 16)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(tmp_path):
    (tmp_path / "demo").mkdir()
    with pytest.raises(UserError, match="demo exists already"):
        make_demo(tmp_path / "demo", 1, 16)
    for count, size in ((0, 16), (1, 18), (1, 8)):
        with pytest.raises(ValueError, match="multiple of 4"):
            make_demo(tmp_path / "other", count, size)


def test_another_process_may_be_faster(tmp_path, monkeypatch):
    def meanwhile(path, image):
        (tmp_path / "demo" / "real").mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)

    monkeypatch.setattr(data.demo, "write_png", meanwhile)
    assert make_demo(tmp_path / "demo", 1, 16) == tmp_path / "demo"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
