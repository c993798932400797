"""The knob, calibrated: which price of cost gives a mean cost, or a quality, on questions like these?

    agent, dev questions ──routes at every price──> curve ──> the price, or two in turn, that meet the target

The agent serves any price in the range that it was trained with; a user thinks in budgets or in quality. Both
are means over questions: a bound that every single request keeps is `max_cost`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from der_graph.errors import BudgetError
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource, check_recorded
from der_graph.policies.evaluation.statistics import Interval, bootstrap_interval
from der_graph.policies.planning import Planner
from der_graph.policies.training.mdp import run_routes
from der_graph.state import DERContext

_ALIKE = 1.02  # prices nearer to each other than by this factor are one
_REFINEMENTS = 5  # prices; each halves what is between


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
    agent: DERAgent | Planner,
    source: AnswerSource,
    rules: RouteRules,
    *,
    points: int = 16,
    on_point: Callable[[KnobPoint], None] | None = None,
) -> list[KnobPoint]:
    """Route all questions at prices spread over the agent's range.

    Args:
        agent: The agent, or the planner.
        source: Dev questions and answers.
        rules: What is allowed on a route.
        points: How many prices, evenly on a log scale.
        on_point: Called with each point as it is known.

    Raises:
        DataError: If an expert that replays answers lacks one.
    """
    check_recorded(source.experts, source.examples)
    low, high = _range_of(agent, rules.costs)
    prices = np.geomspace(low, high, points) if high > low else np.array([low])
    curve = []
    for price in prices.tolist():
        curve.append(measure_price(agent, source, rules, price))
        if on_point is not None:
            on_point(curve[-1])
    return curve


def _range_of(agent: DERAgent | Planner, costs: Sequence[float]) -> tuple[float, float]:
    """The prices that an agent knows; of the planner, which takes any, up to that of the cheapest alone.

    That is twice the price at which a right answer in place of a wrong one is not worth the next dearer
    expert, as in training (`policies/training/preflight.py`).
    """
    low, high = agent.cost_weight_range
    steps = [dear - cheap for cheap, dear in pairwise(sorted(set(costs)))]
    if isinstance(agent, DERAgent) or not steps:
        return low, high
    return low, max(high, 2.0 * sum(costs) / steps[0])


def measure_price(
    agent: DERAgent | Planner, source: AnswerSource, rules: RouteRules, price: float
) -> KnobPoint:
    """Route all questions at one price of cost."""
    episodes = run_routes(agent, source, rules, context=DERContext(cost_weight=price))
    return KnobPoint(
        price,
        bootstrap_interval([e.quality for e in episodes], seed=0),
        bootstrap_interval([e.cost for e in episodes], seed=0),
        float(np.mean([e.calls for e in episodes])),
    )


@dataclass(frozen=True)
class Tuned:
    """What meets a target: a price, or two prices in turn.

    Attributes:
        prices: Each price with its share of the questions; the shares sum to 1.
        quality: Mean quality on the dev questions.
        cost: Mean cost of a question, in the pool's unit.
        unused: What is left of the target cost where more of it would buy nothing; 0 for a target quality.
    """

    prices: tuple[tuple[float, float], ...]
    quality: float
    cost: float
    unused: float = 0.0


def refine(
    curve: Sequence[KnobPoint],
    measure: Callable[[float], KnobPoint],
    target_cost: float,
) -> list[KnobPoint]:
    """Measure up to five more prices between the two points that a target cost lies between.

    Args:
        curve: Points of `knob_curve`.
        measure: Measures a price.
        target_cost: Mean cost that is wanted.

    Returns:
        All points, by price.
    """
    points = sorted(curve, key=lambda point: point.cost_weight)
    for _ in range(_REFINEMENTS):
        at = next(
            (
                i
                for i, (one, two) in enumerate(pairwise(points))
                if one.cost.estimate > target_cost >= two.cost.estimate
            ),
            None,
        )
        if at is None:
            break
        low, high = points[at].cost_weight, points[at + 1].cost_weight
        if high / max(low, 1e-12) < _ALIKE:
            break
        points.insert(at + 1, measure(float(np.sqrt(low * high))))
    return points


def choose_prices(
    curve: Sequence[KnobPoint],
    *,
    target_cost: float | None = None,
    target_quality: float | None = None,
    is_trained: bool = True,
) -> Tuned:
    """The price, or the two prices in turn, that a target asks for.

    Between two points of the upper hull, asking at one price for some questions and at the other for the rest
    gives every cost and quality on the line between them.

    Args:
        curve: Points of `knob_curve`.
        target_cost: Mean cost not to exceed: the best quality within it is chosen.
        target_quality: Mean quality to reach: the cheapest way to it is chosen.
        is_trained: Was the agent trained? For what to do where a target is out of reach.

    Raises:
        BudgetError: If no point meets the target, or not exactly one target is given.
    """
    if (target_cost is None) == (target_quality is None):
        raise BudgetError("give either a target cost or a target quality")
    hull = upper_hull(curve)
    cheapest, best = hull[0], hull[-1]
    if target_cost is not None:
        if cheapest.cost.estimate > target_cost:
            less = (
                "train an agent with higher prices: der train --cost-weight-range LOW,HIGH"
                if is_trained
                else "add a cheaper expert to the pool file"
            )
            raise BudgetError(
                f"target cost {target_cost:g} is out of reach: at price {cheapest.cost_weight:g} this agent "
                f"still spends {cheapest.cost.estimate:.4g} a question, and nowhere less. Raise the target; "
                f"bound every request with --max-cost; or {less}"
            )
        unused = max(0.0, target_cost - best.cost.estimate)
        return _between(hull, target_cost, lambda point: point.cost.estimate, unused)
    wanted = target_quality or 0.0
    if best.quality.estimate < wanted:
        raise BudgetError(
            f"target quality {wanted:g} is out of reach: the best on these questions is "
            f"{best.quality.estimate:.3f}, at price {best.cost_weight:g} and cost "
            f"{best.cost.estimate:.4g}. Lower the target, or {better_expert(is_trained)}"
        )
    return _between(hull, wanted, lambda point: point.quality.estimate, 0.0)


def better_expert(is_trained: bool) -> str:
    """What to do for better answers: an agent that was trained has to learn of a new expert."""
    return "add a better expert " + ("with der pool add" if is_trained else "to the pool file")


def upper_hull(curve: Sequence[KnobPoint]) -> list[KnobPoint]:
    """The points that no other point, nor two others in turn, beat: from the cheapest to the best."""
    hull: list[KnobPoint] = []
    for point in sorted(curve, key=lambda p: (p.cost.estimate, -p.quality.estimate)):
        if hull and point.quality.estimate <= hull[-1].quality.estimate:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(one: KnobPoint, two: KnobPoint) -> float:
    gap = two.cost.estimate - one.cost.estimate
    return (two.quality.estimate - one.quality.estimate) / gap if gap > 0 else float("inf")


def _between(
    hull: Sequence[KnobPoint], wanted: float, at: Callable[[KnobPoint], float], unused: float
) -> Tuned:
    """The place on the hull where a figure is as wanted, or as near as it goes."""
    for one, two in pairwise(hull):
        if at(one) < wanted < at(two):
            share = (wanted - at(one)) / (at(two) - at(one))
            return Tuned(
                ((one.cost_weight, 1.0 - share), (two.cost_weight, share)),
                (1.0 - share) * one.quality.estimate + share * two.quality.estimate,
                (1.0 - share) * one.cost.estimate + share * two.cost.estimate,
            )
    # Exactly a point; or beyond the last, or before the first, of them.
    point = next((p for p in hull if at(p) >= wanted), hull[-1])
    return Tuned(((point.cost_weight, 1.0),), point.quality.estimate, point.cost.estimate, unused)
