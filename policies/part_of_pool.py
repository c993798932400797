"""An agent with a fixed head over a part of its pool: what is missing is masked, and the order translated.

mask of the pool at hand ──> mask of the whole pool ──agent──> choice ──> index in the pool at hand
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from der_graph.nodes.hub import Choice
from der_graph.policies.agent import DERAgent
from der_graph.state import Situation


class PartOfPool(DERAgent):
    """A trained agent over some of the experts that it was trained with, in any order.

    Prices are those of training. Saved, it is the whole agent again.

    Args:
        agent: The agent, over its whole pool.
        names: The experts at hand.
    """

    def __init__(self, agent: DERAgent, names: Sequence[str]) -> None:
        super().__init__(
            agent.observer,
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
