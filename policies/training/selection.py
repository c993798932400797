"""How good an agent is in one number: quality minus the price of its cost, averaged over prices.

The agent that is kept is the best one by this on the dev questions. Knows nothing of training.
"""

from __future__ import annotations

import numpy as np

from der_graph.nodes.hub import RoutingAgent
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.mdp import run_routes
from der_graph.state import DERContext


def evaluate_utility(
    agent: RoutingAgent, source: AnswerSource, rules: RouteRules, config: TrainConfig
) -> dict[str, float]:
    """Quality, cost and calls at the default price; utility averaged over the range of prices.

    Utility is quality minus price times cost, with the cost of asking everyone as the unit.
    """
    total = max(sum(rules.costs), 1e-12)
    low, high = config.cost_weight_range
    prices = sorted({config.cost_weight, low, float(np.sqrt(low * high)), high})
    utilities = []
    at_default = (0.0, 0.0, 0.0)
    for price in prices:
        episodes = run_routes(agent, source, rules, context=DERContext(cost_weight=price))
        quality = float(np.mean([e.quality for e in episodes]))
        cost = float(np.mean([e.cost for e in episodes]))
        utilities.append(quality - price * cost / total)
        if price == config.cost_weight:
            at_default = (quality, cost, float(np.mean([e.calls for e in episodes])))
    quality, cost, calls = at_default
    return {
        "dev/quality": quality,
        "dev/cost": cost,
        "dev/calls": calls,
        "dev/utility": float(np.mean(utilities)),
    }
