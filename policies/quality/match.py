"""Metrics that need no model: right or wrong, the same by mathematics, and overlap of words.

    match, numeric, exact, choice: 1 or 0        MathVerify: 1 or 0        token_f1, RougeL: from 0 to 1

`match` is the default metric: a reference that is a number is compared as a number, any other must stand in
the first line of the answer. Case, punctuation and articles do not count (the normalisation of SQuAD's
evaluation script, Rajpurkar et al., 2016), and thousands separators are known. `MathVerify` and `RougeL`
use the packages math-verify and rouge-score.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from der_graph.data import Example
from der_graph.errors import DataError, require
from der_graph.nodes.values import normalize_text, normalize_value, one_spelling, parse_number
from der_graph.policies.quality.metric import TextPairs, is_answered, references
from der_graph.state import Answer

TOLERANCE = 1e-4
"""Largest difference between equal numbers: of the reference, or absolute where that is below 1."""

LONGEST_FIRST_LINE = 30
"""Words. A first line that is longer names too many things for the right one among them to
count."""

_CHOICE_FIRST = re.compile(r"^\W*([A-Ja-j])\s*(?:[.:)\]*]|$)")
_CHOICE_MARKED = re.compile(
    r"\b(?:answer|option|choice)\s*(?:is|:|=)?\s*:?\s*[(\[*\"']*([A-J])\b(?!')|\\boxed\{\W*([A-J])\b"
)
_CHOICE_IN_BRACKETS = re.compile(r"[(\[]([A-J])[)\]]")


def numeric(answer: Answer, example: Example) -> float:
    """1 if the number that the answer gives is the reference's, up to `TOLERANCE`.

    Raises:
        DataError: If the reference is not a number.
    """
    given = parse_number(answer["value"])
    return float(any(_same_number(given, number) for number in numbers_of(example)))


def numbers_of(example: Example) -> list[float]:
    """The right numbers.

    Raises:
        DataError: If the reference is not a number.
    """
    numbers = [number_of(reference) for reference in references(example)]
    found = [number for number in numbers if number is not None]
    if len(found) < len(numbers):
        raise DataError(
            f"question {example.id!r}: the metric 'numeric' needs a number as reference, found "
            f"{example.reference[:80]!r}; use 'match' for data that mixes numbers and text"
        )
    return found


def match(answer: Answer, example: Example) -> float:
    """1 if the answer gives the reference: as a number, or as whole words of its first line."""
    line = first_line(answer["text"])
    given = parse_number(answer["value"])
    for reference in references(example):
        number = number_of(reference)
        if number is not None:
            right = _same_number(given, number)
        else:
            right = len(line.split()) <= LONGEST_FIRST_LINE and contains(line, reference)
        if right:
            return 1.0
    return 0.0


def exact(answer: Answer, example: Example) -> float:
    """1 if the whole answer, or the part of it that counts, is the reference."""
    given = {
        write(said) for write in _SPELLINGS for said in (answer["text"], answer["value"] or "")
    }
    return float(
        any(write(right) in given for right in references(example) for write in _SPELLINGS)
    )


def agreement(answer: Answer, example: Example) -> float:
    """1 if the answer comes to the value that the experts agree on; see `training.agreement`."""
    return float(answer["value"] is not None and answer["value"] in references(example))


def choice(answer: Answer, example: Example) -> float:
    """1 if the answer chooses the reference's letter (A to J), as in multiple choice tests.

    Raises:
        DataError: If no spelling of the reference begins with a letter.
    """
    return float(chosen_letter(answer["text"]) in letters_of(example))


def letters_of(example: Example) -> list[str]:
    """The right letters; beside one, other spellings may be texts ("B | Paris").

    Raises:
        DataError: If no spelling of the reference begins with a letter.
    """
    found = [_CHOICE_FIRST.match(reference) for reference in references(example)]
    letters = [letter.group(1).upper() for letter in found if letter is not None]
    if not letters:
        raise DataError(
            f"question {example.id!r}: the metric 'choice' needs a letter from A to J as "
            f"reference, such as 'B' or '(B) Paris'; found {example.reference[:80]!r}"
        )
    return letters


def chosen_letter(text: str) -> str | None:
    """The letter that an answer to a multiple choice question chooses, or None.

    A letter after "answer", "option" or "choice", or boxed, counts most (the last of them); then
    one that the answer begins with; then the last one in brackets.

    Examples:
        >>> chosen_letter("B. 42 apples")
        'B'
        >>> chosen_letter("Not (A), because ... The answer is (C).")
        'C'
        >>> chosen_letter("A dog") is None
        True
    """
    marked: list[tuple[str, str]] = _CHOICE_MARKED.findall(text)
    if marked:
        return marked[-1][0] or marked[-1][1]
    first = _CHOICE_FIRST.match(text)
    if first:
        return first.group(1).upper()
    bracketed: list[str] = _CHOICE_IN_BRACKETS.findall(text)
    return bracketed[-1] if bracketed else None


def number_of(reference: str) -> float | None:
    """The number that a reference is, or None; the marks of GSM8K (`#### 42`) are left out."""
    return parse_number(reference.lstrip("# "))


def first_line(text: str) -> str:
    """The first line with anything in it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def contains(text: str, phrase: str) -> bool:
    """Whether a text contains a phrase as whole words, after normalisation.

    Examples:
        >>> contains("The capital of France is Paris.", "paris")
        True
        >>> contains("Parisian", "paris")
        False
    """
    wanted = normalize_text(phrase)
    if (
        not wanted
    ):  # only punctuation or articles, such as "+" or "A": nothing to find in a sentence
        return text.strip().casefold() == phrase.casefold()
    return f" {wanted} " in f" {normalize_text(text)} "


def _canonical(text: str) -> str:
    return normalize_value(text) or text.strip().casefold()


def _spelled(text: str) -> str:
    return one_spelling(text).casefold() or text.strip().casefold()


_SPELLINGS = (_canonical, _spelled)


def _same_number(given: float | None, wanted: float | None) -> bool:
    if given is None or wanted is None:
        return False
    return abs(given - wanted) <= TOLERANCE * max(1.0, abs(wanted))


class MathVerify:
    """Equality of mathematical expressions.

    Args:
        timeout: Seconds that parsing or comparing one answer may take; slower ones count as wrong.
            Enforced by a signal, so only on the main thread; elsewhere there is no limit.

    Raises:
        MissingDependencyError: If math-verify is not installed.
    """

    name = "math"

    def __init__(self, *, timeout: int = 3) -> None:
        self._package: ModuleType = require("math_verify", extra="metrics", why="the metric 'math'")
        self._timeout = timeout

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position; see `QualityMetric`."""
        pairs = zip(answers, examples, strict=True)
        return [
            float(is_answered(answer) and self._equal(answer["text"], references(example)))
            for answer, example in pairs
        ]

    def _equal(self, text: str, targets: list[str]) -> bool:
        main = threading.current_thread() is threading.main_thread()
        limit = self._timeout if main else None
        given = self._package.parse(text, parsing_timeout=limit)
        for target in targets:
            # LaTeX is only recognised between math marks, which a bare reference lacks.
            bare = target.lstrip("# ")
            gold = self._package.parse(
                bare if "$" in bare or "\\boxed" in bare else f"${bare}$", parsing_timeout=limit
            )
            if self._package.verify(gold, given, timeout_seconds=limit):
                return True
        return False


def token_f1(answer: Answer, example: Example) -> float:
    """Harmonic mean of precision and recall of the answer's words, best over the spellings."""
    return max(word_f1(answer["text"], reference) for reference in references(example))


def word_f1(text: str, reference: str) -> float:
    """F1 of two bags of normalised words.

    Examples:
        >>> word_f1("the red fox", "a quick red fox")
        0.8
    """
    given, wanted = normalize_text(text).split(), normalize_text(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


class RougeL(TextPairs):
    """ROUGE-L F-measure: the longest common subsequence of words.

    Args:
        stem: Cut words to their stems first (Porter).

    Raises:
        MissingDependencyError: If rouge-score is not installed.
    """

    name = "rouge_l"

    def __init__(self, *, stem: bool = True) -> None:
        package = require("rouge_score.rouge_scorer", extra="metrics", why="ROUGE-L")
        self._scorer: Any = package.RougeScorer(["rougeL"], use_stemmer=stem)

    def _compare(self, texts: list[str], targets: list[str]) -> list[float]:
        pairs = zip(targets, texts, strict=True)
        return [
            float(self._scorer.score(target, text)["rougeL"].fmeasure) for target, text in pairs
        ]
