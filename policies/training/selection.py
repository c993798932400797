"""How good an agent is in one number: quality minus the price of its cost, averaged over prices.

The agent that is kept is the best one by this on the dev questions.
"""

from __future__ import annotations

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


def evaluate_utility(
    agent: RoutingAgent, source: AnswerSource, rules: RouteRules, config: TrainConfig
) -> Measured:
    """Let an agent answer all questions at some prices of its range."""
    observer = getattr(agent, "observer", None)
    total = max(getattr(observer, "total", None) or sum(rules.costs), 1e-12)
    low, high = config.cost_weight_range
    prices = sorted({config.cost_weight, low, float(np.sqrt(low * high)), high})
    utilities = []
    at_default = (0.0, 0.0, 0.0)
    for price in prices:
        episodes = run_routes(agent, source, rules, context=DERContext(cost_weight=price))
        quality = np.array([e.quality for e in episodes], dtype=np.float64)
        cost = np.array([e.cost for e in episodes], dtype=np.float64)
        utilities.append(quality - price * cost / total)
        if price == config.cost_weight:
            calls = float(np.mean([e.calls for e in episodes]))
            at_default = (float(quality.mean()), float(cost.mean()), calls)
    table = np.array(utilities)
    quality_mean, cost_mean, calls = at_default
    figures = {
        "dev/quality": quality_mean,
        "dev/cost": cost_mean,
        "dev/calls": calls,
        "dev/utility": float(table.mean()),
    }
    return Measured(figures, table)


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
