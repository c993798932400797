"""Exact arithmetic and the written-out working the calculator expert is trained on.

The working reduces one binary operation at a time, so that each next character is a simple
function of characters nearby. Numbers inside the working are written *least significant digit
first* ("321" is 123): the place of a digit is then its distance from the start of the number,
which a causal model knows when it reads the digit, and carries travel in reading order.

One operation is written ``a+b:`` and then, by kind:

- ``+`` and ``-``: a group ``a_i b_i s c`` per column (operand digits, result digit, carry or
  borrow), then ``=`` and the result. A subtraction that ends with a borrow writes ``<`` and
  starts again with the operands swapped; the negated result follows after ``~``.
- ``*``: a row per digit of the shorter operand, ``x`` and the digit, then ``a_i s c`` per column;
  later rows also add what the rows before gave, ``a_i s c acc_i t k``.
- ``/``: long division from the most significant digit. A one-digit divisor gives ``d q r`` per
  digit (digit, quotient digit, remainder). A longer one writes the running remainder, ``x`` and a
  guess of the quotient digit, ``b_i s c r_i t k`` per column (product, then difference), and ``,``
  with the accepted digit. A guess that was too big is followed by ``<``, one too small by ``>``.

Signs and decimals are taken off first: ``~``, ``n`` (negate) and the number of decimals, then the
operation on integers; ``~`` and the finished number follow its result. Every step is rounded to
four decimals, halves away from zero.
"""

from __future__ import annotations

import random
from fractions import Fraction

from arithmetic_tree import (
    DECIMALS,
    ArithmeticSyntaxError,
    Node,
    Op,
    apply,
    evaluate,
    first_operation,
    format_number,
    parse,
    reduce_first,
    render,
    reversed_number,
)

__all__ = [
    "CLOSE",
    "DECIMALS",
    "OPEN",
    "UNTRAINED",
    "ArithmeticSyntaxError",
    "Node",
    "Op",
    "evaluate",
    "format_number",
    "parse",
    "response",
]

UNTRAINED = "\x00"
"""Marks the next character of a working as context that is not a training target."""

OPEN, CLOSE = "<think>", "</think>"


def response(text: str, rng: random.Random | None = None, wrong_guesses: float = 0.0) -> str:
    """Writes the whole completion for an expression: working in tags, then the answer.

    Args:
        text: The expression.
        rng: Source of deliberate wrong guesses; none are made without it.
        wrong_guesses: Share of quotient digits guessed wrong and corrected, so that the model
            sees how to recover from its own.

    Returns:
        The completion; characters after ``UNTRAINED`` are not training targets.
    """
    tree = parse(text)
    if not isinstance(tree, Op):
        return f"{OPEN}{reversed_number(tree)}{CLOSE}{format_number(tree)}"
    lines: list[str] = []
    node: Node = tree
    while isinstance(node, Op):
        op, left, right = first_operation(node)
        expression = render(Op(op, left, right))
        # The line after a result carries the reduced expression; where that is a single operation
        # it is at once the operation to do.
        if lines and not (isinstance(node.left, Fraction) and isinstance(node.right, Fraction)):
            lines.append(render(node))
        if op == "/" and right == 0:
            return f"{OPEN}{';'.join([*lines, expression + ':'])}{CLOSE}?"
        lines.append(expression + work(op, left, right, rng, wrong_guesses))
        node = reduce_first(node)
    return f"{OPEN}{';'.join(lines)}{CLOSE}{format_number(node)}"


def _decimals(value: Fraction) -> int:
    _, _, digits = format_number(value).partition(".")
    return len(digits)


def work(
    op: str,
    left: Fraction,
    right: Fraction,
    rng: random.Random | None = None,
    wrong_guesses: float = 0.0,
) -> str:
    """Writes the working of one operation, from after its operands to its result."""
    result = reversed_number(apply(op, left, right))
    a, b = abs(left), abs(right)
    negate = False
    if left < 0 or right < 0:
        if op in "*/":
            negate = (left < 0) != (right < 0)
        else:
            if op == "-":
                # "a--b" is then worked as an addition at once, without being written again.
                right = -right
            if left < 0 and right < 0:
                op, negate = "+", True
            elif left < 0:
                op, a, b = "-", abs(right), abs(left)
            else:
                op = "-" if right < 0 else "+"
    decimals = max(_decimals(a), _decimals(b))
    if op == "*":
        places, a, b = _decimals(a) + _decimals(b), a * 10 ** _decimals(a), b * 10 ** _decimals(b)
    elif op == "/":
        # Only the divisor has to be an integer: the quotient's point comes with the dividend's.
        places, scale = 0, 10 ** _decimals(b)
        decimals, a, b = _decimals(b), a * scale, b * scale
    else:
        places, a, b = decimals, a * 10**decimals, b * 10**decimals
    head, tail = ":", ""
    if left < 0 or right < 0 or decimals or negate:
        count = f"{places}," if places else ""
        head = f"~{'n' if negate else ''}{count}{reversed_number(a)}{op}{reversed_number(b)}:"
    if op in "+-":
        body, raw = _columns(op, int(a), int(b))
    elif op == "*":
        body, raw = _rows(str(int(a)), str(int(b)))
    else:
        body, raw = _long_division(a, int(b), rng, wrong_guesses)
    if negate or places or raw != result:
        tail = "~" + result
    return f"{head}{body}={raw}{tail}"


def _columns(op: str, a: int, b: int) -> tuple[str, str]:
    """Adds or subtracts two non-negative integers column by column."""
    body = ""
    if op == "-" and a < b:
        body = _column_groups(op, a, b) + "<"
        a, b = b, a
    body += _column_groups(op, a, b)
    return body, str(a + b if op == "+" else a - b)[::-1]


def _column_groups(op: str, a: int, b: int) -> str:
    groups, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry if op == "+" else x - y - carry
        carry = int(not 0 <= total <= 9)
        groups.append(f"{x}{y}{total % 10}{carry}")
    return "".join(groups)


def _rows(a: str, b: str) -> tuple[str, str]:
    """Multiplies two non-negative integers row by row; the shorter one gives the rows."""
    if len(a) < len(b):
        a, b = b, a
    parts, total = [], 0
    for shift, digit in enumerate(b[::-1]):
        parts.append("x" + digit)
        if digit == "0":
            continue
        carry = extra = 0
        for place, x in enumerate(a[::-1]):
            carry, s = divmod(int(x) * int(digit) + carry, 10)
            parts.append(f"{x}{s}{carry}")
            if total:
                y = total // 10 ** (place + shift) % 10
                extra, t = divmod(y + s + extra, 10)
                parts.append(f"{y}{t}{extra}")
        total += int(a) * int(digit) * 10**shift
        parts.append("=" + str(total)[::-1])
    # The last row has already written the product unless the top digit was a zero.
    body = "".join(parts)
    raw = str(total)[::-1]
    ending = "=" + raw
    return (body[: -len(ending)] if body.endswith(ending) else body), raw


def _long_division(
    a: Fraction, b: int, rng: random.Random | None, wrong_guesses: float
) -> tuple[str, str]:
    """Divides a non-negative decimal by a positive integer to at most five decimals."""
    whole, _, fraction = format_number(a).partition(".")
    width = len(str(b))
    # The first running remainder is as long as the divisor, where there are as many digits.
    pending = list(whole[width - 1 :]) if len(whole) >= width else [whole[-1]]
    remainder = int(whole[: width - 1] or "0") if len(whole) >= width else int(whole[:-1] or "0")
    parts: list[str] = []
    quotient = ""
    fractional = False
    taken = 0
    queue = list(fraction)
    while True:
        if not pending:
            if fractional and taken == DECIMALS + 1:
                break
            if not queue and remainder == 0:
                break
            if not fractional:
                fractional = True
                parts.append(".")
                quotient += "."
            pending = [queue.pop(0) if queue else "0"]
            taken += 1
        digit = pending.pop(0)
        current = remainder * 10 + int(digit)
        q, left = divmod(current, b)
        if width == 1:
            parts.append(f"{digit}{q}{left}")
        else:
            parts.append(_division_step(current, b, q, rng, wrong_guesses))
        remainder = left
        quotient += str(q)
    whole_q, dot, fraction_q = quotient.partition(".")
    whole_q = whole_q.lstrip("0") or "0"
    if taken <= DECIMALS:
        fraction_q = fraction_q.rstrip("0")
    text = f"{whole_q}.{fraction_q}" if dot and fraction_q else whole_q
    return "".join(parts), text[::-1]


def _division_step(
    current: int, b: int, q: int, rng: random.Random | None, wrong_guesses: float
) -> str:
    """Finds one quotient digit for a divisor of two digits or more, with verified guesses."""
    text = str(current)[::-1]
    out = text
    if rng is not None and len(text) >= len(str(b)) and rng.random() < wrong_guesses:
        guess = q + rng.choice((-2, -1, -1, -1, 1, 1, 1, 2))
        mark = UNTRAINED
        while 0 < guess <= 9 and guess != q:
            # Only the first guess is wrong by chance; each next one follows from the one before.
            out += f"x{mark}{guess}{_difference(current, b, guess)}{'<' if guess > q else '>'}"
            guess, mark = guess + (1 if guess < q else -1), ""
    return f"{out}x{q}{_difference(current, b, q) if q else ''},{q}"


def _difference(current: int, b: int, q: int) -> str:
    """Writes ``current - b * q`` column by column."""
    groups, carry, borrow = [], 0, 0
    for place in range(len(str(current))):
        x, r = b // 10**place % 10, current // 10**place % 10
        carry, s = divmod(x * q + carry, 10)
        t = r - s - borrow
        borrow = int(t < 0)
        groups.append(f"{x}{s}{carry}{r}{t % 10}{borrow}")
    return "".join(groups)
