"""How good an agent is in one number: quality minus the price of its cost, averaged over prices.

The agent that is kept is the best one by this on the dev questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.mdp import run_routes
from der_graph.state import DERContext


class Measured(NamedTuple):
    """How an agent does on some questions.

    Attributes:
        figures: Quality, cost and calls at the default price; utility averaged over the range of prices.
        utility: (prices, questions) quality minus price times cost, in units of asking everyone.
    """

    figures: dict[str, float]
    utility: npt.NDArray[np.float64]


class PricedRoutes(NamedTuple):
    """What routes come to at some prices; arrays of shape (prices, questions).

    Attributes:
        quality: Of the answer at the end.
        cost: Of all calls, in the pool's unit.
        calls: How many.
    """

    quality: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]
    calls: npt.NDArray[np.float64]


def routes_at_prices(
    agents: Sequence[RoutingAgent],
    source: AnswerSource,
    rules: RouteRules,
    prices: Sequence[float],
    examples: Sequence[int] | None = None,
) -> list[PricedRoutes]:
    """Let agents answer questions at some prices, all together, so that slow experts are waited for once.

    Args:
        agents: The agents; they ask the same experts alone.
        source: The questions.
        rules: What is allowed on a route.
        prices: Prices of cost, as agents are told them.
        examples: Positions of the questions; all if left out.

    Returns:
        What became of each agent's routes.
    """
    rows = range(len(source.examples)) if examples is None else examples
    # All routes of a question side by side: in one batch what is asked twice is asked once.
    at = [
        (row, DERContext(cost_weight=price), agent)
        for row in rows
        for price in prices
        for agent in agents
    ]
    episodes = run_routes(
        [agent for _, _, agent in at],
        source,
        rules,
        examples=[row for row, _, _ in at],
        context=[context for _, context, _ in at],
    )
    table = np.array([(e.quality, e.cost, e.calls) for e in episodes], dtype=np.float64)
    found = table.reshape(len(rows), len(prices), len(agents), 3).transpose(2, 3, 1, 0)
    return [PricedRoutes(*each) for each in found]


def evaluate_utility(
    agent: RoutingAgent, source: AnswerSource, rules: RouteRules, config: TrainConfig
) -> Measured:
    """Let an agent answer all questions at some prices of its range."""
    observer = getattr(agent, "observer", None)
    total = max(getattr(observer, "total", None) or sum(rules.costs), 1e-12)
    low, high = config.cost_weight_range
    prices = sorted({config.cost_weight, low, float(np.sqrt(low * high)), high})
    (routes,) = routes_at_prices([agent], source, rules, prices)
    utility = routes.quality - np.array(prices)[:, None] * routes.cost / total
    usual = prices.index(config.cost_weight)
    figures = {
        "dev/quality": float(routes.quality[usual].mean()),
        "dev/cost": float(routes.cost[usual].mean()),
        "dev/calls": float(routes.calls[usual].mean()),
        "dev/utility": float(utility.mean()),
    }
    return Measured(figures, utility)


def clearly_better(new: npt.NDArray[np.float64], old: npt.NDArray[np.float64]) -> bool:
    """Is one agent better than another by more than chance, and at no price worse?

    Compared question by question: better by two standard errors on the mean of the prices, as it is tried
    many times, and at every price not worse by one.

    Args:
        new: (prices, questions) its utilities.
        old: The other's, on the same questions.
    """
    gains = new - old
    means, questions = gains.mean(axis=1), gains.shape[1]
    errors = gains.std(axis=1) / np.sqrt(questions)
    overall = gains.mean(axis=0)
    error = overall.std() / np.sqrt(questions)
    return bool(overall.mean() > 2 * error and (means >= -errors).all())
