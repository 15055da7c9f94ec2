"""Ring profiles: golden numbers and a slow definition to compare with."""

import torch
from golden_recipe import ARRAYS, NUMBERS, golden_image
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import profiles
from utils.fft import image_to_mag


def test_golden_profiles():
    mag = image_to_mag(golden_image(2))[0].roll(1, dims=1)  # the released code weighs the channels in rolled order here
    assert torch.allclose(profiles.chessboard_profile(mag)[0], torch.tensor(NUMBERS["real_psd"]), atol=1e-5)
    radial = profiles.ring_means(profiles.to_grey(mag), profiles.radial_rings(64, 64))[0]
    scaled = (radial - radial.min()) / (radial.max() - radial.min())
    assert torch.allclose(scaled, torch.tensor(NUMBERS["radial_profile_real"]), atol=1e-5)


def test_golden_profile_of_the_refined_image():
    image = ARRAYS["refined_image_train"]
    stretched = (image - image.min()) / (image.max() - image.min())
    found = profiles.chessboard_profile(image_to_mag(stretched)[0])[0]
    assert torch.allclose(found, torch.tensor(NUMBERS["denoised_psd"]), atol=1e-5)


@given(st.integers(2, 17), st.integers(2, 17), st.integers(0, 10**6))
@settings(max_examples=30)
def test_ring_means_equal_masks(height, width, seed):
    values = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for rings in (profiles.chessboard_rings(height, width), profiles.radial_rings(height, width)):
        assert set(rings.flatten().tolist()) == set(range(int(rings.max()) + 1))
        slow = torch.stack([values[..., rings == ring].mean(-1) for ring in range(int(rings.max()) + 1)], -1)
        assert torch.allclose(profiles.ring_means(values, rings), slow)


def test_ring_numbers():
    rings = profiles.chessboard_rings(6, 6)
    assert rings[3, 3] == 0
    assert rings[0, 3] == rings[0, 0] == 3
    assert rings[3, 5] == 2
    assert profiles.radial_rings(6, 6)[0, 0] == 4  # floor(sqrt(18))


def test_profile_ignores_scale_and_offset_and_carries_gradient():
    mag = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    profile = profiles.chessboard_profile(mag)
    assert profile.shape == (2, 9)
    assert torch.allclose(profiles.chessboard_profile(3 * mag - 1), profile)
    profile.square().sum().backward()
    assert (mag.grad.abs() > 0).float().mean() > 0.9


def test_rings_of_frequency_reach_nyquist_of_both_sides():
    rings = profiles.radial_rings(32, 64)
    assert rings[0, 32] == rings[16, 0] == 16  # Nyquist, vertical and horizontal
    assert torch.equal(rings[:, ::2], profiles.radial_rings(32, 32))  # the same frequencies, twice as finely
