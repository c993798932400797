"""The hub and the edge out of it: the hub prepares, the edge asks the agent, `Send` carries the decision.

The hub writes the question and the knowledge (KTP) and has no side effects; the conditional edge calls the
agent. A policy error, an interrupt, a retry or a cache hit therefore never re-runs an expert and never
replays an old decision. An edge cannot write state, so the decision travels with the task to the chosen
node, which records it in the route together with the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.runtime import Runtime
from langgraph.types import Send

from der_graph.errors import QuestionError
from der_graph.nodes.ktp import KTPTemplate, ktp_text
from der_graph.nodes.rules import RouteRules
from der_graph.state import (
    END_CHOICE,
    Decision,
    DERContext,
    DERState,
    Situation,
    Task,
    answers_of,
    as_context,
    good_answers,
)

ANSWER_NODE = "answer"
HUB_NODE = "der_agent"


class Choice(NamedTuple):
    """What an agent answers.

    Attributes:
        index: Position of the expert in the pool's order; the number of experts for END.
        probabilities: One per choice, END last; 0 where the mask is False; sums to 1.
        value: Estimate of the reward still to come, or None.
        cost_weight: The price of cost that was used, or None for agents without that knob.
    """

    index: int
    probabilities: list[float]
    value: float | None = None
    cost_weight: float | None = None


@runtime_checkable
class RoutingAgent(Protocol):
    """Anything that chooses the next expert: the trained agent, and every baseline."""

    def check_pool(self, names: Sequence[str]) -> None:
        """Raise `AgentPoolMismatchError` if the agent cannot choose among these experts."""

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, all in one batch; only what its mask allows."""


def find_question(messages: Sequence[AnyMessage]) -> tuple[list[AnyMessage], HumanMessage]:
    """Split a conversation into what came before the question, and the question.

    Raises:
        QuestionError: If there is no human message, or it has no text.
    """
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if isinstance(message, HumanMessage):
            if not message.text.strip():
                raise QuestionError("the question is empty; the last human message needs some text")
            return list(messages[:position]), message
    raise QuestionError(
        'there is no question: "messages" needs a human message, '
        'for example {"messages": [("user", "What is 2 + 3?")]}'
    )


def hub_node(ktp: KTPTemplate) -> Callable[[DERState], dict[str, Any]]:
    """Make the hub: reads the question, opens a new route when it is a new one, writes the knowledge."""

    def der_agent(state: DERState) -> dict[str, Any]:
        _, message = find_question(state["messages"])
        question, question_id = message.text.strip(), message.id or ""
        route = state.get("route") or []
        update: dict[str, Any] = {}
        # Threads keep their state: another message, or a route that has ended, means a new question.
        if state.get("question_id") != question_id or (route and route[-1]["choice"] == END_CHOICE):
            route = []
            update = {"route": [], "cost": 0.0, "answer": "", "question_id": question_id}
        answers = answers_of(route)
        knowledge = ktp_text(question, answers, ktp) if good_answers(answers) else ""
        return {**update, "question": question, "knowledge": knowledge}

    return der_agent


def decision_edge(
    agent: RoutingAgent, rules: RouteRules
) -> Callable[[DERState, RunnableConfig, Runtime[DERContext]], Send]:
    """Make the conditional edge: calls the agent and sends the task to the node that it chose."""
    # A runnable, so that every decision is a run of its own in every tracer, not in LangSmith alone.
    choose = RunnableLambda(lambda situation: decide(agent, rules, situation), name="der_decision")

    def next_expert(state: DERState, config: RunnableConfig, runtime: Runtime[DERContext]) -> Send:
        history, _ = find_question(state["messages"])
        route = state.get("route") or []
        situation = {
            "question": state["question"],
            "answers": answers_of(route),
            "spent": float(state.get("cost") or 0.0),
            "context": as_context(runtime.context),
        }
        decision = choose.invoke(situation, config)
        get_stream_writer()({"type": "der.decision", **decision})
        task = Task(messages=history, question=state["question"], route=route, decision=decision)
        return Send(ANSWER_NODE if decision["choice"] == END_CHOICE else decision["choice"], task)

    return next_expert


def decide(agent: RoutingAgent, rules: RouteRules, situation: dict[str, Any]) -> Decision:
    """Apply the rules, ask the agent where there is something to choose, and explain the decision."""
    start = time.perf_counter()
    context: DERContext = situation["context"]
    answers, spent = situation["answers"], situation["spent"]
    max_steps = rules.steps(context.max_steps)
    mask, reason = rules.mask(answers, spent=spent, max_cost=context.max_cost, max_steps=max_steps)
    choices = [*rules.names, END_CHOICE]
    if sum(mask) == 1 and reason != "agent":
        choice = Choice(len(rules.names), [0.0] * len(rules.names) + [1.0])
    else:
        seen = Situation(
            question=situation["question"],
            answers=answers,
            mask=mask,
            spent=spent,
            max_steps=max_steps,
            max_cost=context.max_cost,
            cost_weight=context.cost_weight,
        )
        choice = agent.decide([seen])[0]
    return Decision(
        step=len(answers),
        choice=choices[choice.index],
        probabilities=dict(zip(choices, map(float, choice.probabilities), strict=True)),
        value=None if choice.value is None else float(choice.value),
        mask=dict(zip(choices, mask, strict=True)),
        reason=reason,
        cost_weight=choice.cost_weight,
        spent=spent,
        seconds=time.perf_counter() - start,
    )
