"""Optimal transport between Gaussians: the linear map that changes least, in the mean square, of all that give a covariance."""

import torch


def root(matrices):
    """Roots (..., N, N) of Hermitian matrices without negative eigenvalues, up to rounding."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mH


def transport(covariance, wanted):
    """Matrices T (..., N, N) with T C T* = D: L*^-1 (L* D L)^(1/2) L^-1 for C = L L*.

    Source: Peyré and Cuturi, Computational Optimal Transport, 2019.

    Args:
        covariance: C, Hermitian and positive. wanted: D, Hermitian without negative eigenvalues.
    """
    factor = torch.linalg.cholesky(covariance)
    middle = torch.linalg.solve_triangular(factor.mH, root(factor.mH @ wanted @ factor), upper=True)
    return torch.linalg.solve_triangular(factor, middle, upper=False, left=False)
