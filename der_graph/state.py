"""What flows through the graph: plain data, so that every checkpointer and every trace can hold it.

    messages ──> question ──> [ situation -> decision -> answer ]* ──> final answer as one AIMessage

Everything is built from `str`, `int`, `float`, `bool`, `list` and `dict`: no NumPy scalars (LangGraph's
serializer refuses them), no tuples (they come back as lists). Channels are last-value and not reduced: one
expert speaks at a time, so each step hands the whole route on, and nothing is doubled when the graph runs
inside another one. Knows nothing of models or policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph import MessagesState

END_CHOICE = "END"
"""The choice that ends a route. Not a node: the graph's own END is `"__end__"`."""


class Answer(TypedDict):
    """What came back from one expert, with what it cost."""

    expert: str
    """Name of the expert."""
    text: str
    """What it said; empty if it failed."""
    value: str | None
    """The part that counts (a number, a letter, a short phrase), to see whether answers agree."""
    cost: float
    """In the pool's cost unit (default: billions of parameters run, as in the paper)."""
    input_tokens: int
    """Prompt tokens; 0 where the backend does not say."""
    output_tokens: int
    """Generated tokens; 0 where the backend does not say."""
    seconds: float
    """Wall clock of the call."""
    logprob: float | None
    """Mean log-probability of the generated tokens, in nats, <= 0; None where the backend does not say."""
    error: str | None
    """Why the expert failed, in one line; None if it answered."""


class Decision(TypedDict):
    """One choice of the agent: which expert next, or END, and everything that explains it."""

    step: int
    """0 for the first choice of a route."""
    choice: str
    """Name of the expert, or `END_CHOICE`."""
    probabilities: dict[str, float]
    """Per choice, END included; forbidden choices are 0; sums to 1."""
    value: float | None
    """The critic's estimate of the reward still to come; None for agents without a critic."""
    mask: dict[str, bool]
    """Per choice: could it be chosen?"""
    reason: str
    """`agent`, or why there was nothing to choose: `max_steps`, `max_cost`, `no_expert_left`."""
    cost_weight: float | None
    """The price of cost that the agent was given; None for agents without that knob."""
    spent: float
    """Cost of the route before this decision."""
    seconds: float
    """Wall clock of the decision, encoding included."""


class RouteStep(Decision):
    """A decision and what came of it: one line of the route log."""

    answer: Answer | None
    """The chosen expert's answer; None for END."""


class DERState(MessagesState):
    """State of the graph. Extend it, and pass the subclass as `state_schema`, to carry fields of your own.

    `messages` comes from the caller; at the end the answer is added to it as one `AIMessage`. The other
    fields are written by the graph.
    """

    question: str
    """The last human message. Experts write; callers read."""
    question_id: str
    """Id of that message: another one starts a new route on the same thread. Experts write; edge reads."""
    route: list[RouteStep]
    """The route so far. Experts and answer write; edge and callers read."""
    knowledge: str
    """The earlier answers as a Knowledge Transfer Prompt; empty if there are none. Experts write."""
    answer: str
    """The final answer. Answer node writes; experts empty it while the route is open."""
    cost: float
    """Cost of the route so far, in the pool's unit. Experts write."""


class DEROutput(TypedDict):
    """What a caller gets back: no channel here adds up, so it is safe inside a parent graph."""

    messages: list[AnyMessage]
    question: str
    answer: str
    route: list[RouteStep]
    knowledge: str
    cost: float


class Task(TypedDict):
    """What the edge sends to the chosen expert: exactly what it needs."""

    messages: list[AnyMessage]
    """The conversation before the question (system prompt and earlier turns)."""
    question: str
    question_id: str
    route: list[RouteStep]
    decision: Decision


@dataclass(frozen=True)
class DERContext:
    """Settings of one request, passed as `context=`; each may be left out.

    Attributes:
        max_cost: Hard upper bound on the route's cost, in the pool's unit. Never exceeded: experts that do
            not fit any more are masked.
        max_steps: Longest route for this request, at least 1; never more than the graph's own `max_steps`.
        cost_weight: The price of cost, for agents trained with that knob: 0 buys quality at any cost,
            larger values stop earlier and ask cheaper experts.
    """

    max_cost: float | None = None
    max_steps: int | None = None
    cost_weight: float | None = None


@dataclass(frozen=True)
class Situation:
    """What an agent sees when it has to choose. Built by the graph and by the training environment alike.

    Attributes:
        question: The question being answered.
        answers: The answers so far, in order; failed ones included.
        mask: Which choices are allowed: one bool per expert in the pool's order, END last.
        spent: Cost of the route so far, in the pool's unit.
        max_steps: Longest route allowed here.
        max_cost: Budget of the route, or None.
        cost_weight: The price of cost, or None for the agent's default.
    """

    question: str
    answers: list[Answer] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    spent: float = 0.0
    max_steps: int = 4
    max_cost: float | None = None
    cost_weight: float | None = None


def answers_of(route: list[RouteStep]) -> list[Answer]:
    """The answers of a route, in order, failed ones included."""
    return [step["answer"] for step in route if step["answer"] is not None]


def good_answers(answers: list[Answer]) -> list[Answer]:
    """The answers that are answers: failed calls left out."""
    return [answer for answer in answers if answer["error"] is None]


def as_context(context: Any) -> DERContext:
    """Read the request settings from whatever a caller passed: None, a mapping, or any object.

    A parent graph hands its own context down, which may be of another type; fields it does not have count
    as left out.
    """
    if context is None:
        return DERContext()
    if isinstance(context, DERContext):
        return context
    names = DERContext.__dataclass_fields__
    if isinstance(context, Mapping):
        return DERContext(**{name: context.get(name) for name in names})
    return DERContext(**{name: getattr(context, name, None) for name in names})
