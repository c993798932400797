"""What a call costs: a price per call, or by what it used of tokens and time.

    Charge(most, tokens, second)  ──of(CallSize)──>  cost in the pool's unit

Budgets are checked against `most` before a call; `of` says what a call of some size did cost, or will.
Knows nothing of models.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from der_graph.errors import plain

MOST_TOKENS = 100_000_000
"""Of one call; a count above it is a mistake, and would end every budget."""


class TokenPrices(NamedTuple):
    """Prices of tokens, per million, in the pool's unit.

    Attributes:
        input: Of input tokens.
        output: Of output tokens.
        cached_input: Of input tokens that the provider had in its cache; None for no discount.
        minimum: The least that a call costs, in the pool's unit.
    """

    input: float
    output: float
    cached_input: float | None = None
    minimum: float = 0.0


class CallSize(NamedTuple):
    """What a call used.

    Attributes:
        input: Input tokens, cached ones included.
        cached: Input tokens that came from the provider's cache.
        output: Output tokens.
        seconds: Wall clock.
    """

    input: float
    cached: float
    output: float
    seconds: float


class Charge(NamedTuple):
    """How the calls of an expert are charged.

    Attributes:
        most: Price of a call; with prices of tokens the most that one may cost.
        tokens: Prices of tokens; None for a price per call.
        second: Price of a second of a call, added to either.
    """

    most: float
    tokens: TokenPrices | None = None
    second: float = 0.0

    @property
    def fixed(self) -> bool:
        """Does every call cost the same?"""
        return self.tokens is None and not self.second

    def of(self, size: CallSize) -> float:
        """Cost of a call."""
        time = self.second * size.seconds
        if self.tokens is None:
            return self.most + time
        prices = self.tokens
        cached = prices.input if prices.cached_input is None else prices.cached_input
        paid = (size.input - size.cached) * prices.input + size.cached * cached
        return max(prices.minimum, (paid + size.output * prices.output) / 1e6) + time


def are_counts(read: Any, written: Any, cached: Any, thought: Any = 0) -> bool:
    """Can these be the tokens that a call read, wrote, found in a cache and thought? Asked of all counts."""
    given = (read, written, cached, thought)
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in given)
    return whole and 0 <= cached <= read <= MOST_TOKENS and 0 <= thought <= written <= MOST_TOKENS


def token_prices(given: TokenPrices | tuple[float, float] | None) -> TokenPrices | None:
    """Prices as `as_expert` takes them: a `TokenPrices`, or a pair of input and output."""
    return None if given is None else TokenPrices(*map(plain, given))
