"""What flows through the graph: plain data, so that every checkpointer and every trace can hold it.

    messages ──> question ──> [ situation -> decision -> answer ]* ──> final answer as one AIMessage

Everything is built from `str`, `int`, `float`, `bool`, `list` and `dict`: no NumPy scalars (LangGraph's
serializer refuses them), no tuples (they come back as lists). Channels keep what was written last: one expert
speaks at a time, so each step hands the whole route on, and nothing is doubled when the graph runs inside
another one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

from langchain_core.messages import AnyMessage
from langgraph.graph import MessagesState
from typing_extensions import NotRequired, Self, TypedDict

from der_graph.errors import BudgetError, cut, did_you_mean, is_number, plain

END_CHOICE = "END"
"""The choice that ends a route. Not a node: the graph's own END is `"__end__"`."""

MAX_STEPS = 4
"""Longest route where nothing else is said."""


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
    cached_tokens: NotRequired[int]
    """Prompt tokens that the provider had in its cache; absent if none."""
    reasoning_tokens: NotRequired[int]
    """Generated tokens that were a thought, which is not shown; absent if none."""
    version: NotRequired[str]
    """What the provider says of the model that answered (its dated name, its system's fingerprint); absent
    where it says nothing."""
    tool_calls: NotRequired[list[dict[str, Any]]]
    """The tools that it wants called (`name`, `args`, `id`, `type`); absent if there are none."""
    failure: NotRequired[str]
    """Kind of the failure, a word of `der_graph.nodes.reliability.failures`; absent if it answered."""
    message_id: NotRequired[str]
    """Id of the message that its tokens had in the `messages` stream; absent if they were not in it."""
    finish_reason: NotRequired[str]
    """Why it ended: `stop`, `length`, `content_filter` or `tool_calls`; absent where nobody says."""
    retry_after: NotRequired[float]
    """Seconds after which the provider wants to be asked again; absent where it does not say."""
    logprobs: NotRequired[dict[str, Any]]
    """Log-probabilities of its tokens as the provider gave them; absent unless they were asked for."""


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
    """`agent`; or why there was nothing to choose: `max_steps`, `deadline`, `max_cost`, `not_allowed` (the
    request's lists), `not_approved` (a person's refusals), `no_expert_left`, `no_tools`, `no_inputs` and
    `context_length` (who is left cannot call tools, or not read the question), `unavailable` (who is left has
    failed again and again); or what chose instead of the agent: `stickiness` (an expert of the last turn, as
    good as the best), `prompt_cache` (the last one, whose cache makes it the cheaper one), `person` (asked
    for approval), `agent_failed` (a rule, as the agent could not), `parallel` (asked at once with it),
    `hedge` (asked beside the one before it, which took its time)."""
    cost_weight: float | None
    """The price of cost that the agent was given; None for agents without that knob."""
    spent: float
    """Cost of the route before this decision."""
    seconds: float
    """Wall clock of the decision, encoding included."""
    explanation: NotRequired[dict[str, Any]]
    """Why the agent chose so, as plain data; absent for agents that cannot say."""
    waited: NotRequired[float]
    """Seconds after which it was asked beside the one before it; absent unless the reason is `hedge`."""


class RouteStep(Decision):
    """A decision and what came of it: one line of the route log."""

    answer: Answer | None
    """The chosen expert's answer; None for END."""


def latest(before: Any, after: Any) -> Any:
    """Keeps what was written last: two graphs of this kind may end in one step of a graph around them."""
    return after


class DERState(MessagesState):
    """State of the graph. Extend it, and pass the subclass as `state_schema`, to carry fields of your own.

    `messages` comes from the caller; at the end the answer is added to it as one `AIMessage`. The other
    fields are written by the graph. Several may be written in one step, as where a parent that shares this
    state runs two graphs side by side: `messages` then has both answers, the others are those of the last
    one.
    """

    question: Annotated[str, latest]
    """The last human message. Experts write; callers read."""
    question_id: Annotated[str, latest]
    """Id of that message: another one starts a new route on the same thread. Experts write; edge reads."""
    route: Annotated[list[RouteStep], latest]
    """The route so far. Experts and answer write; edge and callers read."""
    knowledge: Annotated[str, latest]
    """The earlier answers as a Knowledge Transfer Prompt; empty if there are none. Experts write."""
    answer: Annotated[str, latest]
    """The final answer. Answer node writes; experts empty it while the route is open."""
    cost: Annotated[float, latest]
    """Cost of the route so far, in the pool's unit. Experts write."""
    refused: Annotated[list[str], latest]
    """Experts that a person did not approve on this route. Approval and experts write; edge reads."""


class DEROutput(TypedDict):
    """What a caller gets back: no channel here adds up, so it is safe inside a parent graph."""

    messages: list[AnyMessage]
    question: str
    answer: str
    route: list[RouteStep]
    knowledge: str
    cost: float


Audience = Literal["all", "draft", "final"]
"""Who hears one expert: everybody; those who asked for drafts; the end user, as this is the final answer."""


class Task(TypedDict):
    """What the edge sends to the chosen expert: exactly what it needs."""

    messages: list[AnyMessage]
    """The conversation before the question (system prompt and earlier turns)."""
    tail: list[AnyMessage]
    """What came after the question and belongs to answering it: tool calls and their results."""
    question: str
    question_id: str
    route: list[RouteStep]
    decision: Decision
    refused: list[str]
    """Experts that a person did not approve on this route."""
    time_left: float | None
    """Seconds until the request's deadline, or None."""
    ktp: str | None
    """Name of the request's template, or None for the graph's."""
    audience: Audience
    """Who hears the expert's tokens."""
    fallback: NotRequired[Literal["none", "expert", "answer"]]
    """What there is if this call fails: nothing, another expert to ask, an earlier answer."""
    insist: NotRequired[bool]
    """Ask even an expert that fails again and again: nobody else is left."""
    settings: NotRequired[dict[str, Any]]
    """What the experts' models are asked for (`DERContext.model_settings`); absent if nothing."""
    backup: NotRequired[Decision]
    """Whom to ask too if the chosen expert takes its time; absent for nobody."""
    raced: NotRequired[bool]
    """Another expert may be asked beside this one: whoever waits for both tells of their answers."""
    attachments: NotRequired[list[dict[str, Any]]]
    """Content blocks of the question beside its text (images, files), or all, where text stands between them;
    absent if there are none."""
    asker: NotRequired[str]
    """Name of the person who asks, for conversations of several; absent if the question has none."""


ExpertNames = list[str] | tuple[str, ...] | set[str] | frozenset[str]

StreamTokens = Literal["all", "final", "live"]
"""Whose tokens the `messages` stream carries: every expert's, or those of the final answer, and how soon; see
`der_graph.nodes.streaming`."""


@dataclass(frozen=True)
class DERContext:
    """Settings of one request, passed as `context=`; each may be left out.

    Attributes:
        max_cost: Hard upper bound on the route's cost, in the pool's unit. Never exceeded: experts that do
            not fit any more are masked.
        max_steps: Longest route for this request, at least 1 answer; never more than the graph's own
            `max_steps`. Calls that fail are not counted.
        cost_weight: The price of cost, for agents trained with that knob: 0 buys quality at any cost,
            larger values stop earlier and ask cheaper experts.
        deadline: Seconds for the whole route, above 0. Counted are the seconds of its decisions and answers,
            so a route that waited for a person, or was resumed, is not charged for the pause. An expert
            whose usual time does not fit any more is masked, and nothing is asked after the deadline;
            `der_graph.nodes.reliability.deadline` says what happens to a call that is still running then.
        allowed_experts: Only these may be asked, by name.
        forbidden_experts: These may not be asked, by name.
        ktp: Name of the Knowledge Transfer Prompt for this request, in place of the graph's; experts with
            one of their own keep it.
        stickiness: Replaces the graph's `stickiness` for this request, in [0, 1].
        stream_tokens: Replaces the graph's `stream_tokens` for this request: `all`, `final` or `live`.
        model_settings: What the experts' models are asked for, by the names of OpenAI's protocol:
            `temperature`, `max_tokens`, `stop`, `seed`, `tools`, `response_format` ...; see
            `der_graph.nodes.model_settings`. An expert that cannot do what is asked (tools, images) is not
            asked.

    Raises:
        BudgetError: If there is no such setting, or a value cannot be used.
    """

    max_cost: float | None = None
    max_steps: int | None = None
    cost_weight: float | None = None
    deadline: float | None = None
    # Plain classes: LangGraph reads this schema, and on Python 3.10 fails at generics of `collections.abc`.
    allowed_experts: ExpertNames | None = None
    forbidden_experts: ExpertNames | None = None
    ktp: str | None = None
    stickiness: float | None = None
    stream_tokens: StreamTokens | None = None
    model_settings: dict[str, Any] | None = None

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Refuse misspelt names, which LangGraph passes on from a dict as they are."""
        known = cls.__dataclass_fields__
        for name in given:
            if name not in known:
                raise BudgetError(
                    f"DERContext has no setting {cut(repr(name))}; {did_you_mean(name, known)}allowed: "
                    f"{', '.join(known)}"
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name in ("max_cost", "max_steps", "cost_weight", "deadline", "stickiness"):
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise BudgetError(f"{name} is {cut(repr(value))}; it must be a number, or left out")
            if isinstance(value, int) and abs(value) > sys.float_info.max:
                raise BudgetError(f"{name} is larger than any number that can be counted with")
            object.__setattr__(self, name, plain(value))
        if self.max_steps is not None and self.max_steps % 1:
            raise BudgetError(f"max_steps={self.max_steps}: it must be a whole number, or left out")
        if self.cost_weight is not None and not self.cost_weight >= 0:
            raise BudgetError(f"cost_weight={self.cost_weight}: it must be a number >= 0")
        if self.deadline is not None and not 0 < self.deadline < float("inf"):
            raise BudgetError(f"deadline={self.deadline}: it must be a number of seconds above 0")
        if self.stickiness is not None and not 0 <= self.stickiness <= 1:
            raise BudgetError(f"stickiness={self.stickiness}: it must be from 0 to 1")
        for name in ("allowed_experts", "forbidden_experts"):
            value = getattr(self, name)
            names = isinstance(value, (list, tuple, set, frozenset)) and all(
                isinstance(each, str) for each in value
            )
            if value is not None and not names:
                raise BudgetError(
                    f"{name} is {cut(repr(value))}; it must be a list of experts' names"
                )
        if self.ktp is not None and not isinstance(self.ktp, str):
            raise BudgetError(f"ktp is {cut(repr(self.ktp))}; it must be a template's name")
        if self.stream_tokens not in (None, *get_args(StreamTokens)):
            allowed = ", ".join(map(repr, get_args(StreamTokens)))
            raise BudgetError(f"stream_tokens is {self.stream_tokens!r}; allowed: {allowed}")
        if not isinstance(self.model_settings, (Mapping, type(None))):
            raise BudgetError(f"model_settings is {self.model_settings!r}; it must be a dict")


Phase = Literal["planning", "executing", "recovering"]
"""Where an agent's loop of model and tools stands: before the first tool; after tools that worked; after a
tool that failed."""


@dataclass(frozen=True)
class LoopState:
    """What an agent's loop has done so far, where the choice is who acts next in it.

    Attributes:
        phase: Where the loop stands.
        calls: Model calls of the run so far.
        last_expert: Who made the last one, where that is known.
        last_tools: Names of the tools that it called.
        errors: Rounds of tools, the last ones in a row, in which a tool failed.
    """

    phase: Phase = "planning"
    calls: int = 0
    last_expert: str | None = None
    last_tools: tuple[str, ...] = ()
    errors: int = 0


@dataclass(frozen=True)
class Situation:
    """What an agent sees when it has to choose. Built by the graph and by the training environment alike.

    Attributes:
        question: The question being answered; in a conversation with what came before it, see
            `der_graph.nodes.conversation`.
        answers: The answers so far, in order; failed ones included.
        mask: Which choices are allowed: one bool per expert in the pool's order, END last.
        spent: Cost of the route so far, in the pool's unit.
        max_steps: Longest route allowed here.
        max_cost: Budget of the route, or None.
        cost_weight: The price of cost, or None for the agent's default.
        deadline_left: Seconds left for the route, or None without a deadline.
        loop: Where the loop of an agent with tools stands, or None outside of one.
    """

    question: str
    answers: list[Answer] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    spent: float = 0.0
    max_steps: int = MAX_STEPS
    max_cost: float | None = None
    cost_weight: float | None = None
    deadline_left: float | None = None
    loop: LoopState | None = None


def blank_answer(
    expert: str,
    *,
    text: str = "",
    value: str | None = None,
    cost: float = 0.0,
    input_tokens: int = 0,
    output_tokens: int = 0,
    seconds: float = 0.0,
    logprob: float | None = None,
    error: str | None = None,
) -> Answer:
    """An answer that says nothing and cost nothing, but for what is given; see `Answer` for the fields."""
    return Answer(
        expert=expert,
        text=text,
        value=value,
        cost=cost,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        seconds=seconds,
        logprob=logprob,
        error=error,
    )


def answer_only(context: DERContext) -> DERContext:
    """The same settings for a stream whose reader is to see the answer alone."""
    return context if context.stream_tokens == "live" else replace(context, stream_tokens="final")


def answers_of(route: list[RouteStep]) -> list[Answer]:
    """The answers of a route, in order, failed ones included."""
    return [step["answer"] for step in route if step["answer"] is not None]


def elapsed(route: Sequence[RouteStep]) -> float:
    """Seconds that a route took: its decisions and its answers, without any pause between them."""
    total = slowest = 0.0
    for i, step in enumerate(route):
        total += step["seconds"]
        if step["answer"] is not None:
            slowest = max(slowest, step.get("waited", 0.0) + step["answer"]["seconds"])
        # The next was asked at once with this one, or beside it.
        beside = step["reason"] == "parallel" or [s["reason"] for s in route[i + 1 : i + 2]] == [
            "hedge"
        ]
        if not beside:
            total, slowest = total + slowest, 0.0
    return total + slowest


def good_answers(answers: list[Answer]) -> list[Answer]:
    """The answers that are answers: failed calls left out."""
    return [answer for answer in answers if answer["error"] is None]


def as_context(context: Any) -> DERContext:
    """Read the request settings from whatever a caller passed: None, a mapping, or any object.

    A parent graph hands its own context down, which may be of another type; fields it does not have count
    as left out.

    Raises:
        BudgetError: If a field has a value that it cannot have.
    """
    if context is None:
        return DERContext()
    if isinstance(context, DERContext):
        return context
    names = DERContext.__dataclass_fields__
    if isinstance(context, Mapping):
        return DERContext(**{name: context.get(name) for name in names})
    return DERContext(**{name: getattr(context, name, None) for name in names})
