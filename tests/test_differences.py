"""What gives the classes away apart from the spectrum: traces of JPEG in pixels, against files that Pillow compresses."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.differences import class_differences, compare_traces
from data.folder import load_folder
from data.jpeg_trace import CHECKED, jpeg_trace, traces

SIDE = 64


def coloured(seed, side=SIDE):
    """A smooth picture with noise, uint8: the kind of image whose colours JPEG changes."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(60, 190, (4, 4, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return (np.asarray(low).astype(float) + rng.normal(0, 6, (side, side, 3))).round().clip(0, 255).astype(np.uint8)


def compressed(array, **options):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "JPEG", **options)
    return np.asarray(Image.open(content))


def saved(folder, arrays):
    folder.mkdir()
    for index, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{index:03d}.png")
    return load_folder(folder, None)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), quality=st.integers(60, 100), subsampling=st.sampled_from([0, 2]))
def test_a_decoded_jpeg_has_the_trace_at_any_quality_and_sampling(seed, quality, subsampling):
    original = coloured(seed)
    assert abs(jpeg_trace(original)) < 0.1
    assert jpeg_trace(compressed(original, quality=quality, subsampling=subsampling)) > 0.8


def test_the_mean_of_colours_that_no_decoder_made_is_zero():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert abs(jpeg_trace(noise)) < 0.01


def test_another_level_in_one_channel_ends_the_trace():
    decoded = compressed(coloured(0), quality=90).clip(1, 253)
    assert jpeg_trace(decoded + np.array([1, 0, 0], np.uint8)) < 0.05


def test_what_decoders_clip_and_grey_pixels_do_not_count():
    grey = np.repeat(coloured(0)[:, :, :1], 3, axis=2)
    assert jpeg_trace(grey) is None
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert jpeg_trace(white) is None
    for edge in (0, 255):
        clipped = compressed(coloured(1), quality=90).copy()
        clipped[..., 1] = edge
        assert jpeg_trace(clipped) is None
    half = np.concatenate([white, compressed(coloured(1), quality=90)])
    assert jpeg_trace(half) == pytest.approx(jpeg_trace(half[SIDE:]))


def test_reals_that_were_jpegs_are_told_and_so_are_fakes(tmp_path):
    raw = saved(tmp_path / "raw", [coloured(seed) for seed in range(8)])
    jpeg = saved(tmp_path / "jpeg", [compressed(coloured(seed), quality=90) for seed in range(8, 16)])
    (told,) = class_differences(jpeg, raw)
    assert "more frequent in real images than in fake ones" in told and "100% of pairs" in told
    (told,) = class_differences(raw, jpeg)
    assert "more frequent in fake images" in told and "100% of pairs" in told


def test_classes_with_one_history_are_not_told(tmp_path):
    for name, change in {"raw": np.asarray, "jpeg": lambda array: compressed(array, quality=80)}.items():
        first, second = (saved(tmp_path / f"{name}{part}", [change(coloured(10 * part + i)) for i in range(8)]) for part in (0, 1))
        assert class_differences(first, second) == []


def test_a_single_image_says_nothing_about_a_class(tmp_path):
    raw = saved(tmp_path / "raw", [coloured(0)])
    jpeg = saved(tmp_path / "jpeg", [compressed(coloured(1), quality=90), compressed(coloured(2), quality=90)])
    assert compare_traces(jpeg[0], raw[0]) == []


def test_few_images_evenly_spread_are_read(tmp_path):
    images, _ = saved(tmp_path / "many", [coloured(0, 16)] * (CHECKED + 20))
    read = []
    array = images.array
    images.array = lambda index: read.append(index) or array(index)
    assert len(traces(images)) == CHECKED == len(set(read)) and (read[0], read[-1]) == (0, len(images) - 1)


def test_sixteen_bit_images_have_no_trace(tmp_path):
    images, _ = saved(tmp_path / "some", [coloured(0)])
    images.array = lambda index: coloured(index).astype(np.uint16) * 257
    assert len(traces(images)) == 0


def test_images_without_colour_are_told(tmp_path):
    colour = saved(tmp_path / "colour", [coloured(seed) for seed in range(8)])
    grey = saved(tmp_path / "grey", [coloured(seed)[..., :1].repeat(3, -1) for seed in range(8, 16)])
    (told,) = class_differences(colour, grey)
    assert "images without colour: 0% of the real ones, 100% of the fakes" in told
    assert class_differences(grey, grey) == []


def test_equal_traces_rank_by_half(monkeypatch):
    found = {"real": np.repeat([1.0, 0.0], [80, 40]), "fake": np.repeat([1.0, 0.0], [40, 120])}
    monkeypatch.setattr("data.differences.traces", found.get)
    (told,) = compare_traces("real", "fake")
    assert "ranks 71% of pairs" in told  # 1/2 above, 5/12 equal
