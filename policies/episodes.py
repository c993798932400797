"""What the episodes of training are about: which question, at what price, within what bounds.

Knows nothing of experts' answers or of stable-baselines3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from der_graph.state import DERContext


@dataclass(frozen=True)
class RequestConfig:
    """What the requests of training look like, so that one agent serves every price and budget.

    Attributes:
        cost_weight: The price of cost, in quality for the cost of asking everyone once, where it is fixed.
        cost_weight_range: Prices are drawn log-uniformly from it; (w, w) fixes them.
        budget_share: Share of the episodes that have a hard budget, drawn log-uniformly between the
            cheapest call and everyone's.
        short_share: Share of the episodes with a `max_steps` of their own, drawn evenly from those below the
            longest route.
    """

    cost_weight: float = 0.2
    cost_weight_range: tuple[float, float] = (0.01, 2.0)
    budget_share: float = 0.1
    short_share: float = 0.2


class Episodes:
    """Draws what each new episode is about: every question once per pass, in a new order each pass.

    Args:
        examples: Number of questions.
        requests: What requests look like.
        costs: Price of one call of each expert.
        seed: Of the order and of the requests.
        max_steps: Longest route.
    """

    def __init__(
        self,
        examples: int,
        requests: RequestConfig,
        costs: Sequence[float],
        seed: int,
        max_steps: int,
    ) -> None:
        self.requests = requests
        self._examples = examples
        self._max_steps = max_steps
        self._cheapest = max(min(costs), 1e-9)
        self._total = max(sum(costs), self._cheapest)
        self.rng = np.random.default_rng(seed)
        self._order: list[int] = []

    def draw(self) -> tuple[int, DERContext]:
        """The next question and its request."""
        if not self._order:
            self._order = self.rng.permutation(self._examples).tolist()
        low, high = self.requests.cost_weight_range
        weight = float(np.exp(self.rng.uniform(np.log(low), np.log(high)))) if low < high else low
        budget = None
        if self.rng.random() < self.requests.budget_share:
            budget = float(np.exp(self.rng.uniform(np.log(self._cheapest), np.log(self._total))))
        steps = None
        if self._max_steps > 1 and self.rng.random() < self.requests.short_share:
            steps = int(self.rng.integers(1, self._max_steps))
        context = DERContext(max_cost=budget, cost_weight=weight, max_steps=steps)
        return self._order.pop(), context

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as plain data."""
        return {"rng": self.rng.bit_generator.state, "order": list(self._order)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.rng.bit_generator.state = state["rng"]
        self._order = list(state["order"])
