"""Which numbers of an expert can be counted with: its prices, times and lengths.

Knows nothing of models.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from der_graph.errors import PoolError, cut
from der_graph.nodes.reliability.charge import TokenPrices, token_prices


def _price(value: Any) -> bool:
    return _is_number(value) and 0 <= value < math.inf


def _length(value: Any) -> bool:
    return _is_number(value) and value >= 1


# What may be left out is None.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cost": (_price, "a number >= 0"),
    "second_price": (_price, "a number >= 0"),
    "max_answer_chars": (_length, "at least 1"),
    "context_length": (lambda n: n is None or _length(n), "at least 1"),
    "seconds": (lambda s: s is None or (_price(s) and s > 0), "a number above 0"),
    "timeout": (
        lambda s: s is None or (_is_number(s) and s > 0),
        "a number of seconds above 0, or infinity for no limit",
    ),
}
NUMBERS = tuple(_RULES)
"""The fields of an expert that are numbers."""


def check_numbers(name: str, given: Mapping[str, Any]) -> TokenPrices | None:
    """Check the numbers of an expert.

    Args:
        name: The expert's, for messages.
        given: Its fields by name; those of other kinds are left alone.

    Returns:
        Its `token_prices`, or None.

    Raises:
        PoolError: If one cannot be counted with; says which, and what it must be.
    """
    for field, (fits, rule) in _RULES.items():
        if not fits(given[field]):
            raise _fault(name, field, given[field], f"it must be {rule}")
    skill = given["skill"]
    for kind, share in (skill if isinstance(skill, Mapping) else {"": skill}).items():
        if share is not None and not (_is_number(share) and 0 <= share <= 1):
            where = f"skill on '{kind}'" if kind else "skill"
            rule = "it is the share of questions that it answers right, from 0 to 1"
            raise _fault(name, where, share, rule)
    return _token_prices(name, given["token_prices"])


def _token_prices(name: str, given: Any) -> TokenPrices | None:
    pairs = isinstance(given, (tuple, list)) and len(given) == 2
    if given is not None and not (pairs or isinstance(given, TokenPrices)):
        rule = "it must be a pair, of input and output, or a `TokenPrices`"
        raise _fault(name, "token_prices", given, rule)
    pair: Any = given
    prices = token_prices(pair)
    for field, price in () if prices is None else prices._asdict().items():
        if not _price(price) and not (price is None and field == "cached_input"):
            raise _fault(name, f"token_prices.{field}", price, "it must be a number >= 0")
    return prices


def _is_number(value: Any) -> bool:
    """A number, also one of NumPy; a bool is a switch, and an int may be larger than floats go."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    try:
        return isinstance(value, Real) and not math.isnan(value)
    except OverflowError:  # a fraction may be as large
        return False


def _fault(name: str, field: str, value: Any, rule: str) -> PoolError:
    try:
        shown = cut(repr(value))
    except ValueError:  # thousands of digits
        shown = "a very large number"
    return PoolError(f"expert '{name}': {field} is {shown}; {rule}")
