"""Scores, thresholds, intervals and the fresh profile detector."""

import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from models.detectors import FAKE, fake_score
from utils.detection import MEASURES, best_threshold, curves, margin_score, scores_with_intervals
from utils.fresh_detector import fit_logreg, fold_numbers, fresh_accuracy, out_of_fold, standardisation
from utils.intervals import auc_interval, wilson
from utils.profiles import log_profile

SCORES = st.lists(st.integers(0, 10).map(lambda n: n / 10), min_size=1, max_size=30)


@settings(max_examples=100)
@given(SCORES, SCORES, st.floats(0.05, 0.95))
def test_scores_are_scikit_learns(real, fake, threshold):
    got = {name: value for name, (value, *_) in scores_with_intervals(real, fake, threshold).items()}
    labels, scores = np.repeat([0, 1], [len(real), len(fake)]), np.array(real + fake)
    assert set(got) == set(MEASURES)
    assert got["ap"] == pytest.approx(average_precision_score(labels, scores))
    assert got["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert got["accuracy"] == pytest.approx(((scores > 0.5) == labels).mean())
    assert got["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, scores > 0.5))
    assert got["real_right_at_threshold"] == pytest.approx(np.mean(np.array(real) <= threshold))
    assert got["fake_right_at_threshold"] == pytest.approx(np.mean(np.array(fake) > threshold))


def test_no_accuracy_without_reals():
    with pytest.raises(ValueError, match="both reals and fakes"):
        scores_with_intervals([], [0.9, 0.8], 0.5)


@settings(max_examples=100)
@given(SCORES, SCORES)
def test_no_threshold_beats_the_best(real, fake):
    def balanced(threshold):
        return np.mean(np.array(real) <= threshold) + np.mean(np.array(fake) > threshold)

    values = sorted(set(real + fake))
    between = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    best = balanced(best_threshold(real, fake))
    assert all(balanced(threshold) <= best + 1e-9 for threshold in between)
    assert best >= 1 - 1e-9  # never worse than calling everything real


def test_a_detector_that_is_always_wrong_calls_nothing_fake():
    assert best_threshold([0.7, 0.8, 0.9], [0.1, 0.2, 0.3]) == 0.9


def test_threshold_lies_in_the_middle_of_the_gap():
    assert best_threshold([0.1, 0.2], [0.6, 0.9]) == pytest.approx(0.4)


def test_interval_holds_the_value_and_narrows_with_more_images():
    generator = np.random.default_rng(0)
    found = {}
    for count in (20, 2000):
        found[count] = scores_with_intervals(generator.normal(0.4, 0.2, count), generator.normal(0.6, 0.2, count), 0.5)
        assert all(low <= value <= high for value, low, high in found[count].values())
    widths = {count: np.array([high - low for _, low, high in found[count].values()]) for count in found}
    assert (widths[2000] < widths[20] / 4).all()


def test_curves_end_where_they_must():
    lines = curves(np.array([0.1, 0.4, 0.6]), np.array([0.5, 0.9]))
    assert (lines["false_positive"][-1], lines["true_positive"][-1]) == (1, 1)
    assert lines["recall"].max() == 1 and lines["precision"][0] == pytest.approx(2 / 5)


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 30), st.integers(2, 5), st.integers(0, 100))
def test_folds_are_even_and_one_for_what_shows_one_scene(shared, real_alone, other_alone, folds, seed):
    keys = [*range(shared), *range(1000, 1000 + real_alone)], [*range(2000, 2000 + other_alone), *reversed(range(shared))]
    both = fold_numbers(keys, folds, seed)
    for numbers in both:
        counts = np.bincount(numbers, minlength=folds)
        assert counts.max() - counts.min() <= 1
    assert both[0][:shared].tolist() == both[1][other_alone:][::-1].tolist()
    for one, again in zip(both, fold_numbers(keys, folds, seed), strict=True):
        np.testing.assert_array_equal(one, again)
    copies = fold_numbers([[*side, *side] for side in keys], folds, seed)
    for once, twice in zip(both, copies, strict=True):
        np.testing.assert_array_equal(twice, [*once, *once])


def test_a_missing_version_does_not_put_the_others_on_both_sides():
    """Versions that hardly differ: a detector that knows the one calls the other what the first one was."""
    generator = np.random.default_rng(0)
    real = generator.normal(size=(120, 30))
    other, names = real + 0.01 * generator.normal(size=real.shape), [f"{i:03d}" for i in range(120)]
    for kept in (slice(None), slice(1, None)):
        accuracy, low, high = fresh_accuracy(real, other[kept], (names, names[kept]))
        assert low <= 0.5 <= high and accuracy > 0.44
    assert fresh_accuracy(real, other[1:])[0] < 0.3  # told nothing, the counterparts are in training


def test_out_of_fold_scores_are_of_detectors_that_never_saw_the_image():
    sides, folds = [np.arange(7.0), np.arange(10.0, 15.0)], [np.arange(7) % 3, np.arange(5) % 2]

    def fit(real, other):
        return lambda rows: [float(row in real or row in other) for row in rows]

    assert not any(scores.any() for scores in out_of_fold(fit, sides, folds))
    ranks = out_of_fold(lambda real, other: lambda rows: rows, sides, folds)
    assert all(np.array_equal(scores, side) for scores, side in zip(ranks, sides, strict=True))  # each at its place


def test_fresh_detector_finds_a_planted_band_and_nothing_else():
    generator = np.random.default_rng(1)
    real, same = generator.normal(size=(60, 20)), generator.normal(size=(60, 20))
    accuracy, low, high = fresh_accuracy(real, same, seed=0)
    assert low <= 0.5 <= high and 0.3 < accuracy < 0.7
    marked = same.copy()
    marked[:, 15] += 4
    accuracy, low, high = fresh_accuracy(real, marked, seed=0)
    assert accuracy > 0.9 and low > 0.85 and high <= 1


def test_fresh_detector_guesses_for_unequal_classes_too():
    generator = np.random.default_rng(2)
    accuracy, _, _ = fresh_accuracy(generator.normal(size=(150, 5)), generator.normal(size=(20, 5)), seed=0)
    assert 0.3 < accuracy < 0.7


def test_fresh_detector_is_repeatable_and_refuses_too_few():
    generator = np.random.default_rng(3)
    real, fake = generator.normal(size=(20, 5)), generator.normal(0.5, 1, size=(20, 5))
    assert fresh_accuracy(real, fake, seed=5) == fresh_accuracy(real, fake, seed=5)
    with pytest.raises(ValueError, match="at least 5 scenes"):
        fresh_accuracy(real[:3], fake)
    with pytest.raises(ValueError, match="5 scenes"):
        fresh_accuracy(real, fake, (["one"] * len(real), range(len(fake))))
    with pytest.raises(ValueError, match="equal length"):
        fresh_accuracy(real, fake[:, :4])


def test_log_profile_of_a_single_wave():
    column = torch.arange(64, dtype=torch.float64)
    wave = 0.5 + 0.25 * torch.cos(2 * torch.pi * 10 * column / 64).expand(1, 3, 64, 64)
    profile = log_profile(wave)
    assert profile.shape == (1, 33) and profile.dtype == torch.float64
    ring_size = (torch.hypot(*torch.meshgrid(column - 32, column - 32, indexing="ij")).floor() == 10).sum()
    power = 2 * (0.25 * 64 * 64 / 2) ** 2 / ring_size  # two bins of the ring hold the wave
    assert profile[0, 10].item() == pytest.approx(np.log(power.item()), rel=1e-6)
    assert profile[0, 11].item() < -10
    assert log_profile(wave, corners=True).shape == (1, 46)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_profiles_that_are_kept_do_not_hold_larger_memory():
    """Small results between large temporary arrays once kept 10 MB of memory each from being used again."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    image, kept = torch.rand(16, 3, 256, 256), []
    for number in range(50):
        kept.append(log_profile(image.clone()))
        if number == 9:
            start = resident()
    assert resident() - start < 120


def test_of_equally_good_thresholds_the_middle_one_is_taken():
    """0.15, 0.35 and 0.55 are equally good."""
    real, fake = [0.1, 0.3, 0.5], [0.2, 0.4, 0.6]
    assert best_threshold(real, fake) == pytest.approx(0.35)


def test_each_interval_is_that_of_its_own_class():
    real, fake = np.repeat([0.2, 0.8], [60, 40]), np.repeat([0.2, 0.8], [100, 300])
    found = scores_with_intervals(real, fake, 0.9)
    widths = {name: high - low for name, (_, low, high) in found.items()}
    normal = {"real_right": 0.24 / 100, "fake_right": 0.1875 / 400, "balanced_accuracy": (0.24 / 100 + 0.1875 / 400) / 4}
    normal["accuracy"] = (100 * 0.24 + 400 * 0.1875) / 500**2
    for name, variance in normal.items():
        assert widths[name] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.03), name
    assert found["real_right_at_threshold"] == pytest.approx((1, *wilson(1, 100)))
    assert found["fake_right_at_threshold"] == pytest.approx((0, *wilson(0, 400)), abs=1e-15)
    assert found["ap"][1:] == pytest.approx(wilson(found["ap"][0], 400))
    assert found["auc"][1:] == auc_interval(found["auc"][0], 100, 400)


def test_each_repeat_deals_the_images_anew():
    generator = np.random.default_rng(4)
    real, fake = generator.normal(size=(30, 4)), generator.normal(0.5, 1, size=(30, 4))
    alone = [fresh_accuracy(real, fake, seed=seed, repeats=1)[0] for seed in (7, 8)]
    assert alone[0] != alone[1]
    assert fresh_accuracy(real, fake, seed=7, repeats=2)[0] == pytest.approx(np.mean(alone))


def test_classes_of_unequal_size_weigh_alike():
    """Where features say nothing, neither class is the likelier one."""
    _, bias = fit_logreg(np.zeros((40, 1)), np.repeat([False, True], [30, 10]))
    assert bias == pytest.approx(0, abs=1e-3)


def test_standardisation_by_hand():
    mean, std = standardisation(np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 4.0]]))
    assert mean.tolist() == [2, 5, 2] and std.tolist() == [1, 1, 2]


def test_scores_far_beyond_the_border_keep_their_order():
    """Probabilities of such log-odds are all exactly 1 in float64."""
    far = np.array([-700.0, -60.6, 0.0, 60.6, 61.0, 71.6, 700.0])
    scores = margin_score(far)
    assert (np.diff(scores) > 0).all() and scores[2] == 0.5 and scores.min() > 0 and scores.max() < 1
    logits = torch.zeros(len(far), 2)
    logits[:, FAKE] = torch.from_numpy(far)
    np.testing.assert_allclose(fake_score(logits).numpy(), scores, rtol=1e-6)
