"""Decay features: closed forms, scipy's minimiser, and the published fits where those images are present."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat
from scipy.optimize import minimize

from utils.decay import BINS, FIRST_BIN, decay_features, decay_geometry, fit_decay, misfit, nelder_mead, reduced_spectrum, smooth

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "decay_q100_768"  # optional sample images beside the checkout


def random_images(count=3, side=64, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def slow_reduced_spectrum(image):
    """The definition, bin by bin, with NumPy: (3, n, n) in [0, 1] -> (BINS,)."""
    side = image.shape[-1]
    red, green, blue = (image.double() * 255).round().numpy()
    grey = np.floor(0.298936021 * red + 0.587043074 * green + 0.114020904 * blue + 0.5)
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(grey)))
    rows, columns = np.mgrid[1 : side + 1, 1 : side + 1]
    radius = np.hypot(rows - side / 2, columns - side / 2)
    kept = radius > 0.5 * np.sqrt(2) * side / 2
    radius, magnitude = radius[kept], magnitude[kept]
    edges = np.linspace(radius.min(), radius.max(), BINS + 1)
    means = np.full(BINS, np.nan)
    for i in range(BINS):
        inside = (radius <= edges[i + 1]) & ((radius > edges[i]) if i else True)
        if inside.any():
            means[i] = magnitude[inside].mean()
    smoothed = np.full(BINS, np.nan)
    for i in range(BINS):
        reach = min(2, i, BINS - 1 - i)
        window = means[i - reach : i + reach + 1]
        if not np.isnan(window).all():
            smoothed[i] = np.nanmean(window)
    return smoothed


@pytest.mark.parametrize("side", [32, 64, 97, 128])
def test_reduced_spectrum_is_the_definition(side):
    image = random_images(1, side, side)
    np.testing.assert_allclose(reduced_spectrum(image)[0].numpy(), slow_reduced_spectrum(image[0]), rtol=1e-9)


def test_bins_cover_every_kept_frequency_once():
    geometry = decay_geometry(64)
    assert geometry.count.sum() == len(geometry.kept)
    assert geometry.bin.min() == 0 and geometry.bin.max() == BINS - 1
    assert torch.all(geometry.position.diff() > 0)


def test_smooth_by_hand():
    values = torch.tensor([[1.0, 2.0, float("nan"), 4.0, 10.0, 6.0]], dtype=torch.float64)
    expected = [1, (1 + 2) / 2, (1 + 2 + 4 + 10) / 4, (2 + 4 + 10 + 6) / 4, (4 + 10 + 6) / 3, 6]
    np.testing.assert_allclose(smooth(values)[0].numpy(), expected)


def test_smooth_keeps_wholly_empty_windows_empty():
    values = torch.full((1, 12), float("nan"), dtype=torch.float64)
    values[0, 0] = values[0, -1] = 3.0
    result = smooth(values)[0]
    assert result[0] == 3 and result[-1] == 3 and result[5].isnan()


@settings(max_examples=40)
@given(st.floats(-4, 2), st.integers(2, 30), st.integers(0, 10_000))
def test_misfit_is_the_largest_singular_value(exponent, length, seed):
    generator = np.random.default_rng(seed)
    values = torch.from_numpy(generator.uniform(1, 500, (2, length)))
    positions = torch.from_numpy(np.sort(generator.uniform(50, 200, length)))
    got = misfit(torch.tensor([exponent, exponent], dtype=torch.float64), values, positions)
    for row, norm in zip(values.numpy(), got.tolist(), strict=True):
        matrix = row[:, None] - row[0] * (positions.numpy()[None, :] / positions[0].item()) ** exponent
        assert norm == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-6)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(0.01, 1e4)), min_size=1, max_size=5))
def test_nelder_mead_takes_scipys_steps(parabolas):
    centre = torch.tensor([c for c, _ in parabolas], dtype=torch.float64)
    height = torch.tensor([h for _, h in parabolas], dtype=torch.float64)
    got = nelder_mead(lambda x: height * ((x - centre).abs() ** 1.5 + 0.1 * torch.sin(3 * x)), len(parabolas))
    for i, (c, h) in enumerate(parabolas):

        def one(x, c=c, h=h):
            return float(h * ((torch.tensor(x) - c).abs() ** 1.5 + 0.1 * torch.sin(3 * torch.tensor(x))))

        expected = minimize(one, -2.0, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4}).x[0]
        assert got[i].item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(st.floats(-4, 1), st.floats(1, 1000))
def test_fit_ends_at_the_minimum_of_the_matrix_norm(exponent, first):
    # the published norm couples every y_i with every x_j, so its minimiser is not the power law's own exponent: compare with scipy
    positions = torch.linspace(70, 90, 60, dtype=torch.float64)
    values = first * (positions / positions[0])[None] ** exponent
    got = fit_decay(values, positions)[0]
    best = minimize(lambda c: misfit(torch.from_numpy(c), values, positions).item(), -2.0, method="Nelder-Mead").x[0]
    assert got[0].item() == pytest.approx(best, abs=5e-3)
    assert got[1].item() == values[0, 0].item() and got[2].item() == values[0, -1].item()


def test_a_flat_spectrum_has_exponent_zero():
    positions = torch.linspace(70, 90, 60, dtype=torch.float64)
    assert fit_decay(torch.full((1, 60), 7.0, dtype=torch.float64), positions)[0, 0].item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("side", [32, 48, 64, 128])
def test_features_are_finite_and_per_image(side):
    images = random_images(9, side)
    together = decay_features(images)
    assert together.shape == (9, 3) and together.dtype == torch.float64 and together.isfinite().all()
    alone = torch.cat([decay_features(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_blur_steepens_the_decay():
    image = random_images(1, 64)
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    sharp, dull = decay_features(image)[0], decay_features(blurred)[0]
    assert dull[1] < sharp[1] and dull[2] < sharp[2]


@pytest.mark.parametrize("shape", [(1, 3, 64, 48), (1, 3, 8, 8)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="square images"):
        decay_features(torch.rand(shape))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published fits are not beside this checkout")
def test_published_fits():
    paths = sorted(PUBLISHED.rglob("*.png"))
    assert paths
    for path in paths:
        exponent, y_first, y_last = np.ravel(loadmat(path.with_suffix(".mat"))["c"])
        pixels = np.asarray(Image.open(path).convert("RGB"))
        got = decay_features(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)[0].tolist()
        assert got[0] == pytest.approx(exponent, abs=1e-3), path
        assert got[1:] == pytest.approx([y_first, y_last], rel=1e-9), path


def test_first_fitted_bin_is_the_141st():
    image = random_images(1, 128)
    assert decay_features(image)[0, 1] == reduced_spectrum(image)[0, FIRST_BIN] and FIRST_BIN == 140
