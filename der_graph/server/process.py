"""The server process: signals, an orderly end, and a server in the background for tests and notebooks.

SIGTERM ──> no new connections ──> what runs is finished, for `grace` seconds at most ──> exit code 0
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from der_graph.errors import ServerError, require

log = logging.getLogger("der_graph.server")

_MOST_FILES = 65_536
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


def open_socket(host: str, port: int) -> socket.socket:
    """Bind the address, so that a port in use is known before anything is loaded.

    Raises:
        ServerError: If that cannot be done.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ServerError(
            f"cannot listen on {host} port {port}: {reason}; choose another --host or --port"
        ) from None


def allow_many_connections() -> None:
    """Let this process have as many open files as it may, since each connection is one.

    Many systems begin with 1,024, for programs that cannot do with more.
    """
    with suppress(ImportError, OSError, ValueError):  # Windows knows no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def address_of(host: str, listener: socket.socket) -> str:
    """The address of a listening socket, as a browser takes it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def is_local(host: str) -> bool:
    """Can nobody but this machine reach a server on this host?"""
    return host in ("127.0.0.1", "::1", "localhost")


def make_server(
    app: Any,
    *,
    grace: float = 30.0,
    head_timeout: float = 10.0,
    started: Callable[[], None] = lambda: None,
) -> Any:
    """Make a server (of uvicorn) that ends in good order.

    Args:
        app: The application.
        grace: Seconds that what runs may take after a signal.
        head_timeout: Seconds within which the head of a request must have come; the application bounds
            the rest.
        started: Called when connections are accepted.
    """
    uvicorn = require("uvicorn", extra="serve", why="der serve")

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def startup(self, sockets: Any = None) -> None:
            asyncio.get_running_loop().set_exception_handler(_OpenFiles())
            await super().startup(sockets)
            started()

        async def shutdown(self, sockets: Any = None) -> None:
            service = getattr(getattr(app, "state", None), "der", None)
            if service is not None:
                service.stopping = True
            await super().shutdown(sockets)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn raises the signal again after the end, and the process would not exit with 0.
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            handlers = {
                number: signal.signal(number, self.handle_exit)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                yield
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    config = uvicorn.Config(
        app,
        http=_patient_no_longer(head_timeout),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    return Server(config)


class _OpenFiles:
    """An event loop's handler of errors that says once a minute that no connection can be opened.

    Without it the loop logs a traceback thousands of times a second, and does little else.
    """

    def __init__(self) -> None:
        self._said: float | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error, now = context.get("exception"), time.monotonic()
        if self._said is not None and "_start_serving" in context["message"]:
            return  # the loop would have gone on with a socket that is closed by now
        if getattr(error, "errno", None) not in _OUT_OF_FILES or "socket" not in context:
            loop.default_exception_handler(dict(context))
        elif self._said is None or now - self._said >= 60:
            self._said = now
            log.error(
                "more connections than this process may have open files: new ones wait until others are "
                "closed; raise the limit (ulimit -n), or serve with more processes"
            )


def _patient_no_longer(seconds: float) -> Any:
    """Uvicorn's HTTP protocol, which by itself waits for the rest of a request's head for ever."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class HTTPProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._wait()  # half a head
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _give_up(self) -> None:
            self._late = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return HTTPProtocol


@contextmanager
def in_background(
    app: Any,
    *,
    port: int = 0,
    wait: bool = True,
    head_timeout: float = 10.0,
) -> Iterator[str]:
    """Serve an application from a thread of this process, for tests and notebooks.

    Args:
        app: The application.
        port: Port; 0 for a free one.
        wait: Wait until the models are loaded?
        head_timeout: As for `make_server`.

    Yields:
        Its address, such as `http://127.0.0.1:43210`.

    Raises:
        ServerError: If the address is in use.
        DERError: If the models cannot be loaded.
    """
    listening = threading.Event()
    host = "127.0.0.1"
    listener = open_socket(host, port)
    server = make_server(app, grace=5, head_timeout=head_timeout, started=listening.set)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except BaseException as error:
            failed.append(error)
        finally:
            listening.set()

    thread = threading.Thread(target=work, name="der-graph-server", daemon=True)
    thread.start()
    listening.wait()
    try:
        if failed:
            raise ServerError("the server did not start") from failed[0]
        if wait:
            app.state.der.settled.wait()
            if app.state.der.failure is not None:
                raise app.state.der.failure
        yield address_of(host, listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
