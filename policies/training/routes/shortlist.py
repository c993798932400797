"""Which experts of a large pool a route tree is made of.

    first answers, pairs ──greedy: who adds most to those that are chosen──> as many experts as a tree holds

An expert adds something alone, if at some price it is the best one for some questions; as a second opinion,
if it is right where the others are wrong; or after another one, if it is better with that one's answer than
without, or reacts to it while neither is any good (a link of a chain). What counts is what it adds to those
that are there already: of ten experts that are alike, the second adds little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.training.routes.tree import FULL

Floats = npt.NDArray[np.float64]
Gains = Callable[[list[int]], Floats]
"""Given all experts, most useful ones first, tries pairs: [i, j] is what j gains by reading i's answer."""

_PROBED = 40  # questions on which pairs are tried
_FEW = 6  # questions on which they are, where there are many pairs
_REQUESTS = 240_000  # answers for that, about
_PAIRED = 30  # experts up to which all pairs are tried; in larger pools each has one of the most useful ones
_PAIRS = 40_000  # pairs that are tried, about
_OPINION = (
    0.25  # what a second opinion is worth, of what it were, were one told which of the two is right
)
_LINK = 0.05  # what a weak expert that reacts to another weak one may add
_PRICES = (0.02, 0.1, 0.4, 1.5)  # at which an expert may be useful
_ROWS = 1_000  # questions that are looked at
_COUPLES = 200  # pairs that may be chosen together, those that gain most
_NOTHING = -1.0  # utility where nobody was asked


def shortlist(
    source: AnswerSource,
    predicted: npt.NDArray[np.floating],
    costs: Sequence[float],
    most: int = FULL,
    gains: Gains | None = None,
) -> list[int]:
    """Choose the experts that bring most together.

    Args:
        source: The training questions.
        predicted: (questions, experts) quality to be expected of each alone.
        costs: Price of one call of each.
        most: How many at most.
        gains: What pairs bring; tried on some questions where left out.

    Returns:
        Their positions, in order.
    """
    n, pool = predicted.shape
    if pool <= most:
        return list(range(pool))
    charged = np.multiply.outer(_PRICES, np.asarray(costs) / max(sum(costs), 1e-12))
    first = np.array([[o.quality for o in row] for row in source.first_answers()])
    some = np.random.default_rng(0).permutation(n)[:_ROWS]
    expected = predicted[some].astype(np.float64).T[:, None, :] - charged.T[:, :, None]
    real = first[some].T[:, None, :] - charged.T[:, :, None]
    useful = _greedy(expected, real, np.zeros((pool, pool)), min(pool, _PAIRED))
    useful += sorted(set(range(pool)) - set(useful))
    found = try_pairs(source, first, useful) if gains is None else gains(useful)
    # The second call has its price as well.
    worth = np.maximum(found - charged[:, None, :], 0.0).mean(axis=0)
    return sorted(_greedy(expected, real, worth, most))


def _greedy(expected: Floats, real: Floats, gains: Floats, count: int) -> list[int]:
    """Experts in the order in which each, or two of them together, add most to those before.

    Args:
        expected: (experts, prices, questions) utility of one call as it is predicted.
        real: The same as it turned out.
        gains: [i, j]: what j gains by reading i's answer.
        count: How many experts.
    """
    pairs = np.argsort(-gains, axis=None, kind="stable")[:_COUPLES]
    couples = [(int(i), int(j)) for i, j in zip(*np.unravel_index(pairs, gains.shape), strict=True)]
    couples = [couple for couple in couples if gains[couple] > 0]
    best, luck = (np.full(expected.shape[1:], _NOTHING) for _ in range(2))
    chosen: list[int] = []

    def with_(group: Sequence[int]) -> tuple[Floats, Floats]:
        """The best single calls by what is expected, and by what came of them."""
        return (
            np.maximum(best, expected[list(group)].max(axis=0)),
            np.maximum(luck, real[list(group)].max(axis=0)),
        )

    def worth(group: Sequence[int]) -> float:
        one, other = with_(group)
        among = [*chosen, *group]
        read = gains[np.ix_(among, among)].max(axis=0).sum()
        return float(((1 - _OPINION) * one + _OPINION * other).mean() + read)

    so_far = _NOTHING
    while len(chosen) < count:
        groups: list[tuple[int, ...]] = [(i,) for i in range(len(gains)) if i not in chosen]
        if len(chosen) + 2 <= count:
            groups += [couple for couple in couples if not set(couple) & set(chosen)]
        group = max(groups, key=lambda each: (worth(each) - so_far) / len(each))
        so_far = worth(group)
        best, luck = with_(group)
        chosen += group
    return chosen


def try_pairs(source: AnswerSource, first: Floats, useful: Sequence[int]) -> Floats:
    """Ask experts after one another on some questions: [i, j] is what j gains by reading i's answer.

    Many pairs are tried on few questions, and the best of them on more.

    Args:
        source: The training questions.
        first: (questions, experts) quality alone.
        useful: All experts, most useful ones first; in a large pool one of each pair is among the first.
    """
    n, pool = first.shape
    some = np.random.default_rng(0).permutation(n)[:_PROBED].tolist()
    outcomes = source.first_answers()
    pairs = pairs_of(source, useful[: min(_PAIRED, _PAIRS // (2 * pool) + 1)])
    gains = np.zeros((pool, pool))

    def try_on(pairs: Sequence[tuple[int, int]], questions: Sequence[int]) -> None:
        asked = source.ask(
            [Request(q, j, [outcomes[q][i].answer]) for i, j in pairs for q in questions]
        )
        for at, (i, j) in enumerate(pairs):
            mine = asked[at * len(questions) : (at + 1) * len(questions)]
            gains[i, j] = gain_of(source, j, mine, questions, first[questions][:, [i]]).reading

    few = some[: max(_FEW, _REQUESTS // max(len(pairs), 1))]
    try_on(pairs, few)
    if len(few) < len(some):
        best = sorted((p for p in pairs if gains[p] > 0), key=lambda p: -gains[p])[:_COUPLES]
        gains[:] = 0.0  # on few questions much looks good by chance
        try_on(best, some)
    return gains


def pairs_of(source: AnswerSource, among: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of experts of which the second reads the first one's answer, and one is among some.

    Args:
        source: Knows who reads.
        among: Positions of those.
    """
    everyone = range(len(source.experts))
    readers = {i for i in everyone if source.reads_answers(i)}
    given = [(i, j) for i in among for j in everyone if j in readers and i != j]
    known = set(among)
    return given + [(i, j) for j in among if j in readers for i in everyone if i not in known]


class Gain(NamedTuple):
    """What asking one more expert adds to the answers before, on average.

    Attributes:
        reading: By reading them, in [0, 1]. Where neither it nor the one before it is any good, that it
            reacts counts a little: a link of a chain.
        opinion: As a second opinion, were one told which answer is right, in [0, 1].
    """

    reading: float
    opinion: float

    @property
    def total(self) -> float:
        """Both; a second opinion counts in part, as nobody is told."""
        return self.reading + _OPINION * self.opinion


NO_GAIN = Gain(0.0, 0.0)


def gain_of(
    source: AnswerSource,
    expert: int,
    outcomes: Sequence[Outcome],
    questions: Sequence[int],
    before: Floats,
) -> Gain:
    """What asking an expert after others adds.

    Args:
        source: Knows what it says alone.
        expert: By position.
        outcomes: What it said.
        questions: To which questions.
        before: (questions, answers) quality of the answers before.
    """
    after = np.array([o.quality for o in outcomes])
    alone = source.ask([Request(q, expert, []) for q in questions])
    own, best = np.array([o.quality for o in alone]), before.max(axis=1)
    reading = float(np.maximum(after - np.maximum(best, own), 0.0).mean())
    if max(own.mean(), before[:, -1].mean()) < 0.5:
        reacts = [
            o.answer["text"] != a.answer["text"] for o, a in zip(outcomes, alone, strict=True)
        ]
        reading = max(reading, _LINK * float(np.mean(reacts)))
    return Gain(reading, float(np.maximum(after - best, 0.0).mean()))
