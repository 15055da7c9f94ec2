"""What classical detectors look at."""

import functools

from utils.aliases import alias_features
from utils.decay import decay_features
from utils.profiles import log_profile

FEATURES = {
    "decay": decay_features,
    "profile": log_profile,
    "aliases": alias_features,
    "aliases8": functools.partial(alias_features, period=8),
}
LOOKS_AT = {
    **dict.fromkeys(("knn", "svm", "mlp"), "decay"),
    "logreg": "profile",
    "coherence": "aliases",
    "coherence8": "aliases8",
}


def classical_features(classifier, image, corners=False):
    """What the classifier looks at: (N, 3, n, n) in [0, 1] -> (N, F) float64, whatever LOOKS_AT names.

    Args:
        corners: logreg only, as `log_profile`.
    Raises: ValueError if a coherence detector cannot look at images of this size.
    """
    extract = FEATURES[LOOKS_AT[classifier]]
    return extract(image, corners) if extract is log_profile else extract(image)
