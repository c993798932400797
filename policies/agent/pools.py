"""Which experts an agent knows, and whether a pool will do for it."""

from __future__ import annotations

from collections.abc import Sequence

from der_graph.errors import AgentPoolMismatchError


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


def check_known(known: Sequence[str], names: Sequence[str], cure: str) -> None:
    """Check that every expert of a pool is known; order and number do not matter.

    Args:
        known: The experts that the agent knows.
        names: Those of the pool.
        cure: What to do where one is not.

    Raises:
        AgentPoolMismatchError: If one is not, or the pool is empty.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise AgentPoolMismatchError(
            f"the agent does not know {_listed(unknown) or 'a pool without experts'}; it knows "
            f"{_listed(known)}. {cure}"
        )


def check_same(made: str, known: Sequence[str], names: Sequence[str], cure: str = "") -> None:
    """Check that a pool's experts are those that are known, in this order.

    Args:
        made: What was made for which experts, such as `the planner was made`.
        known: The experts that the agent knows.
        names: Those of the pool.
        cure: What to do where they are others.

    Raises:
        AgentPoolMismatchError: If they are others.
    """
    if list(names) != list(known):
        raise AgentPoolMismatchError(
            f"{made} for the experts {', '.join(known)}; the pool has "
            f"{', '.join(names) or 'none'}{'. ' * bool(cure)}{cure}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
