"""How long one call may take, and what becomes of it when that time is over.

- A local model (`HuggingFaceChat`, bare or wrapped by `bind`, `with_config`, `with_retry`) is told the
  seconds that are left and stops at the next token; what it wrote until then is its answer. Loading a model
  is not cut, nor is the wait for those who came before, nor the reading of the prompt: it writes one token at
  least.
- Any other call is given up. A coroutine is cancelled; a thread goes on unheard, and is counted as hung until
  it ends. The failed answer says `deadline: ...` or `timeout: ...`.

Where another expert could still be asked and there is no answer yet, a share of the deadline is held back for
it: a call that hangs then costs a part of the time, and not the answer. Knows nothing of routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from der_graph.errors import ExpertError

DEFAULT_TIMEOUT = 120.0
"""Seconds for one call of an expert that does not run in this process, where nothing else is said."""

SHARE = 0.6
"""Share of the time left that a call may take where another expert is to be asked if it fails."""

# An expert whose usual time is known gets this many times it, where there is so much.
_PATIENCE = 2.0

Fallback = Literal["none", "expert", "answer"]
"""What there is if a call fails: nothing; another expert; an earlier answer of the route."""


class TimeLimitError(ExpertError):
    """A call was given up because its time was over."""

    failure_kind: Literal["deadline", "timeout"] = "timeout"


class DeadlineError(TimeLimitError):
    """It was the request's time that was over."""

    failure_kind: Literal["deadline", "timeout"] = "deadline"


class Limit(NamedTuple):
    """How long one call may take.

    Attributes:
        seconds: As it says, or None for no limit.
        deadline: Is it the request's deadline that says so?
    """

    seconds: float | None
    deadline: bool = False

    def error(self) -> TimeLimitError:
        """What a call that took longer ended in."""
        kind = "deadline" if self.deadline else "timeout"
        text = f"{kind}: no answer within {max(0.0, self.seconds or 0.0):.3g} s"
        return DeadlineError(text) if self.deadline else TimeLimitError(text)


def limit_of(
    timeout: float | None,
    time_left: float | None,
    fallback: Fallback = "none",
    usual: float | None = None,
) -> Limit:
    """How long a call may take.

    Args:
        timeout: Seconds for a call of this expert, or None.
        time_left: Seconds until the request's deadline, or None.
        fallback: What there is if it fails.
        usual: Seconds that a call of it usually takes, or None.
    """
    if timeout == float("inf"):
        timeout = None
    if time_left is None:
        return Limit(timeout)
    left = max(0.0, time_left)
    if fallback == "expert":
        left = max(SHARE * left, min(left, _PATIENCE * (usual or 0.0)))
    return Limit(left, True) if timeout is None or left <= timeout else Limit(timeout)


def call_limit(model: Runnable[Any, Any], seconds: float | None) -> dict[str, Any]:
    """The keyword arguments that make a call of this model end in time; empty for models without such.

    Args:
        model: The model, bare or wrapped.
        seconds: Seconds that are left, or None for no limit.
    """
    if seconds is None:
        return {}
    limits: list[float | None] = [max(0.0, seconds)]
    bare: Any = model
    while hasattr(bare, "bound"):  # bindings, retries
        limits.append((getattr(bare, "kwargs", None) or {}).get("max_time"))
        bare = bare.bound
    if not getattr(bare, "keeps_max_time", False):
        return {}
    limits.append(bare.generation.get("max_time"))
    return {"max_time": min(limit for limit in limits if limit is not None)}


def unless_late(result: Any, seconds: float, limit: Mapping[str, Any]) -> Any:
    """What a call gave, or a `DeadlineError` where its time was over before it could say anything.

    Args:
        result: The model's message, or what it raised.
        seconds: How long the call took.
        limit: The limit that it had, from `call_limit`.
    """
    time_left = limit.get("max_time")
    if time_left is None or seconds < time_left or not isinstance(result, AIMessage):
        return result
    if result.text.strip() or result.tool_calls:
        return result
    return Limit(time_left, True).error()
