"""The node of an expert: from the edge's task to a state update with the route one step longer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from der_graph.errors import ExpertError
from der_graph.nodes.expert.cache import NodeCache
from der_graph.nodes.expert.expert import Expert
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, knowledge_text, ktp_template
from der_graph.nodes.reliability import Fallback
from der_graph.nodes.reliability.failures import all_failed
from der_graph.nodes.reliability.graph_node import Node
from der_graph.nodes.streaming import Listener, write_event
from der_graph.state import Answer, RouteStep, Task, answers_of


def expert_node(
    expert: Expert,
    ktp: KTPTemplate = TEMPLATES["default"],
    *,
    on_error: str = "continue",
    kept: NodeCache | None = None,
) -> Runnable[Task, dict[str, Any]]:
    """Make the graph node of an expert.

    Args:
        expert: The expert.
        ktp: The graph's template.
        on_error: `continue` records a failure in the route and lets the agent choose again; `raise` raises
            `ExpertError`, for graphs whose owner prefers LangGraph's own retries (by default those leave
            out errors of this kind: `RetryPolicy(retry_on=ExpertError)`).
        kept: Answers that were given before, where LangGraph's node cache is used; see `NodeCache`.

    Returns:
        A runnable from the edge's `Task` to a state update, synchronous and asynchronous.
    """
    step = _Step(expert, ktp, on_error, kept)
    return Node(expert.name, step.take, step.atake)


@dataclass(frozen=True)
class _Step:
    """One step of a route; attributes as the arguments of `expert_node`."""

    expert: Expert
    ktp: KTPTemplate
    on_error: str
    kept: NodeCache | None

    def take(self, task: Task, config: RunnableConfig) -> dict[str, Any]:
        """Ask the expert."""
        listener = Listener(task, self.expert, config)
        try:
            prompt = self.expert.prompt_for(task, self.ktp)
            key = None if self.kept is None else self.kept.key(task, self.expert, prompt)
            answer = None if self.kept is None or key is None else self.kept.get(key)
            if answer is None:
                (answer,) = self.expert.ask([prompt], listener.config, **_terms(task, listener))
                listener.close(answer["error"])
                if self.kept is not None and key is not None:
                    self.kept.put(key, answer, task.get("time_left"))
        finally:
            listener.close()
        return self._update(task, answer, listener, config)

    async def atake(self, task: Task, config: RunnableConfig) -> dict[str, Any]:
        """As `take`."""
        listener = Listener(task, self.expert, config)
        try:
            prompt = await self._prompt(task)
            key = None if self.kept is None else self.kept.key(task, self.expert, prompt)
            answer = None if self.kept is None or key is None else await self.kept.aget(key)
            if answer is None:
                answer = await self.expert.aask(prompt, listener.config, **_terms(task, listener))
                listener.close(answer["error"])
                if self.kept is not None and key is not None:
                    await self.kept.aput(key, answer, task.get("time_left"))
        finally:
            listener.close()
        return self._update(task, answer, listener, config)

    async def _prompt(self, task: Task) -> list[BaseMessage]:
        if not self.expert.counts_tokens:
            return self.expert.prompt_for(task, self.ktp)
        # Not on the event loop.
        work = partial(self.expert.prompt_for, task, self.ktp)
        return await asyncio.wrap_future(self.expert.health.bulkhead.run(work))

    def _update(
        self, task: Task, answer: Answer, listener: Listener, config: RunnableConfig
    ) -> dict[str, Any]:
        if answer["error"] is not None and self.on_error == "raise":
            error = ExpertError(f"expert '{self.expert.name}': {answer['error']}")
            error.failure_kind = answer.get("failure")
            error.retry_after = answer.get("retry_after")
            raise error
        if answer["error"] is not None and listener.shown:
            raise _broken_off([*answers_of(task["route"]), answer], task.get("fallback", "none"))
        if answer["error"] is None:
            answer = listener.as_seen(answer)
        step = RouteStep(**task["decision"], answer=answer)
        if not task.get("raced"):
            write_event(config, "der.answer", {"step": step["step"], **answer})
        route = [*task["route"], step]
        template = ktp_template(task.get("ktp") or self.ktp)
        return {
            "question": task["question"],
            "question_id": task["question_id"],
            "route": route,
            "knowledge": knowledge_text(task["question"], answers_of(route), template),
            "cost": step["spent"] + answer["cost"],
            "answer": "",
            "refused": task.get("refused", []),
        }


def _terms(task: Task, listener: Listener) -> dict[str, Any]:
    """How the expert is to be asked; see `Expert.ask`."""
    return {
        "time_left": task.get("time_left"),
        "fallback": task.get("fallback", "none"),
        "insist": task.get("insist", True),
        "spoken": lambda: listener.spoken,
        "settings": task.get("settings"),
    }


def _broken_off(answers: Sequence[Answer], fallback: Fallback) -> ExpertError:
    """What ends a stream whose reader has seen the beginning of an answer that never came."""
    if fallback == "none":
        return all_failed(answers)
    name, error = answers[-1]["expert"], answers[-1]["error"]
    return ExpertError(
        f"expert '{name}' broke off in mid-answer, when its first words had been streamed ({error}); ask "
        "again without stream_tokens='live' to get another answer in its place"
    )
