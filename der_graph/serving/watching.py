"""A route that ends when its caller leaves.

    source ──pump──> queue ──> item, item, ...
    http.disconnect ──────^    ClientGone, and the source is cancelled

Knows nothing of routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

Item = TypeVar("Item")

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class ClientGone(Exception):
    """The caller has closed the connection."""


async def while_connected(
    receive: Receive, source: AsyncGenerator[Item, None]
) -> AsyncGenerator[Item, None]:
    """Give what a source gives, as long as the caller listens.

    Args:
        receive: ASGI's `receive`, after the body was read.
        source: Runs in a task of its own; cancelled when the caller leaves, or this generator is closed.

    Yields:
        The items of the source.

    Raises:
        ClientGone: If the caller has left.
    """
    queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def pump() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    queue.put_nowait(("item", item))
        except Exception as error:
            queue.put_nowait(("error", error))
        except asyncio.CancelledError:
            # By this generator, which reads no more; or by something in the source, and it would wait on.
            queue.put_nowait(("error", RuntimeError("the route was cancelled from within")))
            raise
        else:
            queue.put_nowait(("end", None))

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        queue.put_nowait(("error", ClientGone()))

    tasks = [asyncio.create_task(pump()), asyncio.create_task(listen())]
    try:
        while True:
            kind, item = await queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        for task in tasks:
            task.cancel()
        # Not `gather`: that would cancel them once more if this is cancelled again, as web frameworks do,
        # and interrupt the source while it stops what it began.
        await asyncio.wait(tasks)
