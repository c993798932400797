r"""One spelling for a value: `$75`, `75.00`, `75 miles` and `30 + 45 = 75` all come to `75`.

    "The answer is: $\dfrac{3}{4}$." ──unwrap──> \dfrac{3}{4} ──plain──> 3/4 ──number──> 0.75

Whether experts agree is read off equal values, so a value must not depend on how it was written down: units,
currency, quotes, white space, LaTeX, the calculation before it. What could make a difference is kept: case,
signs, brackets, order, the zeros of 007, `5 million`. In doubt two values stay two. Finding the value in a
running text is `extraction.py`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
r"""`\boxed{...}`, with braces in it to a depth of two, as a root in a fraction has them."""

_LONGEST = 1_000  # longer texts are no values
_MARKED = re.compile(r"(?:####|\banswers?\s*[:=]|\banswers?\s+is\b\s*:?)\s*(\S.*)", re.I | re.S)
# LaTeX
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
_BEFORE_FRACTION = re.compile(r"(?<=\d)\s*(?=\\[dt]?frac)")
_TOP = re.compile(r"-?\w+|-?\w*sqrt\(\w+\)")  # needs no brackets above a fraction's line
_BELOW = re.compile(r"\d+|[A-Za-z]|pi|sqrt\(\w+\)")
_ROOT = re.compile(r"\\sqrt\s*(?:\{([^{}]*)\}|(\w))|√\s*(?:\(([^()]*)\)|(\d+|\w))")
_DEPTH = 3  # fractions and roots within each other
_SILENT = re.compile(
    r"\\(?:left|right|displaystyle|quad)(?![A-Za-z])|\\[,!;:()\[\]]|\^\s*\{?\\circ\}?|\\degree|°"
)
_SIGNS = (
    (re.compile(r"\\pi(?![A-Za-z])|π"), "pi"),
    (re.compile(r"\\infty(?![A-Za-z])|∞"), "inf"),
    (re.compile(r"\\(?:cdot|times)(?![A-Za-z])|×"), "*"),
    (re.compile("\\\\cup(?![A-Za-z])|\u222a"), "U"),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile("\u2212"), "-"),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3})"), ","),
)
# Numbers
_NOT_A_UNIT = (
    "sqrt|pi|inf|or|and|to|sin|cos|tan|cot|sec|csc|ln|log|exp|mod|choose|times|plus|minus|factorial|"
    "half|halves|thirds?|quarters?|fourths?|fifths?|dozens?|hundreds?|thousands?|millions?|billions?|"
    "trillions?|more|less|fewer|am|pm"
)
_SHORT_UNITS = "cm|mm|km|kg|mg|ml|ft|in|oz|lb|mi|yd|hr|kw|mw|gb|mb"
_QUANTITY = re.compile(
    r"(?P<sign>[-+]?)[$€£]?(?P<number>(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d*)?(?:/[1-9]\d*)?|\.\d+)"
    rf"\s?%?\.?(?: (?!(?:{_NOT_A_UNIT})\b)(?:[^\W\d_]{{3}}|(?:{_SHORT_UNITS})\b)[^\d=+*^<>()]*)?",
    re.I,
)
"""A number, and perhaps the words of its unit: `12 minutes`. With a zero too many in front it is a text."""
_MIXED = re.compile(r"(?P<sign>-?)(?P<whole>\d+) (?P<top>\d+)/(?P<below>[1-9]\d*)\.?")
# What stands before an equals sign
_NAME = re.compile(r"[A-Za-z](?:\([A-Za-z]\))?")  # x = 5, f(x) = 5
_OPERATOR = re.compile(r"\d.*[-+*/^]|[-+*/^].*\d", re.S)
_UNKNOWN = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])|[,;<>]")  # 2x + y = 5 is no calculation
_TIMES = re.compile(r"(?<=[\d)]) x (?=[\d($])")
# Literals of programs
_LITERAL = re.compile(r"\\?['\"\[{(]")
_QUOTED = re.compile(r"\\?(['\"])(.*?)\\?\1", re.S)
_PLAIN_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
# The end
_PRODUCT = re.compile(r"(?<=\d)\*(?=[a-z(])")  # 2*sqrt(3) is 2sqrt(3)
# One between two words stays, as "1 2" is not 12; 6 sqrt(2) is 6sqrt(2).
_SPACE = re.compile(r"(?<!\w) | (?!\w)|(?<=\d) (?=sqrt\(|(?:pi|[A-Za-z])\b)")


def one_spelling(value: str) -> str:
    r"""Write an extracted answer in one way.

    Args:
        value: An answer as a data set or a model gives it: short, and hardly more than the answer.

    Returns:
        The same for answers that come to the same; empty if nothing is left.

    Examples:
        >>> [one_spelling(text) for text in ("$1,200", "1200.00", "1200 dollars", r"\boxed{1200}")]
        ['1200', '1200', '1200', '1200']
        >>> one_spelling("3*68 + 2*80 = 364"), one_spelling("Answer: 364.")
        ('364', '364')
        >>> one_spelling(r"\dfrac{\sqrt{3}}{2}"), one_spelling("sqrt(3) / 2")
        ('sqrt(3)/2', 'sqrt(3)/2')
        >>> one_spelling("['a', 'b']"), one_spelling('["a","b"]')
        ('[a,b]', '[a,b]')
    """
    text = " ".join(value.split())
    if len(text) > _LONGEST:
        return text
    if _LITERAL.match(text):
        return _SPACE.sub("", _unquoted(_plain(text)))
    text = _plain(_unwrapped(text)).strip()
    text = text.replace("$", "").strip(" `*")
    text = _result(text)
    return _quantity(text) or _PRODUCT.sub("", _SPACE.sub("", text.rstrip(". ")))


def json_spelling(value: Any) -> str:
    """Write a value of JSON in one way: names in order, numbers as numbers are written.

    Examples:
        >>> json_spelling({"b": [1.0, 0.1 + 0.2], "a": True}) == json_spelling({"a": True, "b": [1, 0.3]})
        True
        >>> json_spelling({"a": "1"}) == json_spelling({"a": 1})
        False
    """
    if isinstance(value, Mapping):
        parts = (f"{json.dumps(name)}: {json_spelling(value[name])}" for name in sorted(value))
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(json_spelling, value))}]"
    return write_number(value) if isinstance(value, float) else json.dumps(value, default=str)


def parse_number(text: str | None) -> float | None:
    """Read one number, or None if the text is not exactly one.

    Examples:
        >>> parse_number("$1,200.50")
        1200.5
        >>> parse_number("3/4")
        0.75
        >>> parse_number("12 - 3") is None
        True
    """
    if text is None:
        return None
    cleaned = text.strip().replace(",", "").replace("$", "").rstrip(".%").strip()
    try:
        if re.fullmatch(r"[-+]?\d+(?:\.\d+)?/\d+", cleaned):
            top, bottom = cleaned.split("/")
            return float(top) / float(bottom) if float(bottom) else None
        if re.fullmatch(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?", cleaned, re.I):
            return float(cleaned)
    except (ValueError, OverflowError):
        return None
    return None


def write_number(number: float) -> str:
    """A number in one way, to six decimals.

    Examples:
        >>> write_number(12.0), write_number(1 / 3)
        ('12', '0.333333')
    """
    return format(round(number, 6) + 0.0, ".15g")  # + 0.0: no negative zero


def _unwrapped(text: str) -> str:
    """Without the box, or the words before the answer."""
    boxed = BOXED.findall(text)
    if boxed:
        return str(boxed[-1]).strip()
    marked = _MARKED.search(text)
    return (marked.group(1) if marked else text).strip(" `*")


def _plain(text: str) -> str:
    """LaTeX as plain text."""
    text = _TEXT.sub(r"\1", text)
    for sign, plain in _SIGNS:
        text = sign.sub(plain, text)
    text = _BEFORE_FRACTION.sub(" ", text)  # two and a half, not 21/2
    for _ in range(_DEPTH):
        text = _SHORT_FRACTION.sub(r"\1/\2", text)
        text = _FRACTION.sub(_over, text)
        text = _ROOT.sub(lambda m: f"sqrt({m[1] or m[2] or m[3] or m[4]})", text)
    return _SILENT.sub("", text)


def _over(found: re.Match[str]) -> str:
    top, below = found[1].strip(), found[2].strip()
    top = top if _TOP.fullmatch(top) else f"({top})"
    return f"{top}/{below if _BELOW.fullmatch(below) else f'({below})'}"


def _unquoted(text: str) -> str:
    """A literal without quotes, but for those that tell '2' from 2 in a list."""
    whole = _QUOTED.fullmatch(text)
    if whole and whole[1] not in whole[2]:
        number = whole[2].strip()
        return _quantity(number) or number if _PLAIN_NUMBER.fullmatch(number) else whole[2]
    return _QUOTED.sub(
        lambda m: f"'{m[2]}'" if _PLAIN_NUMBER.fullmatch(m[2].strip()) else m[2], text
    )


def _result(text: str) -> str:
    """Without the name or the calculation before an equals sign."""
    if "=" not in text:
        return text
    left, right = (side.strip() for side in text.rsplit("=", 1))
    if right and _NAME.fullmatch(left):
        return right
    sums = _TIMES.sub("*", left)
    calculation = _OPERATOR.search(sums) and not _UNKNOWN.search(sums)
    return right if calculation and _quantity(right) else text


def _quantity(text: str) -> str | None:
    """The number, written in one way, if the text is one with or without its unit."""
    mixed = _MIXED.fullmatch(text)
    if mixed and int(mixed["top"]) < int(mixed["below"]):
        number = int(mixed["whole"]) + int(mixed["top"]) / int(mixed["below"])
        return write_number(-number if mixed["sign"] else number)
    found = _QUANTITY.fullmatch(text)
    if not found:
        return None
    digits = found["number"].replace(",", "")
    if digits.isdigit():  # of any length
        return "-" + digits if found["sign"] == "-" and digits != "0" else digits
    number_read = parse_number(found["sign"] + digits)
    return None if number_read is None else write_number(number_read)
