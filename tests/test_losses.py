"""Terms of the objective against closed forms."""

import math

import numpy as np
import pytest
import torch

from models.losses import _blur, adversarial_loss, low_frequency_loss, ssim
from models.patchnce import PatchHeads, patch_nce, sample_positions


def test_adversarial_loss_by_hand():
    score = torch.tensor([0.0, 0.5, 1.0])
    assert adversarial_loss(score, True).item() == pytest.approx((1 + 0.25 + 0) / 3)
    assert adversarial_loss(score, False).item() == pytest.approx((0 + 0.25 + 1) / 3)


def test_low_frequency_loss_sees_the_box_alone():
    a, b = torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)
    b[..., 0, 0] = 5  # outside the box
    assert low_frequency_loss(a, b, 4).item() == pytest.approx(0, abs=1e-5)
    b[..., 4:12, 4:12] = 0.5
    assert low_frequency_loss(a, b, 4).item() == pytest.approx(0.5)
    assert low_frequency_loss(a, b, 8).item() == pytest.approx(math.sqrt((64 * 0.25 + 25) / 256))


def test_low_frequency_loss_has_a_gradient_at_equality():
    mag = torch.zeros(1, 3, 8, 8, requires_grad=True)
    low_frequency_loss(mag, torch.zeros(1, 3, 8, 8), 2).backward()
    assert mag.grad.isfinite().all()


@pytest.mark.parametrize("half_width", [0, 9])
def test_low_frequency_loss_refuses_impossible_boxes(half_width):
    with pytest.raises(ValueError, match="half_width"):
        low_frequency_loss(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), half_width)
    with pytest.raises(ValueError, match="shape"):
        low_frequency_loss(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 8, 8), 2)


def test_ssim_is_one_at_equality_symmetric_and_falls_with_noise():
    image, noise = torch.rand(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    assert ssim(image, image).item() == pytest.approx(1)
    values = [ssim(image, image + scale * noise).item() for scale in (0.01, 0.1, 0.5)]
    assert 1 > values[0] > values[1] > values[2]
    assert ssim(image + 0.1 * noise, image).item() == pytest.approx(values[1])


def test_ssim_of_constant_dark_images_by_hand():
    a, b, half = 0.02, 0.05, 8
    line = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * 1.5**2))
    seen = np.convolve(np.ones(20), line / line.sum(), mode="same")  # share of the window inside the image, zeros around it
    w = np.outer(seen, seen)
    luminance = (2 * a * b * w**2 + 0.01**2) / ((a**2 + b**2) * w**2 + 0.01**2)
    structure = (2 * a * b * (w - w**2) + 0.03**2) / ((a**2 + b**2) * (w - w**2) + 0.03**2)
    found = ssim(torch.full((1, 3, 20, 20), a), torch.full((1, 3, 20, 20), b)).item()
    assert found == pytest.approx((luminance * structure).mean(), rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 56), (16, 33), (9, 5)])
def test_ssim_blurs_alike_by_convolutions_and_by_matrices(shape):
    """The second is for GPUs."""
    maps = torch.rand(3, 1, *shape)
    torch.testing.assert_close(_blur(maps, 17, as_matrices=True), _blur(maps, 17, as_matrices=False), rtol=1e-5, atol=1e-6)


def test_ssim_short_window_equals_the_long_one():
    a, b = torch.rand(1, 3, 48, 48), torch.rand(1, 3, 48, 48)
    assert ssim(a, b, taps=17).item() == pytest.approx(ssim(a, b, taps=35).item(), rel=1e-5)


def test_contrastive_loss_by_hand():
    query = torch.eye(3)[None]
    assert patch_nce(query, query, 1.0).item() == pytest.approx(math.log(math.e + 2) - 1)
    uninformative = torch.ones(1, 4, 2) / math.sqrt(2)
    assert patch_nce(uninformative, uninformative, 0.07).item() == pytest.approx(math.log(4))


def test_contrastive_loss_takes_negatives_from_the_same_image():
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1), torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1)
    alone = [patch_nce(a[i : i + 1], b[i : i + 1], 0.1) for i in range(2)]
    assert patch_nce(a, b, 0.1).item() == pytest.approx(sum(alone).item() / 2, rel=1e-5)


def test_no_gradient_through_keys_and_none_through_other_levels():
    heads = PatchHeads(channels=(4, 6))
    feature = torch.randn(2, 6, 4, 4, requires_grad=True)
    key = torch.randn(2, 8, 256, requires_grad=True)
    projected = heads(feature, torch.arange(8), level=1)
    assert projected.shape == (2, 8, 256)
    assert torch.allclose(projected.norm(dim=-1), torch.ones(2, 8), atol=1e-5)
    patch_nce(projected, key, 0.07).backward()
    assert key.grad is None
    assert feature.grad.abs().sum() > 0
    assert heads.mlp_0[0].weight.grad is None
    assert heads.mlp_1[0].weight.grad.abs().sum() > 0


def test_positions_are_distinct_and_bounded():
    positions = sample_positions(64, 20, torch.device("cpu"))
    assert len(set(positions.tolist())) == 20
    assert 0 <= positions.min() <= positions.max() < 64
    assert len(sample_positions(16, 256, torch.device("cpu"))) == 16


def test_positions_are_drawn_from_the_whole_map_each_time():
    drawn = [sample_positions(64, 20, torch.device("cpu")).tolist() for _ in range(60)]
    assert drawn[0] != drawn[1] and {place for places in drawn for place in places} == set(range(64))
