"""The generator's reproducible kernels give what torch's own give, in value and gradient; what it keeps for the gradient."""

import pytest
import torch
import torch.nn.functional as F

from models import nested_unet
from models.nested_unet import NestedUNet, Node, halve_as_maxima, upsample_as_products

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def value_and_gradient(function, x):
    x = x.clone().requires_grad_()
    y = function(x)
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    (y * weights).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_upsampling_as_products_equals_interpolation(mode, layout):
    x = torch.randn(2, 3, 5, 8, dtype=torch.float32).contiguous(memory_format=layout)
    ours = value_and_gradient(lambda x: upsample_as_products(x, mode), x)
    theirs = value_and_gradient(lambda x: F.interpolate(x, scale_factor=2, mode=mode, align_corners=False), x)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.shape == reference.shape
        assert torch.allclose(mine, reference, atol=1e-5)
    assert ours[0].is_contiguous(memory_format=layout)


def test_halving_as_maxima_equals_pooling_after_relu():
    x = torch.randn(2, 3, 6, 8)
    ours = value_and_gradient(lambda x: halve_as_maxima(F.relu(x)), x)
    theirs = value_and_gradient(lambda x: F.max_pool2d(F.relu(x), 2), x)
    assert all(torch.equal(mine, reference) for mine, reference in zip(ours, theirs, strict=True))


def test_network_is_the_same_with_reproducible_kernels(monkeypatch):
    torch.manual_seed(0)
    network = NestedUNet("direct", channels=(4, 4, 4, 4, 4))
    mag = torch.rand(1, 3, 32, 32) * 2 - 1
    usual = value_and_gradient(network, mag)
    monkeypatch.setattr(nested_unet, "_needs_gather", lambda x: True)
    reproducible = value_and_gradient(network, mag)
    for mine, reference in zip(reproducible, usual, strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_what_is_made_again_changes_nothing(norm, monkeypatch):
    torch.manual_seed(0)
    node = Node(6, 4, norm)
    level, below = torch.randn(2, 2, 8, 8), torch.randn(2, 4, 4, 4)

    def run():
        node.zero_grad()
        out, gradient = value_and_gradient(lambda low: node(level, below=low), below)
        statistics = node.bn1.running_mean.clone() if norm == "batch" else torch.zeros(())
        return [out, gradient, statistics, *(parameter.grad.clone() for parameter in node.parameters())]

    state = {name: value.clone() for name, value in node.state_dict().items()}
    remade = run()
    node.load_state_dict(state)
    monkeypatch.setattr(nested_unet, "remade", lambda function, *maps, kept: function(*maps))
    assert all(torch.equal(mine, reference) for mine, reference in zip(remade, run(), strict=True))


def test_biases_that_instance_normalisation_takes_out_are_spared_where_parts_are_compiled(monkeypatch):
    monkeypatch.setattr(nested_unet, "_compiled", lambda function: function)
    torch.manual_seed(0)
    node, level, below, found = Node(6, 4, "instance"), torch.randn(2, 2, 8, 8), torch.randn(2, 4, 4, 4), []
    for convolution in (node.conv1, node.conv2):
        torch.nn.init.normal_(convolution.bias)
    for node.compiled in (False, True):
        node.zero_grad()
        found.append(value_and_gradient(lambda low: node(level, below=low), below))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))
    assert node.conv1.bias.grad is None and node.conv2.bias.grad is None and node.conv1.weight.grad.any()
    node.eval()
    assert torch.allclose(node(level, below=below), found[0][0], atol=1e-5)
    node.zero_grad()
    other = Node(6, 4, "batch")
    other.compiled = True
    value_and_gradient(lambda low: other(level, below=low), below)
    assert other.conv1.bias.grad is not None


def test_joined_maps_are_not_kept():
    node = Node(6, 4, "instance")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor):
        node(torch.randn(1, 2, 8, 8), below=torch.randn(1, 4, 4, 4, requires_grad=True))
    assert (1, 6, 8, 8) not in kept
