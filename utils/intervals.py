"""95 % intervals of shares and rankings, in closed form: they have a width where nothing was judged wrong, as no bootstrap has.

Every class counts as drawn independently: where fakes are versions of the reals, intervals are wider than they need be.
"""

import math

import numpy as np

Z = 1.96


def wilson(share, count):
    """Wilson's interval (1927) of a share in [0, 1] of `count` images: (low, high); both may be arrays."""
    spread = Z**2 / np.asarray(count)
    centre = (share + spread / 2) / (1 + spread)
    reach = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return np.clip(centre - reach, 0, share), np.clip(centre + reach, share, 1)


def mean_share_interval(shares, counts, weights):
    """The weighted mean of independent shares: Wilson's interval of each, joined by Newcombe's method (1998).

    Args:
        shares: (K,) in [0, 1]. counts: (K,) images of each. weights: (K,), their sum 1.
    Returns: (mean, low, high).
    """
    shares, weights = np.asarray(shares, float), np.asarray(weights, float)
    low, high = wilson(shares, counts)
    mean = shares @ weights
    below, above = (math.sqrt(np.square(weights * distance).sum()) for distance in (shares - low, high - shares))
    return float(mean), float(mean - below), float(mean + above)


def balanced_interval(shares, counts):
    """Balanced accuracy of two classes, (2,) shares judged right of (2,) images: `mean_share_interval` with equal weights."""
    return mean_share_interval(shares, counts, (0.5, 0.5))


def auc_interval(auc, n_real, n_fake):
    """Area under the ROC curve: Newcombe's method 5 (Statistics in Medicine 25, 2006), (low, high).

    The limits are the areas whose own deviation, by Hanley and McNeil for exponential scores, puts them 1.96 of it from `auc`.
    """
    from scipy.optimize import brentq  # slow to import, and other intervals do not need it

    typical = (n_real + n_fake) / 2

    def lower(area):
        def excess(limit):
            paths = 1 + (typical - 1) * ((1 - limit) / (2 - limit) + limit / (1 + limit))
            return area - limit - Z * math.sqrt(limit * (1 - limit) * paths / (n_real * n_fake))

        return brentq(excess, 0, area * (1 - 1e-12)) if area > 0 else 0.0

    return lower(auc), 1 - lower(1 - auc)
