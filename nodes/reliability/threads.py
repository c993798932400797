"""Work in a thread of its own: waited for, listened to, or stopped.

    work ──in_thread──> Future
    coroutine ──waited_for──> its result, from one event loop for all callers that have none
    work ──listen────> piece, piece, ..., result     (`alisten` for event loops)
    work ──resolve_futures────> a result for each of many futures

    for part in stream: break ──closed──> stop ──seen at the next token──> the model stops

Clients keep connections open, which belong to the loop that opened them. Of a loop for each call, as of
`asyncio.run`, the next call would find a dead connection: so the loop stays.

A thread that computes when the program ends is waited for a while: torch is C++, and a thread that Python
ends in the middle of it takes the whole process down ("terminate called without an active exception").

LangGraph waits for the threads of a stream that is closed, which could mean the whole answer of the expert
that is speaking. So whoever leaves a synchronous stream makes the model stop, also where a signal does it in
the middle of a part (Ctrl-C): LangGraph then waits before anybody around it is told. Asynchronous graphs are
cancelled by asyncio and need nothing of the kind.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import queue
import signal
import sys
import threading
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from contextvars import Context, ContextVar, copy_context
from functools import partial
from threading import Event
from typing import Any, TypeVar

from langgraph.graph.state import CompiledStateGraph, StateGraph

from der_graph.nodes.reliability.copying import renew_in_children

Result = TypeVar("Result")

Shown = Callable[[Callable[[str], None], threading.Event], Result]
"""Work that shows pieces of text as it goes on, and ends early once the event is set."""


def in_thread(work: Callable[[], Result]) -> Future[Result]:
    """Run something in a thread of its own, which does not keep the program from ending.

    Not in the event loop's executor: it has few threads, and a model that is busy would occupy them all.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="der-graph-model", daemon=True).start()
    return future


_LAST_WAIT = 10.0  # seconds; a model stops at its next token, a decision takes less
_COMPUTING = ("torch", "transformers", "sentence_transformers", "der_graph.policies.agent",
              "der_graph.policies.observation")  # fmt: skip


@atexit.register
def wait_for_computations() -> None:
    """Wait for threads that were given up and compute still; calls of models elsewhere may hang for ever."""
    if "torch" not in sys.modules:
        return
    until = time.monotonic() + _LAST_WAIT
    while any(map(_computes, threading.enumerate())) and time.monotonic() < until:
        time.sleep(0.01)


def _computes(thread: threading.Thread) -> bool:
    """Is it one of this package's threads, in code that calls torch? Threads of others may idle in torch."""
    ours = thread.name.startswith("der-graph-")
    frame = sys._current_frames().get(thread.ident or 0) if ours else None
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith(_COMPUTING):
            return True
        frame = frame.f_back
    return False


def resolve_futures(futures: Sequence[Future[Any]], work: Callable[[], Sequence[Any]]) -> None:
    """Give each future its result of some work; what fails as a whole fails for all. Never raises.

    Args:
        futures: Futures that are running.
        work: Gives a result for each, in order; one that is an exception belongs to its future alone, and
            one that is a future itself is waited for by nobody: its result is handed on when it comes.
    """
    try:
        results = list(zip(futures, work(), strict=True))
    except BaseException as error:
        results = [(future, error) for future in futures]
    for future, result in results:
        if isinstance(result, Future):
            result.add_done_callback(partial(_hand_on, future))
        elif isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def _hand_on(future: Future[Any], done: Future[Any]) -> None:
    resolve_futures([future], lambda: [done.result()])


_PROMPT = 0.2  # seconds within which a loop that is not blocked begins something


def waited_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in another thread, and wait for it: the caller's may run an event loop already.

    The context goes along, so that what is called is traced below the caller's run, and LangGraph's writer
    finds its stream.
    """
    context = copy_context()
    future = _home.begin(work, context)
    if future is None:
        future = in_thread(lambda: context.run(asyncio.run, work))
    return future.result()


class _HomeLoop:
    """A loop in a thread of its own, begun with the first call."""

    def __init__(self) -> None:
        self._begin_without_thread()
        renew_in_children(self._begin_without_thread)

    def _begin_without_thread(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocked = False

    def begin(self, work: Coroutine[Any, Any, Result], context: Context) -> Future[Result] | None:
        """Begin something; None if the loop cannot: something in it blocks, instead of awaiting."""
        with self._lock:
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=(loop,), name="der-graph-loop", daemon=True
                ).start()
        loop = self._loop
        future: Future[Result] = Future()
        begun = threading.Event()

        def start() -> None:
            if future.set_running_or_notify_cancel():
                begun.set()
                loop.create_task(work).add_done_callback(
                    lambda task: resolve_futures([future], lambda: [task.result()])
                )

        if self._blocked:
            return None
        # A copy, as the other thread may be within the context by the time that the loop is free.
        loop.call_soon_threadsafe(start, context=context.copy())
        if begun.wait(_PROMPT) or not future.cancel():
            return future
        self._blocked = True
        loop.call_soon_threadsafe(setattr, self, "_blocked", False)
        return None


_home = _HomeLoop()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        # What tries to end the program ends its task, and the task's future says so.
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def listen(work: Shown[Result]) -> Generator[str | Result, None, None]:
    """Give the pieces that some work shows as they come, and its result last.

    Close it to give up: the work's event is then set.
    """
    pieces: queue.SimpleQueue[str | Future[Result]] = queue.SimpleQueue()
    cancel = Cancel(STOPS.get())
    in_thread(lambda: work(pieces.put, cancel)).add_done_callback(pieces.put)
    try:
        while isinstance(piece := pieces.get(), str):
            yield piece
        yield piece.result()  # raises what the thread raised
    finally:
        cancel.set()


async def alisten(work: Shown[Result]) -> AsyncGenerator[str | Result, None]:
    """Listen without blocking the event loop; see `listen`."""
    pieces: asyncio.Queue[str | Future[Result]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    cancel = threading.Event()

    def put(piece: str | Future[Result]) -> None:
        with contextlib.suppress(RuntimeError):  # nobody listens any more: the loop is closed
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    in_thread(lambda: work(put, cancel)).add_done_callback(put)
    try:
        while isinstance(piece := await pieces.get(), str):
            yield piece
        yield piece.result()
    finally:
        cancel.set()


Part = TypeVar("Part")


class StreamClosedError(asyncio.CancelledError):
    """Nobody listens any more. Not a failure of whoever speaks."""


CLOSED = "the stream was closed"


def check_open(stops: Sequence[Event]) -> None:
    """Check that the streams that some code works for are still read.

    Args:
        stops: As in `STOPS`.

    Raises:
        StreamClosedError: If one is not; it says why.
    """
    for stop in reversed(stops):  # the innermost was set first
        if stop.is_set():
            raise StreamClosedError(getattr(stop, "why", CLOSED))


STOPS: ContextVar[tuple[Event, ...]] = ContextVar("der_graph_stops", default=())
"""The streams that the code of this context works for; set once they are closed."""


class Cancel(Event):
    """An event that is set as well once one of others is.

    Args:
        others: The others; they are looked at and not waited for.

    Attributes:
        why: What traces say of a call that it ends.
    """

    def __init__(self, others: Iterable[Event] = ()) -> None:
        super().__init__()
        self._others = tuple(others)
        self.why = CLOSED

    def is_set(self) -> bool:
        """Is it, or one of the others?"""
        return super().is_set() or any(other.is_set() for other in self._others)


def stoppable(parts: Iterable[Part]) -> Generator[Part, None, None]:
    """Make a synchronous stream stop its models within a token when it is closed.

    `create_der_graph(...).compile().stream(...)` does this by itself. It is for graphs of your own that
    hold this one: LangGraph waits for the threads of a stream that is closed, and would wait for the whole
    answer of the expert that is speaking.

    Args:
        parts: A stream that was not begun yet, such as `app.stream(...)`.

    Yields:
        Its parts.

    Examples:
        ```python
        for part in stoppable(app.stream(inputs, stream_mode="messages")):
            if enough(part):
                break
        ```
    """
    stop = Event()
    # A context of its own, which LangGraph copies into the threads of its nodes.
    context = copy_context()
    context.run(STOPS.set, (*STOPS.get(), stop))
    source = iter(parts)
    done = object()
    try:
        while True:
            with _set_by_signals(stop):
                part = context.run(next, source, done)
            if part is done:
                break
            yield part  # type: ignore[misc]
    finally:
        stop.set()
        close = getattr(source, "close", None)
        if close is not None:
            context.run(close)


_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)
]
"""Those whose handlers raise in many programs: Ctrl-C, the end of the program, a limit of time."""


@contextlib.contextmanager
def _set_by_signals(stop: Event) -> Iterator[None]:
    """Set an event where a signal's handler raises in the middle of this; nothing but in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours: list[tuple[int, Any, Any]] = []
    try:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if callable(before):
                ours.append((number, before, _setting(stop, before)))
                signal.signal(number, ours[-1][-1])
        yield
    finally:
        for number, before, handler in ours:
            if signal.getsignal(number) is handler:  # else somebody wants another one from now on
                signal.signal(number, before)


def _setting(stop: Event, before: Callable[[int, Any], Any]) -> Callable[[int, Any], None]:
    """A signal's handler that does what the one before does; where that raises, the event is set."""

    def handle(number: int, frame: Any) -> None:
        try:
            before(number, frame)
        except BaseException:
            stop.set()  # nobody waits for it in the main thread, so its lock is free, or soon will be
            raise

    return handle


class StoppableGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose synchronous streams stop their models when they are closed."""

    def stream(self, *args: Any, **settings: Any) -> Any:
        """Stream the graph's steps; see `Pregel.stream`."""
        return stoppable(super().stream(*args, **settings))


class StoppableBuilder(StateGraph[Any, Any, Any, Any]):
    """A graph that compiles to a `StoppableGraph`."""

    compiled_class: type[StoppableGraph] = StoppableGraph

    def compile(self, *args: Any, **settings: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Compile the graph; see `StateGraph.compile`."""
        compiled = super().compile(*args, **settings)
        # The class is LangGraph's own choice; this one adds no data to it.
        compiled.__class__ = self.compiled_class
        return compiled
