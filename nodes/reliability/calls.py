"""One call of a model, made so that nothing it does reaches further than its own result.

    call ──in a thread of the expert's own, or as a task──> what it gave, or what it raised

Whatever a model does comes back as a value: it raises `SystemExit`, cancels its task, hangs. Only what is not
the model's passes through: an interrupt of LangGraph, the end of the stream, the caller's own cancellation or
Ctrl-C. Knows nothing of experts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

from langchain_core.language_models import BaseChatModel, SimpleChatModel
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from langgraph.errors import GraphBubbleUp
from langgraph.pregel import Pregel

from der_graph.nodes.providers.exits import no_exit
from der_graph.nodes.reliability.bulkhead import Bulkhead, BusyError
from der_graph.nodes.reliability.concurrency import Bounded, bare
from der_graph.nodes.reliability.deadline import Limit
from der_graph.nodes.reliability.threads import STOPS, StreamClosedError, check_open

_LOOK = 0.05  # seconds between two looks at whether the stream was closed


def call(work: Callable[[], Any], bulkhead: Bulkhead, limit: Limit) -> Any:
    """Call a model from a thread, and wait for it at most as long as it may take.

    Args:
        work: The call.
        bulkhead: Its threads.
        limit: How long it may take.

    Returns:
        What it gave, or the exception that it raised.

    Raises:
        StreamClosedError: If the stream that this call works for was closed.
        GraphBubbleUp: If the call interrupts the graph.
    """
    try:
        future = bulkhead.run(functools.partial(_plainly, work))
    except BusyError as error:
        return error
    try:
        result = _wait(future, limit.seconds)
    except BaseException:  # Ctrl-C, or the end of the stream
        bulkhead.abandon(future)
        raise
    if result is _LATE:
        bulkhead.abandon(future)
        return limit.error()
    return _passed_on(result)


def _wait(future: Future[Any], seconds: float | None) -> Any:
    stops = STOPS.get()
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else end - time.monotonic()
        look = left if not stops else _LOOK if left is None else min(left, _LOOK)
        try:
            error = future.exception(look)
            return future.result() if error is None else error
        except concurrent.futures.TimeoutError:
            check_open(stops)
            if end is not None and time.monotonic() >= end:
                return _LATE
        except concurrent.futures.CancelledError as error:
            return error


_LATE = object()


def pause(seconds: float) -> None:
    """Wait before a call is made once more.

    Raises:
        StreamClosedError: As in `call`.
    """
    _wait(Future(), seconds)


async def acall(work: Callable[[], Any], bulkhead: Bulkhead, limit: Limit) -> Any:
    """Make a blocking call from an event loop, in a thread of the model's own; see `call`."""
    try:
        future = bulkhead.run(functools.partial(_plainly, work))
    except BusyError as error:
        return error
    return await _settled(asyncio.wrap_future(future), limit, lambda: bulkhead.abandon(future))


async def acall_task(
    work: Callable[[], Awaitable[Any]], bulkhead: Bulkhead | None, limit: Limit
) -> Any:
    """Make a call that is a coroutine, on the caller's loop; see `call`. None for any number at a time."""
    return await _settled(asyncio.ensure_future(_in_place(work, bulkhead)), limit, lambda: None)


async def _in_place(work: Callable[[], Awaitable[Any]], bulkhead: Bulkhead | None) -> Any:
    with no_exit():
        async with bulkhead.places.one_later() if bulkhead else contextlib.nullcontext():
            return await work()


async def _settled(task: asyncio.Future[Any], limit: Limit, give_up: Callable[[], None]) -> Any:
    try:
        done, _ = await asyncio.wait({task}, timeout=limit.seconds)
    except BaseException as error:
        give_up()
        task.cancel(error.args[0] if error.args else None)  # why, where somebody has said so
        raise
    if not done:
        give_up()
        late = limit.error()
        task.cancel(late)
        task.add_done_callback(looked_at)
        return late
    if task.cancelled():
        return asyncio.CancelledError("the expert cancelled its own call")
    raised = task.exception()
    return _passed_on(task.result() if raised is None else raised)


def looked_at(task: asyncio.Future[Any]) -> None:
    """Look at what a call that was given up came to, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()


def _plainly(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except StopIteration as error:  # no future can hold one
        raise RuntimeError("StopIteration") from error


def _passed_on(result: Any) -> Any:
    if isinstance(result, (GraphBubbleUp, StreamClosedError)):
        raise result
    return result


@contextlib.contextmanager
def configured(config: RunnableConfig) -> Iterator[None]:
    """Call a model with this configuration and no other.

    A binding merges the configuration around it into its own: without this, tokens would be heard by a
    graph's own listener beside ours. LangChain's `create_agent` hands its models no configuration at all.
    """
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def runs_on_loop(model: Any, *, streamed: bool = False) -> bool:
    """Is a model asynchronous all through, so that it can be awaited without any thread?

    What is not, goes to a thread as a whole: left to itself it would do its blocking parts in the event
    loop's executor, which everybody shares.

    Args:
        model: A chat model or any other runnable.
        streamed: Are its tokens streamed? A model that is asynchronous only there is awaited only then.
    """
    if isinstance(model, (RunnableBindingBase, Bounded)):
        return runs_on_loop(model.bound, streamed=streamed)
    if isinstance(model, BaseChatModel):
        own = type(model)
        streams = own._astream is not BaseChatModel._astream
        if streams and streamed:
            return True
        blocks = own._stream is not BaseChatModel._stream and not streams
        lent = (BaseChatModel._agenerate, SimpleChatModel._agenerate)  # in the loop's executor
        return own._agenerate not in lent and not blocks
    if isinstance(model, RunnableLambda):
        return hasattr(model, "afunc")
    if isinstance(model, RunnableSequence):
        return all(runs_on_loop(step, streamed=streamed) for step in model.steps)
    if isinstance(model, RunnableWithFallbacks):
        several = (model.runnable, *model.fallbacks)
        return all(runs_on_loop(one, streamed=streamed) for one in several)
    if isinstance(model, Pregel):
        return _nodes_run_on_loop(model)
    return isinstance(model, Runnable) and type(model).ainvoke is not Runnable.ainvoke


_KEPT_OPEN = 150.0  # seconds that a call may take, and its connection is then kept open
_homes: dict[str, tuple[weakref.ref[asyncio.AbstractEventLoop], float]] = {}
"""By the package of a client: the event loop that its connections belong to, and when it was last used."""


def is_at_home(model: Any) -> bool:
    """May a model be awaited on this event loop, as far as its client's connections are concerned?

    LangChain's clients of one package share connections among all models of a process, and a connection
    belongs to the loop that opened it: on another one, as of a second `asyncio.run`, it still sends the
    request, and then fails, so that the provider is paid twice. Where that may be, a thread has connections
    of its own.

    Args:
        model: What is to be awaited; it counts as used here if it may.
    """
    packages = set(filter(None, map(_package_of, _kinds_in(model))))
    if not packages:
        return True
    loop, now = asyncio.get_running_loop(), time.monotonic()
    for package in packages:
        home, used = _homes.get(package, (None, -math.inf))
        if home is not None and home() is not loop and now - used < _KEPT_OPEN:
            return False
    _homes.update(dict.fromkeys(packages, (weakref.ref(loop), now)))
    return True


def _kinds_in(model: Any) -> Iterator[type]:
    """The classes of the models in a chain, or of those that stand in for each other."""
    model = bare(model)
    if isinstance(model, RunnableSequence):
        parts = model.steps
    elif isinstance(model, RunnableWithFallbacks):
        parts = [model.runnable, *model.fallbacks]
    else:
        yield type(getattr(model, "chat", model))
        return
    for part in parts:
        yield from _kinds_in(part)


@functools.lru_cache(maxsize=256)
def _package_of(kind: type) -> str:
    """The package of LangChain's that a client's class comes from; empty for none."""
    packages = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((p for p in packages if p.startswith("langchain_") and p != "langchain_core"), "")


def _nodes_run_on_loop(graph: Pregel[Any, Any, Any, Any]) -> bool:
    # A graph that can only be awaited is awaited, whatever else is in it.
    return _kind(graph) != "blocking"


def is_only_awaited(model: Any) -> bool:
    """Can a function not be called without an event loop, or is there such a node in a graph?"""
    return _kind(model) == "awaited"


def _kind(bound: Any) -> str:
    if isinstance(bound, Pregel):
        kinds = {_kind(node.bound) for node in bound.nodes.values()}
        return next((kind for kind in ("awaited", "blocking") if kind in kinds), "either")
    function, coroutine = getattr(bound, "func", None), getattr(bound, "afunc", None)
    if coroutine is None and function is None:
        return "either" if runs_on_loop(bound) else "blocking"
    # LangChain's way, or LangGraph's, into the executor.
    if coroutine is None or isinstance(coroutine, functools.partial):
        return "blocking"
    return "awaited" if function is None else "either"
