r"""The part of an answer that counts: a number, a choice letter, or a short phrase.

Used to see whether two experts agree, and by the quality metrics. The order of the rules: `\boxed{}`, a
marked answer (`#### 42`, `the answer is 42`), an arithmetic expression that was left uncomputed (which is
itself, never one of its numbers), the last number, a choice letter, a short phrase.
"""

from __future__ import annotations

import re

from der_graph.nodes.values.spelling import BOXED, one_spelling, parse_number, write_number

NUMBER = re.compile(r"(?<![\w.])[-+]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
"""A number in running text: sign, dollar sign, thousands separators, decimals, or a fraction (3/4)."""

_MARKED = re.compile(
    r"(?:####|\banswer(?:\s+is)?\s*[:=]|\banswer\s+is|\bfinal\s+answer\b\s*[:=]?)\s*(.+)", re.I
)
# What comes before the first digit of a term holds no digit, so that there is one way only to match: with
# two, a long sum that ends in a word would take exponential time, and small models love long sums.
_TERM = r"(?:[\s.,()$%]*-)?[\s.,()$%]*\d[\s\d.,()$%]*"
_EXPRESSION = re.compile(
    rf"^{_TERM}(?:(?:[-+*x×÷]|\s/\s){_TERM})+$"
)  # 3/4 is a number, 3 / 4 is not
_CHOICE = re.compile(r"^\(?([A-Ha-h])\)?(?:[.:)]|\s*$)")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")
_LONGEST_PHRASE = 6  # words; longer texts are sentences, and two of them never agree literally


def extract_value(text: str) -> str | None:
    """Find the part of an answer that counts.

    Args:
        text: What an expert said.

    Returns:
        A normalised string that is equal for answers that agree, or None where nothing short counts.

    Examples:
        >>> extract_value("She has 1,200 apples left.")
        '1200'
        >>> extract_value("So 3 * 4 = 12. The answer is 12.00")
        '12'
        >>> extract_value("( 5 + 3 ) * 2")
        '(5+3)*2'
        >>> extract_value("Paris.")
        'paris'
    """
    text = text.strip()
    if not text:
        return None
    boxed = BOXED.findall(text)
    if boxed:
        return _boxed(one_spelling(boxed[-1])) or None
    marked = _MARKED.findall(text)
    if marked and marked[-1].strip():
        text = marked[-1].strip()
    if _EXPRESSION.match(text):
        # With another division sign: 45 / 9 is not the number 45/9, and must never count as 5.
        return re.sub(r"\s+", "", text).replace("/", "÷")
    numbers = NUMBER.findall(text)
    if numbers:
        return normalize_value(numbers[-1])
    choice = _CHOICE.match(text)
    if choice:
        return choice.group(1).upper()
    phrase = normalize_text(text)
    return phrase if phrase and len(phrase.split()) <= _LONGEST_PHRASE else None


def _boxed(value: str) -> str:
    """The value in a box: words as they would be without one."""
    choice = _CHOICE.match(value)
    if choice:
        return choice.group(1).upper()
    return normalize_text(value) if _WORDS.fullmatch(value) else value.casefold()


def normalize_value(text: str) -> str:
    """Write a number in one way; leave other text normalised."""
    number = parse_number(text)
    if number is None:
        return normalize_text(text)
    return write_number(number)


def normalize_text(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces.

    Examples:
        >>> normalize_text("The  Red-Fox!")
        'red fox'
    """
    words = re.sub(r"[^\w\s]", " ", text.casefold()).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})
