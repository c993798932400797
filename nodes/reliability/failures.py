"""What kind of failure a call ended in, and what follows from that.

    exception ──failure_of──> kind, a line of text, seconds to wait (Retry-After)

A kind says three things: does the call cost anything (`is_free`), is another try worth it (`is_passing`), and
does it tell about the expert's health (`is_telling`) or about this one question. Knows nothing of experts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from langchain_core import exceptions as langchain_errors

from der_graph.errors import AllExpertsFailedError, DERError, ExpertError
from der_graph.nodes.providers import client_errors as providers
from der_graph.state import Answer

Raised = TypeVar("Raised", bound=DERError)

FailureKind = Literal[
    "auth", "busy", "cancelled", "content_filter", "context_length", "cut", "deadline", "empty", "error",
    "exit", "format", "open", "overtaken", "rate_limit", "request", "timeout", "unavailable",
]  # fmt: skip
"""What each of them means:

- `auth`: the key, the account or the name of the model is refused.
- `busy`: no thread was free.
- `cancelled`, `exit`: its own code ended its task or the program.
- `content_filter`: the provider will not answer this.
- `context_length`: the prompt is longer than it reads, or than the price of a call pays for.
- `cut`: what the request allows was over before it said anything.
- `deadline`: the request's time was over.
- `empty`: no answer in what came.
- `format`: not of the form that the request asks for.
- `open`: its breaker did not let the call through.
- `overtaken`: another expert, asked beside it, had answered.
- `rate_limit`: asked too often.
- `request`: this question cannot be asked of it.
- `timeout`: its own time was over.
- `unavailable`: not reached, or out of order.
- `error`: anything else.
"""

LONGEST_WAIT = 3600.0
"""Longest `Retry-After` that is believed, in seconds."""

_FREE = frozenset(
    "auth busy content_filter context_length open rate_limit request unavailable".split()
)
_NOT_CALLED = frozenset({"busy", "open"})
_PASSING = frozenset({"rate_limit", "unavailable"})
_UNTOLD = frozenset("busy content_filter context_length cut format open request".split())
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_IN_LANGCHAIN = {
    "auth": "ModelAuthenticationError",
    "context_length": "ContextOverflowError",
    "rate_limit": "ModelRateLimitError",
    "request": "ModelInvalidRequestError",
    "timeout": "ModelTimeoutError",
    "unavailable": "ModelConnectionError",
}
"""LangChain's classes of errors of models, by kind of failure."""


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
    meaning = providers.failure_of(error)
    wait = meaning.retry_after
    if wait is None and isinstance(error, ExpertError):  # one of ours, that was told so
        wait = error.retry_after
    return Failure(_kind_of(error, meaning.kind), describe_error(error), _believed(wait))


def all_failed(failed: Sequence[Answer]) -> AllExpertsFailedError:
    """The error of a route on which nobody answered.

    Where all failed alike it is of LangChain's class for such failures too, which middleware around a model
    knows: it summarizes a conversation that was too long, and tries again what may pass.

    Args:
        failed: The failed answers.
    """
    kinds = {answer.get("failure") for answer in failed}
    kind = kinds.pop() if len(kinds) == 1 else None
    causes = "; ".join(f"{answer['expert']}: {answer['error']}" for answer in failed)
    message = f"no expert could answer ({causes})"
    error: AllExpertsFailedError = as_langchain(AllExpertsFailedError, kind)(message)
    error.answers = failed
    error.failure_kind = kind
    waits = [answer["retry_after"] for answer in failed if "retry_after" in answer]
    error.retry_after = min(waits, default=None)
    return error


@functools.cache
def as_langchain(kind_of_ours: type[Raised], kind: str | None) -> type[Raised]:
    """A class of errors that is LangChain's class for a kind of failure too, where there is one."""
    # Older versions of LangChain have none of them.
    theirs = getattr(langchain_errors, _IN_LANGCHAIN.get(kind or "", ""), None)
    if theirs is None:
        return kind_of_ours
    told = {
        "__doc__": kind_of_ours.__doc__,
        "__module__": kind_of_ours.__module__,
        "__reduce__": lambda self: (_again, (kind_of_ours, kind, self.args), self.__dict__),
    }
    return type(kind_of_ours.__name__, (kind_of_ours, theirs), told)


def _again(kind_of_ours: Any, kind: str, args: tuple[Any, ...]) -> Any:
    """Such an error from another process."""
    return as_langchain(kind_of_ours, kind)(*args)


def is_free(kind: FailureKind, *, spoken: bool, ran: bool = False) -> bool:
    """Does such a failed call cost nothing?

    Args:
        kind: Of the failure.
        spoken: Had a first token come? Then the provider charges a call that is given up, or broke off.
        ran: Did it run on this machine?
    """
    if spoken and kind not in _NOT_CALLED:
        return False
    return kind in _FREE or (kind in ("timeout", "deadline") and not ran)


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
    told = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    why = providers.cause_of(error)
    line = told if not why or why in told else f"{told.rstrip('.')} ({why[:200]})"
    return _CONTROLS.sub(" ", line)  # they would steer the terminal that shows it


def _kind_of(error: BaseException, meaning: providers.FailureKind) -> FailureKind:
    own: FailureKind | None = getattr(error, "failure_kind", None)
    if own is not None:
        return own
    if isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError)):
        return "cancelled"
    if not isinstance(error, Exception):
        return "exit"
    if meaning != "error":
        return meaning
    name = type(error).__name__.lower()
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) or "timeout" in name:
        return "timeout"
    if isinstance(error, ConnectionError) or any(
        part in name for part in ("connect", "network", "transport", "protocol")
    ):
        return "unavailable"
    # The project's own models raise such errors about a question: too long, not recorded.
    return "request" if isinstance(error, DERError) else "error"


def _believed(seconds: float | None) -> float | None:
    """A wait that a provider asked for, where it is a number, and not longer than is believed."""
    if seconds is None or seconds != seconds:
        return None
    return min(max(0.0, seconds), LONGEST_WAIT)
