"""Optimal transport between Gaussians: gives the wanted covariance, and changes least."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.transport import root, transport


def covariances(seed, size=4, kind=torch.float64):
    """Two random covariances (size, size)."""
    factors = torch.randn(2, size, size + 2, dtype=kind, generator=torch.Generator().manual_seed(seed))
    return factors @ factors.mH


@given(st.integers(0, 1000), st.sampled_from([torch.float64, torch.complex128]))
def test_it_gives_the_wanted_covariance(seed, kind):
    covariance, wanted = covariances(seed, kind=kind)
    matrix = transport(covariance, wanted)
    assert torch.allclose(matrix @ covariance @ matrix.mH, wanted, atol=1e-9)
    assert torch.allclose(matrix, matrix.mH, atol=1e-9) and torch.linalg.eigvalsh(matrix).min() > 0  # only such maps change least
    assert torch.allclose(root(wanted) @ root(wanted), wanted, atol=1e-9)


def test_it_changes_less_than_another_map():
    covariance, wanted = covariances(0)
    other = torch.linalg.cholesky(wanted) @ torch.linalg.inv(torch.linalg.cholesky(covariance))
    assert torch.allclose(other @ covariance @ other.T, wanted)
    change, more = (
        (matrix - torch.eye(4)) @ covariance @ (matrix - torch.eye(4)).T for matrix in (transport(covariance, wanted), other)
    )
    assert change.trace() < 0.99 * more.trace()


@pytest.mark.parametrize("wanted", [(4.0, 0.25), (1.0, 1.0), (0.0, 9.0)])
def test_uncorrelated_variances_are_scaled_by_roots_of_ratios(wanted):
    matrix = transport(torch.tensor([1.0, 1.0]).diag(), torch.tensor(wanted).diag())
    assert torch.allclose(matrix, torch.tensor(wanted).sqrt().diag(), atol=1e-6)
