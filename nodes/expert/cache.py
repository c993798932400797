"""Answers of experts in LangGraph's node cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.types import CachePolicy

from der_graph.nodes.expert.expert import Expert
from der_graph.state import Answer, Task

# LangGraph's own, which finds no task twice: they hold times.
_BY_TASK: Any = CachePolicy().key_func


@dataclass(frozen=True)
class NodeCache:
    """LangGraph's node cache, for experts: what is kept is the answer, and not what the node wrote.

    A node that LangGraph itself skips writes what it wrote then: an old route with an old decision. Here
    the route goes on, with today's decision and the price that the answer had. Failed answers are not kept,
    nor are those that a deadline may have cut short.

    Attributes:
        cache: The graph's cache.
        policy: The node's. Without a `key_func` of one's own, answers are found by the whole prompt and the
            request's settings; one that takes the task may say less, such as `lambda task: task["question"]`.
    """

    cache: BaseCache[Any]
    policy: CachePolicy[Any]

    def key(self, task: Task, expert: Expert, prompt: Sequence[BaseMessage]) -> FullKey:
        """Where an answer is kept: apart for every expert and whatever its answers depend on."""
        own = self.policy.key_func
        text = expert.cache_key(prompt, task.get("settings"))
        if own is not _BY_TASK:
            given = own(task)
            text = given if isinstance(given, str) else given.hex()
        return place_of(expert), text

    def get(self, key: FullKey) -> Answer | None:
        """The answer that was kept."""
        return _again(self.cache.get([key]).get(key))

    async def aget(self, key: FullKey) -> Answer | None:
        """As `get`."""
        return _again((await self.cache.aget([key])).get(key))

    def put(self, key: FullKey, answer: Answer, time_left: float | None = None) -> None:
        """Keep an answer, if it is worth it; see `worth_keeping`."""
        if worth_keeping(answer, time_left):
            self.cache.set({key: (dict(answer), self.policy.ttl)})

    async def aput(self, key: FullKey, answer: Answer, time_left: float | None = None) -> None:
        """As `put`."""
        if worth_keeping(answer, time_left):
            await self.cache.aset({key: (dict(answer), self.policy.ttl)})


def place_of(expert: Expert) -> Namespace:
    """Where the answers of an expert are kept."""
    return "der_graph", expert.name, expert.identity


def worth_keeping(answer: Answer, time_left: float | None) -> bool:
    """Is an answer worth keeping in a cache? Not if it failed, or may have been cut short by a deadline.

    Args:
        answer: The answer.
        time_left: Seconds that there were until the request's deadline, or None.
    """
    return answer["error"] is None and (time_left is None or answer["seconds"] < 0.9 * time_left)


def _again(found: Any) -> Answer | None:
    """An answer that took no time now."""
    return None if found is None else cast(Answer, {**found, "seconds": 0.0})
