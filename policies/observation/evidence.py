"""What the answers of many routes say, as arrays: who answered what, who agrees, for how much that counts.

    situations ──gather──> (n, L) arrays, one slot per answer ──> agreement, weight of evidence, verbosity

The loop over situations only reads plain data; everything computed from it is vectorised, because training
looks at hundreds of routes at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.nodes.values import parse_number
from der_graph.state import Answer, Situation

Floats = npt.NDArray[np.float32]

EPSILON = 0.02
"""No expert is ever quite right or quite wrong: bounds its weight of evidence."""

_HEDGE = re.compile(
    r"^\W*$|^\?"
    r"|\b(?:i (?:do not|don't|cannot|can't|am not able)|i'm (?:sorry|not)|as an ai|unable to|unknown)\b",
    re.I,
)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The answers of n routes in L slots, in the order they came.

    Attributes:
        expert: (n, L) position of the expert in the pool; -1 for none, or one that the pool does not have.
        good: (n, L) is there an answer that is one?
        failed: (n, L) is there a failed call?
        value: (n, L) values by number, equal ones the same within a row; -1 for none.
        tokens: (n, L) length of the answer in tokens; 0 unknown.
        last: (n,) slot of the last good answer; -1 for none.
        looks: (n, L, 5) what each answer looks like, see `appearance`; None for not known.
    """

    expert: npt.NDArray[np.int64]
    good: npt.NDArray[np.bool_]
    failed: npt.NDArray[np.bool_]
    value: npt.NDArray[np.int64]
    tokens: Floats
    last: npt.NDArray[np.int64]
    looks: Floats | None = None

    @cached_property
    def agrees(self) -> npt.NDArray[np.bool_]:
        """(n, L) does the answer in a slot have the last one's value? The last one itself is left out."""
        rows = np.arange(len(self.last))
        value = self.value[rows, np.maximum(self.last, 0)]
        same: npt.NDArray[np.bool_] = (
            self.good & (self.value == value[:, None]) & (value >= 0)[:, None]
        )
        same[rows[self.last >= 0], self.last[self.last >= 0]] = False
        return same

    @cached_property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """(n, L) has the slot's expert given this value before on the route?"""
        known = self.good & (self.value >= 0)
        again = (self.expert[:, :, None] == self.expert[:, None, :]) & self._same
        earlier = np.tril(again & known[:, None, :], -1).any(axis=2)
        result: npt.NDArray[np.bool_] = known & earlier
        return result

    @cached_property
    def _same(self) -> npt.NDArray[np.bool_]:
        """(n, L, L) do the answers in two slots have the same value?"""
        same: npt.NDArray[np.bool_] = self.value[:, :, None] == self.value[:, None, :]
        return same

    def weight(self, log_odds: Floats, chance: Floats | None = None) -> Floats:
        """Log-odds for the last answer's value, less those for the best other value.

        Args:
            log_odds: (n, experts) of each expert being right.
            chance: (n,) how often two wrong answers have one value, see `_votes`; None leaves it out.

        Returns:
            (n,) within [-9, 9]; 0 where there is no answer.
        """
        rows = np.arange(len(self.last))[:, None]
        counts = self.good & (self.value >= 0) & (self.expert >= 0)
        each = np.where(counts, log_odds[rows, np.maximum(self.expert, 0)], 0.0)
        support = (self._same * each[:, None, :]).sum(axis=2)  # of the value in each slot
        voices = counts & ~self.repeats
        support += _votes((self._same & voices[:, None, :]).sum(axis=2), chance)
        last = np.maximum(self.last, 0)
        value = self.value[rows[:, 0], last]
        mine = np.where((self.last >= 0) & (value >= 0), support[rows[:, 0], last], 0.0)
        other = np.where(counts & (self.value != value[:, None]), support, -np.inf).max(axis=1)
        difference = np.clip(mine - np.maximum(other, 0.0), -9.0, 9.0)
        return np.where(self.last >= 0, difference, 0.0).astype(np.float32)

    def belief(self, log_odds: Floats) -> Floats:
        """Probability that the last answer is right, were the experts independent.

        Args:
            log_odds: (n, experts) of each expert being right.

        Returns:
            (n,); 0 where there is no answer. With one answer, its expert's own probability.
        """
        slots = np.arange(self.expert.shape[1])
        rows = np.arange(len(self.last))
        each = np.where(self.expert >= 0, log_odds[rows[:, None], np.maximum(self.expert, 0)], 0.0)
        # An answer without a value agrees with itself alone.
        value = np.where(self.value >= 0, self.value, -1 - slots)
        same = (value[:, :, None] == value[:, None, :]) & (
            self.good[:, :, None] & self.good[:, None]
        )
        support = np.clip((same * each[:, None, :]).sum(axis=2), -9.0, 9.0)
        # Every value once, and 1 for "none of them".
        odds = np.where(self.good, np.exp(support) / np.maximum(same.sum(axis=2), 1), 0.0)
        mine = np.exp(support[rows, np.maximum(self.last, 0)]) / (1.0 + odds.sum(axis=1))
        return np.where(self.last >= 0, mine, 0.0).astype(np.float32)

    def verbosity(self, profile: Floats | None) -> Floats:
        """How long each answer is for its expert, in standard deviations of the log of its tokens.

        Args:
            profile: (2, experts) mean and deviation of that log; None where it is not known.

        Returns:
            (n, L) within [-3, 3]; 0 where there is no answer.
        """
        result = np.zeros(self.tokens.shape, dtype=np.float32)
        if profile is not None:
            known = self.good & (self.expert >= 0)
            mean, deviation = profile[:, self.expert[known]]
            result[known] = np.clip((np.log(self.tokens[known]) - mean) / deviation, -3.0, 3.0)
        return result


def _votes(
    votes: npt.NDArray[np.int64], chance: Floats | None
) -> npt.NDArray[np.floating[Any]] | float:
    """What agreeing as such adds to the log-odds of a value.

    Weak experts that agree are right more often than each of them: wrong answers differ. If all were wrong,
    the second and every further one would have this value with probability `chance` only.

    Args:
        votes: (n, L) experts with the value of each slot.
        chance: (n,) in (0, 1]; None for 1.

    Returns:
        (n, L), or 0.
    """
    if chance is None:
        return 0.0
    return np.maximum(votes - 1, 0) * -np.log(chance)[:, None]


def gather(situations: Sequence[Situation], position: Mapping[str, int]) -> Evidence:
    """Read the answers of situations.

    Args:
        situations: Any number.
        position: Where each expert stands in the pool.
    """
    n = len(situations)
    slots = max(1, *(len(s.answers) for s in situations)) if situations else 1
    expert = np.full((n, slots), -1, dtype=np.int64)
    good = np.zeros((n, slots), dtype=np.bool_)
    failed = np.zeros((n, slots), dtype=np.bool_)
    value = np.full((n, slots), -1, dtype=np.int64)
    tokens = np.zeros((n, slots), dtype=np.float32)
    last = np.full(n, -1, dtype=np.int64)
    looks = np.zeros((n, slots, 5), dtype=np.float32)
    for i, situation in enumerate(situations):
        codes: dict[str, int] = {}
        for slot, answer in enumerate(situation.answers):
            expert[i, slot] = position.get(answer["expert"], -1)
            if answer["error"] is not None:
                failed[i, slot] = True
                continue
            good[i, slot] = True
            last[i] = slot
            if answer["value"] is not None:
                value[i, slot] = codes.setdefault(answer["value"], len(codes))
            tokens[i, slot] = answer_tokens(answer)
            looks[i, slot] = look_of(answer)
    return Evidence(expert, good, failed, value, tokens, last, looks)


def answer_tokens(answer: Answer) -> float:
    """Length of an answer in tokens, estimated where the backend does not say."""
    return answer["output_tokens"] or max(1.0, len(answer["text"]) / 4)


@lru_cache(maxsize=65_536)
def appearance(text: str, value: str | None) -> tuple[float, float, float, float, float]:
    """What an answer looks like: has a value, is a number, an uncomputed expression, its length, hedges."""
    number = parse_number(value) is not None
    expression = value is not None and not number and value[:1] in "(0123456789"
    return (
        float(value is not None),
        float(number),
        float(expression),
        math.log1p(len(text)) / 5.0,
        # Without a text the value is that of a call of tools.
        float(bool(text.strip() or value is None) and bool(_HEDGE.search(text[:200]))),
    )


def look_of(answer: Answer) -> tuple[float, float, float, float, float]:
    """What an answer looks like; one that calls tools by its calls, whatever it says beside them."""
    return appearance("" if answer.get("tool_calls") else answer["text"], answer["value"])


def log_odds(skill: Floats) -> Floats:
    """Log-odds of probabilities, bounded by `EPSILON`."""
    bounded = np.clip(skill, EPSILON, 1 - EPSILON)
    result: Floats = np.log(bounded / (1 - bounded)).astype(np.float32)
    return result
