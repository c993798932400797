"""Decisions that are wanted at the same time, in one batch.

    route 1 ──decide([a])──┐
    route 2 ──decide([b])──┴─ RequestQueue ──> agent.decide([a, b])

For agents that are one small network: a batch costs little more than one decision.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from der_graph.nodes.batching import RequestQueue
from der_graph.nodes.decision import Choice, RoutingAgent
from der_graph.state import Situation

_AT_MOST = 64  # situations in one batch


class _Wanted(NamedTuple):
    situation: Situation
    cancel: threading.Event | None = None


class BatchedAgent:
    """An agent that many routes ask at once; otherwise the agent that it is made of.

    Args:
        agent: Its `decide` must depend on the situations alone, as it runs in a thread of its own.
    """

    decides_at_once = False  # it waits for a batch

    def __init__(self, agent: RoutingAgent) -> None:
        self._agent = agent
        self._queue = RequestQueue(quiet=0.0)  # a decision alone is quicker than the wait

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not set yet, while being copied
            raise AttributeError(name)
        return getattr(self._agent, name)

    def check_pool(self, names: Sequence[str]) -> None:
        """As the agent's own."""
        self._agent.check_pool(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, together with those of other callers."""
        futures = [
            self._queue.join(_Wanted(situation), self._decide_all, _AT_MOST)
            for situation in situations
        ]
        return [future.result() for future in futures]

    def _decide_all(self, wanted: Sequence[_Wanted], _: None) -> list[Choice]:
        return self._agent.decide([each.situation for each in wanted])
