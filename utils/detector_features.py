"""What classical detectors look at."""

from utils.aliases import alias_features
from utils.decay import decay_features
from utils.profiles import log_profile

FEATURES = {"decay": decay_features, "profile": log_profile, "aliases": alias_features}
LOOKS_AT = {"knn": "decay", "svm": "decay", "mlp": "decay", "logreg": "profile", "coherence": "aliases"}


def classical_features(classifier, image, corners=False):
    """What the classifier looks at: (N, 3, n, n) in [0, 1] -> (N, F) float64, whatever LOOKS_AT names.

    Args:
        corners: logreg only, as `log_profile`.
    Raises: ValueError if the coherence detector cannot look at images of this size.
    """
    extract = FEATURES[LOOKS_AT[classifier]]
    return extract(image, corners) if extract is log_profile else extract(image)
