"""Paired comparisons, worked out by hand; also at equal cost."""

from __future__ import annotations

import numpy as np
import pytest

from der_graph.policies.evaluation.statistics import Scores, at_equal_cost, compare, pareto_front


def scores(quality: list[float], cost: float) -> Scores:
    return Scores(np.array(quality), np.full(len(quality), cost))


def test_differences_wins_and_p_values() -> None:
    der = scores([1, 1, 1, 1, 1, 1, 0, 0], 2.0)
    weak = scores([0, 0, 0, 0, 0, 1, 1, 0], 3.0)
    same = scores([1, 1, 1, 1, 1, 1, 0, 0], 1.0)
    against_weak, against_same = compare(der, {"weak": weak, "same": same}, {"der": der})
    assert against_weak.difference.estimate == pytest.approx(4 / 8)
    assert (against_weak.better, against_weak.worse) == (5, 1)
    # Six questions differ, five for DER: two-sided, 2 (C(6,0) + C(6,1)) / 2^6 by both tests.
    assert against_weak.mcnemar_p == pytest.approx(14 / 64)
    assert against_weak.p == pytest.approx(14 / 64)
    assert against_weak.p_holm == pytest.approx(28 / 64)
    assert against_weak.cost_difference.estimate == -1.0
    assert against_same.p == against_same.p_holm == against_same.mcnemar_p == 1.0


def test_mcnemar_is_for_right_and_wrong_only() -> None:
    (found,) = compare(scores([0.5, 1.0], 1.0), {"x": scores([0.25, 1.0], 1.0)}, {})
    assert found.mcnemar_p is None
    assert found.equal_cost is None  # no curve at all


def test_equal_cost_is_between_the_two_nearest_points() -> None:
    curve = {
        "der@2": scores([0, 0, 0, 1], 1.0),
        "der": scores([1, 1, 0, 1], 5.0),
        "der@0.1": scores([1, 1, 1, 1], 9.0),
    }
    found = at_equal_cost(curve, scores([0, 1, 0, 0], 4.0))
    assert found is not None
    assert (found.lower, found.upper) == ("der@2", "der")
    # Three quarters of the way from 1 to 5: qualities 0.75, 0.75, 0, 1.
    assert found.quality == pytest.approx(2.5 / 4)
    assert found.difference.estimate == pytest.approx(1.5 / 4)
    assert at_equal_cost(curve, scores([0, 1, 0, 0], 0.5)) is None
    assert at_equal_cost(curve, scores([0, 1, 0, 0], 9.5)) is None
    ends = at_equal_cost(curve, scores([0, 1, 0, 0], 9.0))
    assert ends is not None
    assert ends.quality == 1.0
    first = at_equal_cost(curve, scores([0, 1, 0, 0], 1.0))
    assert first is not None
    assert first.quality == 0.25


def test_points_of_the_same_cost_do_not_divide_by_zero() -> None:
    curve = {"a": scores([1, 0], 1.0), "b": scores([1, 1], 1.0)}
    found = at_equal_cost(curve, scores([0, 0], 1.0))
    assert found is not None
    assert found.quality in (0.5, 1.0)


def test_pareto_front() -> None:
    points = [(3.0, 0.5), (1.0, 0.2), (2.0, 0.6), (2.0, 0.4), (4.0, 0.6), (5.0, 0.9)]
    assert pareto_front(points) == [1, 2, 5]
    assert pareto_front([]) == []
