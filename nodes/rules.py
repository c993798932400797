"""The rules of a route: which choices are allowed now. The graph and the training environment both ask here.

END is not allowed before the first answer; an expert is asked at most once per route unless repeats are
allowed; an expert that failed is not asked again; nothing is asked that the budget does not cover; and after
`max_steps` calls only END is left, so no route is longer, whatever the agent wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from der_graph.errors import AllExpertsFailedError, BudgetError, PoolError
from der_graph.state import Answer, good_answers

COST_TOLERANCE = 1e-9
"""Sums of costs are compared with the budget up to this relative rounding error."""


@dataclass(frozen=True)
class RouteRules:
    """What is allowed on a route.

    Attributes:
        names: The experts, in the pool's order.
        costs: What one call of each costs at most, in the pool's unit.
        max_steps: Longest route: calls of experts, failed ones included.
        repeat_experts: May an expert be asked again on the same route? The paper's preset allows it.
    """

    names: tuple[str, ...]
    costs: tuple[float, ...]
    max_steps: int = 4
    repeat_experts: bool = False

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise PoolError(f"max_steps is {self.max_steps}; a route needs at least 1 call")

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

    def mask(
        self,
        answers: Sequence[Answer],
        *,
        spent: float = 0.0,
        max_cost: float | None = None,
        max_steps: int | None = None,
    ) -> tuple[list[bool], str]:
        """Which choices are allowed after these answers.

        Args:
            answers: The route's answers so far, failed ones included.
            spent: What they cost together.
            max_cost: Budget of the whole route, or None.
            max_steps: Longest route of this request, or None for the rules' own.

        Returns:
            One bool per expert in order, END last; and the reason if only END is left
            (`max_steps`, `max_cost`, `no_expert_left`), else `agent`.

        Raises:
            BudgetError: If no expert fits the budget and there is no answer yet.
            AllExpertsFailedError: If no expert is left and none has answered.
        """
        if not self.names:
            raise PoolError("the pool has no experts; add at least one")
        asked = {answer["expert"] for answer in answers}
        failed = {
            answer["expert"]: answer["error"] for answer in answers if answer["error"] is not None
        }
        barred = failed.keys() if self.repeat_experts else asked
        free = [name not in barred for name in self.names]
        budget = float("inf") if max_cost is None else max_cost * (1 + COST_TOLERANCE)
        affordable = [spent + cost <= budget for cost in self.costs]
        experts = [a and b for a, b in zip(free, affordable, strict=True)]
        answered = bool(good_answers(list(answers)))
        if len(answers) >= self.steps(max_steps):
            experts, reason = [False] * len(experts), "max_steps"
        elif not any(experts):
            reason = "max_cost" if any(free) else "no_expert_left"
        else:
            reason = "agent"
        if not answered and not any(experts):
            self._raise_no_answer(failed, max_cost, reason)
        return [*experts, answered], reason

    def _raise_no_answer(
        self, failed: Mapping[str, str | None], max_cost: float | None, reason: str
    ) -> None:
        if failed:
            causes = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise AllExpertsFailedError(f"no expert could answer ({causes})")
        cheapest = min(range(len(self.costs)), key=self.costs.__getitem__)
        raise BudgetError(
            f"max_cost={max_cost} does not pay for a single call: the cheapest expert is "
            f"'{self.names[cheapest]}' at {self.costs[cheapest]:g}; raise max_cost to at least that"
        )
