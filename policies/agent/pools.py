"""Agents that know a list of experts."""

from __future__ import annotations

from collections.abc import Sequence


class KnowsExperts:
    """Base of agents that know a list of experts.

    Args:
        experts: Names and prices of one call, in order.
    """

    def __init__(self, experts: Sequence[tuple[str, float]]) -> None:
        self.experts = [(name, float(cost)) for name, cost in experts]

    @property
    def names(self) -> list[str]:
        """The experts that the agent knows, in order."""
        return [name for name, _ in self.experts]
