"""Policies that take the network's place at some prices of cost.

Training compares an agent with them (`policies/training/routes/takeovers.py`). Where one of them was better,
it decides at those prices, and its choices say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.nodes.decision import Choice
from der_graph.state import Situation, good_answers


@dataclass(frozen=True)
class Takeover:
    """A policy and the prices at which it decides.

    Attributes:
        low: Lowest price, included.
        high: Highest price, included.
        order: Experts to ask in this order; none: the router, which asks the one expert that promises most
            after its price.
        until_agreed: Stop as soon as an answer has the value of an earlier one.
        planner: The agent's planner decides, and the fields above say nothing.
    """

    low: float
    high: float
    order: tuple[str, ...] = ()
    until_agreed: bool = False
    planner: bool = False

    @classmethod
    def read(cls, kept: dict[str, Any]) -> Takeover:
        """From plain data."""
        return cls(
            float(kept["low"]),
            float(kept["high"]),
            tuple(map(str, kept["order"])),
            bool(kept["until_agreed"]),
            bool(kept.get("planner", False)),
        )

    def plain(self) -> dict[str, Any]:
        """As plain data, for a config file."""
        return {**asdict(self), "order": list(self.order)}

    def decides(self, price: float) -> bool:
        """Is it its turn at a price?"""
        return self.low <= price <= self.high

    @property
    def why(self) -> str:
        """What its choices say of themselves."""
        return f"at this price {self} did no worse than the network in training"

    def __str__(self) -> str:
        if self.planner:
            return "the planner"
        if not self.order:
            return "the router"
        return ", ".join(self.order) + (" until two agree" if self.until_agreed else "")

    def choose(
        self,
        situation: Situation,
        names: Sequence[str],
        worth: npt.NDArray[np.floating],
        price: float,
    ) -> Choice:
        """Choose for one situation.

        Args:
            situation: With a mask for `names` and END.
            names: The experts.
            worth: (experts + 1,) probability of each being right if it is asked next, less its charge; of
                END, that the answer that stands is right.
            price: What the request pays for cost.
        """
        index = self._index(situation, names, worth)
        chances = [float(i == index) for i in range(len(names) + 1)]
        return Choice(index, chances, float(worth[index]), price, {"why": self.why})

    def _index(
        self, situation: Situation, names: Sequence[str], worth: npt.NDArray[np.floating]
    ) -> int:
        answers = good_answers(situation.answers)
        asked = {answer["expert"] for answer in situation.answers}
        left = [names.index(e) for e in self.order if e in names and e not in asked]
        left = [i for i in left if situation.mask[i]]
        values = [answer["value"] for answer in answers]
        last = values[-1] if values else None
        agreed = self.until_agreed and last is not None and values.count(last) > 1
        if left and not agreed:
            return left[0]
        if situation.mask[-1]:
            return len(names)
        return int(np.where(situation.mask[:-1], worth[:-1], -np.inf).argmax())
