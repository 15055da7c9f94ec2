"""Distances between two sets of feature vectors: Frechet distance (FID) and kernel distance (KID), in float64."""

import numpy as np
from scipy.linalg import lapack

KERNEL_ROWS = 512  # rows of the kernel matrix held at once: 40 MB with 10,000 vectors


class Moments:
    """Running mean and covariance of feature vectors (Chan, Golub and LeVeque's update: stable, any batch size).

    Attributes:
        count: vectors seen. mean: (D,). scatter: (D, D), sum of outer products of the deviations from the mean.
    """

    def __init__(self, count=0, mean=0.0, scatter=0.0):
        self.count, self.mean, self.scatter = count, mean, scatter

    @classmethod
    def of(cls, features):
        """Those of one set (N, D), N >= 1."""
        moments = cls()
        moments.update(features)
        return moments

    def update(self, features):
        """Add a batch (N, D), N >= 1."""
        features = np.asarray(features, dtype=np.float64)
        mean = features.mean(axis=0)
        centred = features - mean
        total = self + Moments(len(features), mean, centred.T @ centred)
        self.count, self.mean, self.scatter = total.count, total.mean, total.scatter

    def __add__(self, other):
        """The moments of both sets together."""
        count = self.count + other.count
        if not count:
            return Moments()
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, mean, scatter)

    @property
    def covariance(self):
        """(D, D), unbiased. Raises: ValueError with fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two vectors, not {self.count}")
        return self.scatter / (self.count - 1)

    def frechet_distance(self, other):
        """`frechet_distance` of the Gaussians with these moments and those of `other`."""
        return frechet_distance(self.mean, self.covariance, other.mean, other.covariance)


def frechet_distance(mean_1, covariance_1, mean_2, covariance_2):
    """Squared Frechet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982).

    C1 C2 is not symmetric, but with C1 = R R^T its eigenvalues are those of the symmetric R^T C2 R, whose eigenvalues are
    real and not negative: no complex square root, no regularisation of singular covariances.

    Args:
        mean_1, mean_2: (D,). covariance_1, covariance_2: (D, D) symmetric, positive semidefinite, of any rank.
    Returns: float >= 0; lower is better.
    Raises: ValueError for shapes that do not fit or values that are not finite.
    """
    mean_1, covariance_1, mean_2, covariance_2 = (
        np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (mean_1, covariance_1, mean_2, covariance_2)
    )
    size = len(mean_1)
    if mean_2.shape != (size,) or covariance_1.shape != (size, size) or covariance_2.shape != (size, size):
        raise ValueError(f"two means (D,) and two covariances (D, D) of one D are needed, D = {size} does not fit all")
    if not all(np.isfinite(value).all() for value in (mean_1, covariance_1, mean_2, covariance_2)):
        raise ValueError("a mean or covariance holds values that are not finite")
    root = _root(covariance_1)
    product = np.linalg.eigvalsh(root.T @ covariance_2 @ root)  # (rank,)
    shared = np.sqrt(product.clip(min=0)).sum()
    distance = np.square(mean_1 - mean_2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2 * shared
    return max(float(distance), 0.0)


def _root(covariance):
    """R (D, rank) with R R^T = covariance: pivoted Cholesky, which stops where only rounding is left."""
    factor, pivots, rank, _ = lapack.dpstrf(covariance, lower=1)
    root = np.empty((len(covariance), rank))
    root[pivots - 1] = np.tril(factor[:, :rank])
    return root


def kernel_distance(first, second, subset_size=1000, subsets=100, seed=0):
    """KID: unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018).

    Unlike the Frechet distance its expectation does not depend on the number of images, so it is the one to trust on small
    folders; it may come out slightly negative when both sets are alike.

    Args:
        first, second: (N, D) and (M, D), at least two vectors each.
        subset_size: vectors drawn from each set per subset, without replacement; at most half of the smaller set (and at
            least two), so that subsets differ and their spread means something.
        subsets: number of subsets. seed: of the draw.
    Returns: (mean, standard deviation) over the subsets; lower is better.
    Raises: ValueError for fewer than two vectors or different D.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(f"KID needs two sets (N, D) of at least two vectors, not {first.shape} and {second.shape}")
    size = max(2, min(subset_size, len(first) // 2, len(second) // 2))
    generator = np.random.default_rng(seed)
    members = [np.zeros((len(data), subsets)) for data in (first, second)]  # 1 where a vector is in a subset
    for subset in range(subsets):
        for data, member in zip((first, second), members, strict=True):
            member[generator.choice(len(data), size, replace=False), subset] = 1
    within = [_sums_within(data, member) / (size * (size - 1)) for data, member in zip((first, second), members, strict=True)]
    values = within[0] + within[1] - 2 * _kernel_sums(first, second, *members) / size**2
    return float(np.mean(values)), float(np.std(values))


def _cubed(product, dimensions):
    value = product / dimensions + 1
    return value * value * value


def _kernel_sums(x, y, x_members, y_members):
    """Sum of the kernel over all pairs of each subset: (n, D), (m, D), (n, S), (m, S) -> (S,).

    Every pair is computed once, not once per subset, and only a block of rows is kept.
    """
    blocks = [slice(start, start + KERNEL_ROWS) for start in range(0, len(x), KERNEL_ROWS)]
    return sum((x_members[rows] * (_cubed(x[rows] @ y.T, x.shape[1]) @ y_members)).sum(axis=0) for rows in blocks)


def _sums_within(x, members):
    """The same over the pairs of two different vectors of one set."""
    with_itself = _cubed(np.square(x).sum(axis=1), x.shape[1])
    return _kernel_sums(x, x, members, members) - with_itself @ members
