"""Correlation of frequencies with their aliases: what upsampling leaves, and magnitudes do not show."""

import pytest
import torch
from small import photographs, smooth_gain_with_peaks, upsampled

from utils.aliases import PERIODS, REACH, alias_features, alias_lags, alias_shifts, aliases
from utils.fft import apply_gain, fourier
from utils.linear_filter import diagonal_gain
from utils.profiles import to_grey


@pytest.mark.parametrize("period", PERIODS)
def test_each_shift_and_its_negative_count_once(period):
    shifts = alias_shifts(period)
    negatives = {(-row % period, -column % period) for row, column in shifts}
    assert set(shifts) | negatives == set(aliases(period)) - {(0, 0)} and len(aliases(period)) == period**2
    assert len(shifts) == {4: 9, 8: 33}[period] and len(set(shifts) & negatives) == 3  # half a cycle down, across and both


@pytest.mark.parametrize(("shape", "period"), [((16, 16), 4), ((16, 24), 4), ((16, 16), 8), ((16, 32), 8)])
def test_lags_are_cyclic_autocorrelations(shape, period):
    image = torch.randn(shape, dtype=torch.float64)
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in shape), indexing="ij")
    lags = alias_lags(fourier(image), period)
    for number, shift in enumerate(alias_shifts(period)):
        turn = torch.polar(torch.ones(shape, dtype=torch.float64), -2 * torch.pi * (shift[0] * rows + shift[1] * columns) / period)
        for lag in ((0, 0), (2, -1), (-3, 5)):
            later = image.roll((-lag[0], -lag[1]), (0, 1))  # later[u] = image[u + lag]
            expected = (later * image * turn).sum() * (shape[0] * shape[1]) ** 0.5
            assert torch.allclose(lags[(number, *lag)], expected, atol=1e-8)


@pytest.mark.parametrize("period", PERIODS)
def test_noise_gives_normal_numbers_of_one_variance_at_any_size(period):
    for shape in ((32, 32), (64, 48)):
        features = alias_features(torch.rand(300, 3, *shape, generator=torch.Generator().manual_seed(1)), period)
        assert features.dtype == torch.float64 and features.shape[1] == (period**2 - 1) * 25
        assert features.mean(0).abs().max() < 0.35 and abs(features.mean()) < 0.02
        own = [shift == (-shift[0] % period, -shift[1] % period) for shift in alias_shifts(period)]  # their own negatives
        expected = torch.where(torch.tensor([*own, *own.count(False) * [False]]), 1.0, 0.5).repeat_interleave(25)
        assert ((features.var(0) / expected).log().abs() < 0.5).double().mean() > 0.97


@pytest.mark.parametrize(("shape", "period"), [((16, 16), 4), ((12, 20), 4), ((4, 8), 4), ((16, 24), 8), ((8, 8), 8)])
def test_features_are_the_lags_of_whitened_images(shape, period):
    image = torch.rand(2, 3, *shape, dtype=torch.float64)
    spectrum = fourier(to_grey(image))
    reach = range(-REACH, REACH + 1)
    rows, columns = zip(*[(row, column) for row in reach for column in reach if (row, column) >= (0, 0)], strict=True)
    lags = alias_lags(spectrum / spectrum.abs(), period)[..., rows, columns]  # (N, S, lags)
    turned = [number for number, shift in enumerate(alias_shifts(period)) if any(2 * step % period for step in shift)]
    expected = torch.cat([lags.real.flatten(1), lags[:, turned].imag.flatten(1)], 1)
    assert torch.allclose(alias_features(image, period), expected, atol=1e-9)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_shows_and_no_gain_hides_it(mode):
    fake = upsampled(30, 0, mode)
    features = alias_features(fake)
    assert features.mean(0).abs().max() > 4
    assert alias_features(photographs(30, 1)).mean(0).abs().max() < 1
    filtered = apply_gain(fake, diagonal_gain(smooth_gain_with_peaks()))
    assert torch.allclose(alias_features(filtered), features, atol=1e-2)


def test_an_image_of_one_colour_has_no_aliases():
    assert alias_features(torch.full((1, 3, 16, 16), 0.5)).abs().max() < 1e-6


def test_sizes_without_aliases_are_refused():
    with pytest.raises(ValueError, match="multiples of 4, not 30 x 32"):
        alias_features(torch.rand(1, 3, 30, 32))
