r"""One spelling for a value: `$75`, `75.00`, `75 miles` and `30 + 45 = 75` all come to `75`.

    "The answer is: $\dfrac{3}{4}$." ──unwrap──> \dfrac{3}{4} ──plain──> 3/4 ──number──> 0.75

Whether experts agree is read off equal values, so a value must not depend on how it was written down: units,
currency, quotes, white space, LaTeX, the calculation before it. What could make a difference is kept: case,
signs, brackets, order, the zeros of 007. Finding the value in a running text is `extraction.py`'s.
"""

from __future__ import annotations

import re

BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
r"""`\boxed{...}`, with braces in it to a depth of two, as a root in a fraction has them."""

_LONGEST = 1_000  # longer texts are no values
_MARKED = re.compile(r"(?:####|\banswers?\s*[:=]|\banswers?\s+is\b\s*:?)\s*(\S.*)", re.I | re.S)
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
_ROOT = re.compile(r"(?:\\sqrt|√)\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\w))")
_DEPTH = 3  # fractions and roots within each other
_SILENT = re.compile(
    r"\\(?:left|right|displaystyle|quad|[,!;:()\[\]])|\^\s*\{?\\circ\}?|\\degree|°"
)
_SIGNS = {
    r"\pi": "pi", "π": "pi", r"\infty": "inf", "∞": "inf", r"\cdot": "*", r"\times": "*", "×": "*",
    r"\cup": "U", "\u222a": "U", r"\%": "%", r"\$": "$", "−": "-",
}  # fmt: skip
_QUANTITY = re.compile(
    r"(?P<sign>[-+]?)[$€£]?(?P<number>(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d*)?(?:/[1-9]\d*)?|\.\d+)"
    r"\s*%?\.?(?:\s+(?!sqrt|(?:pi|inf|or|and)\b)[^\W\d]{2}[^\d=]*)?"
)
"""A number, and perhaps the words after it: `12 minutes`. One that begins with a zero too many is a text."""
_NAME = re.compile(r"[A-Za-z](?:\([A-Za-z]\))?")  # x = 5, f(x) = 5
_CALCULATION = re.compile(r"[-+*/^]")
_LITERAL = re.compile(r"[\[\]{}'\"]")  # of a program: nothing in it is a unit or a calculation
_PRODUCT = re.compile(r"(?<=\d)\*(?=[a-z(])")  # 2*sqrt(3) is 2sqrt(3)


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
    text = value.strip()
    if len(text) > _LONGEST:
        return re.sub(r"\s+", "", text)
    text = _plain(_unwrapped(text))
    if not _LITERAL.search(text):
        text = _result(text)
    text = re.sub(r"[\s$'\"`]", "", text).rstrip(".")
    return _quantity(text) or _PRODUCT.sub("", text)


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
    return format(round(number, 6) + 0.0, ".10g")  # + 0.0: no negative zero


def _unwrapped(text: str) -> str:
    """Without the box, or the words before the answer."""
    boxed = BOXED.findall(text)
    if boxed:
        return str(boxed[-1])
    marked = _MARKED.search(text)
    return (marked.group(1) if marked else text).strip().strip("*`").strip()


def _plain(text: str) -> str:
    """LaTeX, and quotes escaped as in JSON, as plain text."""
    if "\\" not in text and not any(sign in text for sign in _SIGNS) and "√" not in text:
        return text
    text = _TEXT.sub(r"\1", text)
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    for _ in range(_DEPTH):
        text = _SHORT_FRACTION.sub(r"\1/\2", text)
        text = _FRACTION.sub(lambda m: f"{_bracketed(m[1])}/{_bracketed(m[2])}", text)
        text = _ROOT.sub(lambda m: f"sqrt({m[1] or m[2] or m[3]})", text)
    return _SILENT.sub("", text).replace('\\"', '"')


def _bracketed(part: str) -> str:
    part = part.strip()
    return part if re.fullmatch(r"\w+|sqrt\(\w+\)", part) else f"({part})"


def _result(text: str) -> str:
    """Without the name or the calculation before an equals sign, and without the unit of a number."""
    if "=" in text:
        left, right = (side.strip() for side in text.rsplit("=", 1))
        if right and (_NAME.fullmatch(left) or (_CALCULATION.search(left) and _quantity(right))):
            text = right
    return _quantity(text) or text


def _quantity(text: str) -> str | None:
    """The number, written in one way, if the text is one with or without words after it."""
    found = _QUANTITY.fullmatch(text.strip())
    number = parse_number(found["sign"] + found["number"]) if found else None
    return None if number is None else write_number(number)
