"""Where a simple policy does better than the trained agent, it takes over, and the run says so.

    agent, router, best fixed orders ──at some prices, on dev──> a Takeover for what is clearly better

The orders are chosen on the training questions, over the routes that were tried there; the dev questions
only compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.takeover import Takeover
from der_graph.policies.answers import AnswerSource
from der_graph.policies.training.mdp import run_routes
from der_graph.policies.training.routes.tree import RouteTree
from der_graph.state import DERContext

PRICES = 5
"""Prices compared, log-evenly over the range of training."""
_ERRORS = 2.0  # standard errors by which a policy must be better


class Compared(NamedTuple):
    """The comparison.

    Attributes:
        takeovers: Policies that were clearly better, with their prices.
        lines: What to tell people.
    """

    takeovers: list[Takeover]
    lines: list[str]


def compare_with_simple(
    agent: DERAgent, tree: RouteTree, dev: AnswerSource, rules: RouteRules
) -> Compared:
    """Compare an agent with simple policies at the prices of its range.

    Args:
        agent: The agent, without takeovers.
        tree: Routes of the training questions.
        dev: The dev questions.
        rules: What is allowed on a route.
    """
    low, high = agent.cost_weight_range
    prices = np.geomspace(low, high, PRICES).tolist() if low < high else [low]
    between = [float(np.sqrt(a * b)) for a, b in pairwise(prices)]
    bands = zip([low, *between], [*between, high], strict=True)
    total = max(agent.observer.total, 1e-12)
    found: list[Takeover] = []
    best_gain, lines = -np.inf, []
    orders = best_orders(tree, prices, total)
    for price, (first, last), (order, until_agreed) in zip(prices, bands, orders, strict=True):
        own = _utility(agent, dev, rules, price, total)
        names = tuple(rules.names[i] for i in order)
        gains: list[tuple[float, float, Takeover]] = []
        for policy in (Takeover(first, last), Takeover(first, last, names, until_agreed)):
            simple = DERAgent(
                agent.observer, agent.network, **{**agent.settings, "takeovers": [policy]}
            )
            gain = _utility(simple, dev, rules, price, total) - own
            gains.append((float(gain.mean()), float(gain.std() / np.sqrt(len(gain))), policy))
        mean, error, policy = max(gains, key=lambda each: each[0])
        best_gain = max(best_gain, mean)
        if mean > max(_ERRORS * error, 0.0):
            found.append(policy)
            lines.append(
                f"at prices from {first:.2g} to {last:.2g} {policy} did better on dev by {mean:.3f} "
                f"± {error:.3f} and takes over"
            )
    if not found:
        lines.append(
            "on dev no router and no fixed order was clearly better at any price "
            f"(the nearest: {best_gain:+.3f})"
        )
    return Compared(found, lines)


def best_orders(
    tree: RouteTree, prices: Sequence[float], total: float
) -> list[tuple[tuple[int, ...], bool]]:
    """For each price, the order that was worth most on the training questions; does it stop at agreement?

    Args:
        tree: Routes and outcomes.
        prices: Of cost.
        total: Cost that is worth one unit of quality at a price of 1.
    """
    worth = np.full(len(prices), -np.inf)
    found: list[tuple[tuple[int, ...], bool]] = [((), False)] * len(prices)
    charged = np.asarray(prices) / total
    rows = np.arange(len(tree.quality))
    for position, route in enumerate(tree.routes[1:], start=1):
        along = tree.along[position]
        quality = tree.quality[:, along]
        paid = np.cumsum(tree.cost[:, along], axis=1)
        value = tree.value[:, along]
        agreed = np.array(
            [(value[:, [k]] == value[:, :k]).any(axis=1) for k in range(len(along))]
        ).T
        agreed[:, -1] = True
        stops = agreed.argmax(axis=1)
        ends = [(quality[:, -1], paid[:, -1], False)]
        if len(along) > 1:
            ends.append((quality[rows, stops], paid[rows, stops], True))
        for reached, spent, until_agreed in ends:
            mean = float(reached.mean()) - charged * float(spent.mean())
            for k in np.flatnonzero(mean > worth + 1e-9).tolist():
                worth[k], found[k] = mean[k], (route, until_agreed)
    return found


def _utility(
    agent: RoutingAgent, dev: AnswerSource, rules: RouteRules, price: float, total: float
) -> npt.NDArray[np.float64]:
    """(questions,) quality less the price of cost."""
    episodes = run_routes(agent, dev, rules, context=DERContext(cost_weight=price))
    return np.array([e.quality - price * e.cost / total for e in episodes], dtype=np.float64)
