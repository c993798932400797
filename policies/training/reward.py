"""What the agent is paid for each action: numbers in, numbers out.

    call of an expert:  level * P_t + gain * (P_t - P_{t-1}) - cost_weight * C_t / cost_scale
    end of the route:   + terminal_bonus if P >= good_enough,
                        - terminal_bonus if the longest route is reached with P < good_enough

Two presets fill in the weights. `paper` is Hu et al., arXiv 2412.07448, section 3.3, with the
values of the authors' code. It pays P at every step, so a longer route collects more. `default`
pays only the gains, from P = 0 before the first answer: they telescope to the quality of the final
answer minus the weighted cost of the route, which is what routing is for, and nothing is paid for
length. That holds without discounting, which routes of a few steps do not need, so the preset's
discount is 1.

Where END is an action, END itself is no call: it pays no quality, gain or cost. The terminal bonus
falls on the action that ends the route, END or the last call that the longest route allows. The
authors end the episode at the call that reaches p0, because their stop rule reads the reference
answer; here that bonus comes with the END that follows, one discount step later, and an END below
p0 gets neither bonus nor penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from der_graph.errors import DataError, MetricError


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the reward; the defaults are the preset `default`.

    Attributes:
        level: Pay for the quality P_t of every answer. Larger values favour longer routes.
        gain: Pay for the improvement P_t - P_{t-1} (the paper's beta).
        first_gain: Does the first answer gain over P = 0? In the paper it has no gain term.
        terminal_bonus: Paid or charged at the end of the route (the paper's gamma_T).
        good_enough: Quality that earns the bonus, in [0, 1] (the paper's p0).
        cost_scale: Cost, in the pool's unit, that is worth one unit of quality at a cost weight of
            1. Larger values make cost matter less. None: the cost of asking every expert once, so
            that a cost weight means the same for every pool; see `for_pool`.
        discount: Discount that the preset is meant to be trained with, in (0, 1].

    Raises:
        MetricError: If a weight is not finite or out of its range.
    """

    level: float = 0.0
    gain: float = 1.0
    first_gain: bool = True
    terminal_bonus: float = 0.0
    good_enough: float = 0.73
    cost_scale: float | None = None
    discount: float = 1.0

    def __post_init__(self) -> None:
        for name in ("level", "gain", "terminal_bonus", "good_enough", "cost_scale", "discount"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise MetricError(f"reward: {name} is {value}; it must be finite")
        if not 0 <= self.good_enough <= 1:
            raise MetricError(f"reward: good_enough is {self.good_enough}; it must be in [0, 1]")
        if self.cost_scale is not None and not self.cost_scale > 0:
            raise MetricError(f"reward: cost_scale is {self.cost_scale}; it must be above 0")
        if not 0 < self.discount <= 1:
            raise MetricError(f"reward: discount is {self.discount}; it must be in (0, 1]")

    def for_pool(self, costs: Sequence[float]) -> RewardConfig:
        """Fill in the cost scale of a pool, where none was chosen.

        Args:
            costs: Price of one call of each expert, in the pool's unit.
        """
        if self.cost_scale is not None:
            return self
        return replace(self, cost_scale=sum(costs) or 1.0)


PRESETS: dict[str, RewardConfig] = {
    "default": RewardConfig(),
    # Values of the authors' code: beta 5, gamma_T 2, p0 0.73 (BERTScore F1), 0.001 per billion.
    "paper": RewardConfig(
        level=1.0,
        gain=5.0,
        first_gain=False,
        terminal_bonus=2.0,
        good_enough=0.73,
        cost_scale=1000.0,
        discount=0.95,
    ),
}


def reward_config(preset: str = "default", **changes: Any) -> RewardConfig:
    """Take a preset and change some of its weights.

    Raises:
        MetricError: If the preset or a weight is unknown, or a value is out of range.

    Examples:
        >>> reward_config("paper", gain=1.0).gain
        1.0
    """
    if preset not in PRESETS:
        raise MetricError(f"reward '{preset}' is unknown; choose one of: {', '.join(PRESETS)}")
    allowed = [field.name for field in fields(RewardConfig)]
    unknown = [name for name in changes if name not in allowed]
    if unknown:
        raise MetricError(f"reward: '{unknown[0]}' is unknown; weights are: {', '.join(allowed)}")
    return replace(PRESETS[preset], **changes)


def step_reward(
    config: RewardConfig,
    *,
    quality: ArrayLike,
    previous_quality: ArrayLike,
    cost: ArrayLike,
    is_first: ArrayLike,
    ends: ArrayLike,
    reached_max_steps: ArrayLike,
    cost_weight: ArrayLike = 1.0,
) -> NDArray[np.float32]:
    """Reward of one action in each of n routes.

    Args:
        config: The weights.
        quality: (n,) quality P_t of the final answer if the route ended now, in [0, 1]. For END,
            that of the last answer.
        previous_quality: (n,) the same before the action; not read where `is_first`.
        cost: (n,) cost of the call, in the pool's unit, >= 0; not read for END.
        is_first: (n,) bool, the action is the first of its route.
        ends: (n,) bool, the action is END.
        reached_max_steps: (n,) bool, the action is the last call that the longest route allows.
        cost_weight: (n,) or one number, the price of cost, >= 0; the paper's is 1.

    Returns:
        (n,) float32 rewards.

    Raises:
        DataError: If a quality or a cost that is read is not finite.
        ValueError: If the shapes differ, or the cost scale is not filled in.
    """
    if config.cost_scale is None:
        raise ValueError("the reward has no cost scale yet; call for_pool with the experts' costs")
    now = np.asarray(quality, dtype=np.float64)
    first = _flags(is_first, now.shape)
    end = _flags(ends, now.shape)
    reached = _flags(reached_max_steps, now.shape)
    before = np.where(first, 0.0, _numbers(previous_quality, now.shape))
    price = np.broadcast_to(np.asarray(cost_weight, dtype=np.float64), now.shape)
    charge = np.where(end, 0.0, price * _numbers(cost, now.shape) / config.cost_scale)

    gained = np.where(first & (not config.first_gain), 0.0, now - before)
    paid = np.where(end, 0.0, config.level * now + config.gain * gained) - charge
    good = now >= config.good_enough
    paid += config.terminal_bonus * ((end | reached) & good)
    paid -= config.terminal_bonus * (reached & ~good)
    if not np.isfinite(paid).all():
        index = int(np.flatnonzero(~np.isfinite(paid))[0])
        raise DataError(
            f"the reward of route {index} is {paid[index]}: quality {now[index]}, before it "
            f"{before[index]}, weighted cost {charge[index]}; all must be finite numbers"
        )
    return paid.astype(np.float32)


def _numbers(given: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(given, dtype=np.float64)
    if array.shape != shape:  # broadcasting here is how a loss quietly becomes an [n, n] matrix
        raise ValueError(f"shape {array.shape} beside qualities of shape {shape}")
    return array


def _flags(given: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(given, dtype=np.bool_)
    if array.shape != shape:
        raise ValueError(f"shape {array.shape} beside qualities of shape {shape}")
    return array
