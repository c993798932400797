"""The calculator expert's training data: every working is checked by rules of its own."""

from __future__ import annotations

import ast
import importlib
import operator
import random
import re
import sys
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "demo_pool"
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
WIDE = Context(prec=60)


def load(name: str) -> ModuleType:
    if not SCRIPTS.is_dir():
        pytest.skip("the scripts are not part of an installed package", allow_module_level=True)
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


arithmetic = load("arithmetic")
data = load("arithmetic_data")


def rounded(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"), ROUND_HALF_UP, WIDE)


def compute(op: type[ast.operator], left: Decimal, right: Decimal) -> Decimal:
    if op is ast.Div:
        return rounded(WIDE.divide(left, right))
    return rounded(OPERATORS[op](left, right))


def evaluate(text: str) -> Decimal:
    """Python's own grammar and decimals: nothing shared with the code under test."""

    def visit(node: ast.expr) -> Decimal:
        if isinstance(node, ast.BinOp):
            return compute(type(node.op), visit(node.left), visit(node.right))
        if isinstance(node, ast.UnaryOp):
            return -visit(node.operand)
        assert isinstance(node, ast.Constant)
        return Decimal(ast.get_source_segment(source, node) or "")

    source = text.strip()
    return visit(ast.parse(source, mode="eval").body)


def forward(text: str) -> str:
    """Turns the numbers of a working round again."""
    return re.sub(r"\d[\d.]*", lambda match: match.group()[::-1], text)


def check_columns(op: str, a: int, b: int, groups: str) -> int:
    """Follows the carries of an addition or subtraction and returns the last one."""
    assert len(groups) == 4 * max(len(str(a)), len(str(b)))
    carry = value = 0
    for place in range(len(groups) // 4):
        x, y, digit, after = map(int, groups[4 * place : 4 * place + 4])
        assert (x, y) == (a // 10**place % 10, b // 10**place % 10)
        sign = 1 if op == "+" else -1
        assert x + sign * (y + carry) == digit + sign * 10 * after
        carry = after
        value += digit * 10**place
    top = 10 ** (len(groups) // 4)
    assert value + (carry * top if op == "+" else -carry * top) == (a + b if op == "+" else a - b)
    return carry


def check_rows(a: str, b: str, body: str) -> None:
    """Follows a multiplication row by row."""
    a, b = (a, b) if len(a) >= len(b) else (b, a)
    rows = body.removeprefix("x").split("x")
    assert [row[0] for row in rows] == list(b[::-1])
    total = 0
    for shift, row in enumerate(rows):
        digit, (cells, _, written) = int(row[0]), row[1:].partition("=")
        step = 6 if total and digit else 3
        assert len(cells) == (step * len(a) if digit else 0)
        for place in range(len(cells) // step):
            cell = [int(c) for c in cells[step * place : step * (place + 1)]]
            before = int(cells[step * place - step + 2]) if place else 0
            assert cell[0] == int(a[-1 - place])
            assert cell[0] * digit + before == cell[1] + 10 * cell[2]
            if step == 6:
                extra = int(cells[step * place - 1]) if place else 0
                assert cell[3] == total // 10 ** (place + shift) % 10
                assert cell[1] + cell[3] + extra == cell[4] + 10 * cell[5]
        total += int(a) * digit * 10**shift
        # A row's sum is written after it; the caller has the last row's.
        assert not written or int(written[::-1]) == total


def check_division(a: str, b: int, body: str, quotient: str) -> None:
    """Redoes a long division from its remainders and accepted digits."""
    digits, value, remainder = "", 0, 0
    if b < 10:
        for d, q, r in re.findall(r"(\d)(\d)(\d)", body):
            assert remainder * 10 + int(d) == b * int(q) + int(r)
            remainder, digits, value = int(r), digits + d, value * 10 + int(q)
        assert [len(p) % 3 for p in body.split(".")] == [0] * len(body.split("."))
    else:
        for current, tries, q in re.findall(r"(\d+)((?:x\d[\d<>]*)+),(\d)", body):
            now = int(current[::-1])
            if digits:
                assert now // 10 == remainder
            digits += str(now) if not digits else current[0]
            *wrong, last = tries.removeprefix("x").split("x")
            assert last[0] == q
            assert now - b * int(q) in range(b)
            assert len(last) == 1 + (6 * len(current) if q != "0" else 0)
            for guess in wrong:
                assert guess[-1] == ("<" if int(guess[0]) * b > now else ">")
                assert len(guess) == 2 + 6 * len(current)
            remainder, value = now - b * int(q), value * 10 + int(q)
    assert digits.startswith(a.replace(".", ""))
    places = len(quotient.partition(".")[2])
    assert str(value).rstrip("0") == str(int(quotient.replace(".", ""))).rstrip("0")
    assert Decimal(quotient) == Decimal(value).scaleb(-places) or places < 5


def check_operation(line: str) -> Decimal:
    """Checks one operation and returns its result."""
    heading, _, rest = line.partition(":")
    written, _, scaled = heading.partition("~")
    op_at = re.search(r"(?<=[\d.])[-+*/]", written)
    assert op_at
    claim = evaluate(forward(written))
    final = Decimal(forward(rest.rpartition("=")[2].rpartition("~")[2]))
    assert final == claim
    body, _, raw = rest.rpartition("=")
    raw = forward(raw.partition("~")[0])
    match = re.fullmatch(
        r"(?:(n)?)(?:(\d+),)?([\d.]+)([-+*/])([\d.]+)", scaled or written.replace("--", "+")
    )
    assert match
    left, op, right = match[3][::-1], match[4], match[5][::-1]
    if op in "+-":
        a, b = int(left), int(right)
        first, swap, second = body.partition("<")
        longer = op == "+" and len(raw) > len(first) // 4
        assert check_columns(op, a, b, first) == int(bool(swap) or longer)
        if swap:
            assert check_columns(op, b, a, second) == 0
        assert int(raw) == abs(a + b if op == "+" else a - b)
    elif op == "*":
        check_rows(left, right, body)
        assert int(raw) == int(left) * int(right)
    else:
        check_division(left, int(right), body, raw)
    return final


def check(expression: str, completion: str) -> None:
    """Checks a whole completion against the expression."""
    match = re.fullmatch(r"<think>(.*)</think>(.*)", completion.replace(arithmetic.UNTRAINED, ""))
    assert match
    lines = match[1].split(";")
    answer = evaluate(expression)
    assert Decimal(match[2]) == answer
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", match[2])
    assert match[2] != "-0"
    for index, line in enumerate(lines):
        if ":" in line:
            result = check_operation(line)
        elif len(lines) > 1:
            # The reduced expression has the same value, and the next line takes a part of it.
            assert evaluate(forward(line)) == answer
            assert lines[index + 1].partition(":")[0].partition("~")[0] in line
    assert ":" not in lines[-1] or result == answer


@pytest.mark.parametrize(
    "expression",
    [
        "7", "0 - 0", "3 - 3", "0 * 0.5", "0 / 7", "999 + 1", "5 - 12", "5 - 5.25", "-3 * -4",
        "( 12 - 30 ) * 4", "3 - ( 4 - 9 )", "( 5 - 9 ) - ( 3 - 4 )", "( 2 - 9 ) / 2", "0 - 4 + 1",
        "100 * 100", "907 * 305", "1000 / 8", "1000 / 25", "7 / 16", "2 / 3", "172 / 18", "1 / 999",
        "99.9999 * 3", "0.3333 * 0.6667", "8 / 0.6667", "5.34 / 2 * 7", "10.2 + 8.63", "2 + 3 * 4",
        "300000 - ( ( 300000 * 8 ) * 0.01 )", "( 1 + ( 25 * 0.01 ) ) * 6000",
    ],
)  # fmt: skip
def test_workings_of_chosen_expressions(expression: str) -> None:
    check(expression, arithmetic.response(expression))


@pytest.mark.parametrize("kind", ["main", "deep", "decimal"])
def test_workings_of_drawn_expressions(kind: str) -> None:
    rng = random.Random(5)
    for _ in range(250):
        item = data.example(rng, kind, wrong_guesses=0.5)
        check(item.text, item.completion)


NUMBER = st.one_of(
    st.integers(0, 10**6).map(str),
    st.tuples(st.integers(0, 999), st.integers(1, 9999)).map(lambda p: f"{p[0]}.{p[1]:04d}"),
)


@settings(max_examples=100, deadline=None)
@given(NUMBER, st.sampled_from("+-*/"), NUMBER, st.sampled_from("+-*/"), NUMBER, st.booleans())
def test_workings_of_any_two_operations(
    a: str, first: str, b: str, second: str, c: str, right: bool
) -> None:
    text = f"{a} {first} ( {b} {second} {c} )" if right else f"( {a} {first} {b} ) {second} {c}"
    try:
        evaluate(text)
    except ArithmeticError:
        assert arithmetic.response(text).endswith(":</think>?")
    else:
        check(text, arithmetic.response(text))


@given(st.text(max_size=20))
@settings(max_examples=40, deadline=None)
def test_other_text_is_refused_cleanly(text: str) -> None:
    try:
        arithmetic.parse(text)
    except arithmetic.ArithmeticSyntaxError:
        return
    assert re.fullmatch(r"[\d\s.()+*/-]+", text)


def test_precedence_and_parentheses() -> None:
    for text in ("2+3*4-5", "2*(3+4)*5", "8-3-2", "8/4/2", "-(3+4)*2", "((7))"):
        assert arithmetic.evaluate(arithmetic.parse(text)) == evaluate(text)


def test_a_seed_gives_the_same_data() -> None:
    def draw(seed: int) -> list[object]:
        rng = random.Random(seed)
        return [data.training_example(rng) for _ in range(100)]

    assert draw(11) == draw(11)
    assert draw(11) != draw(12)


def test_wrapped_requests_answer_their_expression() -> None:
    rng = random.Random(3)
    for _ in range(200):
        text, expression = data.wrapped(rng)
        assert re.findall(r"\d+", text)[0] in expression
        check(expression, arithmetic.response(expression))


def test_text_without_an_expression_is_answered_with_a_question_mark() -> None:
    rng = random.Random(4)
    for _ in range(200):
        item = data.example(rng, "garbage")
        assert item.completion == "<think></think>?"
        with pytest.raises(arithmetic.ArithmeticSyntaxError):
            arithmetic.parse(item.text)
