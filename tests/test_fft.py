"""Spectra: golden numbers, closed forms and round trips."""

import math

import pytest
import torch
from golden_recipe import ARRAYS, NUMBERS, golden_image
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import fft, profiles


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (256, 256), (512, 512), (63, 64), (65, 49), (1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_round_trip(size, batch):
    image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))
    assert (fft.mag_to_image(*fft.image_to_mag(image)) - image).abs().max() < 1e-4


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 10**6))
@settings(max_examples=40)
def test_fourier_inverts_at_every_size_and_keeps_energy(height, width, seed):
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spectrum = fft.fourier(image)
    assert torch.allclose(fft.inverse_fourier(spectrum).real, image, atol=1e-12)
    assert torch.allclose(spectrum.abs().square().sum(), image.square().sum() * height * width)


def test_spectrum_of_a_wave_is_two_bins_beside_dc():
    size, frequency = 32, 5
    wave = torch.cos(2 * math.pi * frequency * torch.arange(size) / size).expand(1, 1, size, size)
    magnitude = fft.fourier(wave).abs()[0, 0]
    bright = {tuple(place) for place in (magnitude > 1).nonzero().tolist()}
    assert bright == {(16, 16 - frequency), (16, 16 + frequency)}
    assert torch.allclose(magnitude[16, 16 + frequency], torch.tensor(size * size / 2.0))


def test_golden_log_magnitude_and_normalisation():
    fake_image = golden_image(1)
    assert torch.equal(fake_image, ARRAYS["fake_image"])
    assert torch.allclose(fft.fourier(fake_image).abs().log1p(), ARRAYS["log_magnitude_fake"], atol=1e-4)
    mag, _, mag_range = fft.image_to_mag(fake_image)
    golden = NUMBERS["normalized_magnitude_fake"]
    assert torch.allclose(mag.flatten()[golden["samples_at"]], torch.tensor(golden["samples"]), atol=1e-4)
    assert mag_range[0].tolist() == pytest.approx([golden["v_min"], golden["v_max"]], rel=1e-4, abs=1e-5)


def test_normalisation_is_per_sample():
    images = torch.cat([golden_image(1), golden_image(2) * 0.3])
    together, alone = fft.image_to_mag(images)[0], torch.cat([fft.image_to_mag(image[None])[0] for image in images])
    assert torch.equal(together, alone)
    assert together.amax((1, 2, 3)).tolist() == [1, 1]


def test_black_image_survives():
    mag, phase, mag_range = fft.image_to_mag(torch.zeros(1, 3, 16, 16))
    assert mag.isfinite().all()
    assert fft.mag_to_image(mag, phase, mag_range).abs().max() < 1e-6


def test_abs_inverse_is_the_modulus():
    mag, phase, mag_range = fft.image_to_mag(golden_image(1))
    changed = mag + 0.1 * torch.rand_like(mag)  # no longer Hermitian: the inverse transform is complex
    real, modulus = (fft.mag_to_image(changed, phase, mag_range, how) for how in ("real", "abs"))
    assert (modulus >= real.abs() - 1e-5).all()
    assert (modulus - real).abs().max() > 1e-3
    with pytest.raises(ValueError, match="inverse"):
        fft.mag_to_image(mag, phase, mag_range, "modulus")


def test_transforms_stay_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        mag, phase, mag_range = fft.image_to_mag(golden_image(1).bfloat16())
        assert mag.dtype == torch.float32
        assert fft.mag_to_image(mag, phase, mag_range).dtype == torch.float32


def test_gradient_reaches_the_image():
    image = golden_image(1)[:, :, :4, :4].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fft.mag_to_image(*fft.image_to_mag(x)).square().sum(), image)


def test_gain_of_one_keeps_and_gain_scales():
    image = golden_image(1)
    same = torch.eye(3)[:, :, None, None].expand(3, 3, 64, 64)
    assert torch.allclose(fft.apply_gain(image, same), image, atol=1e-6)
    assert torch.allclose(fft.apply_gain(image, 2 * same), 2 * image, atol=1e-5)


def test_gain_mixes_channels():
    image = golden_image(1)
    turned = fft.apply_gain(image, torch.eye(3).roll(1, 0)[:, :, None, None].expand(3, 3, 64, 64))
    assert torch.allclose(turned, image.roll(1, 1), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (5, 5)])
def test_mirror_is_the_spectrum_of_the_mirrored_image(shape):
    image = torch.rand(1, 2, *shape)
    mirrored = fft.fourier(image.flip(-1)).abs()
    assert torch.allclose(fft.mirror(fft.fourier(image).abs()), mirrored, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (5, 5)])
def test_cepstrum_round_trip_and_a_cosine(shape):
    log_spectrum = fft.fourier(torch.rand(1, 3, *shape).double()).abs().log()
    even = (log_spectrum + fft.mirror(log_spectrum)) / 2
    cepstrum = fft.cepstrum(even)
    assert torch.allclose(fft.from_cepstrum(cepstrum), even)
    assert cepstrum.square().sum() == pytest.approx(even.square().sum().item())  # orthonormal: noise stays white
    columns = torch.arange(shape[1]).double() - shape[1] // 2
    wave = (2 * math.pi * 2 * columns / shape[1]).cos().expand(shape)
    found = fft.cepstrum(wave).abs() > 1e-9
    assert sorted(found.nonzero().tolist()) == [[0, 2], [0, shape[1] - 2]]


@pytest.mark.parametrize("shape", [(32, 32), (33, 33), (24, 31), (31, 24), (16, 40)])
def test_half_a_spectrum_says_all_of_it(shape):
    image = torch.rand(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = fft.fourier(image).abs()
    half = fft.half_fourier(image).abs()
    torch.testing.assert_close(fft.whole_from_half(half, shape[1]), whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(fft.half_of(whole), half, rtol=0, atol=1e-11)
    torch.testing.assert_close(fft.inverse_half_fourier(fft.half_fourier(image), shape[1]), image)
    rings = profiles.radial_rings(*shape)
    torch.testing.assert_close(profiles.half_ring_means(half, shape[1]), profiles.ring_means(whole, rings), rtol=0, atol=1e-11)
