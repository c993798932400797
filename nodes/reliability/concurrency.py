"""Calls in flight, bounded: a remote engine is asked many things at once, but never more than it can take.

    invoke, ainvoke, batch, stream ──a slot each──> the model

One `Bounded` model has one set of slots for all its callers: threads, event loops, training batches, requests
of a server. Retries and waiting between them are the client library's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_config_list

from der_graph.nodes.reliability.copying import renew_in_children


class Slots:
    """A number of places that threads and event loops take and give back, first come, first served.

    Args:
        number: How many there are, at least 1.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._free_all()
        renew_in_children(self._free_all)

    def _free_all(self) -> None:
        self._free = self._number
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Slots:
        """Itself: whoever is asked has as many places, whatever copies of its model there are."""
        return self

    def __reduce__(self) -> tuple[type[Slots], tuple[int]]:
        return Slots, (self._number,)

    def grow(self, more: int) -> None:
        """Add places."""
        self._number += more
        for _ in range(more):
            self._give_back()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place, waiting for it in this thread."""
        place = self._take()
        try:
            place.result()
        except BaseException:  # Ctrl-C while waiting
            self._give_up(place)
            raise
        try:
            yield
        finally:
            self._give_back()

    @asynccontextmanager
    async def one_later(self) -> AsyncIterator[None]:
        """Hold a place, waiting for it without blocking the event loop."""
        place = self._take()
        try:
            if not place.done():
                await asyncio.wrap_future(place)
        except BaseException:  # cancelled, perhaps just after the place was given
            self._give_up(place)
            raise
        try:
            yield
        finally:
            self._give_back()

    def _take(self) -> Future[None]:
        place: Future[None] = Future()
        with self._lock:
            if self._free == 0:
                self._waiting.append(place)
                return place
            self._free -= 1
        place.set_result(None)
        return place

    def _give_up(self, place: Future[None]) -> None:
        if not place.cancel() and not place.cancelled():
            self._give_back()  # it had been given

    def _give_back(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                place = self._waiting.popleft()
            if place.set_running_or_notify_cancel():
                place.set_result(None)
                return


_SECONDS: ContextVar[dict[int, float] | None] = ContextVar("der_seconds", default=None)


@contextmanager
def timed_calls() -> Iterator[dict[int, float]]:
    """Seconds of each call that bounded models are asked in one batch, by the `id` of its prompt.

    Calls beside each other take as long as one, so a share of the batch's time is not what any of them took.
    """
    seconds: dict[int, float] = {}
    token = _SECONDS.set(seconds)
    try:
        yield seconds
    finally:
        _SECONDS.reset(token)


class Bounded(Runnable[Any, Any]):
    """A model that is asked at most a number of things at the same time.

    Args:
        bound: The model; attributes that are not a Runnable's are looked up there.
        max_concurrency: Most calls in flight, over all callers of this object; at least 1.
    """

    def __init__(self, bound: Runnable[Any, Any], max_concurrency: int) -> None:
        self.bound = bound
        self.max_concurrency = max_concurrency
        self._slots = Slots(max_concurrency)

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith("_") or name == "bound"
        ):  # not ours, or not there yet: a copy in the making
            raise AttributeError(name)
        return getattr(self.bound, name)

    def __repr__(self) -> str:
        # The model's own text may show settings.
        return f"Bounded({type(self.bound).__name__}, max_concurrency={self.max_concurrency})"

    def around(self, bound: Runnable[Any, Any]) -> Bounded:
        """The same slots around another model, such as this one with tools bound to it."""
        other = Bounded(bound, self.max_concurrency)
        other._slots = self._slots
        return other

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.invoke`, once there is a slot."""
        with self._slots.one():
            start = time.perf_counter()
            try:
                return self.bound.invoke(input, config, **kwargs)
            finally:
                seconds = _SECONDS.get()
                if seconds is not None:
                    seconds[id(input)] = time.perf_counter() - start

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.ainvoke`, once there is a slot."""
        async with self._slots.one_later():
            return await self.bound.ainvoke(input, config, **kwargs)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Ask all at the same time, within the bound."""
        return Runnable.batch(self, inputs, self._within(config, len(inputs)), **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Ask all at the same time, within the bound."""
        return await Runnable.abatch(self, inputs, self._within(config, len(inputs)), **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As `Runnable.stream`; the slot is held to the last piece."""
        with self._slots.one():
            yield from self.bound.stream(input, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As `Runnable.astream`; the slot is held to the last piece."""
        async with self._slots.one_later():
            async for piece in self.bound.astream(input, config, **kwargs):
                yield piece

    def _within(self, config: Any, number: int) -> list[RunnableConfig]:
        """A config for each input, whose own bound is ours or tighter; it sizes the pool of threads."""
        configs = get_config_list(config, number)
        for each in configs:
            each["max_concurrency"] = min(
                self.max_concurrency, each.get("max_concurrency") or self.max_concurrency
            )
        return configs


def is_remote(model: Any) -> bool:
    """Does a model take many calls at once, within a bound of its own, whatever else is bound to it?"""
    return calls_at_once(model) > 0


def calls_at_once(model: Any) -> int:
    """The bound of a model that takes many calls at once; 0 for others."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model.max_concurrency if isinstance(model, Bounded) else 0


def at_once(model: Any) -> int:
    """Most calls that a remote model, or one in continuous batches, takes side by side; 0 for others."""
    return calls_at_once(model) or int(getattr(bare(model), "requests_at_once", 0))


def bare(model: Any) -> Any:
    """A model without the bindings, retries and bounds around it."""
    while isinstance(model, (RunnableBindingBase, Bounded)):
        model = model.bound
    return model
