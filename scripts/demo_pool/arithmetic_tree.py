"""Arithmetic expressions as trees: reading, writing, and exact values step by step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

DECIMALS = 4
"""Decimals kept after each operation."""

_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|[-+*/()])")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class ArithmeticSyntaxError(ValueError):
    """The text is not an arithmetic expression."""


@dataclass(frozen=True)
class Op:
    """A binary operation; operands are operations or numbers."""

    op: str
    left: Node
    right: Node
    parens: bool = False


Node = Op | Fraction


def round_half_up(value: Fraction, decimals: int = DECIMALS) -> Fraction:
    """Rounds to ``decimals`` places, halves away from zero."""
    scale = 10**decimals
    magnitude = Fraction(int(abs(value) * scale + Fraction(1, 2)), scale)
    return -magnitude if value < 0 else magnitude


def format_number(value: Fraction) -> str:
    """Writes a number with at most four decimals and no trailing zeros."""
    value = round_half_up(value)
    whole, rest = divmod(int(abs(value) * 10**DECIMALS), 10**DECIMALS)
    digits = f"{rest:0{DECIMALS}d}".rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def parse(text: str) -> Node:
    """Parses an expression of numbers, ``+ - * /``, parentheses and unary minus.

    Raises:
        ArithmeticSyntaxError: If the text is anything else.
    """
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ArithmeticSyntaxError(text)
        tokens.append(match.group(1))
        position = match.end()
    tokens.append("")
    cursor = 0

    def atom() -> Node:
        nonlocal cursor
        token = tokens[cursor]
        cursor += 1
        if token == "(":
            node = chain(1)
            if tokens[cursor] != ")":
                raise ArithmeticSyntaxError(text)
            cursor += 1
            return Op(node.op, node.left, node.right, True) if isinstance(node, Op) else node
        if token == "-":
            inner = atom()
            if isinstance(inner, Op):
                return Op("-", Fraction(0), inner, True)
            return -inner
        if not token or not token[0].isdigit():
            raise ArithmeticSyntaxError(text)
        return round_half_up(Fraction(token))

    def chain(level: int) -> Node:
        nonlocal cursor
        node = atom() if level == 3 else chain(level + 1)
        while _PRECEDENCE.get(tokens[cursor]) == level:
            op = tokens[cursor]
            cursor += 1
            node = Op(op, node, chain(level + 1) if level == 1 else atom())
        return node

    tree = chain(1)
    if cursor != len(tokens) - 1:
        raise ArithmeticSyntaxError(text)
    return tree


def apply(op: str, left: Fraction, right: Fraction) -> Fraction:
    """Computes one operation, rounded as every step is."""
    if op == "+":
        return round_half_up(left + right)
    if op == "-":
        return round_half_up(left - right)
    if op == "*":
        return round_half_up(left * right)
    return round_half_up(left / right)


def evaluate(node: Node) -> Fraction:
    """Evaluates a tree with each step rounded to four decimals."""
    if isinstance(node, Op):
        return apply(node.op, evaluate(node.left), evaluate(node.right))
    return node


def reversed_number(value: Fraction) -> str:
    """Writes a number least significant digit first, the sign still in front."""
    text = format_number(value)
    return "-" + text[:0:-1] if text[0] == "-" else text[::-1]


def render(node: Node) -> str:
    """Writes a tree without spaces, its numbers least significant digit first."""
    if isinstance(node, Op):
        inner = f"{render(node.left)}{node.op}{render(node.right)}"
        return f"({inner})" if node.parens else inner
    return reversed_number(node)


def first_operation(node: Op) -> tuple[str, Fraction, Fraction]:
    """Finds the leftmost operation on two numbers."""
    if isinstance(node.left, Op):
        return first_operation(node.left)
    if isinstance(node.right, Op):
        return first_operation(node.right)
    return node.op, node.left, node.right


def reduce_first(node: Op) -> Node:
    """Puts the result of the leftmost operation on two numbers in its place."""
    if isinstance(node.left, Op):
        return Op(node.op, reduce_first(node.left), node.right, node.parens)
    if isinstance(node.right, Op):
        return Op(node.op, node.left, reduce_first(node.right), node.parens)
    return apply(node.op, node.left, node.right)
