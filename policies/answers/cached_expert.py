"""An expert that looks into the answer cache before its model is asked: for servers, and for many questions.

A cached answer is charged as if it had been generated, so that budgets and routes do not depend on what was
asked before. A cache that cannot be read or written is reported, holds nobody up, and does no other harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from der_graph.nodes.expert import Expert, worth_keeping
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.policies.answers.cache import AnswerCache
from der_graph.state import Answer


@dataclass(frozen=True)
class CachedExpert(Expert):
    """An expert with a cache; for asynchronous graphs.

    Attributes:
        answers: The cache.
        noted: Gets the expert's name, and whether the answer was there.
    """

    answers: AnswerCache | None = None
    noted: Callable[[str, bool], None] = lambda name, hit: None

    async def aask(
        self, prompt: list[BaseMessage], config: RunnableConfig | None = None, **more: Any
    ) -> Answer:
        """Ask one question; see `Expert.aask`."""
        if self.answers is None:
            return await super().aask(prompt, config, **more)
        start = time.perf_counter()
        settings = more.get("settings") or {}
        if settings.get("temperature") and settings.get("seed") is None:
            return await super().aask(prompt, config, **more)  # drawn anew every time
        key = await asyncio.to_thread(self.cache_key, prompt, settings)
        found = await asyncio.to_thread(self.answers.find, key)
        self.noted(self.name, found is not None)
        if found is not None:
            return {**found, "seconds": time.perf_counter() - start}
        answer = await super().aask(prompt, config, **more)
        if worth_keeping(answer, more.get("time_left")):
            await asyncio.to_thread(self.answers.keep, key, answer)
        return answer


def with_cache(
    expert: Expert,
    answers: AnswerCache,
    noted: Callable[[str, bool], None] = lambda name, hit: None,
) -> Expert:
    """The same expert, with a cache; without one where nobody knows when its answers age."""
    if not (expert.fingerprint or fingerprint_of(expert.model, {})):
        return expert
    own = {each.name: getattr(expert, each.name) for each in fields(expert)}
    return CachedExpert(**own, answers=answers, noted=noted)
