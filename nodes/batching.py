"""Many calls, one batch: threads that each run LangChain's own `invoke` meet where the model is called.

    batch([a, b, c])  ─┬─ invoke(a) ─┐
                       ├─ invoke(b) ─┼─ Gathering: the last to arrive answers for all, in one `generate`
                       └─ invoke(c) ─┘

So each input keeps everything that `invoke` does for it (its own run in every tracer, its own callbacks,
tags and metadata, caches, errors), and none of that is copied here. A call that never gets to the model (a
cache hit, a failing callback) leaves, and the others do not wait for it. Calls that belong to no batch, such
as those of many requests at once, meet in the model's `WaitingLine`. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import PrivateAttr

from der_graph.nodes.gathering import SEAT, Gathering, Seat, seat_for
from der_graph.nodes.threads import in_thread
from der_graph.nodes.waiting import Cancellable, WaitingLine


class BatchedChatModel(BaseChatModel):
    """A chat model whose `batch`, `abatch`, `generate` and `agenerate` reach the model as one call.

    A subclass has `answer_all` and `max_batch_size`, and answers `_generate` by `answer`, `_agenerate` by
    `aanswer`, which take a seat where there is one. Elsewhere calls that are made while the model is busy are
    its next batch.
    """

    max_batch_size: int = 32
    _line: WaitingLine = PrivateAttr(default_factory=WaitingLine)

    def answer_all(
        self, requests: Sequence[Any], cancel: threading.Event | None
    ) -> Sequence[ChatResult | Exception]:
        """Answer several requests in one go; a result that is an exception belongs to its request alone."""
        raise NotImplementedError

    def answer(self, request: Cancellable) -> ChatResult:
        """Answer one request: with the others of its batch, or with those that wait for the model as well."""
        seat = seat_for(self)
        if seat is None:
            return self._in_line(request)
        future, last = seat.arrive(request)
        if last:
            seat.gathering.answer()
        result: ChatResult = future.result()
        return result

    def _in_line(self, request: Cancellable) -> ChatResult:
        future = self._line.join(request, self.answer_all, self.max_batch_size)
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
        seat = seat_for(self)
        if seat is None:
            cancel = request.cancel or threading.Event()
            future: Future[Any] = self._line.join(request, self.answer_all, self.max_batch_size)
        else:
            cancel = seat.gathering.cancel
            future, last = seat.arrive(request)
            if last:
                in_thread(seat.gathering.answer)
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
        for part in _parts(calls, self.max_batch_size, at_most):
            gathering: Gathering[Any, Any] = Gathering(self, len(part), self.answer_all)
            with ThreadPoolExecutor(len(part), thread_name_prefix="der-graph-batch") as pool:
                futures = [
                    pool.submit(copy_context().run, _seated, Seat(gathering), call) for call in part
                ]
                try:
                    results += [future.result() for future in futures]
                except BaseException:
                    gathering.cancel.set()
                    raise
        return results

    async def _atogether(
        self, calls: Sequence[Callable[[], Awaitable[Any]]], at_most: int | None = None
    ) -> list[Any]:
        results: list[Any] = []
        for part in _parts(calls, self.max_batch_size, at_most):
            gathering: Gathering[Any, Any] = Gathering(self, len(part), self.answer_all)
            # Each becomes a task with a context, and so a seat, of its own.
            results += await asyncio.gather(*(_aseated(Seat(gathering), call) for call in part))
        return results


def _seated(seat: Seat, call: Callable[[], Any]) -> Any:
    SEAT.set(seat)
    try:
        return call()
    except Exception as error:
        return error
    finally:
        if seat.leave():
            seat.gathering.answer()


async def _aseated(seat: Seat, call: Callable[[], Awaitable[Any]]) -> Any:
    SEAT.set(seat)
    try:
        return await call()
    except Exception as error:
        return error
    finally:
        if seat.leave():
            in_thread(seat.gathering.answer)


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
