"""Arithmetic expressions as text: parse, evaluate, list the numbers.

The grammar is the one of the SVAMP files: numbers, ``+ - * /`` and parentheses. Nothing is ever
handed to ``eval``, because the text may come from a language model.
"""

from __future__ import annotations

import ast
import re
from fractions import Fraction

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w|\.\d)")
_MAX_LENGTH = 200


def evaluate(expression: str) -> Fraction | None:
    """Evaluates an expression exactly.

    Args:
      expression: For example ``( 5 + 3 ) * 2``.

    Returns:
      The value, or None if the text is not such an expression or divides by zero.
    """
    if len(expression) > _MAX_LENGTH:
        return None
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body, expression.strip())
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, source: str) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        # From the text, not from the float: 0.1 must stay one tenth.
        return Fraction(ast.get_source_segment(source, node) or "")
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, source), _value(node.right, source)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, source)
    raise ValueError(f"not an arithmetic expression: {source!r}")


def numbers(text: str) -> list[str]:
    """Returns the numbers that stand alone in a text, in order, as written."""
    return NUMBER.findall(text)


def same_answer(value: Fraction | None, answer: str) -> bool:
    """Whether a value equals a written answer (which the data files round to four decimals)."""
    if value is None:
        return False
    try:
        return abs(value - Fraction(answer)) <= Fraction(1, 1000)
    except ValueError:
        return False


def format_value(value: Fraction) -> str:
    """Writes a value as the data files do: an integer, or up to four decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.4f}".rstrip("0").rstrip(".")
