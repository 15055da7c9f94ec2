"""Compensation for rounding: 8-bit images get the power they should have, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detectors import opponent_spectrum
from models.stig import STIG, Objective
from options import parse_train
from utils.filters import filtered, fit_filters
from utils.linear_filter import RGB, mixed
from utils.pictures import to_8bit
from utils.profiles import radial_rings, ring_means
from utils.rounding import ROUNDING_VARIANCE, compensate_rounding

LEVEL = 1 / 255


def noise(deviations, count=24, size=32, seed=0):
    """Grey areas with white noise of the given deviation in each opponent colour, (N, 3, S, S)."""
    white = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return 0.5 + mixed(RGB, white * torch.tensor(deviations)[:, None, None])


def ring_levels(image):
    """Mean log amplitude per opponent colour and ring over images: (3, R)."""
    return ring_means(opponent_spectrum(image), radial_rings(*image.shape[-2:])).mean(0)


def test_the_variance_is_that_of_rounding():
    image = noise([20 * LEVEL] * 3)
    assert (to_8bit(image) - image).var().item() == pytest.approx(ROUNDING_VARIANCE, rel=0.02)


@pytest.mark.parametrize("colour", [1 * LEVEL, 0.5 * LEVEL, 0.32 * LEVEL])
def test_rounded_images_have_the_power_they_had_before(colour):
    image = noise([20 * LEVEL, colour, colour])
    wanted, plain, ours = (ring_levels(x)[:, 4:20].mean(1) for x in (image, to_8bit(image), to_8bit(compensate_rounding(image))))
    assert (plain - wanted)[1:].min() > 0.03  # rounding shows
    assert (ours - wanted).abs().max() < 0.35 * (plain - wanted).max()  # errors of tiny colours are not quite independent


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([16, 31, 32]))
def test_what_is_far_above_rounding_stays(seed, size):
    image = noise([40 * LEVEL] * 3, 2, size, seed)
    assert (compensate_rounding(image) - image).abs().max() < 0.1 * LEVEL


def test_it_takes_each_image_alone_and_leaves_means_and_grey():
    image = noise([20 * LEVEL, 0.5 * LEVEL, 0.5 * LEVEL])
    image[3:5] = image[3:5].mean(1, keepdim=True)
    together = compensate_rounding(image)
    alone = torch.cat([compensate_rounding(one[None]) for one in image])
    assert (together - alone).abs().max() < 1e-6
    assert (together.mean((-1, -2)) - image.mean((-1, -2))).abs().max() < 1e-6
    assert (together[3:5] - together[3:5, :1]).abs().max() < 1e-6
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(compensate_rounding(flat), flat, atol=1e-6)


def test_grey_images_are_rounded_three_times_alike():
    """The errors of equal channels are equal, so grey gets the power of all three, and colours none."""
    wanted = noise([1.5 * LEVEL, 0, 0], 200)
    assert (wanted - wanted[:, :1]).abs().max() < 1e-6
    given, plain, ours = (ring_levels(x)[0, 4:20].mean() for x in (wanted, to_8bit(wanted), to_8bit(compensate_rounding(wanted))))
    assert plain - given > 0.04 and abs(ours - given) < 0.2 * (plain - given)


def test_filters_that_were_fitted_on_colours_leave_grey_images_grey():
    real, fake = noise([20 * LEVEL, 4 * LEVEL, 4 * LEVEL]), noise([20 * LEVEL, 9 * LEVEL, 2 * LEVEL], seed=1)
    mixture = torch.cat([fake[:2].mean(1, keepdim=True).expand(-1, 3, -1, -1), fake[2:4]])
    for kind, one in fit_filters(lambda: [real], lambda: [fake]).items():
        refined = to_8bit(filtered(mixture, one))
        assert (refined[:2] == refined[:2, :1]).all() and (refined[2:] != refined[2:, :1]).any(), kind


def test_filters_that_know_the_wanted_spectrum_compensate_and_plain_ones_do_not():
    real, fake = noise([20 * LEVEL, 0.4 * LEVEL, 0.4 * LEVEL]), noise([20 * LEVEL, 3 * LEVEL, 3 * LEVEL], seed=1)
    fitted = fit_filters(lambda: [to_8bit(real)], lambda: [to_8bit(fake)], ["linear", "cepstral", "lifter"])
    excess = {
        kind: (ring_levels(to_8bit(filtered(to_8bit(fake), one))) - ring_levels(to_8bit(real)))[1:, 4:20].mean().item()
        for kind, one in fitted.items()
    }
    assert excess["linear"] > 0.1 and excess["cepstral"] > 0.1
    assert abs(excess["lifter"]) < 0.05


def test_the_published_behaviour_does_not_compensate():
    fake = noise([20 * LEVEL, 0.4 * LEVEL, 0.4 * LEVEL], 2)
    model = STIG(32, Objective(), width=8)
    plain = STIG(32, Objective(compensate_rounding=False), width=8)
    assert (model.refine(fake) - compensate_rounding(fake)).abs().max() < 1e-5
    assert (plain.refine(fake) - fake).abs().max() < 1e-5 < (model.refine(fake) - fake).abs().max()
    assert (model.refine(fake, is_real=True) - fake).abs().max() < 1e-5
    assert not parse_train(["--data", "x", "--dst", "x", "--preset", "released"]).compensate_rounding
    assert parse_train(["--data", "x", "--dst", "x"]).compensate_rounding
