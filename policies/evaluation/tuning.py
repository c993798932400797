"""The knob, calibrated: which price of cost gives a mean cost, or a quality, on questions like these?

    agent, dev questions ──routes at every price──> curve ──> the best point within the target

The agent serves any price in the range that it was trained with; a user thinks in budgets or in quality. Both
are means over questions: a bound that every single request keeps is `max_cost`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from der_graph.errors import BudgetError
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource, check_recorded
from der_graph.policies.evaluation.statistics import Interval, bootstrap_interval
from der_graph.policies.training.mdp import run_routes
from der_graph.state import DERContext


@dataclass(frozen=True)
class KnobPoint:
    """What a price of cost gives on the dev questions.

    Attributes:
        cost_weight: The price.
        quality: Mean quality, with its 95 % interval.
        cost: Mean cost of a question, in the pool's unit, with its 95 % interval.
        calls: Mean number of calls.
    """

    cost_weight: float
    quality: Interval
    cost: Interval
    calls: float


def knob_curve(
    agent: DERAgent,
    source: AnswerSource,
    rules: RouteRules,
    *,
    points: int = 16,
    on_point: Callable[[KnobPoint], None] | None = None,
) -> list[KnobPoint]:
    """Route all questions at prices spread over the agent's range.

    Args:
        agent: The trained agent.
        source: Dev questions and answers.
        rules: What is allowed on a route.
        points: How many prices, evenly on a log scale.
        on_point: Called with each point as it is known.

    Raises:
        DataError: If an expert that replays answers lacks one.
    """
    check_recorded(source.experts, source.examples)
    low, high = agent.cost_weight_range
    prices = np.geomspace(low, high, points) if high > low else np.array([low])
    curve = []
    for price in prices.tolist():
        episodes = run_routes(agent, source, rules, context=DERContext(cost_weight=price))
        point = KnobPoint(
            price,
            bootstrap_interval([e.quality for e in episodes], seed=0),
            bootstrap_interval([e.cost for e in episodes], seed=0),
            float(np.mean([e.calls for e in episodes])),
        )
        curve.append(point)
        if on_point is not None:
            on_point(point)
    return curve


def choose_point(
    curve: list[KnobPoint],
    *,
    target_cost: float | None = None,
    target_quality: float | None = None,
) -> KnobPoint:
    """The point that a target asks for.

    Args:
        curve: Points of `knob_curve`.
        target_cost: Mean cost not to exceed: the best quality within it is chosen.
        target_quality: Mean quality to reach: the cheapest point with it is chosen.

    Raises:
        BudgetError: If no point meets the target, or not exactly one target is given.
    """
    if (target_cost is None) == (target_quality is None):
        raise BudgetError("give either a target cost or a target quality")
    if target_cost is not None:
        within = [point for point in curve if point.cost.estimate <= target_cost]
        if not within:
            cheapest = min(curve, key=lambda point: point.cost.estimate)
            raise BudgetError(
                f"target cost {target_cost:g} is out of reach: at its highest price "
                f"({cheapest.cost_weight:g}) this agent still spends {cheapest.cost.estimate:g} a question; "
                "raise the target, use max_cost, or train with higher prices"
            )
        # Of equal quality the cheaper: a flat curve should not cost more.
        return max(within, key=lambda point: (point.quality.estimate, -point.cost.estimate))
    good = [point for point in curve if point.quality.estimate >= (target_quality or 0.0)]
    if not good:
        best = max(curve, key=lambda point: point.quality.estimate)
        raise BudgetError(
            f"target quality {target_quality:g} is out of reach: the best on these questions is "
            f"{best.quality.estimate:.3f}, at price {best.cost_weight:g} and cost {best.cost.estimate:g}"
        )
    return min(good, key=lambda point: (point.cost.estimate, -point.quality.estimate))
