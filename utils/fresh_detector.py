"""What a detector that is trained afresh finds: logistic regression, cross-validated. Everything is float64 NumPy."""

import numpy as np

from utils.intervals import balanced_interval


def standardisation(features):
    """Mean and standard deviation of each column of (N, F), the latter 1 where a column is constant: (F,), (F,)."""
    mean, std = features.mean(0), features.std(0)
    std[std < 1e-12] = 1
    return mean, std


def fit_logreg(features, is_fake):
    """The cheap strong baseline: logistic regression with classes that weigh alike.

    Args:
        features: (N, F), standardised. is_fake: (N,) bool.
    Returns: weight (F,) and bias; rows with features @ weight + bias > 0 are called fake.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and most of a training's processes fit none

    model = LogisticRegression(max_iter=2000, class_weight="balanced").fit(features, is_fake)
    return model.coef_[0], model.intercept_[0]


def _logreg(real, other, _):
    """A detector as `cross_validated` wants it."""
    features, is_fake = np.concatenate([real, other]), np.repeat([False, True], [len(real), len(other)])
    mean, std = standardisation(features)
    weight, bias = fit_logreg((features - mean) / std, is_fake)
    return lambda rows: (rows - mean) / std @ weight + bias > 0


def fold_numbers(keys, folds, seed):
    """A fold 0..folds - 1 for each image of two classes, as even as can be.

    Args:
        keys: hashables of the reals and of the others. Images of one key are in one fold: a detector that was trained on one
            version of a scene, and is asked about another, tends to give it the wrong label.
    Returns: (N,) and (M,) int64.
    """
    real, other = (list(dict.fromkeys(side)) for side in keys)
    shared = set(real) & set(other)

    def dealt(chosen, first):
        numbers = np.random.default_rng(seed).permutation(len(chosen)) + first
        return dict(zip(chosen, (numbers % folds).tolist(), strict=True))

    both = dealt([key for key in real if key in shared], 0)
    own = [both | dealt([key for key in side if key not in shared], len(both)) for side in (real, other)]
    return [np.array([fold[key] for key in side], int) for fold, side in zip(own, keys, strict=True)]


def out_of_fold(fit, sides, folds):
    """What detectors make of images they never saw.

    Args:
        fit: function (real (n, ...), other (m, ...)) -> function (k, ...) -> (k,) scores.
        sides: features of the reals and of the others. folds: the fold of each of them.
    Returns: scores of the reals and of the others, (N,) and (M,) float64.
    """
    scores = [np.zeros(len(side)) for side in sides]
    for number in np.unique(np.concatenate(folds)):
        judge = fit(*(side[fold != number] for side, fold in zip(sides, folds, strict=True)))
        for found, side, fold in zip(scores, sides, folds, strict=True):
            if (fold == number).any():
                found[fold == number] = judge(side[fold == number])
    return scores


def cross_validated(fit, sides, deals):
    """Balanced accuracy, low and high (`balanced_interval`) of a detector on images it never saw.

    Args:
        fit: function (real, other, number of the repeat) -> function of rows -> (k,) bool, called fake.
        sides: as `out_of_fold`. deals: its `folds` of each repeat.
    """
    found = [out_of_fold(lambda *rows, repeat=repeat: fit(*rows, repeat), sides, folds) for repeat, folds in enumerate(deals)]
    right = [np.equal(scores, is_fake).mean() for is_fake, scores in enumerate(zip(*found, strict=True))]
    return balanced_interval(right, [len(side) for side in sides])


def fresh_accuracy(real_features, other_features, keys=None, seed=0, folds=5, repeats=4):
    """What a logistic regression trained afresh still finds.

    Args:
        real_features, other_features: (N, F), (M, F), one row per image, as `classical_features`.
        keys: as `fold_numbers`; None: images at one place show one scene.
        seed, folds, repeats: each repeat deals the images to `folds` folds anew; every image is judged once per repeat by a
            detector that never saw it.
    Returns: (accuracy, low, high): balanced accuracy (0.5 = cannot be told apart, lower is better for a refiner) and its 95 %
        interval (`balanced_interval`). Cross-validation of a detector that finds nothing averages a little under 0.5.
    Raises: ValueError if a class has fewer images (or scenes, by their keys) than folds or the features differ in length.
    """
    sides = [np.asarray(features, float) for features in (real_features, other_features)]
    keys = keys or [range(len(side)) for side in sides]
    if min(len(set(side)) for side in keys) < folds or sides[0].shape[1:] != sides[1].shape[1:]:
        raise ValueError(f"need at least {folds} scenes and rows of equal length per class, not {sides[0].shape}, {sides[1].shape}")
    deals = [fold_numbers(keys, folds, seed + repeat) for repeat in range(repeats)]
    return cross_validated(_logreg, sides, deals)
