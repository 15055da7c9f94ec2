"""How well a detector tells fakes from reals: scores, thresholds, intervals.

A detector gives one score per image: higher means more likely fake. Fakes are the positive class of AP, AUC and curves.
Everything is float64 NumPy.
"""

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from utils.intervals import auc_interval, balanced_interval, mean_share_interval, wilson

MEASURES = {
    "accuracy": "share of all images judged right, at the detector's own decision",
    "balanced_accuracy": "mean of the next two: 0.5 is guessing however many images each class has",
    "real_right": "share of reals called real, at the detector's own decision",
    "fake_right": "share of fakes called fake, at the detector's own decision",
    "ap": "average precision, fakes positive",
    "auc": "area under the ROC curve",
    "real_right_at_threshold": "share of reals called real at the threshold chosen on validation images",
    "fake_right_at_threshold": "share of fakes called fake at that threshold",
}


def margin_score(margin):
    """Score of a detector's log-odds of fake against real (array or tensor, any shape): in [0, 1], above 0.5 = called fake.

    Monotone as a probability is, but that is exactly 1 from log-odds of 37 on in float64, and images beyond would be ties.
    """
    return (1 + margin / (1 + abs(margin))) / 2


def scores_with_intervals(real_scores, fake_scores, threshold, decision=0.5):
    """Every number of one detector on one set of reals and one of fakes, each with its 95 % interval.

    Shares have Wilson's interval, the accuracies Newcombe's of both classes together, the area under the ROC curve Newcombe's of
    2006. Average precision has Wilson's of a share of the fakes: wider than it need be (`python -m benchmarks.intervals`).

    Args:
        real_scores, fake_scores: (N,), (M,), higher = more likely fake.
        threshold: chosen on validation images; the `_at_threshold` rates call scores above it fake.
        decision: the detector's own border, for the accuracies.
    Raises: ValueError if either class is empty: a rate on fakes alone is no accuracy.
    Returns: dict over `MEASURES` -> (value, low, high).
    """
    real_scores, fake_scores = np.asarray(real_scores, float), np.asarray(fake_scores, float)
    counts = np.array([len(real_scores), len(fake_scores)])
    if not counts.all():
        raise ValueError("an accuracy needs both reals and fakes")

    def right(border):
        return float((real_scores <= border).mean()), float((fake_scores > border).mean())

    def share(value, count):
        return value, *map(float, wilson(value, count))

    own, chosen = right(decision), right(threshold)
    labels, scores = np.repeat([0, 1], counts), np.concatenate([real_scores, fake_scores])
    auc = float(roc_auc_score(labels, scores))
    return {
        "accuracy": mean_share_interval(own, counts, counts / counts.sum()),
        "balanced_accuracy": balanced_interval(own, counts),
        "real_right": share(own[0], counts[0]),
        "fake_right": share(own[1], counts[1]),
        "ap": share(float(average_precision_score(labels, scores)), counts[1]),
        "auc": (auc, *auc_interval(auc, *counts.tolist())),
        "real_right_at_threshold": share(chosen[0], counts[0]),
        "fake_right_at_threshold": share(chosen[1], counts[1]),
    }


def curves(real_scores, fake_scores):
    """ROC and precision-recall curves, fakes positive: dict of arrays false_positive, true_positive, recall, precision."""
    is_fake = np.repeat([False, True], [len(real_scores), len(fake_scores)])
    scores = np.concatenate([real_scores, fake_scores])
    false_positive, true_positive, _ = roc_curve(is_fake, scores)
    precision, recall, _ = precision_recall_curve(is_fake, scores)
    return {"false_positive": false_positive, "true_positive": true_positive, "recall": recall, "precision": precision}


def best_threshold(real_scores, fake_scores):
    """The threshold with the best balanced accuracy: halfway between two neighbouring scores, or the highest of all, above which
    nothing is called fake.

    Of several equally good ones the middle one is taken. Choose it on validation images, never on the test.
    """
    real_scores, fake_scores = np.sort(np.asarray(real_scores, float)), np.sort(np.asarray(fake_scores, float))
    values = np.unique(np.concatenate([real_scores, fake_scores]))
    candidates = np.append((values[1:] + values[:-1]) / 2, values[-1])
    real_rate = np.searchsorted(real_scores, candidates, side="right") / len(real_scores)
    fake_rate = 1 - np.searchsorted(fake_scores, candidates, side="right") / len(fake_scores)
    balanced = real_rate + fake_rate
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(candidates[best[(len(best) - 1) // 2]])
