"""Detectors on features: knn, svm and mlp on decay features, logreg on the log radial profile, coherence (and coherence8) on alias
features.

scikit-learn fits them; what is kept is plain arrays, and `classical_scores` needs nothing else. Reading a saved detector
therefore runs no code of the file's.
"""

import warnings

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from utils.detection import margin_score
from utils.detector_features import LOOKS_AT, classical_features
from utils.fresh_detector import fit_logreg, standardisation
from utils.interrupts import heard

CLASSICAL = tuple(LOOKS_AT)
NEIGHBOURS = 5


def _fit(classifier, features, is_fake, seed):
    if classifier == "knn":
        return {"features": features, "labels": is_fake}  # 1 = fake, so that their mean is a score
    if classifier == "svm":
        gamma = 1 / features.shape[1]  # scikit-learn's "scale", if no standardised feature is constant
        model = SVC(kernel="rbf", gamma=gamma, class_weight="balanced").fit(features, is_fake)
        return {"support": model.support_vectors_, "dual": model.dual_coef_[0], "offset": model.intercept_[0], "gamma": gamma}
    if classifier == "mlp":
        layers = {"hidden_layer_sizes": (10, 10), "activation": "logistic", "solver": "adam", "learning_rate_init": 1e-3}
        with warnings.catch_warnings(), heard():  # interrupted, it would return what it has
            warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol stops at 2000 epochs
            model = MLPClassifier(**layers, max_iter=2000, random_state=seed).fit(features, is_fake)
        return {
            f"{kind}_{i}": value for i in range(3) for kind, value in (("weight", model.coefs_[i]), ("bias", model.intercepts_[i]))
        }
    weight, bias = fit_logreg(features, is_fake)
    return {"weight": weight, "bias": bias}


def fit_classical(classifier, real_features, fake_features, seed):
    """Fit on standardised features: knn k = 5; svm RBF; mlp hidden 10, 10, logistic, Adam 1e-3, <= 2000 epochs (as published).

    Where the classifier can, classes of different size count alike; for knn and mlp the larger class is thinned out at random.

    Args:
        real_features, fake_features: (N, F), (M, F); constant columns are allowed.
        seed: of the mlp's initialisation and of the thinning.
    Returns: dict of float64 tensors.
    Raises: ValueError if a class has fewer than NEIGHBOURS images.
    """
    sides = [np.asarray(real_features, float), np.asarray(fake_features, float)]
    smallest = min(map(len, sides))
    if smallest < NEIGHBOURS:
        raise ValueError(f"{classifier} needs at least {NEIGHBOURS} training images per class, not {smallest}")
    if classifier in ("knn", "mlp"):
        generator = np.random.default_rng(seed)
        sides = [side[np.sort(generator.permutation(len(side))[:smallest])] for side in sides]
    features, is_fake = np.concatenate(sides), np.repeat([False, True], [len(side) for side in sides])
    mean, std = standardisation(features)
    arrays = {"mean": mean, "std": std, **_fit(classifier, (features - mean) / std, is_fake, seed)}
    return {name: torch.from_numpy(np.array(value, dtype=np.float64)) for name, value in arrays.items()}


def _knn_scores(arrays, features):
    distance = cdist(features, arrays["features"], "sqeuclidean")  # (N, training images)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    return arrays["labels"][nearest].mean(1)


def _svm_scores(arrays, features):
    distance = cdist(features, arrays["support"], "sqeuclidean")  # (N, support vectors)
    return expit(np.exp(-arrays["gamma"] * distance) @ arrays["dual"] + arrays["offset"])


def _mlp_scores(arrays, features):
    for i in range(3):
        features = expit(features @ arrays[f"weight_{i}"] + arrays[f"bias_{i}"])
    return features[:, 0]


def _linear_scores(arrays, features):
    return margin_score(features @ arrays["weight"] + arrays["bias"])


def classical_scores(classifier, state, features):
    """Score images with a fitted detector.

    Args:
        state: what `fit_classical` returned.
        features: (N, F).
    Returns: (N,) float64 in [0, 1], higher = more likely fake, above 0.5 = called fake: of the mlp a probability, of the knn a
        share of neighbours, of the others a squashed distance from the border.
    Raises: ValueError if the features are not as long as those it was fitted on.
    """
    arrays = {name: value.numpy() for name, value in state.items()}
    features = np.asarray(features, float)
    if features.shape[1:] != arrays["mean"].shape:
        raise ValueError(f"this {classifier} was fitted on {len(arrays['mean'])} features, not on {features.shape[1]}")
    scorer = {"knn": _knn_scores, "svm": _svm_scores, "mlp": _mlp_scores}.get(classifier, _linear_scores)
    return np.concatenate(
        [scorer(arrays, part) for part in np.array_split((features - arrays["mean"]) / arrays["std"], len(features) // 256 + 1)]
    )


def try_state(classifier, state, size, corners):
    """Score images of this size: any error if a part of the state is missing or does not fit."""
    image = torch.linspace(0, 1, 3 * size**2).view(1, 3, size, size).expand(3, -1, -1, -1)
    classical_scores(classifier, state, classical_features(classifier, image, corners))
