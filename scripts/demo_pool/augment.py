"""Augmentation of real word problems: other numbers, an irrelevant sentence, other casing.

All functions take a ``random.Random`` and change nothing else, so a seed reproduces them.
"""

from __future__ import annotations

import ast
import random
import re
from fractions import Fraction

from expressions import NUMBER, evaluate, numbers

_TRIES = 60
_NAMES = (
    "Oscar Priya Hugo Marta Felix Ingrid Tomas Yara Nadia Boris Celia Dario Elsa Farid Greta Hana "
    "Ivo Jonas Kemal Lena Milo Nora Otto Petra Quinn Rosa Stefan Tessa Ugo Vera Wanda Xavier"
).split()
_THINGS = (
    "kites spoons bracelets postcards crabs batteries lemons whistles magnets puzzles mugs candles "
    "socks tents drums feathers ladders buttons olives walnuts radios lanterns pillows keys"
).split()
_DISTRACTORS = (
    "{name} has {n} {thing}.",
    "{name} also bought {n} {thing}.",
    "There are {n} {thing} in the box next to it.",
    "{name} is {n} years old.",
    "Last year {name} had {n} {thing}.",
    "{name} gave away {n} {thing}.",
    "It took {n} minutes to get there.",
    "{name} lives {n} miles away.",
)


def _parts(node: ast.expr, values: dict[str, Fraction], source: str) -> list[tuple[str, Fraction]]:
    """Returns (operator, value) for every operation inside a node, the node itself last."""
    if not isinstance(node, ast.BinOp):
        return [("", values[ast.get_source_segment(source, node) or ""])]
    left = _parts(node.left, values, source)
    right = _parts(node.right, values, source)
    a, b = left[-1][1], right[-1][1]
    if isinstance(node.op, ast.Add):
        own = ("+", a + b)
    elif isinstance(node.op, ast.Sub):
        own = ("-", a - b)
    elif isinstance(node.op, ast.Mult):
        own = ("*", a * b)
    else:
        own = ("/", a / b)
    return [*left, *right, own]


def _similar(number: str, rng: random.Random) -> str:
    """Draws a number of about the same size and with as many decimals."""
    if "." in number:
        decimals = len(number.split(".")[1])
        high = max(2.0, float(number) * 2)
        return f"{rng.uniform(0.1, high):.{decimals}f}"
    value = int(number)
    if value <= 12:
        return str(rng.randint(2, rng.choice((9, 20))))
    if value < 100:
        return str(rng.randint(10, 99) if rng.random() < 0.8 else rng.randint(3, 400))
    return str(rng.randint(10 ** (len(number) - 1), 10 ** len(number) - 1))


def resample_numbers(question: str, expression: str, rng: random.Random) -> tuple[str, str] | None:
    """Gives a problem other numbers, the same in the text and the expression.

    Every intermediate result stays positive if it was, and whole if it was, so that the story still
    makes sense.

    Args:
      question: The problem.
      expression: Its expression.
      rng: The source of randomness.

    Returns:
      The new problem and expression, or None where that is not possible: a number of the
      expression is a constant or written as a word in the text, or no fitting numbers are found.
    """
    used = set(numbers(expression))
    found = set(numbers(question))
    if not used or not used <= found:
        return None
    source = expression.strip()
    tree = ast.parse(source, mode="eval").body
    try:
        before = _parts(tree, {n: Fraction(n) for n in used}, source)
    except (KeyError, ZeroDivisionError):
        return None  # KeyError: a negative constant.
    # A lone 1 is mostly the article in disguise ("1 day"); an unused one is left as it is.
    order = [n for n in sorted(found) if n in used or n != "1"]
    simple = re.fullmatch(r"(\S+) / (\S+)", source)
    for _ in range(_TRIES):
        new = {n: _similar(n, rng) for n in order}
        if simple and len(used) == 2 and "." not in source and before[-1][1].denominator == 1:
            factor = rng.randint(2, max(3, min(60, int(before[-1][1]) * 2)))
            new[simple.group(1)] = str(int(new[simple.group(2)]) * factor)
        if len(set(new.values())) < len(new):
            continue
        try:
            after = _parts(tree, {n: Fraction(new[n]) for n in used}, source)
        except ZeroDivisionError:
            continue
        if all(_fits(b, a) for (_, b), (_, a) in zip(before, after, strict=True)):
            return (
                _replace(question, new),
                _replace(expression, new),
            )
    return None


def _replace(text: str, new: dict[str, str]) -> str:
    return NUMBER.sub(lambda m: new.get(m.group(), m.group()), text)


def _fits(before: Fraction, after: Fraction) -> bool:
    whole = after.denominator == 1 or before.denominator != 1
    return whole and (after > 0 or before <= 0)


def split_question(text: str) -> tuple[str, str]:
    """Splits a problem into its story and its last sentence (the story may be empty)."""
    cut = max((m.end() for m in re.finditer(r"[.?!]\s+(?=\S)", text.rstrip())), default=0)
    return text[:cut].rstrip(), text[cut:]


def add_distractor(question: str, rng: random.Random) -> str:
    """Inserts a sentence about somebody or something else, which leaves the answer as it is.

    Args:
      question: The problem.
      rng: The source of randomness.

    Returns:
      The problem with one more sentence, or unchanged if it is a single sentence.
    """
    story, last = split_question(question)
    lowered = question.lower()
    names = [n for n in _NAMES if n.lower() not in lowered]
    things = [t for t in _THINGS if t not in lowered]
    if not story or not names or not things:
        return question
    taken = set(numbers(question))
    number = next(n for n in iter(lambda: str(rng.randint(2, 99)), "") if n not in taken)
    sentence = rng.choice(_DISTRACTORS).format(
        name=rng.choice(names), thing=rng.choice(things), n=number
    )
    if question == lowered:
        sentence = sentence.lower()
    first = rng.random() < 0.2
    return " ".join((sentence, story, last) if first else (story, sentence, last))


def add_companion(question: str, rng: random.Random) -> str:
    """Puts another thing beside the one asked for: "12 pens" becomes "12 pens and 7 mugs".

    Args:
      question: The problem.
      rng: The source of randomness.

    Returns:
      The problem with one more number, or unchanged if the question does not name its thing.
    """
    story, last = split_question(question)
    asked = re.search(r"[Hh]ow many (?:more |\w+ )?([a-z]{3,}s)\b", last)
    if not asked or len(re.findall(r"how many", last.lower())) > 1:
        return question
    places = list(
        re.finditer(rf"\b\d+ (?:\w+ )?{asked.group(1)}(?=[.,]| (?:in|at|on|from)\b)", story)
    )
    things = [t for t in _THINGS if t not in question.lower()]
    if not places or not things:
        return question
    place = rng.choice(places)
    taken = set(numbers(question))
    number = next(n for n in iter(lambda: str(rng.randint(2, 99)), "") if n not in taken)
    other = f"{number} {rng.choice(things)}"
    both = f"{place.group()} and {other}" if rng.random() < 0.7 else f"{other} and {place.group()}"
    return f"{story[: place.start()]}{both}{story[place.end() :]} {last}"


def plain_style(text: str) -> str:
    """Writes a text like the SVAMP files: lower case, without commas."""
    return re.sub(r"(?<!\d),|,(?!\d)", "", text).lower()


def augment(question: str, expression: str, rng: random.Random) -> tuple[str, str]:
    """Applies a random choice of the augmentations to a real problem.

    Args:
      question: The problem.
      expression: Its expression.
      rng: The source of randomness.

    Returns:
      The changed problem and its expression; the value may differ, the meaning does not.
    """
    if rng.random() < 0.7:
        question, expression = resample_numbers(question, expression, rng) or (question, expression)
    if rng.random() < 0.35:
        question = add_companion(question, rng)
    if rng.random() < 0.25:
        question = add_distractor(question, rng)
    if rng.random() < 0.5:
        question = plain_style(question)
    assert evaluate(expression) is not None, expression
    return question, expression
