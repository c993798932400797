"""Statistics: values known from elsewhere, and what must hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from der_graph.policies.evaluation.statistics import (
    bootstrap_interval,
    mcnemar_p,
    paired_difference,
    permutation_p,
    wilson_interval,
)


def test_bootstrap_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(1).random(1000) < 0.7
    mean, low, high = bootstrap_interval(values)
    half = 1.96 * np.sqrt(mean * (1 - mean) / 1000)
    assert mean == values.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.003)


def test_bootstrap_is_seeded() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval([0.25] * 7) == (0.25, 0.25, 0.25)


@given(st.integers(1, 500), st.data())
def test_wilson_contains_the_share(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    share, low, high = wilson_interval(successes, trials)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_wilson_ends_solve_its_equation() -> None:
    # An end is a p from which the share seen lies z standard errors away: |7/10 - p| = z sqrt(pq/10).
    share, low, high = wilson_interval(7, 10)
    for p in (low, high):
        assert abs(share - p) == pytest.approx(1.959964 * (p * (1 - p) / 10) ** 0.5, rel=1e-6)
    # Without a success the equation gives 0 and z^2 / (n + z^2).
    z2 = 1.959964**2
    assert wilson_interval(0, 10)[1:] == pytest.approx((0.0, z2 / (10 + z2)), abs=1e-6)


def test_paired_difference() -> None:
    first = np.array([1.0, 1, 1, 0, 1, 1, 0, 1] * 30)
    mean, low, high = paired_difference(first, np.zeros(240))
    assert mean == pytest.approx(0.75)
    assert 0.69 < low < 0.75 < high < 0.81
    # What both have in common cancels, whatever its spread.
    common = np.random.default_rng(0).normal(0, 100, 240)
    assert paired_difference(first + common, common)[1:] == pytest.approx((low, high), abs=1e-9)


def test_permutation_known_values() -> None:
    # All six differences on one side: 2 of 2^6 sign patterns are as extreme.
    assert permutation_p([1, 2, 3, 4, 5, 6], [0] * 6) == pytest.approx(2 / 64)
    # 1 - 2 + 3 = 2: of the 8 patterns, only |6|, |4| and |2| are as extreme or more: 2 + 2 + 2, and
    # 1 + 2 - 3 = 0 twice is not.
    assert permutation_p([1, 0, 3], [0, 2, 0]) == pytest.approx(6 / 8)
    assert permutation_p([1, 0], [1, 0]) == 1.0


def test_permutation_by_drawing_agrees_with_counting() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(12), rng.random(12)
    counted = permutation_p(first, second)
    drawn = permutation_p(first, second, resamples=4000)
    assert drawn == pytest.approx(counted, abs=0.03)
    assert permutation_p(np.ones(50), np.zeros(50), resamples=999) == pytest.approx(1 / 1000)


def test_mcnemar_known_values() -> None:
    # 1 against 9 discordant questions: 2 (C(10,0) + C(10,1)) / 2^10 = 22 / 1024.
    first = [1] * 9 + [0] * 1 + [1] * 5 + [0] * 5
    second = [0] * 9 + [1] * 1 + [1] * 5 + [0] * 5
    assert mcnemar_p(first, second) == pytest.approx(22 / 1024)
    assert mcnemar_p(second, first) == mcnemar_p(first, second)
    assert mcnemar_p([1, 0], [0, 1]) == 1.0
    assert mcnemar_p([1, 0], [1, 0]) == 1.0
    # More differences than floating point can raise 2 to.
    assert 0 < mcnemar_p([1] * 1200 + [0] * 1000, [0] * 1200 + [1] * 1000) < 1e-4


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([1.0, float("nan")])
    with pytest.raises(ValueError, match="different number: 1 and 2"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="3 successes in 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="McNemar"):
        mcnemar_p([0.5], [1])
