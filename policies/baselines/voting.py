"""Baselines that compare answers: ask until some agree, or ask everyone and select one answer.

    Cascade: cheapest first, until two agree        RunAll: everyone answers, one answer is selected

An answer that an expert gave after reading another is no independent vote, so compare them on routes
without knowledge transfer (`without_transfer`). Models that rank answers are in `rankers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from der_graph.policies.baselines.simple import Baseline, FixedOrder
from der_graph.policies.observation import TextEncoder
from der_graph.state import Answer, Situation, good_answers

Select = Callable[[Sequence[Answer], str], int]
"""Takes the good answers of a route, in order, and the question; gives the position of the best."""


class Cascade(FixedOrder):
    """Cheapest first, until answers agree.

    Agreement means the same extracted value (`Answer.value`); answers without one agree with nobody.
    The answer that counts is the last one, so with agreement the one agreed upon, and without it that of
    the last expert asked, the dearest.

    Args:
        names: The pool's experts.
        costs: Their costs.
        agree: How many answers must be the same to stop; 1 asks the cheapest expert only.
    """

    def __init__(self, names: Sequence[str], costs: Sequence[float], agree: int = 2) -> None:
        cheapest_first = [names[index] for index in Baseline(names, costs).by_cost]
        super().__init__(names, costs, cheapest_first)
        self.agree = agree

    def choose(self, situation: Situation) -> int:
        """END once enough answers agree, else the next expert."""
        answers = good_answers(situation.answers)
        votes = [answer["value"] for answer in answers if answer["value"] is not None]
        agreed = max((votes.count(value) for value in votes), default=0) >= self.agree
        if agreed or (self.agree <= 1 and answers):
            return len(self.names)
        return super().choose(situation)


class RunAll(FixedOrder):
    """Every expert answers; one answer is selected afterwards.

    Needs routes as long as the pool (`max_steps`). `select` is read by the graph and the evaluation,
    which else take the last answer.

    Args:
        names: The pool's experts.
        costs: Their costs.
        select: Chooses the answer; majority of the values if left out.
        order: Whom to ask, in order; dearest first if left out, so that ties go to the dearest.
    """

    def __init__(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        select: Select | None = None,
        order: Sequence[str] | None = None,
    ) -> None:
        dearest_first = [names[index] for index in reversed(Baseline(names, costs).by_cost)]
        super().__init__(names, costs, dearest_first if order is None else order)
        self._select = majority if select is None else select

    def select(self, answers: Sequence[Answer], question: str) -> int:
        """Position of the answer that counts, among good answers in the order they came."""
        return self._select(answers, question)


def majority(answers: Sequence[Answer], question: str = "") -> int:
    """The first answer whose value most answers share; answers without a value stand alone."""
    values = [answer["value"] for answer in answers]
    votes = [1 if value is None else values.count(value) for value in values]
    return votes.index(max(votes))


def nearest_to_all(encoder: TextEncoder) -> Select:
    """Make a vote for long answers: the one most similar to the mean of all, by a sentence encoder."""

    def select(answers: Sequence[Answer], question: str) -> int:
        vectors = encoder.encode([answer["text"] for answer in answers])
        return int(np.argmax(vectors @ vectors.mean(axis=0)))

    return select
