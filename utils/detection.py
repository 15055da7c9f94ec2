"""How well a detector tells fakes from reals: scores, thresholds, bootstrap intervals.

A detector gives one score per image: higher means more likely fake. Fakes are the positive class of AP, AUC and curves.
Everything is float64 NumPy.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.fft import fourier
from utils.profiles import radial_rings, ring_means, to_grey

MEASURES = ("accuracy", "balanced_accuracy", "ap", "auc", "real_rate", "fake_rate")


def log_profile(image, corners=False):
    """Natural logarithm of the mean power in each radial ring: what the `logreg` detector and `fresh_profile_accuracy` see.

    Args:
        image: (N, 3, H, W) in [0, 1].
        corners: False keeps the complete rings 0..min(H, W) // 2; True adds those that only the corners of the spectrum reach.
    Returns: (N, R) float64.
    """
    grey = to_grey(image.double())
    rings = radial_rings(*grey.shape[-2:])
    profile = ring_means(fourier(grey).abs().square(), rings).clamp_min(1e-12).log()  # (N, all rings)
    return profile if corners else profile[:, : min(grey.shape[-2:]) // 2 + 1]


def detection_scores(real_scores, fake_scores, threshold):
    """Every number of one detector on one set of reals and one of fakes.

    Args:
        real_scores, fake_scores: (N,), (M,), higher = more likely fake.
        threshold: scores above it are called fake.
    Returns: dict over `MEASURES`, each in [0, 1]: accuracy over all images, balanced accuracy (mean of the two rates), average
        precision and ROC AUC (fakes positive), real_rate (reals called real) and fake_rate (fakes called fake).
    Raises: ValueError if either class is empty: a rate on fakes alone is no accuracy.
    """
    real_scores, fake_scores = np.asarray(real_scores, float), np.asarray(fake_scores, float)
    if not (len(real_scores) and len(fake_scores)):
        raise ValueError("an accuracy needs both reals and fakes")
    real_right, fake_right = real_scores <= threshold, fake_scores > threshold
    labels = np.repeat([0, 1], [len(real_scores), len(fake_scores)])
    scores = np.concatenate([real_scores, fake_scores])
    return {
        "accuracy": float(np.concatenate([real_right, fake_right]).mean()),
        "balanced_accuracy": float((real_right.mean() + fake_right.mean()) / 2),
        "ap": float(average_precision_score(labels, scores)),
        "auc": float(roc_auc_score(labels, scores)),
        "real_rate": float(real_right.mean()),
        "fake_rate": float(fake_right.mean()),
    }


def best_threshold(real_scores, fake_scores):
    """The threshold with the best balanced accuracy, halfway between two neighbouring scores.

    Of several equally good ones the middle one is taken. Choose it on validation images, never on the test.
    """
    real_scores, fake_scores = np.sort(np.asarray(real_scores, float)), np.sort(np.asarray(fake_scores, float))
    values = np.unique(np.concatenate([real_scores, fake_scores]))
    if len(values) == 1:
        return float(values[0])
    candidates = (values[1:] + values[:-1]) / 2
    real_rate = np.searchsorted(real_scores, candidates, side="right") / len(real_scores)
    fake_rate = 1 - np.searchsorted(fake_scores, candidates, side="right") / len(fake_scores)
    balanced = real_rate + fake_rate
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(candidates[best[(len(best) - 1) // 2]])


def bootstrap(statistic, real_values, fake_values, rounds=1000, seed=0):
    """95 % percentile intervals of `statistic(real_values, fake_values) -> dict`, resampling images within each class.

    Returns: dict name -> (low, high).
    """
    generator = np.random.default_rng(seed)
    real_values, fake_values = np.asarray(real_values, float), np.asarray(fake_values, float)
    rows = []
    for _ in range(rounds):
        real = real_values[generator.integers(len(real_values), size=len(real_values))]
        fake = fake_values[generator.integers(len(fake_values), size=len(fake_values))]
        rows.append(statistic(real, fake))
    return {name: tuple(float(q) for q in np.percentile([row[name] for row in rows], (2.5, 97.5))) for name in rows[0]}


def scores_with_intervals(real_scores, fake_scores, threshold, rounds=1000, seed=0):
    """`detection_scores` with bootstrap intervals: dict name -> (value, low, high)."""
    value = detection_scores(real_scores, fake_scores, threshold)
    spread = bootstrap(lambda real, fake: detection_scores(real, fake, threshold), real_scores, fake_scores, rounds, seed)
    return {name: (value[name], *spread[name]) for name in MEASURES}


def fold_numbers(count, folds, seed):
    """A fold 0..folds - 1 for each of `count` images: as even as can be, and the same for every class of equal size.

    So two folders that hold versions of the same images in the same order never have one version in training and the other in test.
    """
    return np.random.default_rng(seed).permutation(count) % folds


def make_logreg():
    """The cheap strong baseline: logistic regression on standardised features, classes weighted equally."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))


def fresh_profile_accuracy(real_profiles, other_profiles, seed=0, folds=5, repeats=4):
    """What a detector trained afresh still finds: cross-validated logistic regression on log radial profiles.

    Args:
        real_profiles, other_profiles: (N, R), (M, R), one row per image, as `log_profile` gives them.
        seed, folds, repeats: each repeat deals the images to `folds` folds anew; every image is judged once per repeat by a
            detector that never saw it.
    Returns: (accuracy, low, high): balanced accuracy (0.5 = cannot be told apart, lower is better for a refiner) and its 95 %
        interval, bootstrapped over images and repeats. Cross-validation of a detector that finds nothing averages a little
        under 0.5.
    Raises: ValueError if a class has fewer images than folds or the profiles differ in length.
    """
    real_profiles, other_profiles = np.asarray(real_profiles, float), np.asarray(other_profiles, float)
    counts = len(real_profiles), len(other_profiles)
    if min(counts) < folds or real_profiles.shape[1:] != other_profiles.shape[1:]:
        raise ValueError(
            f"need at least {folds} profiles of equal length per class, not {real_profiles.shape}, {other_profiles.shape}"
        )
    features = np.concatenate([real_profiles, other_profiles])
    labels = np.repeat([0, 1], counts)
    right = np.zeros((repeats, len(labels)), dtype=bool)
    for repeat in range(repeats):
        fold = np.concatenate([fold_numbers(count, folds, seed + repeat) for count in counts])
        for held_out in range(folds):
            test = fold == held_out
            detector = make_logreg().fit(features[~test], labels[~test])
            right[repeat, test] = detector.predict(features[test]) == labels[test]
    rates = [right[:, labels == label].mean() for label in (0, 1)]
    # an image drawn anew, judged by a repeat drawn anew, is right with probability `rate`: its bootstrap is a binomial
    generator = np.random.default_rng(seed)
    drawn = [generator.binomial(count, rate, size=10_000) / count for count, rate in zip(counts, rates, strict=True)]
    low, high = np.percentile((drawn[0] + drawn[1]) / 2, (2.5, 97.5))
    return float(np.mean(rates)), float(low), float(high)
