"""A function of the graph in the form in which LangGraph calls it.

LangGraph runs a plain function of an asynchronous graph in the event loop's executor, which all share, and
makes a traced run of every runnable. A `Node` does neither: it is called where the graph is, and traces what
it wants. Knows nothing of routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

Call = Callable[[Any, RunnableConfig], Any]


class Node(Runnable[Any, Any]):
    """A node, or a conditional edge.

    Args:
        name: Its name.
        call: From input and configuration to the update, or to where to go.
        acall: The same as a coroutine; `call` must not block if it is left out.
    """

    def __init__(
        self,
        name: str,
        call: Call,
        acall: Callable[[Any, RunnableConfig], Awaitable[Any]] | None = None,
    ) -> None:
        self.name = name
        self._call = call
        self._acall = acall

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:
        """Call it."""
        return self._call(input, config or {})

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:
        """Call it on the event loop."""
        if self._acall is None:
            return self._call(input, config or {})
        return await self._acall(input, config or {})
