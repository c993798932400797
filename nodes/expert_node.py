"""An expert's node: one step of the route.

    Task ──Expert.prompt──> messages ──Expert.ask──> Answer ──> the route, one step longer

Knows nothing of policies.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from der_graph.errors import ExpertError
from der_graph.nodes.events import write_event
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, knowledge_text, ktp_template
from der_graph.nodes.streaming import Listener
from der_graph.state import Answer, RouteStep, Task, answers_of


def expert_node(
    expert: Expert, ktp: KTPTemplate = TEMPLATES["default"], *, on_error: str = "continue"
) -> Runnable[Task, dict[str, Any]]:
    """Make the graph node of an expert.

    Args:
        expert: The expert.
        ktp: The graph's template.
        on_error: `continue` records a failure in the route and lets the agent choose again; `raise` raises
            `ExpertError`, for graphs whose owner prefers LangGraph's own retries (by default those leave
            out errors of this kind: `RetryPolicy(retry_on=ExpertError)`).

    Returns:
        A runnable from the edge's `Task` to a state update, synchronous and asynchronous.
    """

    def template(task: Task) -> KTPTemplate:
        return ktp if not task.get("ktp") else ktp_template(task["ktp"])

    def before(task: Task) -> list[BaseMessage]:
        answers = answers_of(task["route"])
        tail = task.get("tail", [])  # not in tasks of older checkpoints
        return expert.prompt(task["messages"], task["question"], answers, template(task), tail)

    def after(
        task: Task, answer: Answer, listener: Listener, config: RunnableConfig
    ) -> dict[str, Any]:
        if answer["error"] is not None and on_error == "raise":
            raise ExpertError(f"expert '{expert.name}': {answer['error']}")
        step = RouteStep(**task["decision"], answer=answer)
        write_event(config, "der.answer", {"step": step["step"], **answer})
        route = [*task["route"], step]
        return {
            "question": task["question"],
            "question_id": task["question_id"],
            "route": route,
            "knowledge": knowledge_text(task["question"], answers_of(route), template(task)),
            "cost": step["spent"] + answer["cost"],
            "answer": "",
            "refused": task.get("refused", []),
            "shown": "" if answer["error"] is not None else listener.shown,
        }

    def call(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener = Listener(task, expert, config)
        (answer,) = expert.ask([before(task)], listener.config, time_left=task.get("time_left"))
        return after(task, answer, listener, config)

    async def acall(task: Task, config: RunnableConfig) -> dict[str, Any]:
        listener = Listener(task, expert, config)
        answer = await expert.aask(before(task), listener.config, time_left=task.get("time_left"))
        return after(task, answer, listener, config)

    return RunnableLambda(call, acall, name=expert.name)
