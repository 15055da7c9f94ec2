"""Losses of small GANs against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gan import Generator, to_image
from models.gan_losses import (
    discriminator_loss,
    fourier_dissimilarity,
    generator_loss,
    gradient_penalty,
    high_frequencies,
    one_sided_magnitude,
    power_profile,
    spectral_loss,
)
from utils.profiles import radial_rings

REAL, FAKE = torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0])


def softplus(value):
    return math.log(1 + math.exp(value))


@pytest.mark.parametrize(
    ("kind", "critic", "generator"),
    [
        ("gan", (softplus(0) + softplus(-2)) / 2 + (softplus(1) + softplus(-1)) / 2, (softplus(-1) + softplus(1)) / 2),
        ("lsgan", (1 + 1) / 2 + (1 + 1) / 2, (0 + 4) / 2),
        ("wgan-gp", 0 - 1, 0),
    ],
)
def test_adversarial_losses(kind, critic, generator):
    assert discriminator_loss(kind, REAL, FAKE).item() == pytest.approx(critic, abs=1e-6)
    assert generator_loss(kind, FAKE).item() == pytest.approx(generator, abs=1e-6)


def test_unknown_names_are_refused():
    for call in (lambda: discriminator_loss("x", REAL, FAKE), lambda: generator_loss("x", FAKE)):
        with pytest.raises(ValueError, match="is none of"):
            call()
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="is none of"):
        gradient_penalty(lambda x: x.flatten(1).sum(1), image, image, "two")
    with pytest.raises(ValueError, match="is none of"):
        fourier_dissimilarity(image, image, "3", 1)


def high_frequency_magnitude(image, threshold):
    return high_frequencies(one_sided_magnitude(image), threshold)


@pytest.mark.parametrize("sample", ["line", "real", "fake", "dragan"])
@pytest.mark.parametrize(("kind", "expected"), [("zero", 9), ("one", 4), ("lipschitz", 4)])
def test_penalty_of_a_linear_critic(kind, expected, sample):
    """f(x) = 3 x_0 has gradient norm 3 everywhere."""
    real, fake = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)
    value = gradient_penalty(lambda x: 3 * x[:, 0, 0, 0], real, fake, kind, sample)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_lipschitz_penalty_forgives_small_gradients():
    image = torch.rand(2, 3, 2, 2)
    assert gradient_penalty(lambda x: 0.5 * x[:, 0, 0, 0], image, image, "lipschitz").item() == 0
    assert gradient_penalty(lambda x: 0.5 * x[:, 0, 0, 0], image, image, "one").item() == pytest.approx(0.25)


def test_penalty_points():
    """With f(x) = x^2 / 2 the zero-centred penalty is the squared norm of the point itself."""

    def critic(x):
        return x.flatten(1).square().sum(1) / 2

    real, fake = torch.full((2, 3, 2, 2), 1.0), torch.full((2, 3, 2, 2), 3.0)
    assert gradient_penalty(critic, real, fake, "zero", "real").item() == pytest.approx(12)
    assert gradient_penalty(critic, real, fake, "zero", "fake").item() == pytest.approx(12 * 9)
    torch.manual_seed(0)
    weight = torch.rand(2, 1, 1, 1).flatten()
    torch.manual_seed(0)
    line = gradient_penalty(critic, real, fake, "zero", "line").item()
    assert line == pytest.approx((12 * (1 + 2 * weight) ** 2).mean().item(), rel=1e-5)
    assert gradient_penalty(critic, real, fake, "zero", "dragan").item() == pytest.approx(12)  # reals without spread


def test_penalty_reaches_the_critic_but_not_the_images():
    scale = torch.tensor(2.0, requires_grad=True)
    real, fake = torch.rand(2, 3, 2, 2, requires_grad=True), torch.rand(2, 3, 2, 2, requires_grad=True)
    gradient_penalty(lambda x: scale * x[:, 0, 0, 0], real, fake, "zero").backward()
    assert scale.grad.item() == pytest.approx(4)  # d (scale^2) / d scale
    assert real.grad is None and fake.grad is None


def wave(size, row, column, amplitude=1.0):
    """Grey cosine with `row` and `column` periods."""
    i = torch.arange(size, dtype=torch.float64)
    grey = amplitude * torch.cos(2 * torch.pi * (row * i[:, None] + column * i[None, :]) / size)
    return grey.expand(1, 3, size, size)


def test_high_frequencies_of_a_wave():
    """cos with (5, 6) periods on 16 x 16 puts 128 at row 5, column 6 of the one-sided transform."""
    kept = high_frequency_magnitude(wave(16, 5, 6), 4)
    assert kept.shape == (1, 8, 5)
    expected = torch.zeros(8, 5, dtype=torch.float64)
    expected[5 - 4, 6 - 4] = 128
    assert torch.allclose(kept[0], expected, atol=1e-9)
    assert high_frequency_magnitude(wave(16, 3, 6), 4).abs().max() < 1e-9  # row 3 is cut
    assert high_frequency_magnitude(wave(16, 5, 3), 4).abs().max() < 1e-9  # column 3 is cut


def test_whole_half_plane_at_threshold_zero():
    image = torch.rand(2, 3, 8, 10, dtype=torch.float64)
    grey = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    assert torch.allclose(high_frequency_magnitude(image, 0), torch.fft.rfft2(grey).abs(), atol=1e-9)
    for threshold in (-1, 4, 20):
        with pytest.raises(ValueError, match="leaves no frequency"):
            high_frequency_magnitude(image, threshold)


def test_dissimilarity_by_hand():
    fake, real = wave(16, 5, 6, 2.0), wave(16, 5, 6) + wave(16, 7, 5, 0.5)
    # magnitudes: fake 256 at one bin; real 128 there and 64 at another
    assert fourier_dissimilarity(fake, real, "1", 4).item() == pytest.approx(1e-8 * (128 + 64))
    assert fourier_dissimilarity(fake, real, "2", 4).item() == pytest.approx(2e-4 * math.hypot(128, 64))
    assert fourier_dissimilarity(fake, real, "cos", 4).item() == pytest.approx(1 - 128 / math.hypot(128, 64), abs=1e-9)
    both = (torch.cat([fake, real]), torch.cat([real, real]))
    assert fourier_dissimilarity(*both, "2", 4).item() == pytest.approx(1e-4 * math.hypot(128, 64))  # mean over the batch


@settings(max_examples=10)
@given(st.sampled_from(["1", "2", "cos"]), st.integers(0, 6), st.integers(0, 1000))
def test_dissimilarity_is_zero_only_for_equal_magnitudes(metric, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    other = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    assert fourier_dissimilarity(image, image.roll((3, 5), (-2, -1)), metric, threshold).item() == pytest.approx(0, abs=1e-9)
    assert fourier_dissimilarity(image, other, metric, threshold).item() > 1e-9


@pytest.mark.parametrize("metric", ["1", "2", "cos"])
def test_dissimilarity_is_differentiable(metric):
    fake = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    real = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: 1e4 * fourier_dissimilarity(x, real, metric, 1), fake)


def test_power_profile_is_scaled():
    profile = power_profile(torch.rand(4, 3, 16, 16))
    assert (profile.min().item(), profile.max().item()) == (0, 1)


def test_power_profile_of_two_waves():
    """Powers of a constant 0.5 and of one wave of amplitude a at ring 3, with 1e-8 in the empty rings."""
    image = torch.cat([0.5 + wave(16, 0, 3, amplitude) for amplitude in (0.1, 0.3)])
    constant = (0.5 * 256) ** 2
    bins = 2  # the wave and its conjugate
    ring = (radial_rings(16, 16) == 3).sum().item()
    peak = ((0.05 * 256) ** 2 + (0.15 * 256) ** 2) / 2 * bins / ring  # mean of power over batch and ring
    expected = math.log(peak / 1e-8) / math.log(constant / 1e-8)
    profile = power_profile(image)
    assert profile[0].item() == 1
    assert profile[3].item() == pytest.approx(expected, abs=1e-5)
    assert profile[[1, 2, 4]].max().item() < 1e-3


def test_spectral_loss_is_smallest_for_the_same_spectrum():
    real = torch.rand(4, 3, 16, 16).cumsum(-1) / 16
    target = power_profile(real)
    inside = target[(target > 0) & (target < 1)]
    entropy = -(inside * inside.log() + (1 - inside) * (1 - inside).log()).sum() / len(target)
    assert spectral_loss(real, real).item() == pytest.approx(entropy.item(), abs=1e-3)
    assert spectral_loss(torch.rand(4, 3, 16, 16), real).item() > spectral_loss(real, real).item() + 1e-3


def test_spectral_loss_gradient_is_right_and_reaches_the_generator():
    real = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    fake = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: spectral_loss(x, real), fake)
    torch.manual_seed(0)
    generator = Generator(16, "N.1.5", dim=4, latent_dim=4)
    latent = torch.randn(8, 4)
    target = torch.rand(8, 3, 16, 16)
    optimiser = torch.optim.Adam(generator.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = spectral_loss(to_image(generator(latent)), target)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad.abs().sum() > 0 for p in generator.last.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3


def test_dragan_points_lie_between_reals_and_reals_with_noise():
    """Half a standard deviation of all reals, times uniform noise of each value, times a place on the line for each image."""
    real = torch.rand(4, 3, 2, 2)
    torch.manual_seed(0)
    noise, place = torch.rand(4, 3, 2, 2), torch.rand(4, 1, 1, 1)
    torch.manual_seed(0)
    found = gradient_penalty(lambda x: x.flatten(1).square().sum(1) / 2, real, real, "zero", "dragan").item()
    points = real + place * 0.5 * real.std() * noise
    assert found == pytest.approx(points.flatten(1).square().sum(1).mean().item(), rel=1e-5)
