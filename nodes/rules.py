"""The rules of a route: which choices are allowed now. The graph and the training environment ask here.

END is not allowed before the first answer, and not on answers that are none ("I do not know.") while somebody
else can be asked; an expert is asked at most once per route unless repeats are allowed; an expert that failed
is not asked again; nobody is asked whom the request rules out, who was not approved, or who does not fit into
its budget or its time; and after `max_steps` answers only END is left, so no route has more, whatever the
agent wants. Calls that failed are not counted. An expert that fails again and again
(`nodes/reliability/breaker.py`) is left out as long as somebody else is there; so is one that was chosen but
not asked, as it shut before the call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from der_graph.errors import (
    BudgetError,
    ContextLengthError,
    PoolError,
    QuestionError,
    ToolsNotSupportedError,
    UnknownExpertError,
    is_number,
)
from der_graph.nodes.reliability.charge import Charge
from der_graph.nodes.reliability.failures import all_failed, as_langchain
from der_graph.nodes.values import is_refusal
from der_graph.state import MAX_STEPS, Answer, DERContext, good_answers

if TYPE_CHECKING:
    from der_graph.nodes.expert import Expert

COST_TOLERANCE = 1e-9
"""Sums of costs are compared with the budget up to this relative rounding error."""


@dataclass(frozen=True)
class RouteRules:
    """What is allowed on a route.

    Attributes:
        names: The experts, in the pool's order.
        costs: What one call of each costs at most, in the pool's unit.
        max_steps: Longest route: experts' answers; calls that failed are not counted.
        repeat_experts: May an expert be asked again on the same route? The paper's preset allows it.
        unbounded: Experts that may cost more than their price, so that no budget can pay for them.
        seconds: The usual time of one call of each, or None where it is not known; empty if of none.
        charges: How the calls of each are charged; empty if every call costs what `costs` says.
        cost_unit: What costs count, such as `usd`; empty where it is not known.
    """

    names: tuple[str, ...]
    costs: tuple[float, ...]
    max_steps: int = MAX_STEPS
    repeat_experts: bool = False
    seconds: tuple[float | None, ...] = ()
    unbounded: frozenset[str] = frozenset()
    charges: tuple[Charge, ...] = ()
    cost_unit: str = ""

    def __post_init__(self) -> None:
        steps = self.max_steps
        if not is_number(steps) or steps < 1 or steps % 1:
            raise PoolError(
                f"max_steps is {steps!r}; it must be a whole number: a route needs at least 1 call"
            )

    @classmethod
    def of(
        cls,
        experts: Sequence[Expert],
        *,
        max_steps: int = MAX_STEPS,
        repeat_experts: bool = False,
        cost_unit: str = "",
    ) -> RouteRules:
        """The rules of a route over these experts; the other arguments are those of the class."""
        return cls(
            names=tuple(expert.name for expert in experts),
            costs=tuple(expert.cost for expert in experts),
            max_steps=max_steps,
            repeat_experts=repeat_experts,
            seconds=tuple(expert.seconds for expert in experts),
            unbounded=frozenset(expert.name for expert in experts if expert.unbounded),
            charges=tuple(expert.charge for expert in experts),
            cost_unit=cost_unit,
        )

    @cached_property
    def prices(self) -> dict[str, float]:
        """What one call of each costs at most, by name."""
        return dict(zip(self.names, self.costs, strict=True))

    def dearest(self, wanted: int | None = None) -> float:
        """The most that a route may cost, if no call of it fails.

        Args:
            wanted: The longest route that a request asks for; see `steps`.

        Examples:
            >>> RouteRules(("a", "b", "c"), (1.0, 3.0, 2.0), 2).dearest()
            5.0
        """
        steps = self.steps(wanted)
        if self.repeat_experts:
            return max(self.costs) * steps
        return sum(sorted(self.costs, reverse=True)[:steps])

    def steps(self, wanted: int | None) -> int:
        """The longest route of one request: what it asks for, never more than the rules allow.

        Raises:
            BudgetError: If less than one step is asked for.
        """
        if wanted is None:
            return self.max_steps
        if wanted < 1:
            raise BudgetError(f"max_steps={wanted}: a route needs at least 1 call")
        return min(wanted, self.max_steps)

    def barred(self, context: DERContext) -> frozenset[str]:
        """The experts that a request's lists rule out.

        Raises:
            UnknownExpertError: If a list names an expert that is not in the pool.
        """
        allowed, forbidden = context.allowed_experts, context.forbidden_experts
        for field, given in (("allowed_experts", allowed), ("forbidden_experts", forbidden)):
            unknown = [name for name in given or () if name not in self.names]
            if unknown:
                raise UnknownExpertError(
                    f"{field}: there is no expert '{unknown[0]}'; the pool has: {', '.join(self.names)}"
                )
        outside = set() if allowed is None else set(self.names) - set(allowed)
        return frozenset(outside | set(forbidden or ()))

    def mask(
        self,
        answers: Sequence[Answer],
        context: DERContext | None = None,
        *,
        spent: float = 0.0,
        elapsed: float = 0.0,
        refused: Collection[str] = (),
        unavailable: Collection[str] = (),
        unable: Mapping[str, str] | None = None,
    ) -> tuple[list[bool], str]:
        """Which choices are allowed after these answers.

        Args:
            answers: The route's answers so far, failed ones included.
            context: The bounds of the request.
            spent: What the answers cost together.
            elapsed: Seconds that the route took so far.
            refused: Experts that a person did not approve.
            unavailable: Experts that fail again and again. They are asked all the same where there is no
                answer yet and nobody else.
            unable: Experts that cannot answer, by name, and why: `no_tools`, `no_inputs`, `context_length`.

        Returns:
            One bool per expert in order, END last; and the reason if only END is left (`max_steps`,
            `deadline`, `no_expert_left`, `not_allowed`, `not_approved`, `max_cost`, `unavailable`, or one of
            `unable`), else `agent`.

        Raises:
            BudgetError: If the bounds leave no expert and there is no answer yet.
            AllExpertsFailedError: If no expert is left and none has answered.
            ContextLengthError: If there is no answer and nobody is left who can read the question.
            ToolsNotSupportedError: The same, of those who can call tools.
            QuestionError: The same, of those who can read images or files.
            UnknownExpertError: If the request names an expert that is not in the pool.
        """
        if not self.names:
            raise PoolError("the pool has no experts; add at least one")
        context = context or _NO_BOUNDS
        failed = {
            answer["expert"]: answer["error"] for answer in answers if answer["error"] is not None
        }
        done = failed if self.repeat_experts else {answer["expert"] for answer in answers}
        answered = good_answers(list(answers))
        good = len(answered)
        left = [i for i, name in enumerate(self.names) if name not in done]
        reason = "agent"
        if good >= self.steps(context.max_steps):
            left, reason = [], "max_steps"
        elif not left:
            reason = "no_expert_left"
        before = left
        # Each bound narrows what the ones before it left; the first that leaves nothing is the reason.
        bounds = [
            *_abilities(self.names, unable or {}),
            *self._bounds(context, spent, elapsed, refused),
        ]
        for bound, fits in bounds:
            if left:
                before, left = left, [i for i in left if fits(i)]
                reason = reason if left else bound
        if not good and not left:
            shut_out = [i for i, name in enumerate(self.names) if _was_shut_out(name, answers)]
            left = [i for i in shut_out if all(fits(i) for _, fits in bounds)]
            if not left:
                self._raise_no_answer(answers, context, reason, before, spent)
            reason = "agent"
        if unavailable and left:
            there = [i for i in left if self.names[i] not in unavailable]
            if there or good:
                left, reason = there, reason if there else "unavailable"
        free = set(left)
        # "I do not know." ends no route while somebody else can be asked: else its words would decide it.
        said = any(
            bool(answer.get("tool_calls")) or not is_refusal(answer["text"]) for answer in answered
        )
        return [
            *(i in free for i in range(len(self.names))),
            good > 0 and (said or not left),
        ], reason

    def _bounds(
        self, context: DERContext, spent: float, elapsed: float, refused: Collection[str]
    ) -> list[tuple[str, Callable[[int], bool]]]:
        """The bounds of a request that is not without any: a reason, and which experts fit."""
        bounds: list[tuple[str, Callable[[int], bool]]] = []
        if context.allowed_experts is not None or context.forbidden_experts is not None:
            barred = self.barred(context)
            bounds.append(("not_allowed", lambda i: self.names[i] not in barred))
        if refused:
            bounds.append(("not_approved", lambda i: self.names[i] not in refused))
        if context.deadline is not None:
            deadline = context.deadline
            bounds.append(("deadline", lambda i: self._in_time(i, elapsed, deadline)))
        if context.max_cost is not None:
            budget = context.max_cost * (1 + COST_TOLERANCE)
            bounds.append(("max_cost", lambda i: spent + self._most(i) <= budget))
        return bounds

    def _most(self, expert: int) -> float:
        """The most that a call can cost."""
        return float("inf") if self.names[expert] in self.unbounded else self.costs[expert]

    def _in_time(self, expert: int, elapsed: float, deadline: float) -> bool:
        usual = self.seconds[expert] if self.seconds else None
        return elapsed < deadline and elapsed + (usual or 0.0) <= deadline

    def _raise_no_answer(
        self,
        answers: Sequence[Answer],
        context: DERContext,
        reason: str,
        before: Sequence[int],
        spent: float,
    ) -> NoReturn:
        if failed := [answer for answer in answers if answer["error"] is not None]:
            raise all_failed(failed)
        names = ", ".join(self.names[i] for i in before)
        if reason == "context_length":
            raise as_langchain(ContextLengthError, reason)(
                "the conversation is longer than the experts that may be asked can read "
                f"({names}); shorten it"
            )
        if reason == "no_tools":
            raise ToolsNotSupportedError(
                f"these experts cannot call tools: {names}. Tools need an expert that is a chat model with "
                "`bind_tools` (backend: langchain)"
            )
        if reason == "no_inputs":
            raise QuestionError(
                f"these experts read text only, and not what else the question holds: {names}; send a text, "
                "or say in the pool what an expert reads (`inputs: [image]`)"
            )
        if reason == "not_allowed":
            raise BudgetError(
                "allowed_experts and forbidden_experts leave no expert to ask; "
                f"the pool has: {', '.join(self.names)}"
            )
        if reason == "not_approved":
            raise BudgetError(f"no expert is left to ask: none was approved of {names}")
        if reason == "deadline":
            known = [i for i in before if self.seconds and self.seconds[i] is not None]
            fastest = min(known, key=lambda i: self.seconds[i] or 0.0, default=None)
            usual = (
                "" if fastest is None else f": the fastest expert is '{self.names[fastest]}', which "
                f"usually takes {self.seconds[fastest]:g} s; raise deadline to more than that"
            )  # fmt: skip
            raise BudgetError(
                f"deadline={context.deadline:g} is too short for a single call{usual}"
            )
        if all(self.names[i] in self.unbounded for i in before):
            raise BudgetError(
                f"max_cost={context.max_cost} cannot be kept by '{self.names[before[0]]}': it is charged by "
                "the token and nothing bounds its tokens; make it of a chat model, or price it by the call"
            )
        before = [i for i in before if self.names[i] not in self.unbounded]
        cheapest = min(before, key=self.costs.__getitem__)
        name, price = self.names[cheapest], self.costs[cheapest]
        if spent:
            raise BudgetError(
                f"{spent:g} of max_cost={context.max_cost} is spent, and what is left does not pay for "
                f"another call: the cheapest expert is '{name}' at {price:g}"
            )
        raise BudgetError(
            f"max_cost={context.max_cost} does not pay for a single call: the cheapest expert is "
            f"'{name}' at {price:g}; raise max_cost to at least that"
        )


def _was_shut_out(name: str, answers: Sequence[Answer]) -> bool:
    """Was an expert chosen, but not asked, as its breaker shut in between? Once: the next call is made."""
    failures = [each.get("failure") for each in answers if each["expert"] == name]
    return failures == ["open"]


def _abilities(
    names: Sequence[str], unable: Mapping[str, str]
) -> list[tuple[str, Callable[[int], bool]]]:
    """A bound for each reason why experts cannot answer."""

    def bound(reason: str) -> tuple[str, Callable[[int], bool]]:
        return reason, lambda i: unable.get(names[i]) != reason

    return [bound(reason) for reason in sorted(set(unable.values()), reverse=True)]


_NO_BOUNDS = DERContext()
