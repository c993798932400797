"""The simple baselines: a single expert, a random one, a fixed order, and the oracles.

`Baseline` is what all baselines share. Where the wanted expert is masked (it failed, or the budget does not
cover it), a baseline ends the route if it has an answer, else it asks the cheapest expert allowed. Those
that compare answers are in `voting.py`, those that learn from questions in `routers.py` and `cascades.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from der_graph.errors import DataError, UnknownExpertError
from der_graph.nodes.decision import Choice, check_same
from der_graph.state import Situation, good_answers


class Baseline:
    """What all baselines share: they know the pool, and decide one situation at a time.

    Args:
        names: The pool's experts, in order.
        costs: What one call of each costs, in the pool's unit.
    """

    def __init__(self, names: Sequence[str], costs: Sequence[float]) -> None:
        if len(names) != len(costs):
            raise ValueError(f"{len(names)} experts, but {len(costs)} costs")
        self.names = tuple(names)
        self.costs = tuple(float(cost) for cost in costs)

    @property
    def by_cost(self) -> list[int]:
        """The experts' positions, cheapest first; equal ones in the pool's order."""
        return sorted(range(len(self.costs)), key=lambda index: self.costs[index])

    def check_pool(self, names: Sequence[str]) -> None:
        """Check that the experts are those that the baseline was made for, in this order.

        Raises:
            AgentPoolMismatchError: If they are not.
        """
        check_same(f"{type(self).__name__} was made", self.names, names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation, with certainty."""
        return [certain(self.allowed(self.choose(seen), seen), seen) for seen in situations]

    def choose(self, situation: Situation) -> int:
        """The wanted choice, by position, END last; it need not be allowed."""
        raise NotImplementedError

    def allowed(self, wanted: int, situation: Situation) -> int:
        """The wanted choice if the mask allows it, else END, else the cheapest expert allowed."""
        mask, end = situation.mask, len(self.names)
        for index in (wanted, end, *self.by_cost):
            if mask[index]:
                return index
        raise ValueError("the mask allows no choice at all")

    def index(self, name: str) -> int:
        """Position of an expert.

        Raises:
            UnknownExpertError: If it is not in the pool.
        """
        if name not in self.names:
            raise UnknownExpertError(
                f"expert '{name}' is not in the pool; it has: {', '.join(self.names)}"
            )
        return self.names.index(name)


class Single(Baseline):
    """Always the same expert, once.

    Args:
        names: The pool's experts.
        costs: Their costs.
        expert: Whom to ask.
    """

    def __init__(self, names: Sequence[str], costs: Sequence[float], expert: str) -> None:
        super().__init__(names, costs)
        self.expert = self.index(expert)

    def choose(self, situation: Situation) -> int:
        """The expert, then END."""
        return len(self.names) if good_answers(situation.answers) else self.expert


class Random(Baseline):
    """Any choice that is allowed, END too, each equally likely.

    The same question at the same step gets the same choice, whatever else is decided beside it.

    Args:
        names: The pool's experts.
        costs: Their costs.
        seed: Another seed, other choices.
    """

    def __init__(self, names: Sequence[str], costs: Sequence[float], seed: int = 0) -> None:
        super().__init__(names, costs)
        self.seed = seed

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Draw for each situation."""
        choices = []
        for seen in situations:
            options = [index for index, free in enumerate(seen.mask) if free]
            key = zlib.crc32(seen.question.encode("utf-8", "replace"))
            rng = np.random.default_rng([self.seed, key, len(seen.answers)])
            share = 1 / len(options)
            probabilities = [share if free else 0.0 for free in seen.mask]
            choices.append(Choice(int(rng.choice(options)), probabilities))
        return choices


class FixedOrder(Baseline):
    """The same experts in the same order for every question.

    Args:
        names: The pool's experts.
        costs: Their costs.
        order: Whom to ask, in order; the whole pool in its order if left out.
        k: Ask only the first so many.
    """

    def __init__(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        order: Sequence[str] | None = None,
        k: int | None = None,
    ) -> None:
        super().__init__(names, costs)
        self.order = [self.index(name) for name in (names if order is None else order)][:k]
        if not self.order:
            raise UnknownExpertError("a fixed order needs at least one expert")

    def choose(self, situation: Situation) -> int:
        """The next expert of the order that is allowed, else END."""
        asked = {answer["expert"] for answer in situation.answers}
        for index in self.order:
            if self.names[index] not in asked and situation.mask[index]:
                return index
        return len(self.names)


class Oracle(Baseline):
    """Knows the quality of every answer beforehand: the bound for asking one expert per question.

    For evaluation only.

    Args:
        names: The pool's experts.
        costs: Their costs.
        questions: (n,) the questions that will be asked.
        qualities: (n, experts) quality of each expert's own answer, in [0, 1].
        good_enough: None takes the best answer, the cheapest of equals. A number takes the cheapest
            answer that is at least so good, and where there is none, the best.

    Raises:
        DataError: If the shapes do not fit.
    """

    def __init__(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        questions: Sequence[str],
        qualities: ArrayLike,
        good_enough: float | None = None,
    ) -> None:
        super().__init__(names, costs)
        table = np.asarray(qualities, dtype=np.float64)
        if table.shape != (len(questions), len(names)):
            raise DataError(
                f"qualities of shape {table.shape} for {len(questions)} questions and "
                f"{len(names)} experts"
            )
        self._qualities: dict[str, NDArray[np.float64]] = dict(zip(questions, table, strict=True))
        self._good_enough = good_enough

    def choose(self, situation: Situation) -> int:
        """The expert whose answer is the right one, then END."""
        if good_answers(situation.answers):
            return len(self.names)
        known = self._qualities.get(situation.question)
        if known is None:
            raise DataError(f"the oracle does not know the question {situation.question[:80]!r}")
        open_experts = [index for index in self.by_cost if situation.mask[index]]
        if self._good_enough is not None:
            for index in open_experts:
                if known[index] >= self._good_enough:
                    return index
        return max(
            open_experts, key=lambda index: known[index]
        )  # the first of equals: the cheapest


def certain(index: int, situation: Situation, cost_weight: float | None = None) -> Choice:
    """A choice with probability 1."""
    probabilities = [0.0] * len(situation.mask)
    probabilities[index] = 1.0
    return Choice(index, probabilities, cost_weight=cost_weight)
