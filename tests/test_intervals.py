"""Intervals against SciPy, against their defining equations, and against draws whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks import intervals
from utils.intervals import Z, auc_interval, balanced_interval, mean_share_interval, wilson

COUNT = st.integers(1, 300)


@given(COUNT, st.floats(0, 1))
def test_a_share_has_scipys_wilson_interval(count, share):
    hits = round(share * count)
    wanted = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits / count, count) == pytest.approx((wanted.low, wanted.high), abs=1e-4)  # SciPy's z has more digits
    mean, low, high = mean_share_interval([hits / count], [count], [1])
    assert (mean, low, high) == pytest.approx((hits / count, *wilson(hits / count, count)))


@given(COUNT, COUNT)
def test_a_perfect_detector_is_not_certain(n_real, n_fake):
    mean, low, high = balanced_interval([1, 1], [n_real, n_fake])
    missed = [Z**2 / (count + Z**2) for count in (n_real, n_fake)]
    assert mean == high == 1 and low == pytest.approx(1 - math.hypot(*missed) / 2)


@given(COUNT, COUNT, st.floats(0, 1))
def test_the_limits_of_an_area_are_as_far_from_it_as_their_own_deviation_says(n_real, n_fake, auc):
    low, high = auc_interval(auc, n_real, n_fake)
    assert 0 <= low <= auc <= high <= 1
    typical = (n_real + n_fake) / 2
    for limit in {low, high} - {0, 1, auc}:
        one, two = limit / (2 - limit), 2 * limit**2 / (1 + limit)
        terms = limit * (1 - limit) + (typical - 1) * (one + two - 2 * limit**2)  # Hanley and McNeil's, as they write it
        assert abs(limit - auc) == pytest.approx(Z * math.sqrt(terms / (n_real * n_fake)), abs=1e-5)
    assert auc_interval(1 - auc, n_fake, n_real) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_areas_at_the_ends_have_an_interval():
    low, high = auc_interval(1, 16, 16)
    assert high == 1 and 0.85 < low < 0.95
    assert auc_interval(0, 16, 16) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize(("n_real", "n_fake", "distance"), [(8, 8, 0), (16, 16, 3), (25, 200, 2)])
def test_intervals_hold_the_truth(n_real, n_fake, distance):
    """Of 500 draws 0.92 is three deviations below 0.95."""
    found = intervals.coverage(n_real, n_fake, distance, 500, np.random.default_rng(0))
    assert {name: holds for name, (holds, _) in found.items() if holds < 0.92} == {}
    assert all(found[name][0] < 0.99 for name in ("accuracy", "balanced_accuracy") if distance < 3)  # not by being endless


def test_benchmark_prints_its_table(monkeypatch, capsys):
    monkeypatch.setattr(intervals, "COUNTS", ((4, 5),))
    monkeypatch.setattr(intervals, "DISTANCES", (1, 3))
    rows = intervals.main(["--draws", "2"])
    assert list(rows) == ["4 + 5, 1 apart", "4 + 5, 3 apart"]
    assert "balanced_accuracy" in capsys.readouterr().out
