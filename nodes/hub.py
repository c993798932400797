"""The hub and the edge out of it: the edge asks the agent, and `Send` carries the decision.

The conditional edge runs in the hub's task and not in an expert's, so a policy error, an interrupt, a retry
or a cache hit never re-runs an expert and never replays an old decision. The hub itself writes nothing: where
an edge raises, LangGraph keeps what its node wrote and takes the node for finished, and a resumed run would
then end without having chosen. An edge cannot write state either, so question and decision travel with the
task to the chosen node, which records them together with the answer.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import get_runtime
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
from der_graph.nodes.reliability import Bulkhead, Fallback, describe_error
from der_graph.nodes.reliability.bulkhead import SIZE
from der_graph.nodes.reliability.calls import acall, call
from der_graph.nodes.reliability.deadline import Limit
from der_graph.nodes.reliability.node import Node
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.streaming import Audiences, DecisionRun, write_event
from der_graph.nodes.together import TOGETHER_NODE, Tasks, asked_together
from der_graph.state import (
    END_CHOICE,
    Answer,
    Decision,
    DERContext,
    DERState,
    RouteStep,
    Situation,
    Task,
    answers_of,
    as_context,
    elapsed,
    good_answers,
)

log = logging.getLogger("der_graph.agent")

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
        explanation: Why, as plain data, for agents that can say so.
    """

    index: int
    probabilities: list[float]
    value: float | None = None
    cost_weight: float | None = None
    explanation: dict[str, Any] | None = None


@runtime_checkable
class RoutingAgent(Protocol):
    """Anything that chooses the next expert: the trained agent, and every baseline."""

    def check_pool(self, names: Sequence[str]) -> None:
        """Raise `AgentPoolMismatchError` if the agent cannot choose among these experts."""

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, all in one batch; only what its mask allows."""


Agent = TypeVar("Agent", bound=RoutingAgent)


def agent_for_pool(agent: Agent, rules: RouteRules) -> Agent:
    """The agent over a pool: one that knows more experts, or in another order, adapts itself.

    An agent whose `for_pool` takes `charges` and `unit` is told how calls are charged and what costs count.

    Raises:
        AgentPoolMismatchError: If it cannot choose among these experts.
    """
    agent.check_pool(rules.names)
    adapt = getattr(agent, "for_pool", None)
    if adapt is None:
        return agent
    if "charges" not in inspect.signature(adapt).parameters:
        return cast(Agent, adapt(rules.names, rules.costs))
    return cast(Agent, adapt(rules.names, rules.costs, charges=rules.charges, unit=rules.cost_unit))


def der_agent(state: DERState, config: RunnableConfig) -> None:
    """The hub: every route passes here between two experts, and the edge out of it asks the agent."""


DECISION_TIMEOUT = 30.0
"""Seconds after which an agent that has not decided is taken to hang."""


class Asked(NamedTuple):
    """What there is to decide.

    Attributes:
        situation: For the agent, and for whoever reads the trace.
        task: What the chosen node gets, without the decision.
    """

    situation: dict[str, Any]
    task: dict[str, Any]


class DecisionEdge:
    """The conditional edge: calls the agent and sends the task to the node that it chose.

    Args:
        agent: Chooses.
        rules: What is allowed.
        stickiness: How much less probable than the best an expert of the last turn may be and still open
            this turn, where the request says nothing else.
        approve_above: Dearer experts are sent to the approval node first; None for none.
        audiences: Decides who hears an expert; everybody if left out.
        unavailable: Gives the experts that fail again and again.
        unable: Says which experts cannot answer, and why; nobody if left out.
        counts_tokens: Does `unable` count tokens, and so takes too long for an event loop?
        on_error: `continue`: where the agent fails, the answer that is there counts, or a rule decides;
            `raise`: its error ends the run.
        parallel: How many experts the first step of a route asks at once, where the bounds allow it.
    """

    def __init__(
        self,
        agent: RoutingAgent,
        rules: RouteRules,
        *,
        stickiness: float = 0.0,
        approve_above: float | None = None,
        audiences: Audiences | None = None,
        unavailable: Callable[[], Collection[str]] = frozenset,
        unable: Unable | None = None,
        counts_tokens: bool = False,
        on_error: str = "continue",
        parallel: int = 1,
    ) -> None:
        self.agent = agent
        self.rules = rules
        self.stickiness = stickiness
        self.approve_above = approve_above
        self.prices = dict(zip(rules.names, rules.costs, strict=True))
        self.audiences = audiences or Audiences(rules)
        self.unavailable = unavailable
        self.unable = unable
        self.counts_tokens = counts_tokens
        self.on_error = on_error
        self.parallel = parallel
        self.bulkhead = Bulkhead(untried=SIZE)
        self._readers = Bulkhead(untried=SIZE)  # apart: an agent that hangs takes none of these

    def node(self) -> Node:
        """The edge in the form in which LangGraph calls it."""
        return Node("next_expert", self.call, self.acall)

    def call(self, state: DERState, config: RunnableConfig) -> Send:
        """Decide, and say where to go."""
        asked = self._read(state, config)
        run = DecisionRun(config, asked.situation, len(asked.task["route"]))
        run.start()
        try:
            open_ = opened(self.rules, asked.situation)
            if open_.seen is None:
                given: Any = None
            else:
                work = partial(self._ask, open_.seen, config)
                given = (
                    work() if self._at_once else call(work, self.bulkhead, _patience(open_.seen))
                )
            decision = self._settled(open_, given, asked.situation)
        except BaseException as error:
            run.fail(error)
            raise
        run.end(decision)
        return self._send(decision, asked, config)

    async def acall(self, state: DERState, config: RunnableConfig) -> Send:
        """Decide without blocking the event loop; see `call`."""
        read = partial(self._read, state, config)
        asked = await asyncio.wrap_future(self._readers.run(read)) if self.counts_tokens else read()
        run = DecisionRun(config, asked.situation, len(asked.task["route"]))
        await run.astart()
        try:
            open_ = opened(self.rules, asked.situation)
            if open_.seen is None:
                given: Any = None
            else:
                work = partial(self._ask, open_.seen, config)
                given = (
                    work()
                    if self._at_once
                    else await acall(work, self.bulkhead, _patience(open_.seen))
                )
            decision = self._settled(open_, given, asked.situation)
        except BaseException as error:
            await run.afail(error)
            raise
        await run.aend(decision)
        return self._send(decision, asked, config)

    def decide(self, situation: dict[str, Any], config: RunnableConfig) -> Decision:
        """Decide in the caller's thread, where there is no graph: the rules, the agent, the run in the trace.

        Args:
            situation: As `_read` makes it.
            config: What the run belongs to.
        """
        run = DecisionRun(config, situation, len(situation["answers"]))
        run.start()
        try:
            open_ = opened(self.rules, situation)
            given = None if open_.seen is None else self._ask(open_.seen, config)
            decision = self._settled(open_, given, situation)
        except BaseException as error:
            run.fail(error)
            raise
        run.end(decision)
        return decision

    @property
    def _at_once(self) -> bool:
        """Is the agent a rule of this project that decides in microseconds, and so needs no thread?"""
        return getattr(self.agent, "decides_at_once", False) is True

    def _ask(self, seen: Situation, config: RunnableConfig) -> Any:
        # An agent may ask a person (`interrupt`), which looks for the node's configuration.
        with set_config_context(config) as context:
            try:
                return context.run(self.agent.decide, [seen])
            except (Exception, SystemExit) as error:
                if isinstance(error, GraphBubbleUp):
                    raise
                return error

    def _settled(self, open_: Opened, given: Any, situation: dict[str, Any]) -> Decision:
        if open_.seen is None:
            return open_.closed()
        try:
            error = given if isinstance(given, BaseException) else None
            choice = None if error is not None else _checked(given[0], open_)
        except Exception as wrong:  # a choice that is none
            error, choice = wrong, None
        if choice is None:
            assert error is not None
            if self.on_error == "raise":
                raise error
            return self._instead(open_, error)
        return open_.decision(*_stuck_to(choice, open_, situation))

    def _instead(self, open_: Opened, error: BaseException) -> Decision:
        """The decision where the agent could not make it."""
        # Its text may quote the question, and goes no further than the debug log.
        log.warning("the agent failed (%s); a rule decided instead", type(error).__name__)
        log.debug("the agent failed: %s", describe_error(error))
        return open_.decision(_by_rule(self.agent, open_, self.rules), "agent_failed")

    def _read(self, state: DERState, config: RunnableConfig) -> Asked:
        before, message, tail = find_question(without_handovers(state["messages"]))
        history = history_for_experts(before)
        question, question_id = message.text.strip(), message.id or ""
        route, spent, refused = open_route(state, question_id)
        context = as_context(_context(config))
        if context.ktp is not None:
            ktp_template(context.ktp)  # a wrong name is said now, and not after a decision
        taken = elapsed(route)
        attachments = blocks_beside_text(message)
        asked = check_settings(context.model_settings)
        task: dict[str, Any] = {
            "messages": history,
            "tail": tail,
            "question": question,
            "question_id": question_id,
            "route": route,
            "refused": refused,
            "ktp": context.ktp,
        }
        if asked:
            task["settings"] = asked
        if attachments:
            task["attachments"] = attachments
        cannot = {} if self.unable is None else self.unable(cast(Task, task))
        if attachments and all(cannot.get(name) == "no_inputs" for name in self.rules.names):
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
            "unavailable": sorted(self.unavailable()),
            "unable": cannot,
            "last_experts": last_experts(history),
            "stickiness": self.stickiness if context.stickiness is None else context.stickiness,
            "context": context,
            # For those who read the trace: all that bounds this decision.
            "prices": self.prices,
            "budget_left": None if context.max_cost is None else context.max_cost - spent,
            "steps_left": self.rules.steps(context.max_steps)
            - len(good_answers(answers_of(route))),
            "time_left": None if context.deadline is None else context.deadline - taken,
        }
        return Asked(situation, task)

    def _send(self, decision: Decision, asked: Asked, config: RunnableConfig) -> Send:
        seen, together = asked.situation, [decision]
        if self.parallel > 1 and not asked.task["route"]:
            bounds: DERContext = seen["context"]
            together = asked_together(
                decision, self.rules, bounds, self.parallel, self.approve_above
            )
            decision = together[-1]
        for each in together:
            write_event(config, "der.decision", each)
        choice = decision["choice"]
        fallback = _fallback(decision)
        left = seen["time_left"]
        task = Task(
            **asked.task,  # type: ignore[typeddict-item]
            decision=decision,
            time_left=None if left is None else left - decision["seconds"],
            audience=self.audiences.of(
                choice,
                seen["answers"],
                seen["context"],
                fallback=fallback,
                spent=seen["spent"],
                elapsed=seen["elapsed"],
                refused=seen["refused"],
                unavailable=seen["unavailable"],
                unable=seen["unable"],
            ),
            fallback=fallback,
            insist=choice in seen["unavailable"],
        )
        if len(together) > 1:
            heard = task["audience"] if task["audience"] == "all" else "draft"
            tasks: list[Any] = [
                {
                    **task,
                    "decision": d,
                    "audience": heard,
                    "insist": d["choice"] in seen["unavailable"],
                }
                for d in together
            ]
            return Send(TOGETHER_NODE, Tasks(tasks=tasks))
        return Send(_node(choice, self.prices, self.approve_above), task)


def _context(config: RunnableConfig) -> Any:
    """The request's context. Edges are not called with LangGraph's own in place, as nodes are."""
    with set_config_context(config) as context:
        return context.run(lambda: get_runtime(DERContext)).context


def _patience(seen: Situation) -> Limit:
    """How long the agent may think."""
    left = seen.deadline_left
    return Limit(DECISION_TIMEOUT if left is None else min(DECISION_TIMEOUT, max(0.0, left / 2)))


def _fallback(decision: Decision) -> Fallback:
    """What there is if the chosen expert fails."""
    mask = decision["mask"]
    if mask[END_CHOICE]:
        return "answer"
    others = any(free for name, free in mask.items() if name != decision["choice"])
    return "expert" if others else "none"


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


@dataclass(frozen=True)
class Opened:
    """A decision that the rules have opened.

    Attributes:
        choices: The experts' names, END last.
        mask: Which are allowed.
        reason: `agent`, or why only END is left.
        answers: The route's answers so far.
        spent: What they cost.
        seen: What the agent sees; None where there is nothing to choose.
        start: When it was opened.
    """

    choices: Sequence[str]
    mask: Sequence[bool]
    reason: str
    answers: Sequence[Answer]
    spent: float
    seen: Situation | None
    start: float

    def decision(self, choice: Choice, reason: str | None = None) -> Decision:
        """The decision for a choice."""
        decision = Decision(
            step=len(self.answers),
            choice=self.choices[choice.index],
            probabilities=dict(zip(self.choices, map(float, choice.probabilities), strict=True)),
            value=None if choice.value is None else float(choice.value),
            mask=dict(zip(self.choices, self.mask, strict=True)),
            reason=self.reason if reason is None else reason,
            cost_weight=choice.cost_weight,
            spent=self.spent,
            seconds=time.perf_counter() - self.start,
        )
        if choice.explanation:
            decision["explanation"] = choice.explanation
        return decision

    def closed(self) -> Decision:
        """The decision where only END is left."""
        return self.decision(_surely(len(self.choices) - 1, len(self.choices)))


def _surely(index: int, number: int) -> Choice:
    return Choice(index, [float(i == index) for i in range(number)])


def opened(rules: RouteRules, situation: dict[str, Any]) -> Opened:
    """Apply the rules: what is allowed, and what the agent sees."""
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
        unavailable=situation["unavailable"],
        unable=situation.get("unable"),
    )
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
    only_end = sum(mask) == 1 and reason != "agent"
    choices = [*rules.names, END_CHOICE]
    return Opened(choices, mask, reason, answers, spent, None if only_end else seen, start)


def _stuck_to(
    choice: Choice, open_: Opened, situation: dict[str, Any]
) -> tuple[Choice, str | None]:
    """The choice and its reason, after a look at who answered the last turn."""
    if open_.answers:
        return choice, None
    stay = _staying(choice, situation, open_.choices[:-1])
    return (choice, None) if stay == choice.index else (replace(choice, index=stay), "stickiness")


def _by_rule(agent: Any, open_: Opened, rules: RouteRules) -> Choice:
    """What is done where the agent fails: the answer that is there counts, else somebody is asked.

    That is the agent's own `fallback`, the name of an expert that it knew beforehand, or the cheapest.
    """
    number = len(open_.choices)
    if open_.mask[-1]:
        return _surely(number - 1, number)
    allowed = [i for i, free in enumerate(open_.mask[:-1]) if free]
    known = getattr(agent, "fallback", None)
    named = [i for i in allowed if open_.choices[i] == known]
    return _surely(named[0] if named else min(allowed, key=rules.costs.__getitem__), number)


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


def _checked(choice: Choice, open_: Opened) -> Choice:
    """A choice that can be followed: a budget holds even if the agent has not heard of it.

    Raises:
        AgentError: If it cannot.
    """
    choices, mask = open_.choices, open_.mask
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
    if not all(map(math.isfinite, choice.probabilities)):
        raise AgentError("the agent's probabilities are no numbers; are its weights damaged?")
    if choice.value is not None and not math.isfinite(choice.value):
        return replace(choice, value=None)
    return choice
