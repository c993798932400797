"""Dynamic batching: calls that are made one by one, answered together.

    batch([a, b, c])  ─┬─ invoke(a) ─┐
                       ├─ invoke(b) ─┼─ BatchCollector: the last to arrive answers for all, in one `generate`
                       └─ invoke(c) ─┘

    single calls ──join──> RequestQueue ──model is free──> all that wait, in one batch

`batch` runs LangChain's own `invoke` for each input, in a thread each. So every input keeps all that
`invoke` does for it (a run in every tracer, callbacks, tags, caches, errors), and none of that is copied
here. The threads meet in a `BatchCollector`; each call finds it through a `BatchSlot` in its context. A call
that never gets to the model (a cache hit, a failing callback) leaves, and the others do not wait for it.

Calls that belong to no batch, such as those of many requests at once, meet in the model's `RequestQueue`.
One that finds the model free goes at once. Those that come meanwhile are the next batch, so the busier the
model, the larger its batches. No clock is involved, unless a caller announces how many calls are coming:
the queue then waits for a short quiet moment, so that the first of many does not go alone.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import PrivateAttr

from der_graph.nodes.reliability import in_thread, resolve_futures
from der_graph.nodes.reliability.copying import BeginsAnew, renew_in_children


class Cancellable(Protocol):
    """A request that its caller can give up."""

    @property
    def cancel(self) -> threading.Event | None:
        """Set when nobody waits for the answer any more."""


AnswerTogether = Callable[[Sequence[Any], None], Sequence[Any]]
"""Answers all requests in one go; a result that is an exception belongs to its request alone."""


_EXPECTED: ContextVar[int] = ContextVar("der_graph_expected_calls", default=1)

_QUIET = 0.05  # seconds without an arrival after which further calls are not waited for


@contextmanager
def expected_calls(number: int) -> Iterator[None]:
    """Announce that so many calls are made at the same time in this context; queues wait for them."""
    token = _EXPECTED.set(number)
    try:
        yield
    finally:
        _EXPECTED.reset(token)


class _Waiting(NamedTuple):
    request: Cancellable
    future: Future[Any]
    answer_all: AnswerTogether
    expected: int


class RequestQueue(BeginsAnew):
    """Calls from any number of threads and event loops, answered in batches by one thread at a time.

    Args:
        quiet: Seconds without an arrival after which further calls are not waited for.
    """

    def __init__(self, quiet: float = _QUIET) -> None:
        self._quiet = quiet
        self._begin()

    def _begin(self) -> None:
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._lock = threading.Condition()
        renew_in_children(self._begin)

    def join(self, request: Cancellable, answer_all: AnswerTogether, at_most: int) -> Future[Any]:
        """Wait for an answer.

        Args:
            request: What to answer. Once its `cancel` is set it is not begun any more, and its future
                fails with `CancelledError`.
            answer_all: Answers this request and others that came with the same function.
            at_most: Most requests that it takes at once.

        Returns:
            The future answer.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # a caller that gives up sets `cancel`, not the future
        with self._lock:
            self._queue.append(_Waiting(request, future, answer_all, _EXPECTED.get()))
            self._lock.notify_all()
            first, self._busy = not self._busy, True
        if first:
            in_thread(lambda: self._serve(at_most))
        return future

    def _serve(self, at_most: int) -> None:
        while part := self._next(at_most):
            answer = partial(part[0].answer_all, [each.request for each in part], None)
            resolve_futures([each.future for each in part], answer)
            del part, answer  # what they hold may be large, and the next may be long

    def _next(self, at_most: int) -> list[_Waiting]:
        with self._lock:
            self._wait_for_others(at_most)
            part: list[_Waiting] = []
            others: deque[_Waiting] = deque()
            while self._queue and len(part) < at_most:
                each = self._queue.popleft()
                if each.request.cancel is not None and each.request.cancel.is_set():
                    each.future.set_exception(CancelledError())
                # A copy of a model shares its queue, and answers for itself.
                elif part and each.answer_all != part[0].answer_all:
                    others.append(each)
                else:
                    part.append(each)
            self._queue.extendleft(reversed(others))
            self._busy = bool(part)
            return part

    def _wait_for_others(self, at_most: int) -> None:
        """Wait while more of the announced calls arrive, holding the lock; not at all for single calls."""
        number = 0
        while number < len(self._queue) < min(at_most, max(each.expected for each in self._queue)):
            number = len(self._queue)
            self._lock.wait(self._quiet)


Item = TypeVar("Item")
Result = TypeVar("Result")

AnswerAll = Callable[[Sequence[Any], threading.Event], Sequence[Any]]
"""Answers all items in one go; a result that is an exception belongs to its item alone."""


@dataclass
class BatchCollector(Generic[Item, Result]):
    """Collects a known number of calls, and answers them together.

    Attributes:
        owner: The model that the calls are for; calls of another model made meanwhile are not mixed in.
        expected: How many calls are awaited.
        answer_all: Answers the items of all who came.
        cancel: Set it to stop the answering within one token.
    """

    owner: object
    expected: int
    answer_all: AnswerAll
    cancel: threading.Event = field(default_factory=threading.Event)
    _items: list[Any] = field(default_factory=list)
    _futures: list[Future[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, item: Item) -> tuple[Future[Result], bool]:
        """Add a call. Gives the future result, and whether this is the last, who must call `answer`."""
        with self._lock:
            future: Future[Result] = Future()
            future.set_running_or_notify_cancel()  # from here on a caller that gives up does not disturb it
            self._items.append(item)
            self._futures.append(future)
            return future, len(self._items) == self.expected

    def leave(self) -> bool:
        """Expect one call less. Gives whether all others are there, so that the caller must call `answer`."""
        with self._lock:
            self.expected -= 1
            return self.expected > 0 and len(self._items) == self.expected

    def answer(self) -> None:
        """Answer all who came. Never raises: errors go to those who wait."""
        resolve_futures(self._futures, lambda: self.answer_all(self._items, self.cancel))


@dataclass
class BatchSlot:
    """The place of one call in a batch; the first call of the model in this context takes it."""

    collector: BatchCollector[Any, Any]
    taken: bool = False

    def free_for(self, owner: object) -> bool:
        """Is the place free, and for this model?"""
        return not self.taken and self.collector.owner is owner

    def arrive(self, item: Any) -> tuple[Future[Any], bool]:
        """Take the place; see `BatchCollector.arrive`."""
        self.taken = True
        return self.collector.arrive(item)

    def leave(self) -> bool:
        """The call is over; gives whether `answer` must be called, as it never arrived."""
        if self.taken:
            return False
        self.taken = True
        return self.collector.leave()


SLOT: ContextVar[BatchSlot | None] = ContextVar("der_graph_batch_slot", default=None)
"""The slot of the call that runs in this context."""


def slot_for(owner: object) -> BatchSlot | None:
    """The free slot of this context, if it is for this model."""
    slot = SLOT.get()
    return slot if slot is not None and slot.free_for(owner) else None


class BatchedChatModel(BaseChatModel):
    """A chat model whose `batch`, `abatch`, `generate` and `agenerate` reach the model as one call.

    A subclass has `answer_all` and `max_batch_size`, and answers `_generate` by `answer`, `_agenerate`
    by `aanswer`, which take a place in a batch where there is one. Elsewhere calls that are made while
    the model is busy are its next batch.
    """

    reads_itself: ClassVar[bool] = True
    """Puts thoughts aside and writes prompts by itself; needs no `ProviderChat` around it."""
    max_batch_size: int = 32

    @property
    def requests_at_once(self) -> int:
        """Most requests in flight, where none waits for the end of a batch; 0 where batches have an end."""
        return 0

    _queue: RequestQueue = PrivateAttr(default_factory=RequestQueue)

    def answer_all(
        self, requests: Sequence[Any], cancel: threading.Event | None
    ) -> Sequence[ChatResult | Exception | Future[ChatResult]]:
        """Answer several requests in one go; a result that is an exception belongs to its request alone.

        One that is a future comes later, and others are taken meanwhile.
        """
        raise NotImplementedError

    def answer(self, request: Cancellable) -> ChatResult:
        """Answer one request: with the others of its batch, or with those that wait for the model as well."""
        slot = slot_for(self)
        if slot is None:
            return self._queued(request)
        future, last = slot.arrive(request)
        if last:
            slot.collector.answer()
        result: ChatResult = future.result()
        return result

    def _queued(self, request: Cancellable) -> ChatResult:
        future = self._queue.join(request, self.answer_all, self.max_batch_size)
        try:
            result: ChatResult = future.result()
        except BaseException:
            if request.cancel is not None:
                request.cancel.set()  # by Ctrl-C: nobody waits any more
            raise
        finally:
            # Its error refers to this frame; together they would keep the tensors of a failed call.
            del future
        return result

    async def aanswer(self, request: Cancellable) -> ChatResult:
        """Answer one request without blocking the event loop; see `answer`."""
        slot = slot_for(self)
        if slot is None:
            cancel = request.cancel or threading.Event()
            future: Future[Any] = self._queue.join(request, self.answer_all, self.max_batch_size)
        else:
            cancel = slot.collector.cancel
            future, last = slot.arrive(request)
            if last:
                in_thread(slot.collector.answer)
        try:
            result: ChatResult = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancel.set()
            raise
        return result

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer many inputs, each with its own config and run; see `Runnable.batch`.

        `max_concurrency` of the config bounds the size of a batch, as `max_batch_size` does.
        """
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        calls = [
            partial(self.invoke, each, its, **kwargs)
            for each, its in zip(inputs, configs, strict=True)
        ]
        return _given(self._together(calls, configs[0].get("max_concurrency")), return_exceptions)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer many inputs without blocking the event loop; see `batch`."""
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        calls = [
            partial(self.ainvoke, each, its, **kwargs)
            for each, its in zip(inputs, configs, strict=True)
        ]
        return _given(
            await self._atogether(calls, configs[0].get("max_concurrency")), return_exceptions
        )

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer many conversations as one batch, each as its own run; see `BaseChatModel.generate`."""
        one: Callable[..., LLMResult] = partial(
            super().generate, stop=stop, callbacks=callbacks, **kwargs
        )
        if len(messages) < 2:
            return one(messages, run_id=run_id)
        calls = [
            partial(one, [each], run_id=None if i else run_id) for i, each in enumerate(messages)
        ]
        return _joined(_given(self._together(calls), False))

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer many conversations without blocking the event loop; see `generate`."""
        one: Callable[..., Awaitable[LLMResult]] = partial(
            super().agenerate, stop=stop, callbacks=callbacks, **kwargs
        )
        if len(messages) < 2:
            return await one(messages, run_id=run_id)
        calls = [
            partial(one, [each], run_id=None if i else run_id) for i, each in enumerate(messages)
        ]
        return _joined(_given(await self._atogether(calls), False))

    def _together(
        self, calls: Sequence[Callable[[], Any]], at_most: int | None = None
    ) -> list[Any]:
        """Run calls of this model so that they meet; gives results and exceptions in order."""
        results: list[Any] = []
        for part in _parts(calls, self.requests_at_once or self.max_batch_size, at_most):
            collector: BatchCollector[Any, Any] = BatchCollector(self, len(part), self.answer_all)
            with ThreadPoolExecutor(len(part), thread_name_prefix="der-graph-batch") as pool:
                futures = [
                    pool.submit(copy_context().run, _in_slot, BatchSlot(collector), call)
                    for call in part
                ]
                try:
                    results += [future.result() for future in futures]
                except BaseException:
                    collector.cancel.set()
                    raise
        return results

    async def _atogether(
        self, calls: Sequence[Callable[[], Awaitable[Any]]], at_most: int | None = None
    ) -> list[Any]:
        results: list[Any] = []
        for part in _parts(calls, self.requests_at_once or self.max_batch_size, at_most):
            collector: BatchCollector[Any, Any] = BatchCollector(self, len(part), self.answer_all)
            # Each becomes a task with a context, and so a slot, of its own.
            results += await asyncio.gather(
                *(_ain_slot(BatchSlot(collector), call) for call in part)
            )
        return results


def _in_slot(slot: BatchSlot, call: Callable[[], Any]) -> Any:
    SLOT.set(slot)
    try:
        return call()
    except Exception as error:
        return error
    finally:
        if slot.leave():
            slot.collector.answer()


async def _ain_slot(slot: BatchSlot, call: Callable[[], Awaitable[Any]]) -> Any:
    SLOT.set(slot)
    try:
        return await call()
    except Exception as error:
        return error
    finally:
        if slot.leave():
            in_thread(slot.collector.answer)


def _parts(calls: Sequence[Any], size: int, at_most: int | None) -> list[Sequence[Any]]:
    size = size if at_most is None else max(1, min(size, at_most))
    return [calls[start : start + size] for start in range(0, len(calls), size)]


def _given(results: list[Any], return_exceptions: bool) -> list[Any]:
    if not return_exceptions:
        for result in results:
            if isinstance(result, Exception):
                raise result
    return results


def _joined(results: Sequence[LLMResult]) -> LLMResult:
    runs = [run for result in results for run in result.run or []]
    return LLMResult(
        generations=[each for result in results for each in result.generations],
        llm_output={},
        run=runs or None,
    )
