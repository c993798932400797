"""Experts that joined an agent after training whose network has an output for each expert of training.

    situation ──network──> what the experts of training promise ─┐
              ──belief───> what a newcomer would bring ──────────┴──> the better one

The network knows its own pool and nobody else, but its critic says what the route is worth with that pool. A
newcomer, known by its results on probe questions, is asked where its probability of being right, less its
charge, is more than that. Once it has answered, the network has no input for what it said: from there on
the next step with the best expectation is taken, over all experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from der_graph.nodes.decision import Choice
from der_graph.nodes.reliability.charge import Charge
from der_graph.policies.agent import DERAgent
from der_graph.policies.observation import Observer
from der_graph.state import Situation


class WithNewcomers(DERAgent):
    """An agent over the experts that its network was trained with, and some more at the end of the pool.

    Args:
        agent: Its weights; those experts come first in `observer`.
        observer: Over all experts.
    """

    def __init__(self, agent: DERAgent, observer: Observer) -> None:
        super().__init__(observer, agent.network, **agent.settings)
        known = agent.network.shape.experts
        self._own = agent.over(
            observer.for_pool(observer.names[:known], observer.costs[:known].tolist())
        )
        self._scale = self._own.observer.total / max(observer.total, 1e-12)

    def for_pool(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        *,
        charges: Sequence[Charge] = (),
        unit: str = "",
    ) -> DERAgent:
        """See `DERAgent.for_pool`; without its newcomers it is the agent of its training again."""
        known = self.network.shape.experts
        if any(name in self.observer.names[known:] for name in names):
            costs = self.observer.expected_costs(names, costs, charges)
            missing = [name for name in self.observer.names[:known] if name not in names]
            if missing or list(names[:known]) != self.observer.names[:known]:
                from der_graph.policies.agent.agent import PartOfPool

                return PartOfPool(self, names, costs)
            return self.over(self.observer.for_pool(names, costs))
        return self._own.for_pool(names, costs, charges=charges, unit=unit)

    def over(self, observer: Observer) -> DERAgent:
        """The same weights over another observer; of the experts of training, none may be missing."""
        return WithNewcomers(self._own, observer)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """See `DERAgent.decide`."""
        prices = self._prices(situations)
        right_now, worth = self.observer.believe(situations, prices)
        choices = []
        for row, situation in enumerate(situations):
            expected = np.where(situation.mask[:-1], worth[row], -np.inf)
            choices.append(self._choose(situation, prices[row], float(right_now[row]), expected))
        return choices

    def _choose(
        self,
        situation: Situation,
        price: float,
        right_now: float,
        expected: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
    ) -> Choice:
        known = self.network.shape.experts
        new = set(self.observer.names[known:])
        best = int(expected.argmax())
        may_end = situation.mask[-1]
        if any(answer["expert"] in new for answer in situation.answers):
            ends = may_end and right_now >= expected[best]
            return self._certain(
                len(expected) if ends else best, max(right_now, expected[best]), price
            )
        mask = [*situation.mask[:known], may_end]
        newcomer = known + int(expected[known:].argmax())
        if not any(mask):
            return self._certain(newcomer, float(expected[newcomer]), price)
        # The same charge in the smaller pool: shares of it are larger, so its price of cost is smaller.
        seen = replace(situation, mask=mask, cost_weight=price * self._scale)
        [own] = self._own.decide([seen])
        if situation.mask[newcomer] and expected[newcomer] > own.value:
            return self._certain(newcomer, float(expected[newcomer]), price)
        index = len(expected) if own.index == known else own.index
        spread = [0.0] * (len(expected) + 1)
        spread[:known], spread[-1] = own.probabilities[:known], own.probabilities[-1]
        return replace(own, index=index, probabilities=spread, cost_weight=price)

    def _certain(self, index: int, value: float, price: float) -> Choice:
        chances = [float(i == index) for i in range(len(self.observer.names) + 1)]
        return Choice(index, chances, value, price)
