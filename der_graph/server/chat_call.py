"""One chat completion, from the bytes of its request to those of its response.

    body ──read_request──> engine.run ──while_connected──> one object, or a stream of them

Requests in flight are counted, and the surplus is turned away. A route ends when its caller leaves: what
the server hears of the connection cancels the source of the events.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from der_graph.errors import BudgetError
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.server.access import KEY_NAME, LAST_WORDS, NOBODY, NOTE
from der_graph.server.chat_replies import Outcome, Reply, to_json
from der_graph.server.chat_requests import ENSEMBLE, ChatRequest, read_request
from der_graph.server.engine import Account, Engine
from der_graph.server.failures import RequestError, failure_of, is_mistake
from der_graph.server.limits import KeyLimits, lower, out_of_budget
from der_graph.server.responses_api import ResponsesReply, read_response_request

log = logging.getLogger("der_graph.server")

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients pass over."""

CLIENT_GONE = 499
"""What log and metrics say where the caller left before the end; nobody receives it."""


_LARGE = 2**14  # bytes; reading that many takes about a millisecond


def _read_large(read: Callable[[bytes], ChatRequest], body: bytes) -> ChatRequest:
    """Read a request, and give its messages ids, which the graph would make on the event loop."""
    request = read(body)
    for number, message in enumerate(request.messages):
        message.id = message.id or f"m{number}"
    return request


class Protocol(NamedTuple):
    """How requests are read and answered.

    Attributes:
        read: Reads a body.
        reply: Makes what writes the response.
    """

    read: Callable[[bytes], ChatRequest]
    reply: Callable[[ChatRequest, Engine], Reply | ResponsesReply]


def _chat_reply(request: ChatRequest, engine: Engine) -> Reply:
    return Reply(
        request.called,
        engine.fingerprint,
        engine.cost_unit,
        engine.without_effect(request),
        request.include_usage,
    )


def _responses_reply(request: ChatRequest, engine: Engine) -> ResponsesReply:
    return ResponsesReply(
        request.called, engine.cost_unit, engine.without_effect(request), request.echo
    )


CHAT = Protocol(read_request, _chat_reply)
RESPONSES = Protocol(read_response_request, _responses_reply)


@dataclass
class Service:
    """Answers chat completions.

    Attributes:
        engine: Answers questions.
        max_concurrent: Most requests worked on at a time.
        limits: What every key may ask for.
        in_flight: How many there are now.
        keep_alive: Seconds of silence after which a stream shows that it is alive, for proxies on the way.
        settled: Set once the models are loaded, or could not be.
        failure: Why loading failed, or None.
        stopping: Does the server stop?
    """

    engine: Engine
    max_concurrent: int = 256
    limits: KeyLimits = field(default_factory=KeyLimits)
    in_flight: int = 0
    keep_alive: float = 15.0
    settled: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    stopping: bool = False

    async def open(self, body: bytes, scope: Any, protocol: Protocol = CHAT) -> Call:
        """Begin a request.

        Args:
            body: What was sent.
            scope: ASGI's.
            protocol: How it is read and answered.

        Raises:
            RequestError: If it is wrong, the server not ready, or too busy.
        """
        call = Call(self, scope)
        try:
            self.limits.enter(call.key)
            if len(body) > _LARGE:  # reading it takes time that others would wait for
                request = await asyncio.to_thread(_read_large, protocol.read, body)
            else:
                request = protocol.read(body)
            self.engine.check(request.model)
            call.begin(request, protocol)
        except Exception as error:
            raise call.failed(error) from None
        return call


@dataclass
class Call:
    """One request that is being worked on.

    Attributes:
        service: Where.
        scope: ASGI's; the log reads there what became of the request.
    """

    service: Service
    scope: Any
    request: ChatRequest = field(init=False)
    reply: Reply | ResponsesReply = field(init=False)
    _model: str = "unknown"
    _open: bool = False
    _share: float | None = None
    _short: bool = False  # does the key's budget of the day bound the request?
    _account: Account = field(default_factory=Account)
    _start: float = field(default_factory=time.perf_counter)

    @property
    def key(self) -> str:
        """Name of the key that the request came with."""
        return str(self.scope.get(KEY_NAME, NOBODY))

    def begin(self, request: ChatRequest, protocol: Protocol = CHAT) -> None:
        """Take a place.

        Raises:
            RequestError: 429 if all are taken, or the key's budget of the day is spent.
        """
        service, engine = self.service, self.service.engine
        self.request, self._model = request, request.model
        self.reply = protocol.reply(request, engine)
        if service.in_flight >= service.max_concurrent:
            message = f"{service.in_flight} requests are being worked on; try again soon"
            raise RequestError(429, message, code="overloaded", retry_after=1)
        context = engine.ceilings.bound(request.context)
        most = engine.dearest(request.model, context)
        self._share = service.limits.reserve(self.key, most)
        self._short = self._share is not None and self._share < most
        context = replace(context, max_cost=lower(context.max_cost, self._share))
        self.request = replace(request, context=context)
        self._account = Account(self.reply.id, engine.prices)
        self._open = True
        service.in_flight += 1
        engine.metrics.in_flight.set(service.in_flight)

    async def whole(self, receive: Receive) -> str:
        """Answer in one piece: JSON.

        Raises:
            RequestError: If there is no answer.
        """
        try:
            source = self.service.engine.run(self.request, self._account, self.reply.id)
            async with aclosing(while_connected(receive, source)) as parts:
                async for part in parts:
                    if isinstance(part, Outcome):
                        self._done(200, part)
                        return to_json(self.reply.whole(part))
            raise RuntimeError("the route ended without an outcome")
        except Exception as error:
            raise self.failed(error) from None
        finally:
            self._done(CLIENT_GONE)  # cancelled, if nothing was noted before

    async def pieces(self, receive: Receive) -> AsyncGenerator[bytes, None]:
        """Answer piece by piece: server-sent events.

        Yields:
            Events; the first one when the agent has decided, so that what is wrong with the request is
            known before. Later errors are an event of the stream.

        Raises:
            RequestError: If there is no answer, before the first event.
        """
        begun, said = False, False
        self.scope[LAST_WORDS] = self.reply.failed
        try:
            source = self.service.engine.run(self.request, self._account, self.reply.id)
            watched = while_connected(receive, source, self.service.keep_alive)
            async with aclosing(watched) as parts:
                async for part in parts:
                    if not begun:
                        begun = True
                        for first in self.reply.begin():
                            yield first
                    if part is None:
                        yield KEEP_ALIVE
                        continue
                    for piece in self._written(part, said):
                        yield piece
                    said = said or isinstance(part, str)
                    if isinstance(part, Outcome):
                        self._done(200, part)
        except Exception as error:
            failure = self.failed(error)
            if not begun:
                raise failure from None
            for piece in self.reply.failed(failure.body):
                yield piece
        finally:
            self._done(CLIENT_GONE)

    def _written(self, part: Mapping[str, Any] | str | Outcome, said: bool) -> list[bytes]:
        if isinstance(part, str):
            return self.reply.text(part)
        if isinstance(part, Outcome):
            return self.reply.close(part, said)
        shown = self.request.events and part["type"] != "der.final"
        return self.reply.event(part) if shown else []

    def failed(self, error: Exception) -> RequestError:
        """Log an error, and say what the caller learns of it."""
        request_id = self.reply.id if hasattr(self, "reply") else "-"
        if isinstance(error, ClientGone):
            self._done(CLIENT_GONE)
            return RequestError(CLIENT_GONE, "the connection was closed")
        failure = failure_of(error, request_id)
        if isinstance(error, BudgetError) and self._short:
            failure = out_of_budget()
        if failure.status == 500:
            # Where it happened, but not its text, which may quote a message.
            places = traceback.extract_tb(error.__traceback__)
            frames = "\n".join(f"  {each.filename}:{each.lineno} {each.name}" for each in places)
            log.error("request %s: %s at\n%s", request_id, type(error).__name__, frames)
            log.debug("request %s: %s", request_id, error)
        elif not is_mistake(error):
            log.warning("request %s: %s", request_id, mask_secrets(str(error)))
        self._done(failure.status)
        return failure

    def _done(self, status: int, outcome: Outcome | None = None) -> None:
        """Note the end, once."""
        if NOTE in self.scope:
            return
        note: dict[str, Any] = {"status": status, "model": self._model}
        if outcome is not None:
            failed = outcome.failed
            route = ">".join(f"{each}!" if each in failed else each for each in outcome.experts)
            note.update(route=route, cost=f"{outcome.cost:g}")
            if failed:
                note["failed"] = ",".join(f"{each}:{kind}" for each, kind in failed.items())
        self.scope[NOTE] = note
        metrics = self.service.engine.metrics
        metrics.request(self._model, status, time.perf_counter() - self._start)
        self.service.limits.settle(self.key, self._share, self._account.cost)
        metrics.key(self.key, status, self._account.cost)
        if self._open:
            self._open = False
            self.service.in_flight -= 1
            metrics.in_flight.set(self.service.in_flight)


def describe(engine: Engine, name: str) -> Mapping[str, Any]:
    """What a model is, for the list of models."""
    if name not in engine.pool:
        return {
            "description": f"all experts; '{ENSEMBLE}/0.5' sets the price of cost to 0.5",
            "experts": list(engine.pool.names),
            "cost_unit": engine.cost_unit,
        }
    expert = engine.pool[name]
    return {"description": expert.description, "cost": expert.cost, "cost_unit": engine.cost_unit}


Item = TypeVar("Item")

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class ClientGone(Exception):
    """The caller has closed the connection."""


async def while_connected(
    receive: Receive, source: AsyncGenerator[Item, None], beat: float | None = None
) -> AsyncGenerator[Item | None, None]:
    """Give what a source gives, as long as the caller listens.

    Args:
        receive: ASGI's `receive`, after the body was read.
        source: Runs in a task of its own; cancelled when the caller leaves, or this generator is closed.
        beat: Seconds of silence after which None is given, again and again; None for never.

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
            try:
                kind, item = await asyncio.wait_for(queue.get(), beat)
            except asyncio.TimeoutError:  # not TimeoutError: another class in 3.10
                yield None
                continue
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
