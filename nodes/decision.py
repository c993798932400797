"""One decision: what the rules leave open, what the agent chooses, and whether that can be followed.

    situation ──rules──> Opened ──agent──> Choice ──checked──> Decision, and a run in every trace

Where only END is left the agent is not asked. What it may not choose is not followed; where it fails a rule
decides in its place. Knows nothing of graphs.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.errors import GraphBubbleUp

from der_graph.errors import AgentError, AgentPoolMismatchError
from der_graph.nodes.reliability import describe_error
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.streaming import DecisionRun
from der_graph.state import END_CHOICE, Answer, Decision, DERContext, Situation

log = logging.getLogger("der_graph.agent")


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
    """Anything that chooses the next expert: the trained agent, and every baseline.

    The graph asks it in a thread, as it may take its time. One whose attribute `decides_at_once` is true is
    asked on the event loop.
    """

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


def check_known(known: Sequence[str], names: Sequence[str], cure: str) -> None:
    """Check that every expert of a pool is known; order and number do not matter.

    Args:
        known: The experts that the agent knows.
        names: Those of the pool.
        cure: What to do where one is not.

    Raises:
        AgentPoolMismatchError: If one is not, or the pool is empty.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise AgentPoolMismatchError(
            f"the agent does not know {_listed(unknown) or 'a pool without experts'}; it knows "
            f"{_listed(known)}. {cure}"
        )


def check_same(made: str, known: Sequence[str], names: Sequence[str], cure: str = "") -> None:
    """Check that a pool's experts are those that are known, in this order.

    Args:
        made: What was made for which experts, such as `the planner was made`.
        known: The experts that the agent knows.
        names: Those of the pool.
        cure: What to do where they are others.

    Raises:
        AgentPoolMismatchError: If they are others.
    """
    if list(names) != list(known):
        raise AgentPoolMismatchError(
            f"{made} for the experts {', '.join(known)}; the pool has "
            f"{', '.join(names) or 'none'}{'. ' * bool(cure)}{cure}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _here(work: Callable[[], Any], seen: Situation) -> Any:
    return work()


@dataclass(frozen=True)
class Decider:
    """An agent that decides within the rules.

    Attributes:
        agent: Chooses.
        rules: What is allowed.
        on_error: `continue`: where the agent fails, the answer that is there counts, or a rule decides;
            `raise`: its error ends the run.
    """

    agent: RoutingAgent
    rules: RouteRules
    on_error: str = "continue"

    @property
    def at_once(self) -> bool:
        """May the agent be asked without a thread?"""
        return getattr(self.agent, "decides_at_once", False) is True

    def decide(
        self,
        situation: dict[str, Any],
        config: RunnableConfig,
        through: Callable[[Callable[[], Any], Situation], Any] = _here,
    ) -> Decision:
        """Decide.

        Args:
            situation: As `situation_of` makes it.
            config: What the run in the trace belongs to.
            through: Asks the agent, and gives what it gave or raised; in this thread where left out.
        """
        run = DecisionRun(config, situation, len(situation["answers"]))
        run.start()
        try:
            open_ = opened(self.rules, situation)
            given = None
            if open_.seen is not None:
                given = through(partial(self._ask, open_.seen, config), open_.seen)
            decision = self._settled(open_, given, situation)
        except BaseException as error:
            run.fail(error)
            raise
        run.end(decision)
        return decision

    async def adecide(
        self,
        situation: dict[str, Any],
        config: RunnableConfig,
        through: Callable[[Callable[[], Any], Situation], Awaitable[Any]],
    ) -> Decision:
        """As `decide`."""
        run = DecisionRun(config, situation, len(situation["answers"]))
        await run.astart()
        try:
            open_ = opened(self.rules, situation)
            given = None
            if open_.seen is not None:
                given = await through(partial(self._ask, open_.seen, config), open_.seen)
            decision = self._settled(open_, given, situation)
        except BaseException as error:
            await run.afail(error)
            raise
        await run.aend(decision)
        return decision

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


def situation_of(
    rules: RouteRules,
    context: DERContext,
    *,
    spent: float,
    elapsed: float,
    stickiness: float,
    **more: Any,
) -> dict[str, Any]:
    """What there is to decide, for `Decider.decide` and for whoever reads the trace.

    Args:
        rules: What is allowed.
        context: The bounds of the request.
        spent: Cost of the route so far.
        elapsed: Seconds that it took so far.
        stickiness: How much less probable than the best an expert of the last turn may be and still open
            this one, where the request says nothing else.
        more: `question`, and as the agent reads it (`conversation`); the route's `answers`; experts that are
            `refused`, `unavailable` or `unable`; those of the last turn (`last_experts`).
    """
    own = context.stickiness
    return {
        **more,
        "spent": spent,
        "elapsed": elapsed,
        "stickiness": stickiness if own is None else own,
        "context": context,
        "prices": rules.prices,
        "budget_left": None if context.max_cost is None else context.max_cost - spent,
        "time_left": None if context.deadline is None else context.deadline - elapsed,
    }


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
