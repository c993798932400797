"""The reward: hand-worked tables, and the default's promise that only the end counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from der_graph.errors import DataError, MetricError
from der_graph.policies.training.reward import PRESETS, RewardConfig, reward_config, step_reward

CALL: dict[str, Any] = {
    "previous_quality": 0.0,
    "cost": 13.0,
    "is_first": False,
    "ends": False,
    "reached_max_steps": False,
}


def reward(config: RewardConfig, **row: Any) -> float:
    """The reward of one action."""
    arrays = {name: np.array([value]) for name, value in {**CALL, **row}.items()}
    return float(step_reward(config, **arrays)[0])


# P, P before, billions, first?, END?, T_max? -> r; beta 5, gamma_T 2, p0 0.73, 0.001 per billion.
PAPER = [
    # First call: 0.6 - 0.013.
    (0.60, 0.00, 13, True, False, False, 0.587),
    # The first call has no gain term, and a good answer earns no bonus before the route ends.
    (0.80, 0.00, 7, True, False, False, 0.793),
    # 0.7 - 0.012 + 5 (0.7 - 0.6) = 1.188
    (0.70, 0.60, 12, False, False, False, 1.188),
    # A worse answer: 0.5 - 0.012 + 5 (0.5 - 0.6) = -0.012
    (0.50, 0.60, 12, False, False, False, -0.012),
    # END on a good answer: the bonus alone. P = p0 is good.
    (0.73, 0.73, 0, False, True, False, 2.0),
    # END below p0: nothing.
    (0.72, 0.72, 0, False, True, False, 0.0),
    # The last call allowed, good: 0.8 - 0.016 + 5 (0.8 - 0.7) + 2 = 3.284
    (0.80, 0.70, 16, False, False, True, 3.284),
    # The last call allowed, not good: 0.6 - 0.016 + 5 (0.6 - 0.7) - 2 = -1.916
    (0.60, 0.70, 16, False, False, True, -1.916),
    # T_max = 1: the first call is the last. 0.6 - 0.011 - 2 = -1.411
    (0.60, 0.00, 11, True, False, True, -1.411),
]


@pytest.mark.parametrize(("now", "before", "cost", "first", "end", "last", "expected"), PAPER)
def test_paper_by_hand(
    now: float, before: float, cost: float, first: bool, end: bool, last: bool, expected: float
) -> None:
    found = reward(
        PRESETS["paper"],
        quality=now,
        previous_quality=before,
        cost=cost,
        is_first=first,
        ends=end,
        reached_max_steps=last,
    )
    assert found == pytest.approx(expected, abs=1e-6)


def test_default_by_hand() -> None:
    config = reward_config("default", cost_scale=20.0)
    assert reward(config, quality=0.6, is_first=True) == pytest.approx(0.6 - 13 / 20)
    # What stood before the first answer is not read.
    assert reward(
        config, quality=0.6, previous_quality=9.0, is_first=True, cost=0
    ) == pytest.approx(0.6)
    assert reward(config, quality=0.5, previous_quality=0.6, cost_weight=2.0) == pytest.approx(-1.4)
    assert reward(config, quality=0.5, previous_quality=0.5, ends=True) == 0.0
    last = reward(config, quality=0.5, previous_quality=0.6, reached_max_steps=True, cost=0)
    assert last == pytest.approx(-0.1)


@given(
    route=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100)), min_size=1, max_size=6),
    cost_weight=st.floats(0, 3),
    ends=st.booleans(),
)
def test_default_adds_up_to_final_quality_minus_cost(
    route: list[tuple[float, float]], cost_weight: float, ends: bool
) -> None:
    quality, cost = (np.array(column) for column in zip(*route, strict=True))
    if ends:  # the route stops by END instead of by its length
        quality, cost = np.append(quality, quality[-1]), np.append(cost, 5.0)
    steps = np.arange(len(quality))
    rewards = step_reward(
        RewardConfig(cost_scale=50.0),
        quality=quality,
        previous_quality=np.concatenate([[0.9], quality[:-1]]),
        cost=cost,
        is_first=steps == 0,
        ends=(steps == len(route)),
        reached_max_steps=(steps == len(route) - 1) & (not ends),
        cost_weight=cost_weight,
    )
    final, spent = route[-1][0], sum(call[1] for call in route)
    assert rewards.sum() == pytest.approx(final - cost_weight * spent / 50, abs=1e-4)


def test_is_vectorised_and_float32() -> None:
    columns = [np.array(column) for column in list(zip(*PAPER, strict=True))]
    now, before, cost, first, end, last, expected = columns
    rewards = step_reward(
        PRESETS["paper"],
        quality=now,
        previous_quality=before,
        cost=cost,
        is_first=first,
        ends=end,
        reached_max_steps=last,
        cost_weight=np.ones(len(now)),
    )
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, expected, atol=1e-6)


def test_refuses_what_is_no_number() -> None:
    with pytest.raises(DataError, match="route 0 is nan: quality nan"):
        reward(PRESETS["paper"], quality=float("nan"))
    with pytest.raises(DataError, match="route 0"):
        reward(PRESETS["paper"], quality=0.5, cost=float("inf"))


def test_the_default_cost_scale_is_that_of_asking_everyone() -> None:
    config = PRESETS["default"].for_pool([10.0, 16.0])
    assert config.cost_scale == 26.0
    assert reward(config, quality=0.5) == pytest.approx(0.0)  # 0.5 - 13/26
    assert PRESETS["paper"].for_pool([10.0]) == PRESETS["paper"]
    assert PRESETS["default"].for_pool([0.0, 0.0]).cost_scale == 1.0  # a pool that costs nothing
    with pytest.raises(ValueError, match="call for_pool"):
        reward(PRESETS["default"], quality=0.5)


def test_refuses_arrays_that_would_broadcast() -> None:
    arrays = {name: np.array([value, value]) for name, value in CALL.items()}
    with pytest.raises(ValueError, match="shape"):
        step_reward(PRESETS["paper"], quality=np.zeros((2, 1)), **arrays)
    with pytest.raises(ValueError, match="shape"):
        step_reward(PRESETS["paper"], quality=np.zeros(1), **arrays)


def test_weights_are_checked() -> None:
    assert reward_config("paper", gain=1.0) == RewardConfig(
        1.0, 1.0, False, 2.0, 0.73, 1000.0, 0.95
    )
    with pytest.raises(MetricError, match="choose one of: default, paper"):
        reward_config("papers")
    with pytest.raises(MetricError, match="'beta' is unknown; weights are: level, gain"):
        reward_config("paper", beta=1.0)
    for changes in (
        {"cost_scale": 0.0},
        {"good_enough": 1.5},
        {"discount": 0.0},
        {"discount": 1.5},
        {"gain": float("nan")},
    ):
        with pytest.raises(MetricError, match=next(iter(changes))):
            reward_config("default", **changes)
