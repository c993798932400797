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
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.runtime import Runtime
from langgraph.types import Send

from der_graph.errors import AgentError, QuestionError
from der_graph.nodes.conversation import (
    blocks_beside_text,
    conversation_text,
    find_question,
    history_for_experts,
    last_experts,
    without_handovers,
)
from der_graph.nodes.ktp import ktp_template
from der_graph.nodes.model_settings import check_settings
from der_graph.nodes.rules import RouteRules, steps_taken
from der_graph.nodes.streaming import Audiences, traced, write_event
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
    elapsed,
)

Unable = Callable[[Task], dict[str, str]]
"""Experts that cannot answer a task, by name, and why: `no_tools`, `no_inputs`, `context_length`."""

ANSWER_NODE = "answer"
APPROVAL_NODE = "der_approval"
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


Agent = TypeVar("Agent", bound=RoutingAgent)


def agent_for_pool(agent: Agent, names: Sequence[str], costs: Sequence[float]) -> Agent:
    """The agent over a pool: one that knows more experts, or in another order, adapts itself.

    Raises:
        AgentPoolMismatchError: If it cannot choose among these experts.
    """
    agent.check_pool(names)
    adapt = getattr(agent, "for_pool", None)
    return agent if adapt is None else cast(Agent, adapt(names, costs))


def der_agent(state: DERState) -> None:
    """The hub: every route passes here between two experts, and the edge out of it asks the agent."""


def decision_edge(
    agent: RoutingAgent,
    rules: RouteRules,
    *,
    stickiness: float = 0.0,
    approve_above: float | None = None,
    audiences: Audiences | None = None,
    unable: Unable | None = None,
) -> Callable[[DERState, RunnableConfig, Runtime[DERContext]], Send]:
    """Make the conditional edge: calls the agent and sends the task to the node that it chose.

    Args:
        agent: Chooses.
        rules: What is allowed.
        stickiness: How much less probable than the best an expert of the last turn may be and still open
            this turn, where the request says nothing else.
        approve_above: Dearer experts are sent to the approval node first; None for none.
        audiences: Decides who hears an expert; everybody if left out.
        unable: Says which experts cannot answer, and why; nobody if left out.
    """
    prices = dict(zip(rules.names, rules.costs, strict=True))
    audiences = audiences or Audiences(rules)
    # A runnable, so that every decision is a run of its own in every tracer, not in LangSmith alone.
    choose: RunnableLambda[dict[str, Any], Decision] = RunnableLambda(
        lambda situation: decide(agent, rules, situation), name="der_decision"
    )

    def next_expert(state: DERState, config: RunnableConfig, runtime: Runtime[DERContext]) -> Send:
        before, message, tail = find_question(without_handovers(state["messages"]))
        history = history_for_experts(before)
        question, question_id = message.text.strip(), message.id or ""
        route, spent, refused = open_route(state, question_id)
        context = as_context(runtime.context)
        if context.ktp is not None:
            ktp_template(context.ktp)  # a wrong name is said now, and not after a decision
        taken = elapsed(route)
        attachments = blocks_beside_text(message)
        asked = check_settings(context.model_settings)
        task = Task(
            messages=history,
            tail=tail,
            question=question,
            question_id=question_id,
            route=route,
            decision=cast(Decision, {}),
            refused=refused,
            time_left=None,
            ktp=context.ktp,
            audience="all",
            shown=state.get("shown") or "",
        )
        if asked:
            task["settings"] = asked
        if attachments:
            task["attachments"] = attachments
        cannot = {} if unable is None else unable(task)
        if attachments and all(cannot.get(name) == "no_inputs" for name in rules.names):
            raise QuestionError(
                f"the question holds a block of type '{attachments[0].get('type', '?')}', and the experts "
                "read its text only; send a text, or blocks of type 'text', that say all that is asked, or "
                "say in the pool which expert reads more (inputs: [image])"
            )
        situation = {
            "question": question,
            "conversation": conversation_text(history, question),
            "answers": answers_of(route),
            "spent": spent,
            "elapsed": taken,
            "refused": refused,
            "unable": cannot,
            "last_experts": last_experts(history),
            "stickiness": stickiness if context.stickiness is None else context.stickiness,
            "context": context,
            # For those who read the trace: all that bounds this decision.
            "prices": prices,
            "budget_left": None if context.max_cost is None else context.max_cost - spent,
            "steps_left": rules.steps(context.max_steps) - steps_taken(answers_of(route)),
            "time_left": None if context.deadline is None else context.deadline - taken,
        }
        decision = choose.invoke(situation, traced(config, len(route)))
        write_event(config, "der.decision", decision)
        task["decision"] = decision
        if context.deadline is not None:
            task["time_left"] = context.deadline - taken - decision["seconds"]
        task["audience"] = audiences.of(
            decision["choice"],
            answers_of(route),
            context,
            spent=spent,
            elapsed=taken,
            refused=refused,
            unable=cannot,
        )
        return Send(_node(decision["choice"], prices, approve_above), task)

    return next_expert


def _node(choice: str, prices: dict[str, float], approve_above: float | None) -> str:
    """Where a choice leads: to its expert, to the answer, or to a person first."""
    if choice == END_CHOICE:
        return ANSWER_NODE
    dear = approve_above is not None and prices[choice] > approve_above
    return APPROVAL_NODE if dear else choice


def open_route(state: DERState, question_id: str) -> tuple[list[RouteStep], float, list[str]]:
    """The route so far, what it cost, and whom a person refused on it: an empty one for a new question.

    Threads keep their state: another message, or a route that has ended, means a new question.
    """
    route = state.get("route") or []
    if state.get("question_id") != question_id or (route and route[-1]["choice"] == END_CHOICE):
        return [], 0.0, []
    return route, float(state.get("cost") or 0.0), list(state.get("refused") or [])


def decide(agent: RoutingAgent, rules: RouteRules, situation: dict[str, Any]) -> Decision:
    """Apply the rules, ask the agent where there is something to choose, and explain the decision."""
    start = time.perf_counter()
    context: DERContext = situation["context"]
    answers, spent = situation["answers"], situation["spent"]
    taken, deadline = situation["elapsed"], context.deadline
    mask, reason = rules.mask(
        answers,
        context,
        spent=spent,
        elapsed=taken,
        refused=situation["refused"],
        unable=situation.get("unable"),
    )
    choices = [*rules.names, END_CHOICE]
    if sum(mask) == 1 and reason != "agent":
        choice = Choice(len(rules.names), [0.0] * len(rules.names) + [1.0])
    else:
        seen = Situation(
            question=situation["conversation"],
            answers=answers,
            mask=mask,
            spent=spent,
            max_steps=rules.steps(context.max_steps),
            max_cost=context.max_cost,
            cost_weight=context.cost_weight,
            deadline_left=None if deadline is None else deadline - taken,
        )
        choice = agent.decide([seen])[0]
        _check_choice(choice, choices, mask)
        if not answers and (stay := _staying(choice, situation, rules.names)) != choice.index:
            choice, reason = replace(choice, index=stay), "stickiness"
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


def _staying(choice: Choice, situation: dict[str, Any], names: Sequence[str]) -> int:
    """The choice, or the likeliest expert of the last turn where that is about as good.

    Where two experts are equally good, a conversation should not change its voice at every turn.
    """
    chances, margin = choice.probabilities, situation["stickiness"]
    last = [i for i, name in enumerate(names) if name in situation["last_experts"]]
    if not margin or not last or choice.index in last:
        return choice.index
    likeliest = max(last, key=chances.__getitem__)
    near = 0.0 < chances[likeliest] >= chances[choice.index] - margin
    return likeliest if near else choice.index


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
