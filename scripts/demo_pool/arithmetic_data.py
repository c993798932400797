"""Synthetic prompts for the calculator expert: expressions, wrapped expressions, and text.

Everything is drawn from a ``random.Random``, so that a seed gives the same data everywhere. The
mix leans to what a word problem needs: one or two operations on integers of one to three digits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from arithmetic import (
    CLOSE,
    OPEN,
    Node,
    Op,
    evaluate,
    format_number,
    parse,
    response,
)
from arithmetic_text import garbage

KINDS = {
    "main": 0.60,
    "deep": 0.03,
    "decimal": 0.08,
    "wrapped": 0.11,
    "garbage": 0.08,
    "drill": 0.10,
}
"""Share of each kind of prompt in training."""

WRONG_GUESSES = 0.2
"""Share of the quotient digits of long divisors that are guessed wrong first."""


@dataclass(frozen=True)
class Example:
    """A prompt (without its final "="), its completion and what kind it is."""

    kind: str
    text: str
    completion: str


def integer(rng: random.Random, largest: int = 6) -> int:
    """Draws a positive integer, mostly of one to three digits."""
    digits = rng.choices(range(1, 7), (30, 40, 21, 6, 1.7, 1.3))[0]
    digits = min(digits, largest)
    value = rng.randrange(10 ** (digits - 1), 10**digits)
    if digits > 1 and rng.random() < (0.1 if digits < 4 else 0.35):
        unit = 10 ** rng.randrange(1, digits)
        value = max(unit, value // unit * unit)
    return value if rng.random() > 0.004 else 0


def factor_pair(rng: random.Random) -> tuple[int, int]:
    """Draws two factors, of which at most one is long."""
    small = integer(rng, rng.choices((1, 2, 3), (50, 40, 10))[0])
    large = integer(rng, 3 if small > 99 else 4 if small > 9 else 6)
    return (small, large) if rng.random() < 0.5 else (large, small)


def quotient_pair(rng: random.Random) -> tuple[int, int]:
    """Draws a dividend and a divisor that mostly divide exactly."""
    divisor = max(1, integer(rng, rng.choices((1, 2, 3, 4), (50, 40, 8, 2))[0]))
    if rng.random() < 0.82:
        return divisor * integer(rng, rng.choices((1, 2, 3, 4), (32, 45, 19, 4))[0]), divisor
    if rng.random() < 0.35:
        # Quotients that end after one or two decimals.
        return divisor * integer(rng, 2) // rng.choice((2, 4, 5)) or 1, divisor
    return integer(rng, 4), divisor if divisor < 10 or rng.random() < 0.35 else rng.randrange(2, 13)


def operands(rng: random.Random, op: str) -> tuple[int, int]:
    """Draws the operands of one operation."""
    if op == "*":
        return factor_pair(rng)
    if op == "/":
        return quotient_pair(rng)
    a, b = integer(rng), integer(rng)
    if rng.random() < 0.03:
        b = a
    if op == "-" and a < b and rng.random() < 0.9:
        a, b = b, a
    return a, b


def drill(rng: random.Random) -> Op:
    """Draws one operation on long operands: many digits of practice for few tokens of prompt."""

    def digits(low: int, high: int) -> int:
        count = rng.randint(low, high)
        return rng.randrange(10 ** (count - 1), 10**count)

    op = rng.choices("+-*/", (10, 15, 38, 37))[0]
    if op == "*":
        a, b = (digits(4, 6), digits(1, 1)) if rng.random() < 0.7 else (digits(2, 4), digits(2, 2))
    elif op == "/":
        one = rng.random() < 0.55
        b = digits(1, 1) if one else digits(2, 2)
        a = b * digits(3, 5) if one else b * digits(1, 3)
    else:
        a, b = digits(3, 6), digits(3, 6)
        if op == "-" and a < b:
            a, b = b, a
    return Op(op, Fraction(a), Fraction(b))


def split(rng: random.Random, value: int, depth: int) -> Node:
    """Writes a value as an operation on smaller parts, so that outer steps stay exact."""
    op = rng.choices("+-*/", (38, 32, 20, 10))[0]
    if op == "*":
        divisors = [d for d in range(1, min(value, 200) + 1) if value % d == 0]
        left = rng.choice(divisors) if divisors else value
        right = value // left if left else integer(rng, 2)
        pair = (left, right) if rng.random() < 0.5 else (right, left)
    elif op == "/" and value:
        divisor = rng.choice((rng.randrange(2, 10), max(1, integer(rng, 2))))
        pair = (value * divisor, divisor)
    elif op == "-":
        right = integer(rng, max(1, len(str(value))))
        pair = (value + right, right)
    else:
        op = "+"
        left = rng.randint(0 if rng.random() < 0.05 else min(1, value), value)
        pair = (left, value - left)
    return Op(op, leaf(rng, pair[0], depth - 1), leaf(rng, pair[1], depth - 1), True)


def leaf(rng: random.Random, value: int, depth: int) -> Node:
    """Gives the number itself or, while depth is left, sometimes an expression of that value."""
    if depth > 0 and rng.random() < 0.6:
        return split(rng, value, depth)
    return Fraction(value)


def tree(rng: random.Random, operations: int) -> Op:
    """Draws an expression of about that many operations on integers."""
    op = rng.choices("+-*/", (25, 34, 21, 20))[0]
    a, b = operands(rng, op)
    if operations == 1:
        return Op(op, Fraction(a), Fraction(b))
    if operations == 2:
        if rng.random() < 0.07:
            # A negative number on the way: the part in parentheses is a difference below zero.
            low, high = sorted((integer(rng, 3), integer(rng, 3)))
            inner = Op("-", Fraction(low), Fraction(high), True)
            outer = rng.choices("+-*", (45, 40, 15))[0]
            other = Fraction(integer(rng, 3 if outer != "*" else 1))
            return Op(outer, inner, other) if rng.random() < 0.5 else Op(outer, other, inner)
        if rng.random() < 0.2:
            # What people write without parentheses: a product or quotient, and a sum around it.
            inner_op = rng.choices("*/", (70, 30))[0]
            left, right = operands(rng, inner_op)
            inner = Op(inner_op, Fraction(left), Fraction(right), True)
            number = Fraction(integer(rng, 3))
            if rng.random() < 0.5:
                return Op(
                    "-" if evaluate(inner) >= number and rng.random() < 0.4 else "+", inner, number
                )
            return Op("-" if evaluate(inner) <= number else "+", number, inner)
        if rng.random() < 0.62:
            return Op(op, split(rng, a, 1), Fraction(b))
        return Op(op, Fraction(a), split(rng, b, 1))
    depth = 1 if operations == 3 else 2
    return Op(op, split(rng, a, depth), split(rng, b, depth))


def decimal(rng: random.Random) -> Fraction:
    """Draws a decimal: money, tenths, simple fractions to four places, hundredths."""
    kind = rng.random()
    if kind < 0.4:
        return Fraction(rng.randrange(1, 10 ** rng.choice((3, 3, 4, 5))), 100)
    if kind < 0.7:
        return Fraction(rng.randrange(1, 10 ** rng.choice((2, 2, 3))), 10)
    if kind < 0.9:
        whole = rng.randrange(10 ** rng.choice((0, 0, 1)) if rng.random() < 0.5 else 20)
        part = rng.choice(("125", "25", "75", "3333", "6667", "1667", "8333", "0833", "1111"))
        return Fraction(f"{whole}.{part}")
    return rng.choice((Fraction(1, 100), Fraction(1, 2), Fraction(1, 10), Fraction(5, 100)))


def decimal_tree(rng: random.Random) -> Op:
    """Draws an expression with decimals, of one or two operations."""
    op = rng.choices("+-*/", (36, 24, 26, 14))[0]
    number = integer(rng, rng.choice((1, 2, 2, 3)))
    a, b = decimal(rng), decimal(rng)
    if op in "*/" or rng.random() < 0.12:
        b = Fraction(number)
        if op == "/":
            b = b if rng.random() < 0.85 and b else Fraction(rng.randrange(1, 100), 10)
            a = round(a * b, 2) if rng.random() < 0.75 and round(a * b, 2) else a
        elif rng.random() < 0.5:
            a, b = b, a
        elif rng.random() < 0.1:
            b = decimal(rng)
    if op == "-" and a < b and rng.random() < 0.9:
        a, b = b, a
    first = Op(op, a, b)
    if rng.random() < 0.66:
        return first
    other = Fraction(integer(rng, 2)) if rng.random() < 0.5 else decimal(rng)
    inner = Op(op, a, b, True)
    outer = rng.choices("+-*", (40, 25, 35))[0]
    if outer == "*":
        other = Fraction(integer(rng, 2))
    elif outer == "-" and evaluate(inner) < other:
        return Op("-", other, inner)
    return Op(outer, inner, other) if rng.random() < 0.6 else Op(outer, other, inner)


def spell(rng: random.Random, node: Node, loose: bool = False) -> str:
    """Writes a tree as text, with or without spaces and needless parentheses."""
    style = rng.choices(("spaced", "tight", "between", "random"), (56, 20, 16, 8))[0]
    omit = rng.random() < (0.7 if loose else 0.35)

    def write(item: Node, outer: bool) -> str:
        if not isinstance(item, Op):
            return format_number(item)
        text = f"{write(item.left, False)} {item.op} {write(item.right, False)}"
        return text if outer else f"( {text} )"

    text = write(node, True)
    if omit and isinstance(node, Op):
        # Parentheses are left out where precedence gives the same tree without them: both if
        # possible, else one of them.
        for left, right in ((True, True), (True, False), (False, True)):
            bare = f"{write(node.left, left)} {node.op} {write(node.right, right)}"
            if render_plain(parse(bare)) == render_plain(node):
                text = bare
                break
    if style == "tight":
        return text.replace(" ", "")
    if style == "between":
        return text.replace("( ", "(").replace(" )", ")")
    if style == "random":
        return "".join(c if c != " " else rng.choice(("", " ", " ", "  ")) for c in text)
    return text


def render_plain(node: Node) -> str:
    """Writes a tree with every parenthesis, to compare structures."""
    if isinstance(node, Op):
        return f"({render_plain(node.left)}{node.op}{render_plain(node.right)})"
    return format_number(node)


_WORDS = {
    "+": ("plus", "plus", "added to", "and"),
    "-": ("minus", "minus", "less", "take away"),
    "*": ("times", "times", "multiplied by", "x", "X", "×", "times"),
    "/": ("divided by", "divided by", "over", "÷"),
}
_OPENINGS = (
    "What is ", "what is ", "What's ", "Calculate ", "calculate ", "Compute ", "compute ",
    "How much is ", "how much is ", "Evaluate ", "evaluate ", "Solve ", "Solve: ", "Find ",
    "Work out ", "Expression: ", "The answer to ", "Tell me ", "Please calculate ", "Calculate: ",
    "Compute: ", "What does ", "Simplify ", "", "", "", "",
)  # fmt: skip
_ENDINGS = ("", "", "", "", "?", "?", "?", ".", " =", "=", " = ?", " equal?", " ?", ":", "\n")


def wrapped(rng: random.Random) -> tuple[str, str]:
    """Draws a request in words around an expression.

    Returns:
        The request and the expression it asks for.
    """
    roll = rng.random()
    if roll < 0.05:
        share, base = rng.randrange(1, 100), integer(rng, 4)
        text, expression = f"{share}% of {base}", f"({share} * {base}) * 0.01"
    else:
        node = tree(rng, 1 if roll < 0.6 else 2) if roll < 0.95 else decimal_tree(rng)
        expression = text = spell(rng, node, loose=True)
        left, right = node.left, node.right
        if isinstance(left, Fraction) and isinstance(right, Fraction) and rng.random() < 0.62:
            word = rng.choice(_WORDS[node.op])
            text = f"{format_number(left)} {word} {format_number(right)}"
            if rng.random() < 0.06 and len(word) == 1:
                text = text.replace(" ", "")
    opening, ending = rng.choice(_OPENINGS), rng.choice(_ENDINGS)
    return f"{opening}{text}{ending}", expression


def example(rng: random.Random, kind: str, wrong_guesses: float = 0.0) -> Example:
    """Draws one example of a kind."""
    if kind == "garbage":
        return Example(kind, garbage(rng), f"{OPEN}{CLOSE}?")
    if kind == "wrapped":
        text, expression = wrapped(rng)
    else:
        makers: dict[str, Callable[[], Node]] = {
            "main": lambda: tree(rng, 1 if rng.random() < 0.58 else 2),
            "deep": lambda: tree(rng, rng.choice((3, 3, 3, 4))),
            "decimal": lambda: decimal_tree(rng),
            "drill": lambda: drill(rng),
        }
        text = expression = spell(rng, makers[kind]())
        if kind == "main" and rng.random() < 0.015:
            text = expression = format_number(Fraction(integer(rng)))
    return Example(kind, text, response(expression, rng, wrong_guesses))


def training_example(rng: random.Random) -> Example:
    """Draws one training example of the whole mix."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    return example(rng, kind, WRONG_GUESSES)
