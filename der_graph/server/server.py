"""The way in to serving: an application for any ASGI server, or `der serve` with one.

create_app() ──> FastAPI application          serve() ──> runs until a signal comes
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraph.store.base import BaseStore

from der_graph.errors import ServerError, require
from der_graph.nodes.decision import RoutingAgent
from der_graph.policies.agent import find_agent
from der_graph.policies.answers import open_cache
from der_graph.pool import Pool, load_pool
from der_graph.server.access import read_secrets
from der_graph.server.process import (
    address_of,
    allow_many_connections,
    in_background,
    is_local,
    make_server,
    open_socket,
)

__all__ = ["create_app", "in_background", "read_keys", "serve"]

log = logging.getLogger("der_graph.server")

KEY_VARIABLE = "DER_API_KEY"


def create_app(
    pool: Pool | str | Path = "demo",
    agent: RoutingAgent | str | os.PathLike[str] | None = None,
    *,
    keys: Sequence[str] | Mapping[str, str] = (),
    cache: str | os.PathLike[str] | None = None,
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    root_path: str = "",
    max_concurrent: int = 256,
    max_body: int | None = None,
    read_timeout: float = 20.0,
    deadline: float | None = None,
    max_cost: float | None = None,
    max_steps: int | None = None,
    requests_per_minute: int | None = None,
    cost_per_day: float | None = None,
    learn: BaseStore | str | os.PathLike[str] | None = None,
    explore: float = 0.0,
    shadow: bool = False,
    health_interval: float | None = None,
    on_ready: Any = lambda: None,
    on_failure: Any = lambda: None,
) -> Any:
    """Make the server's application.

    Args:
        pool: A pool, `demo`, or a pool file.
        agent: An agent, `planner`, `demo`, or an agent folder; the pool's where left out.
        keys: API keys that are accepted, or a mapping from their names in log and metrics; none: everybody
            may come in.
        cache: Answer cache to use, or None.
        cors_origins: Origins whose web pages may call the server; none by default.
        allowed_hosts: Names by which this server is reached, beside `localhost` and addresses; only without
            keys are others refused.
        root_path: Path below which a proxy shows the server, such as `/der`; requests may come with it or
            without.
        max_concurrent: Most chat completions at a time; others are told to come again.
        max_body: Largest request, in bytes; 1 MiB where left out, and 8 MiB where an expert reads images,
            audio or files.
        read_timeout: Seconds within which a request must have come whole.
        deadline: Seconds that a request may take: its default, and the most that it may ask for.
        max_cost: Cost of a request, likewise.
        max_steps: Calls of experts of a request, likewise.
        requests_per_minute: Most requests of each key in a minute; without keys, of all together.
        cost_per_day: Most cost of each key in a day of UTC, likewise.
        learn: A LangGraph store, or a SQLite file: the planner learns from routes and feedback. Off where
            left out.
        explore: Share of all cost that may be spent on asking experts of whom little is known.
        shadow: Let the planner learn and note what it would have done, but decide nothing.
        health_interval: Seconds between two looks at whether experts that failed answer again; None for none:
            then the next request finds out.
        on_ready: Called without arguments when the models are loaded.
        on_failure: Likewise when they could not be loaded.

    Returns:
        A FastAPI application. It loads the models in the background when it starts.

    Raises:
        PoolError: If the pool file cannot be used.
        CacheError: If the cache cannot be opened.
        ServerError: If a limit is not above 0.
        MissingDependencyError: If the extra `serve` is not installed.

    Examples:
        ```python
        from der_graph.server.server import create_app, in_background

        with in_background(create_app("demo")) as address:
            print(f"{address}/v1/models")
        ```
    """
    require("fastapi", extra="serve", why="der serve")
    from der_graph.server.app import build_app
    from der_graph.server.engine import Engine
    from der_graph.server.limits import Ceilings, KeyLimits
    from der_graph.server.metrics import Metrics

    if max_body is not None and max_body < 1:
        raise ServerError(f"max_body is {max_body}; it must be a number of bytes above 0")
    if max_concurrent < 1:
        raise ServerError(f"max_concurrent is {max_concurrent}; it must be at least 1")
    if health_interval is not None and not 0 < health_interval < float("inf"):
        raise ServerError(
            f"health_interval is {health_interval}; it must be a number of seconds above 0, or left out"
        )
    experts = pool if isinstance(pool, Pool) else load_pool(pool)
    engine = Engine(
        experts,
        lambda: find_agent(agent, experts, learn=learn, explore=explore, shadow=shadow),
        Metrics(),
        None if cache is None else open_cache(cache),
    )
    engine.ceilings = Ceilings(deadline, max_cost, max_steps)
    return build_app(
        engine,
        keys=keys,
        cors_origins=cors_origins,
        max_concurrent=max_concurrent,
        max_body=max_body or (2**23 if any(each.reads for each in experts.experts) else 2**20),
        allowed_hosts=allowed_hosts,
        root_path=checked_prefix(root_path),
        read_timeout=read_timeout,
        limits=KeyLimits(requests_per_minute, cost_per_day),
        on_ready=on_ready,
        on_failure=on_failure,
        health_interval=health_interval,
    )


def checked_prefix(root_path: str) -> str:
    """A prefix of paths without a slash at its end.

    Raises:
        ServerError: If it is none.
    """
    prefix = root_path.rstrip("/")
    if prefix and not re.fullmatch(r"(/[\w.~-]+)+", prefix):
        raise ServerError(f"root_path is {root_path!r}; give a path such as /der, or leave it out")
    return prefix


def read_keys(variables: Sequence[str] = ()) -> dict[str, str]:
    """Read API keys from the environment: of the variables that are named, else of `DER_API_KEY`.

    Returns:
        The keys by the names of their variables, which log and metrics show.

    Raises:
        ServerError: If a named variable is not set or empty: the server would stand open unexpectedly.
    """
    return read_secrets("--api-key-env", variables, KEY_VARIABLE)


def serve(
    pool: Pool | str | Path = "demo",
    agent: RoutingAgent | str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grace: float = 30.0,
    keys: Sequence[str] | Mapping[str, str] = (),
    **settings: Any,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what runs then is finished first.

    Args:
        pool: A pool, `demo`, or a pool file.
        agent: An agent, `planner`, `demo`, or an agent folder; the pool's where left out.
        host: Address to listen on.
        port: Port; 0 for a free one.
        grace: Seconds that requests may take after the signal.
        keys: API keys that are accepted.
        settings: Others of `create_app`.

    Raises:
        DERError: If something cannot be used or loaded, or the address is in use.
    """
    require("uvicorn", extra="serve", why="der serve")
    listener = open_socket(host, port)
    allow_many_connections()
    with listener:
        shown = address_of(host, listener)

        def stop() -> None:
            server.should_exit = True

        settings["allowed_hosts"] = [host, *settings.get("allowed_hosts", ())]
        app = create_app(pool, agent, keys=keys, on_ready=_freeze, on_failure=stop, **settings)
        server = make_server(
            app, grace=grace, started=lambda: print(f"listening on {shown}", flush=True)
        )
        if not keys and not is_local(host):
            log.warning("no API key is set: everybody who reaches %s can use it", shown)
        asyncio.run(server.serve(sockets=[listener]))
        if app.state.der.failure is not None:
            raise app.state.der.failure


def _freeze() -> None:
    """Let garbage collection disturb fewer requests.

    To go through all that is loaded takes 0.1 s, in which nobody is answered. So what is there stays, and
    collections are rarer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
