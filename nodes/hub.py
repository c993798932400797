"""The hub and the edge out of it: the edge asks the agent, and `Send` carries the decision.

The conditional edge runs in the hub's task and not in an expert's, so a policy error, an interrupt, a retry
or a cache hit never re-runs an expert and never replays an old decision. The hub itself writes nothing: where
an edge raises, LangGraph keeps what its node wrote and takes the node for finished, and a resumed run would
then end without having chosen. An edge cannot write state either, so question and decision travel with the
task to the chosen node, which records them together with the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.runtime import Runtime
from langgraph.types import Send

from der_graph.errors import AgentError, QuestionError
from der_graph.nodes.events import write_event
from der_graph.nodes.rules import RouteRules
from der_graph.state import (
    END_CHOICE,
    Decision,
    DERContext,
    DERState,
    RouteStep,
    Situation,
    Task,
    answers_of,
    as_context,
)

ANSWER_NODE = "answer"
HUB_NODE = "der_agent"


@dataclass(frozen=True)
class Choice:
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


def der_agent(state: DERState) -> None:
    """The hub: every route passes here between two experts, and the edge out of it asks the agent."""


def decision_edge(
    agent: RoutingAgent, rules: RouteRules
) -> Callable[[DERState, RunnableConfig, Runtime[DERContext]], Send]:
    """Make the conditional edge: calls the agent and sends the task to the node that it chose."""
    # A runnable, so that every decision is a run of its own in every tracer, not in LangSmith alone.
    choose: RunnableLambda[dict[str, Any], Decision] = RunnableLambda(
        lambda situation: decide(agent, rules, situation), name="der_decision"
    )

    def next_expert(state: DERState, config: RunnableConfig, runtime: Runtime[DERContext]) -> Send:
        history, message = find_question(state["messages"])
        question, question_id = message.text.strip(), message.id or ""
        route, spent = open_route(state, question_id)
        situation = {
            "question": question,
            "answers": answers_of(route),
            "spent": spent,
            "context": as_context(runtime.context),
        }
        decision = choose.invoke(situation, config)
        write_event(config, "der.decision", decision)
        task = Task(
            messages=history,
            question=question,
            question_id=question_id,
            route=route,
            decision=decision,
        )
        return Send(ANSWER_NODE if decision["choice"] == END_CHOICE else decision["choice"], task)

    return next_expert


def open_route(state: DERState, question_id: str) -> tuple[list[RouteStep], float]:
    """The route so far and what it cost: an empty one for a new question.

    Threads keep their state: another message, or a route that has ended, means a new question.
    """
    route = state.get("route") or []
    if state.get("question_id") != question_id or (route and route[-1]["choice"] == END_CHOICE):
        return [], 0.0
    return route, float(state.get("cost") or 0.0)


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
        _check_choice(choice, choices, mask)
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


def _check_choice(choice: Choice, choices: Sequence[str], mask: Sequence[bool]) -> None:
    """The rules bind agents of any make: a budget holds even if the agent has not heard of it."""
    if not 0 <= choice.index < len(choices) or len(choice.probabilities) != len(choices):
        raise AgentError(
            f"the agent chose {choice.index} of {len(choice.probabilities)} choices, "
            f"but there are {len(choices)}: {', '.join(choices)}"
        )
    if not mask[choice.index]:
        allowed = ", ".join(name for name, free in zip(choices, mask, strict=True) if free)
        raise AgentError(
            f"the agent chose '{choices[choice.index]}', which is not allowed now; allowed: {allowed}"
        )
