"""What kind of failure a call ended in, and what follows from that.

    exception ──failure_of──> kind, a line of text, seconds to wait (Retry-After)

A kind says three things: does the call cost anything (`is_free`), is another try worth it (`is_passing`), and
does it tell about the expert's health (`is_telling`) or about this one question. Knows nothing of experts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import time
from typing import Any, Literal, NamedTuple

from der_graph.errors import DERError

FailureKind = Literal[
    "auth", "busy", "cancelled", "deadline", "empty", "error", "exit", "open", "rate_limit",
    "request", "timeout", "unavailable",
]  # fmt: skip
"""`auth`: the key or the account is refused. `busy`: no thread was free. `cancelled`, `exit`: its own code
ended its task or the program. `deadline`: the request's time was over. `empty`: no answer in what came.
`open`: its breaker did not let the call through. `rate_limit`: asked too often. `request`: this
question cannot be asked of it. `timeout`: its own time was over. `unavailable`: not reached, or out of order.
`error`: anything else."""

LONGEST_WAIT = 3600.0
"""Longest `Retry-After` that is believed, in seconds."""

_FREE = frozenset({"auth", "busy", "open", "rate_limit", "request", "unavailable"})
_PASSING = frozenset({"rate_limit", "unavailable"})
_UNTOLD = frozenset({"busy", "open", "request"})


class Failure(NamedTuple):
    """What went wrong with one call.

    Attributes:
        kind: What kind it is.
        text: One line for logs and routes.
        retry_after: Seconds that the provider asks to wait, or None.
    """

    kind: FailureKind
    text: str
    retry_after: float | None = None


def failure_of(error: BaseException) -> Failure:
    """Read an exception."""
    return Failure(_kind_of(error), describe_error(error), _retry_after(error))


def is_free(kind: FailureKind, *, spoken: bool) -> bool:
    """Does such a failed call cost nothing?

    Args:
        kind: Of the failure.
        spoken: Had a first token come? Then the provider charges a call that is given up.
    """
    return kind in _FREE or (kind in ("timeout", "deadline") and not spoken)


def is_passing(kind: FailureKind) -> bool:
    """May the same call succeed in a moment?"""
    return kind in _PASSING


def is_telling(kind: FailureKind) -> bool:
    """Does it tell about the expert, and not about this one request?"""
    return kind not in _UNTOLD


def is_stale(error: BaseException) -> bool:
    """Did a client try a connection of an event loop that has ended? The next call opens a new one.

    Client libraries share connections among the loops of a process, as of `asyncio.run` called twice.
    """
    return isinstance(error, RuntimeError) and "vent loop" in str(error)


def describe_error(error: BaseException) -> str:
    """One line about an exception, short enough for a log and without a traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _kind_of(error: BaseException) -> FailureKind:
    own: FailureKind | None = getattr(error, "failure_kind", None)
    if own is not None:
        return own
    if isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError)):
        return "cancelled"
    if not isinstance(error, Exception):
        return "exit"
    status = _status(error)
    if status is not None and status >= 400:
        return _KINDS.get(status, "unavailable" if status >= 500 else "request")
    name = type(error).__name__.lower()
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) or "timeout" in name:
        return "timeout"
    if isinstance(error, ConnectionError) or any(
        part in name for part in ("connect", "network", "transport", "protocol")
    ):
        return "unavailable"
    # The project's own models raise such errors about a question: too long, not recorded.
    return "request" if isinstance(error, DERError) else "error"


_KINDS: dict[int, FailureKind] = {
    401: "auth", 402: "auth", 403: "auth", 408: "unavailable", 425: "unavailable", 429: "rate_limit",
}  # fmt: skip


def _status(error: Any) -> int | None:
    """The HTTP status, wherever client libraries keep it."""
    response = getattr(error, "response", None)
    places: list[Any] = [
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
        getattr(error, "http_status", None),
    ]
    if isinstance(response, dict):  # botocore
        places.append((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
    return next((each for each in places if type(each) is int and 100 <= each < 600), None)


def _retry_after(error: Any) -> float | None:
    own = getattr(error, "retry_after", None)
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        return _bounded(float(own))
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(
        error, "headers", None
    )
    try:
        if headers is None:
            return None
        if headers.get("retry-after-ms") is not None:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        given = headers.get("retry-after") or headers.get("Retry-After")
        return None if given is None else _bounded(_seconds(str(given)))
    except (TypeError, ValueError, KeyError, AttributeError):
        return None  # a header of another form says nothing


def _seconds(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        return email.utils.parsedate_to_datetime(given).timestamp() - time.time()


def _bounded(seconds: float) -> float | None:
    return min(max(0.0, seconds), LONGEST_WAIT) if seconds == seconds else None
