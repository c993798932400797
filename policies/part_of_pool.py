"""An agent with a fixed head over another pool: experts left out, another order, other prices.

mask of the pool at hand ──> mask of the whole pool ──agent──> choice ──> index in the pool at hand

Such a head has an output for every expert, so what is missing is masked and the order translated. Prices are
among its inputs and follow the pool, as budgets and masks do; but in training they never changed, so it has
not learnt what another price means.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from der_graph.nodes.hub import Choice
from der_graph.policies.agent import DERAgent
from der_graph.policies.observation import Observer
from der_graph.state import Situation

_ALIKE = 1e-3
"""Shares of the whole cost that differ by less are rounding."""


def warn_of_prices(names: Sequence[str], learnt: Sequence[float], now: Sequence[float]) -> None:
    """Warn where a pool's prices are not in the proportions that an agent learnt with.

    Another unit for all of them changes nothing: agents see shares.

    Args:
        names: The experts at hand.
        learnt: Price of one call of each in training.
        now: The pool's.
    """
    before, after = (np.asarray(costs) / max(sum(costs), 1e-12) for costs in (learnt, now))
    if np.allclose(before, after, rtol=0.0, atol=_ALIKE):
        return
    changes = [abs(new - old) / max(new, old, 1e-12) for old, new in zip(learnt, now, strict=True)]
    moved = changes.index(max(changes))
    warnings.warn(
        f"the agent was trained with '{names[moved]}' at {learnt[moved]:g}, the pool says "
        f"{now[moved]:g}: budgets and masks use the pool's prices, but whom to ask was learnt with the "
        "others. Train it anew; without --no-any-pool, prices may change",
        stacklevel=4,  # who adapts the agent: create_der_graph, a command
    )


class PartOfPool(DERAgent):
    """A trained agent over some of the experts that it was trained with, in any order.

    Saved, it is the whole agent again.

    Args:
        agent: The agent, over its whole pool.
        names: The experts at hand.
        costs: Price of one call of each.
    """

    def __init__(self, agent: DERAgent, names: Sequence[str], costs: Sequence[float]) -> None:
        super().__init__(
            _at_prices(agent.observer, names, costs),
            agent.network,
            cost_weight=agent.cost_weight,
            cost_weight_range=agent.cost_weight_range,
            metadata=agent.metadata,
        )
        known = agent.observer.names
        self._names = list(names)
        self._at = [*(known.index(name) for name in names), len(known)]  # END last

    @property
    def names(self) -> list[str]:
        """The experts at hand."""
        return self._names

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """See `DERAgent.decide`."""
        whole = []
        for situation in situations:
            mask = [False] * (len(self.observer.names) + 1)
            for position, allowed in zip(self._at, situation.mask, strict=True):
                mask[position] = allowed
            whole.append(replace(situation, mask=mask))
        return [
            Choice(
                self._at.index(choice.index),
                [choice.probabilities[position] for position in self._at],
                choice.value,
                choice.cost_weight,
            )
            for choice in super().decide(whole)
        ]


def _at_prices(observer: Observer, names: Sequence[str], costs: Sequence[float]) -> Observer:
    """The observer of the whole pool at the prices of a part of it; the others' move along."""
    at = [observer.names.index(name) for name in names]
    if np.allclose(costs, observer.costs[at]):
        return observer
    scale = sum(costs) / max(float(observer.costs[at].sum()), 1e-12)
    whole = observer.costs * scale
    whole[at] = costs
    return observer.for_pool(observer.names, whole.tolist())
