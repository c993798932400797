"""Calls that end in time: what a deadline means for a call that is running when it comes.

- A local model (`HuggingFaceChat`, bare or wrapped by `bind`, `with_config`, `with_retry`) is told the
  seconds that are left and stops at the next token; what it wrote until then is its answer. Loading a model
  is not cut, nor is the wait for those who came before, nor the reading of the prompt: it writes one token at
  least.
- An asynchronous call of any other model is given up, and recorded as a failed answer ("deadline: ..."). Work
  that it does in a thread, as functions that are not coroutines do, goes on unheard.
- A synchronous call of any other model cannot be interrupted: it takes as long as it takes, and its answer
  counts. Give such models a timeout of their own, and `seconds` in the pool, so that they are not asked late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from der_graph.errors import ExpertError

Result = TypeVar("Result")


class DeadlineError(ExpertError):
    """A call was given up because the request's deadline came."""


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


async def in_time(call: Awaitable[Result], seconds: float | None) -> Result:
    """Wait for a call, but not past the deadline.

    Args:
        call: The call.
        seconds: Seconds that are left, or None for no limit.

    Raises:
        DeadlineError: If the time is over; the call has then been cancelled.
    """
    if seconds is None:
        return await call
    start = time.monotonic()
    try:
        return await asyncio.wait_for(call, max(0.0, seconds))
    except asyncio.TimeoutError as error:  # not TimeoutError: another class in 3.10
        if time.monotonic() - start < seconds:
            raise  # the model's own
        raise DeadlineError(f"deadline: no answer within {max(0.0, seconds):.3g} s") from error


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
    return DeadlineError(f"deadline: no answer within {time_left:.3g} s")
