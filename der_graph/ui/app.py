"""The way in to the page: a Gradio page to look at routes with, or `der ui` with a server for it.

    create_page() ──> gradio.Blocks          serve_page() ──> runs until a signal comes

    page: layout, style, handlers · chat: the conversation · limits: controls · route: a route as HTML
    run: models and running routes

The page asks nothing of any other host: no analytics, no fonts or scripts from elsewhere, and a content
security policy that lets the browser load nothing but what this server gives it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from der_graph.errors import ServerError, require
from der_graph.nodes.decision import RoutingAgent
from der_graph.policies.agent import find_agent
from der_graph.pool.pool import Pool, load_pool, pool_path
from der_graph.server.access import Keys, read_secrets
from der_graph.server.process import (
    address_of,
    allow_many_connections,
    is_local,
    make_server,
    open_socket,
)

log = logging.getLogger("der_graph.ui")

LOGIN_VARIABLE = "DER_UI_PASSWORD"

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
"""What a browser may load for the page: Gradio's own scripts are inline, everything comes from here."""


def create_page(
    pool: Pool | str | Path = "demo",
    agent: RoutingAgent | str | os.PathLike[str] | None = None,
    *,
    examples: Sequence[str] | None = None,
    on_failure: Any = lambda: None,
) -> Any:
    """Make the page, and begin to load the models in the background.

    Args:
        pool: A pool, `demo`, or a pool file.
        agent: An agent, `planner`, `demo`, or an agent folder; the pool's where left out.
        examples: Questions to offer; those of the demo for the demo pool, else none.
        on_failure: Called without arguments when the models could not be loaded.

    Returns:
        `gradio.Blocks`: mount it with `create_app`, or call its `launch`, with the `der_graph.ui.page.CSS`.

    Raises:
        PoolError: If the pool file cannot be used.
        MissingDependencyError: If the extra `ui` is not installed.
    """
    _gradio()
    from der_graph.ui.page import build_page
    from der_graph.ui.run import Ensemble

    if examples is None:
        examples = _demo_questions() if pool == "demo" else ()
    experts = pool if isinstance(pool, Pool) else load_pool(pool)
    ensemble = Ensemble(
        experts,
        lambda: find_agent(agent, experts),
        on_failure,
    )
    page = build_page(ensemble, examples=examples)
    page.der = ensemble
    ensemble.start()
    return page


def create_app(page: Any, logins: Sequence[str] = ()) -> Any:
    """Make an ASGI application of a page.

    Args:
        page: What `create_page` gave.
        logins: Who may come in, each as `USER:PASSWORD`; none: everybody.

    Returns:
        A FastAPI application with nothing but the page in it.

    Raises:
        ServerError: If a login is not a user and a password.
    """
    check_logins(logins)
    keys = Keys(logins)
    gradio = _gradio()
    import fastapi

    from der_graph.ui.page import CSS

    sizes, colors = gradio.themes.sizes, gradio.themes.colors
    theme = gradio.themes.Default(
        primary_hue=colors.neutral,
        secondary_hue=colors.neutral,
        neutral_hue=colors.neutral,
        radius_size=sizes.radius_sm,
        font=("Helvetica Neue", "Arial", "sans-serif"),
        font_mono=("Consolas", "monospace"),
    ).set(
        button_primary_background_fill="*neutral_900",
        button_primary_background_fill_hover="*neutral_700",
        slider_color="*neutral_900",
        slider_color_dark="*neutral_100",
        checkbox_background_color_selected="*neutral_900",
        checkbox_border_color_selected="*neutral_900",
    )
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        page,
        "/",
        theme=theme,
        css=CSS,
        footer_links=[],
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
        enable_monitoring=False,
        max_file_size=1,  # nothing on the page takes files
        # A function, as Gradio's own look-up of users tells by its time which there are.
        auth=(lambda user, password: keys.fits(f"{user}:{password}".encode())) if logins else None,
    )
    app.add_middleware(_Headers)
    app.state.der = page.der
    return app


def read_logins(variables: Sequence[str] = ()) -> list[str]:
    """Read logins, `USER:PASSWORD` each, of the variables named, else of `DER_UI_PASSWORD` if it is set.

    Raises:
        ServerError: If a named variable is not set or empty: the page would stand open unexpectedly.
    """
    found = read_secrets("--password-env", variables, LOGIN_VARIABLE, "USER:PASSWORD")
    return list(found.values())


def check_logins(logins: Sequence[str]) -> None:
    """Check that each login is a user and a password.

    Raises:
        ServerError: If one is not.
    """
    for login in logins:
        user, _, password = login.partition(":")
        if not user.strip() or not password:
            raise ServerError("a login is not of the form USER:PASSWORD, such as ada:secret")


def serve_page(
    pool: Pool | str | Path = "demo",
    agent: RoutingAgent | str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    examples: Sequence[str] | None = None,
    logins: Sequence[str] = (),
) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Args:
        pool: A pool, `demo`, or a pool file.
        agent: An agent, `planner`, `demo`, or an agent folder; the pool's where left out.
        host: Address to listen on.
        port: Port; 0 for a free one.
        examples: As in `create_page`.
        logins: As in `create_app`.

    Raises:
        DERError: If something cannot be used or loaded, or the address is in use.
    """
    _gradio()
    check_logins(logins)  # before anything is loaded
    allow_many_connections()
    with open_socket(host, port) as listener:
        address = address_of(host, listener)
        server: Any = None

        def stop() -> None:
            if server is not None:
                server.should_exit = True

        page = create_page(pool, agent, examples=examples, on_failure=stop)
        app = create_app(page, logins)

        def started() -> None:
            print(f"open {address} in a browser", flush=True)
            if page.der.failure is not None:
                stop()

        server = make_server(app, grace=1.0, started=started)
        if not logins and not is_local(host):
            log.warning("no password is set: everybody who reaches %s can ask", address)
        asyncio.run(server.serve(sockets=[listener]))
        if page.der.failure is not None:
            raise page.der.failure


class _Headers:
    """Adds the headers that keep a browser from loading anything from elsewhere."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, with_headers)


def _gradio() -> Any:
    # Read when it is imported or used; without them it reports to its makers and keeps a history of runs.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    return require("gradio", extra="ui", why="der ui")


def _demo_questions() -> list[str]:
    path = pool_path("demo").parent / "questions" / "showcase.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["instruction"]) for line in lines][:4]
