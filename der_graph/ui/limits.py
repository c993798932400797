"""The limits of a route as controls of the page: where a slider ends, and what it asks for.

Pool ──scale_of, priced──> controls ──request_of──> DERContext
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from der_graph.errors import BudgetError
from der_graph.pool import Pool
from der_graph.state import DERContext
from der_graph.ui.route import RouteView

UNITS = {
    "parameters_b": "B parameters",
    "usd": "US dollars",
    "seconds": "seconds",
    "calls": "calls",
}
"""The pool's cost units, in as few letters as a label has room for."""

UNSEEN = -1.0
"""Where the slider of the price of cost stands until it is shown: the agent's own price holds."""

IDLE = "Ask a question: the route is drawn here while it is built."


def request_of(
    pool: Pool,
    *,
    max_cost: float,
    max_steps: float,
    cost_weight: float | None,
    deadline: float | None,
    experts: Sequence[str],
) -> DERContext:
    """The settings of one request, as the controls give them.

    Args:
        pool: The experts.
        max_cost: Where the budget's slider stands; at its end there is no budget.
        max_steps: Longest route.
        cost_weight: Price of cost, or None where its slider is not shown; see `UNSEEN`.
        deadline: Seconds; 0 or None for none.
        experts: The experts that are ticked.

    Raises:
        BudgetError: If no expert is ticked, or a number cannot be used.
    """
    if not experts:
        raise BudgetError(
            "no expert is ticked; tick at least one under 'Experts that may be asked'"
        )
    end, _ = scale_of(pool)
    return DERContext(
        max_cost=None if max_cost >= end else float(max_cost),
        max_steps=int(max_steps),
        cost_weight=None if cost_weight is None or cost_weight == UNSEEN else float(cost_weight),
        deadline=float(deadline) if deadline else None,
        allowed_experts=None if set(experts) >= set(pool.names) else list(experts),
    )


def fresh_view(pool: Pool, state: str = IDLE) -> RouteView:
    """A route that has not begun."""
    rules = pool.rules
    return RouteView(rules.prices, rules.cost_unit, rules.dearest(), rules.max_steps, state=state)


def priced(pool: Pool, name: str) -> str:
    """An expert's name with its price."""
    return f"{name} ({fresh_view(pool).amount(pool[name].cost)})"


def scale_of(pool: Pool) -> tuple[float, float]:
    """End and step of the budget's slider: what no route costs more than, in about a hundred steps.

    Returns:
        End, 0 where all experts are free; and step.
    """
    dearest = fresh_view(pool).dearest
    if dearest <= 0:
        return 0.0, 0.1
    step = nice(dearest / 100)
    return round(math.ceil(dearest / step - 1e-9) * step, 12), step


def nice(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a value.

    >>> nice(0.0054), nice(0.7), nice(30)
    (0.005, 0.5, 20)
    """
    power = math.floor(math.log10(value))
    # Divided for small ones, as 0.005 is 5 / 1000, and 5 * 0.001 is not.
    many, few = 10 ** max(power, 0), 10 ** max(-power, 0)
    steps: list[float] = [n * many / few if few > 1 else n * many for n in (1, 2, 5)]
    return max(step for step in steps if step <= value * (1 + 1e-9))
