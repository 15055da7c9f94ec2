"""The generator family: closed forms of the upsamplings, shapes, published widths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.gan import (
    SETUPS,
    UPSAMPLE,
    Discriminator,
    Generator,
    doublings,
    from_image,
    last_layer,
    to_image,
    update_average,
)
from utils.fft import fourier

sides = st.sampled_from([2, 4, 6, 8])


def features(height, width, seed):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_spectrum(image):
    """Unshifted transform, for formulas that count frequencies from 0."""
    height, width = image.shape[-2:]
    centred = torch.roll(image, (-(height // 2), -(width // 2)), (-2, -1))
    return torch.roll(fourier(centred), (-(height // 2), -(width // 2)), (-2, -1))


@settings(max_examples=15)
@given(sides, sides, st.integers(0, 1000))
def test_zero_insertion_makes_exact_spectral_replicas(height, width, seed):
    small = features(height, width, seed)
    spectrum = plain_spectrum(small)
    assert torch.allclose(plain_spectrum(UPSAMPLE["Z"]()(small)), spectrum.repeat(1, 1, 2, 2), atol=1e-9)


@settings(max_examples=15)
@given(sides, sides, st.integers(0, 1000))
def test_nearest_is_a_box_and_its_spectrum_the_replica_times_cosines(height, width, seed):
    small = features(height, width, seed)
    large = UPSAMPLE["N"]()(small)
    assert torch.equal(large, small.repeat_interleave(2, -2).repeat_interleave(2, -1))
    rows = torch.arange(2 * height, dtype=torch.float64)[:, None] / (2 * height)
    columns = torch.arange(2 * width, dtype=torch.float64)[None, :] / (2 * width)
    gain = 4 * (torch.pi * rows).cos().abs() * (torch.pi * columns).cos().abs()  # |1 + exp(-2 pi i f)| per axis
    assert torch.allclose(plain_spectrum(large).abs(), plain_spectrum(small).repeat(1, 1, 2, 2).abs() * gain, atol=1e-9)


def test_bilinear_keeps_corners_and_reproduces_planes():
    small = features(4, 6, 0)
    large = UPSAMPLE["B"]()(small)
    for row in (0, -1):
        for column in (0, -1):
            assert torch.allclose(large[..., row, column], small[..., row, column])

    def plane(height, width):
        return torch.linspace(0, 1, height)[:, None] + 2 * torch.linspace(0, 1, width)[None, :]

    assert torch.allclose(UPSAMPLE["B"]()(plane(4, 6)[None, None]), plane(8, 12)[None, None], atol=1e-6)


def test_zero_insertion_is_the_transposed_convolution_with_a_single_one():
    small = features(4, 4, 1)
    kernel = torch.zeros(3, 3, 2, 2, dtype=torch.float64)
    kernel[range(3), range(3), 0, 0] = 1
    assert torch.equal(UPSAMPLE["Z"]()(small), functional.conv_transpose2d(small, kernel, stride=2))


def test_thirteen_setups():
    assert len(SETUPS) == len(set(SETUPS)) == 13
    assert {"BASELINE", "N.1.5", "Z.1.3", "B.1.7", "N.3.5"} <= set(SETUPS)


@pytest.mark.parametrize("setup", SETUPS)
def test_every_setup_makes_images_in_range(setup):
    generator = Generator(size=16, setup=setup, dim=4, latent_dim=5)
    image = generator(torch.randn(3, 5))
    assert image.shape == (3, 3, 16, 16)
    assert image.abs().max() <= 1
    image.sum().backward()
    assert all(p.grad is not None for p in generator.parameters())


def test_published_widths_at_128():
    generator = Generator(128, "N.3.5", dim=32, latent_dim=128)
    assert [block[0].out_channels for block in generator.body] == [512, 256, 128, 64, 32]
    assert [layer.out_channels for layer in generator.last if hasattr(layer, "out_channels")] == [32, 32, 3]
    critic = Discriminator(128, dim=32, norm="batch")
    assert [m.out_channels for m in critic.body if isinstance(m, torch.nn.Conv2d)] == [32, 64, 128, 256, 512]


def test_three_convolutions_follow_the_upsampling():
    layer = last_layer("Z.3.5", 4).double()
    small = features(4, 4, 3)[:, :1].repeat(1, 4, 1, 1)
    by_hand = UPSAMPLE["Z"]()(small)
    for convolution in list(layer)[1:]:
        by_hand = functional.conv2d(by_hand, convolution.weight, convolution.bias, padding=2)
    assert torch.equal(layer(small), by_hand)


def test_sizes_and_setups_outside_the_family_are_refused():
    assert [doublings(size) for size in (8, 32, 64, 128)] == [1, 3, 4, 5]
    for size in (4, 48, 0, 100):
        with pytest.raises(ValueError, match="power of two"):
            doublings(size)
    with pytest.raises(ValueError, match="is none of"):
        last_layer("X.1.5", 4)


def test_layer_norm_discriminator_does_not_mix_the_batch():
    critic = Discriminator(16, dim=4, norm="layer")
    image = torch.randn(4, 3, 16, 16)
    assert critic(image).shape == (4,)
    assert torch.allclose(critic(image)[2:3], critic(image[2:3]), atol=1e-6)
    mixing = Discriminator(16, dim=4, norm="batch")
    assert not torch.allclose(mixing(image)[2:3], mixing(image[2:3]), atol=1e-6)


def test_ranges():
    signed = torch.linspace(-1, 1, 5)
    assert torch.equal(to_image(signed), torch.linspace(0, 1, 5))
    assert torch.equal(from_image(to_image(signed)), signed)


def test_moving_average():
    average, module = Generator(8, "BASELINE", dim=2, latent_dim=2), Generator(8, "BASELINE", dim=2, latent_dim=2)
    before = [p.clone() for p in average.parameters()]
    module(torch.randn(4, 2))  # moves the BatchNorm statistics
    update_average(average, module, 0.9)
    for old, mean, new in zip(before, average.parameters(), module.parameters(), strict=True):
        assert torch.allclose(mean, 0.9 * old + 0.1 * new, atol=1e-6)
    for mean, new in zip(average.buffers(), module.buffers(), strict=True):
        assert torch.equal(mean, new)
