"""How well a detector tells fakes from reals: scores, thresholds, bootstrap intervals.

A detector gives one score per image: higher means more likely fake. Fakes are the positive class of AP, AUC and curves.
Everything is float64 NumPy.
"""

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

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


def scores_with_intervals(real_scores, fake_scores, threshold, decision=0.5, rounds=1000, seed=0):
    """Every number of one detector on one set of reals and one of fakes, each with its 95 % bootstrap interval.

    Args:
        real_scores, fake_scores: (N,), (M,), higher = more likely fake.
        threshold: chosen on validation images; the `_at_threshold` rates call scores above it fake.
        decision: the detector's own border, for the accuracies.
        rounds, seed: of the bootstrap, which draws images anew within each class.
    Raises: ValueError if either class is empty: a rate on fakes alone is no accuracy.
    Returns: dict over `MEASURES` -> (value, low, high); without rounds low = high = value. An interval that misses its value is
        stretched to it: average precision of few images is higher where some are drawn twice.
    """
    real_scores, fake_scores = np.asarray(real_scores, float), np.asarray(fake_scores, float)
    if not (len(real_scores) and len(fake_scores)):
        raise ValueError("an accuracy needs both reals and fakes")
    values, where = np.unique(np.concatenate([real_scores, fake_scores]), return_inverse=True)
    real_counts = np.bincount(where[: len(real_scores)], minlength=len(values))
    fake_counts = np.bincount(where[len(real_scores) :], minlength=len(values))
    exact = _count_measures(real_counts[None], fake_counts[None], values, threshold, decision)
    generator = np.random.default_rng(seed)
    drawn = [exact]
    for start in range(0, rounds, 100):
        size = min(100, rounds - start)
        real_drawn = generator.multinomial(len(real_scores), real_counts / len(real_scores), size=size)
        fake_drawn = generator.multinomial(len(fake_scores), fake_counts / len(fake_scores), size=size)
        drawn.append(_count_measures(real_drawn, fake_drawn, values, threshold, decision))
    drawn = np.concatenate(drawn[1:] or drawn, axis=1)  # (measures, rounds)
    low, high = np.percentile(drawn, (2.5, 97.5), axis=1)
    low, high = np.minimum(low, exact[:, 0]), np.maximum(high, exact[:, 0])
    return {name: (float(exact[i, 0]), float(low[i]), float(high[i])) for i, name in enumerate(MEASURES)}


def _count_measures(real_counts, fake_counts, values, threshold, decision):
    """`MEASURES` of B samples at once, each given as how often it holds each of the U sorted scores: (B, U) -> (measures, B)."""
    n_real, n_fake = real_counts.sum(1), fake_counts.sum(1)  # (B,)
    real_above = real_counts[:, ::-1].cumsum(1)[:, ::-1]  # (B, U), reals with this score or a higher one
    fake_above = fake_counts[:, ::-1].cumsum(1)[:, ::-1]
    precision = fake_above / np.maximum(real_above + fake_above, 1)
    ap = (precision * fake_counts).sum(1) / n_fake
    below = n_real[:, None] - real_above + real_counts / 2  # reals with a lower score, ties by half
    auc = (below * fake_counts).sum(1) / (n_real * n_fake)

    def right(border):
        called_fake = values > border
        return real_counts[:, ~called_fake].sum(1), fake_counts[:, called_fake].sum(1)

    (real_right, fake_right), (real_at, fake_at) = right(decision), right(threshold)
    real_rate, fake_rate = real_right / n_real, fake_right / n_fake
    accuracy = (real_right + fake_right) / (n_real + n_fake)
    return np.stack([accuracy, (real_rate + fake_rate) / 2, real_rate, fake_rate, ap, auc, real_at / n_real, fake_at / n_fake])


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
