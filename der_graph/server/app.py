"""The endpoints.

    POST /v1/chat/completions   POST /v1/responses   GET /v1/models   GET /v1/models/{name}
    POST /v1/feedback  {"id": of a completion, "score": 0 to 1}, where it learns while serving
    GET /healthz  the process is there    GET /readyz  the models are loaded    GET /metrics  for Prometheus
    GET /openapi.json

Models are loaded in the background when the application starts, so the port is open at once.
"""
# No `from __future__ import annotations` here: FastAPI reads the annotations of the endpoints, and those
# are of an optional package that is imported inside the function.

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import der_graph
from der_graph.errors import DERError, require
from der_graph.nodes.reliability import in_thread
from der_graph.pool.health_checks import check_again_and_again
from der_graph.server.access import Access, Keys, Sites
from der_graph.server.chat_call import CHAT, CLIENT_GONE, RESPONSES, Service, describe
from der_graph.server.chat_replies import model_card, to_json
from der_graph.server.chat_requests import model_and_price
from der_graph.server.engine import Engine
from der_graph.server.failures import RequestError, failure_of
from der_graph.server.feedback import rate
from der_graph.server.limits import KeyLimits
from der_graph.server.openapi import DESCRIBED

log = logging.getLogger("der_graph.server")


def build_app(
    engine: Engine,
    *,
    keys: Sequence[str] | Mapping[str, str] = (),
    cors_origins: Sequence[str] = (),
    max_concurrent: int = 256,
    max_body: int = 2**20,
    allowed_hosts: Sequence[str] = (),
    root_path: str = "",
    read_timeout: float = 20.0,
    limits: KeyLimits | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_failure: Callable[[], None] = lambda: None,
    health_interval: float | None = None,
) -> Any:
    """Build the ASGI application; see `der_graph.server.server.create_app`.

    Args:
        engine: Pool and agent; loaded when the application starts.
        keys: The keys that are accepted; none: everybody may come in.
        cors_origins: Origins whose web pages may call; none by default.
        max_concurrent: Most chat completions at a time; others get 429.
        max_body: Largest request, in bytes.
        allowed_hosts: Names by which the server is reached.
        root_path: Path below which a proxy shows the server.
        read_timeout: Seconds within which a request must have come whole.
        limits: What every key may ask for.
        on_ready: Called when the models are loaded.
        on_failure: Called when loading has failed.
        health_interval: Seconds between two health checks of failing experts; None for none.
    """
    why = "der serve"
    fastapi = require("fastapi", extra="serve", why=why)
    from starlette.exceptions import HTTPException
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse

    service = Service(engine, max_concurrent, limits or KeyLimits())

    async def load() -> None:
        try:
            await asyncio.wrap_future(in_thread(lambda: engine.load(log.info)))
        except Exception as error:
            service.failure = error
            shown = str(error) if isinstance(error, DERError) else type(error).__name__
            log.error("loading failed: %s", shown)
            on_failure()
        else:
            on_ready()
            log.info("ready: %s", ", ".join(engine.models))
        finally:
            service.settled.set()
        if engine.ready and health_interval is not None:
            await check_again_and_again(engine.pool, health_interval)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(load())
        yield
        task.cancel()
        if engine.learner is not None:  # in a thread: others may still be answered on this loop
            await asyncio.to_thread(engine.learner.settle)

    def json_response(content: Any, status: int = 200, headers: Any = None) -> Response:
        return Response(to_json(content), status, headers, "application/json")

    async def chat(request: Request) -> Response:
        """Answer a conversation, in OpenAI's protocol of chat completions."""
        return await answer(request, CHAT)

    async def responses(request: Request) -> Response:
        """Answer a conversation, in OpenAI's protocol of responses."""
        return await answer(request, RESPONSES)

    async def answer(request: Request, protocol: Any) -> Response:
        body = await _read(request, max_body, read_timeout)
        call = await service.open(body, request.scope, protocol)
        headers = {"x-request-id": call.reply.id}
        if not call.request.stream:
            text = await call.whole(request.receive)
            return Response(text, 200, headers, "application/json")
        pieces = call.pieces(request.receive)
        first = await anext(pieces)

        async def stream() -> AsyncIterator[bytes]:
            async with aclosing(pieces):
                yield first
                async for piece in pieces:
                    yield piece

        headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(stream(), 200, headers, "text/event-stream")

    async def feedback(request: Request) -> Response:
        """Take what a user said of an answer."""
        body = await _read(request, max_body, read_timeout)
        await rate(engine, body)
        return json_response({"status": "ok"})

    async def models(request: Request) -> Response:
        """List the models: the ensemble, then every expert."""
        cards = [model_card(each, engine.created, describe(engine, each)) for each in engine.models]
        return json_response({"object": "list", "data": cards})

    async def model(request: Request) -> Response:
        """Describe one model."""
        name = request.path_params["name"]
        if not name:
            return await models(request)
        if model_and_price(name)[0] not in engine.models:
            message = f"there is no model {name[:80]!r}; there are: {', '.join(engine.models)}"
            raise RequestError(404, message, param="model", code="model_not_found")
        return json_response(model_card(name, engine.created, describe(engine, name)))

    async def healthz(request: Request) -> Response:
        """Is the process there?"""
        return json_response({"status": "ok", "version": der_graph.__version__})

    async def readyz(request: Request) -> Response:
        """Are the models loaded, and can somebody answer? Says of which experts not."""
        if engine.ready:
            ailing = engine.ailing()
            if not ailing:
                return json_response({"status": "ready"})
            able = len(engine.pool) > sum(each["state"] == "open" for each in ailing.values())
            body = {"status": "degraded" if able else "unavailable", "experts": ailing}
            return json_response(body, 200 if able else 503)
        status = "loading" if service.failure is None else "failed"
        return json_response({"status": status}, 503, {"Retry-After": "2"})

    async def metrics(request: Request) -> Response:
        """What Prometheus is told."""
        engine.metrics.health({each.name: each.health.view() for each in engine.pool})
        if engine.watch is not None:
            engine.metrics.drift(engine.watch.view())
        page, media_type = engine.metrics.page()
        return Response(page, media_type=media_type)

    async def on_request_error(request: Request, error: Any) -> Response:
        return json_response(error.body, error.status, error.headers)

    async def on_http_error(request: Request, error: Any) -> Response:
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        failure = RequestError(error.status_code, message, code="not_found")
        return json_response(failure.body, error.status_code, getattr(error, "headers", None))

    async def on_error(request: Request, error: Exception) -> Response:
        failure = failure_of(error, "-")
        return json_response(failure.body, failure.status)

    app = fastapi.FastAPI(
        title="der-graph",
        version=der_graph.__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )

    async def openapi(request: Request) -> Response:
        """This server's description in the form of OpenAPI."""
        described = app.openapi()
        if root_path:
            described = {**described, "servers": [{"url": root_path}]}
        return json_response(described)

    for path, endpoint, method in (
        ("/v1/chat/completions", chat, "POST"),
        ("/v1/responses", responses, "POST"),
        ("/openapi.json", openapi, "GET"),
        ("/v1/feedback", feedback, "POST"),
        ("/v1/models", models, "GET"),
        ("/v1/models/{name:path}", model, "GET"),
        ("/healthz", healthz, "GET"),
        ("/readyz", readyz, "GET"),
        ("/metrics", metrics, "GET"),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=None,
            operation_id=endpoint.__name__,
            openapi_extra=DESCRIBED[path],
        )
        if method == "GET":
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_error)
    known = Keys(keys)
    app.add_middleware(
        Access,
        keys=known,
        sites=Sites(cors_origins, allowed_hosts, keyed=bool(known)),
        root_path=root_path,
        stopping=lambda: service.stopping,
    )
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client sends a dozen of its own
            expose_headers=["x-request-id", "retry-after"],
        )
    app.state.der = service
    return app


async def _read(request: Any, at_most: int, seconds: float) -> bytes:
    """Read a body, but no more of it than is allowed.

    Raises:
        RequestError: 413 if it is larger, 408 if it takes longer, 499 if the caller left before its end.
    """
    try:
        return await asyncio.wait_for(_read_all(request, at_most), seconds)
    except asyncio.TimeoutError:  # not TimeoutError: another class in 3.10
        message = f"the request did not come whole within {seconds:g} s"
        raise RequestError(408, message, code="timeout", close=True) from None


async def _read_all(request: Any, at_most: int) -> bytes:
    from starlette.requests import ClientDisconnect

    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > at_most:
                message = f"the request is larger than {at_most} bytes (der serve --max-body)"
                raise RequestError(413, message, code="too_large")
    except ClientDisconnect:
        raise RequestError(CLIENT_GONE, "the connection was closed") from None
    return bytes(body)
