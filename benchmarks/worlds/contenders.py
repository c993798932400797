"""Who competes with DER in a world, each fitted on the training questions that DER has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from der_graph.nodes.hub import RoutingAgent
from der_graph.policies.baselines import FixedOrder, Single
from der_graph.policies.cascades import BestCascades
from der_graph.policies.encoder import TextEncoder
from der_graph.policies.routers import PREDICTORS, OneShotRouter

from .adapter import judges, source
from .orders import best_orders
from .world import Question, World


class Contender(NamedTuple):
    """A method to compare with.

    Attributes:
        name: For the table.
        agent: Gives the agent for a price.
        alone: Do its experts answer without seeing each other's answers?
    """

    name: str
    agent: Callable[[float], RoutingAgent]
    alone: bool = False


def contenders(
    world: World, questions: Sequence[Question], prices: Sequence[float], encoder: TextEncoder
) -> list[Contender]:
    """Fit every baseline.

    Args:
        world: Where it competes.
        questions: The training questions.
        prices: Of cost, at which it will be asked.
        encoder: For those that read the question.
    """
    names, costs = list(world.names), list(world.costs.values())
    first = source(world, questions, judges(world)[0]).first_answers()
    qualities = [[outcome.quality for outcome in row] for row in first]
    values = [[outcome.answer["value"] for outcome in row] for row in first]
    texts = [question.text for question in questions]
    orders = dict(zip(prices, best_orders(world, questions, prices), strict=True))
    singles = [Contender(f"single:{name}", _always(Single(names, costs, name))) for name in names]
    routers = [
        Contender(
            f"router:{kind}",
            _always(OneShotRouter(names, costs, encoder, PREDICTORS[kind]()).fit(texts, qualities)),
        )
        for kind in ("knn", "logistic")
    ]
    cascades = BestCascades(names, costs, encoder).fit(texts, qualities, values)
    return [
        *singles,
        Contender("fixed order", lambda price: FixedOrder(names, costs, orders[price])),
        Contender("cascade:best", _always(cascades), alone=True),
        *routers,
    ]


def _always(agent: RoutingAgent) -> Callable[[float], RoutingAgent]:
    return lambda price: agent
