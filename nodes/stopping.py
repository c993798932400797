"""How the reader of a synchronous stream who leaves makes a model stop.

    for part in stream: break ──closed──> stop ──seen at the next token──> the model stops

LangGraph waits for the threads of a stream that is closed, and would wait for the whole answer of the expert
that is speaking. Asynchronous graphs are cancelled by asyncio and need nothing of the kind. Knows nothing of
experts.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextvars import ContextVar, copy_context
from threading import Event
from typing import Any, TypeVar

from langgraph.graph.state import CompiledStateGraph, StateGraph

Part = TypeVar("Part")

STOPS: ContextVar[tuple[Event, ...]] = ContextVar("der_graph_stops", default=())
"""The streams that the code of this context works for; set once they are closed."""


class Cancel(Event):
    """An event that is set as well once one of others is.

    Args:
        others: The others; they are looked at and not waited for.
    """

    def __init__(self, others: Iterable[Event] = ()) -> None:
        super().__init__()
        self._others = tuple(others)

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
        while (part := context.run(next, source, done)) is not done:
            yield part  # type: ignore[misc]
    finally:
        stop.set()
        close = getattr(source, "close", None)
        if close is not None:
            context.run(close)


class StoppableGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose synchronous streams stop their models when they are closed."""

    def stream(self, *args: Any, **settings: Any) -> Any:
        """Stream the graph's steps; see `Pregel.stream`."""
        return stoppable(super().stream(*args, **settings))


class StoppableBuilder(StateGraph[Any, Any, Any, Any]):
    """A graph that compiles to a `StoppableGraph`."""

    def compile(self, *args: Any, **settings: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Compile the graph; see `StateGraph.compile`."""
        compiled = super().compile(*args, **settings)
        # The class is LangGraph's own choice; this one adds no data to it.
        compiled.__class__ = StoppableGraph
        return compiled
