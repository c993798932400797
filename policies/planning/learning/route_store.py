"""What was served, kept where several processes find it: any LangGraph store.

    route ──add──> ("der", "learning", pool) ──routes──> every process learns from the same ones
    user ──rate──┘ ("der", "learning-pools"): whose, frozen or not

A route is kept as who answered, which of the answers were the same, and how good the last was: no text of a
user or a model. The last `KEEP` count. `open_store` makes a store of a SQLite file or a PostgreSQL database.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from langgraph.store.base import BaseStore

from der_graph.errors import DataError, require
from der_graph.nodes.providers.secrets import mask_secrets

KEEP = 2_000
"""Routes that are learnt from."""
_PAGE = 500
_POOLS = ("der", "learning-pools")
_PATIENCE = 5.0  # seconds to wait for another process, or for a database that is away
_DATABASES = ("postgresql://", "postgres://")
log = logging.getLogger("der_graph.learning")
_SETUP_LOCK = 0x44455221  # of PostgreSQL's advisory locks; any number that nobody else takes


class Kept(NamedTuple):
    """A route in a store.

    Attributes:
        key: Its id.
        at: When it ended, in seconds since 1970; later than those before it, whatever became of the clock.
        kind: Number of its question's kind.
        told: For each good answer expert, number of its value (-1 for none), and form of step (-1 for none).
        score: How good the last answer was, in [0, 1]; None where nobody said.
    """

    key: str
    at: float
    kind: int
    told: tuple[tuple[str, int, int], ...]
    score: float | None


def checked_score(score: float) -> float:
    """What somebody said of a route, as a number.

    Raises:
        DataError: If it is not from 0 to 1.
    """
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise DataError(f"the score is {score!r}; it must be a number from 0 to 1")
    return float(score)


class Memory:
    """The routes of one pool.

    Args:
        store: A LangGraph store; several processes and pools may share it, and an application that keeps
            other things there.
        names: The pool's experts; each set of names has its own routes.
        shared: May it hold other pools' routes too? In a store for learning alone, those are of a pool that
            somebody has mistaken for this one.

    Raises:
        DataError: If the store is of another pool, or cannot be used synchronously here.
    """

    def __init__(self, store: BaseStore, names: Sequence[str], *, shared: bool = False) -> None:
        self.store = store
        self.names = tuple(names)
        self._pool = hashlib.sha256("\x00".join(sorted(self.names)).encode()).hexdigest()[:16]
        self._routes = ("der", "learning", self._pool)
        self._last = 0.0
        pools = pools_in(store)
        if any(sorted(each) == sorted(self.names) for each in pools):
            return
        if pools and not shared:
            known = "; of ".join(", ".join(each) for each in pools)
            raise DataError(
                f"the store holds what was learnt of {known}, and the pool has {', '.join(self.names)}: give "
                "it a store of its own"
            )
        self._control(frozen=False)
        # The same pool, of which somebody changed a name? Of one that has other experts nobody wants to hear.
        for each in pools:
            if set(each) & set(self.names):
                log.warning(
                    "the store holds what was learnt of %s, and learning of %s begins anew: each set of "
                    "names has its own routes",
                    ", ".join(each),
                    ", ".join(self.names),
                )

    def now(self) -> float:
        """Seconds since 1970, later than all that this object has seen.

        By a clock that was put back new routes would be forgotten before old ones, and those that came after
        learning was stopped would count.
        """
        self._last = max(time.time(), self._last + 1e-5)
        return self._last

    def _seen(self, at: float) -> float:
        self._last = max(self._last, at)
        return at

    @property
    def frozen_at(self) -> float | None:
        """When learning was stopped, in seconds since 1970; None where it goes on."""
        item = self.store.get(_POOLS, self._pool)
        if item is None or not item.value.get("frozen"):
            return None
        return self._seen(float(item.value["at"]))

    @property
    def frozen(self) -> bool:
        """Was learning stopped?"""
        return self.frozen_at is not None

    def freeze(self, frozen: bool = True) -> None:
        """Stop learning in every process that uses the store, or let it go on.

        While it is stopped the routes of before count, and those that come are kept for later.
        """
        if frozen != self.frozen:
            self._all()  # to be later than all of them
            self._control(frozen=frozen)

    def add(self, route: Kept) -> None:
        """Keep a route; one that is there already, as its end was replayed, keeps its score."""
        value = {"at": route.at, "kind": route.kind, "told": [list(each) for each in route.told]}
        score, before = route.score, self.store.get(self._routes, route.key)
        if score is None and before is not None:
            score = before.value.get("score")
        self._put(self._routes, route.key, {**value, "score": score})

    def rate(self, key: str, score: float) -> None:
        """Keep what somebody said of a route.

        Raises:
            DataError: If the score is not from 0 to 1, or there is no such route (any more).
        """
        score = checked_score(score)
        item = self.store.get(self._routes, key)
        if item is None:
            raise DataError(
                f"there is no route {key[:80]!r}; it is too old, or was answered by another pool"
            )
        self._put(self._routes, key, {**item.value, "score": score})

    def routes(self) -> list[Kept]:
        """The routes that count, oldest first: the last ones, or those before learning was stopped.

        What is older is removed; while learning is stopped, of those that have come since.
        """
        found, stopped = self._all(), self.frozen_at
        before = [route for route in found if stopped is None or route.at <= stopped]
        last = found[len(before) :] if stopped is not None else before
        for old in last[:-KEEP]:
            self.store.delete(self._routes, old.key)
        return before[-KEEP:]

    def reset(self) -> int:
        """Forget all routes of this pool; says how many."""
        routes = self._all()
        for route in routes:
            self.store.delete(self._routes, route.key)
        return len(routes)

    def _all(self) -> list[Kept]:
        """Every route that is kept, oldest first."""
        found: list[Kept] = []
        while True:
            page = self.store.search(self._routes, limit=_PAGE, offset=len(found))
            found += [_kept(item.key, item.value) for item in page]
            if len(page) < _PAGE:
                for route in found:
                    self._seen(route.at)
                return sorted(found, key=lambda route: (route.at, route.key))

    def _control(self, *, frozen: bool) -> None:
        value = {"experts": list(self.names), "frozen": frozen, "at": self.now()}
        self._put(_POOLS, self._pool, value)

    def _put(self, namespace: tuple[str, ...], key: str, value: dict[str, Any]) -> None:
        # A store that is shared with an application may embed what it holds, and let it expire.
        self.store.put(namespace, key, value, index=False, ttl=None)


def pools_in(store: BaseStore) -> list[tuple[str, ...]]:
    """The pools that a store holds routes of, each as its experts' names.

    Raises:
        DataError: If the store cannot be used synchronously here.
    """
    found: list[tuple[str, ...]] = []
    while True:
        try:
            page = store.search(_POOLS, limit=_PAGE, offset=len(found))
        except asyncio.InvalidStateError:  # an asynchronous one, in its own event loop
            raise DataError(
                f"learn is {type(store).__name__}, which waits for the event loop that this is called in; "
                "give its synchronous counterpart (SqliteStore, PostgresStore ...), the path of a SQLite "
                "file, or the address of a PostgreSQL database"
            ) from None
        found += [tuple(item.value["experts"]) for item in page]
        if len(page) < _PAGE:
            return sorted(found)


def _kept(key: str, value: dict[str, Any]) -> Kept:
    told = tuple((str(e), int(v), int(f)) for e, v, f in value["told"])
    return Kept(key, float(value["at"]), int(value["kind"]), told, value.get("score"))


def is_database(store: object) -> bool:
    """Is it the address of a PostgreSQL database?"""
    return isinstance(store, str) and store.startswith(_DATABASES)


def open_store(store: BaseStore | str | os.PathLike[str]) -> BaseStore:
    """The store that is meant: one that was made already, a SQLite file, or a PostgreSQL database.

    Args:
        store: A store, a path, or an address such as `postgresql://user:password@host/name`. Tables are made
            where there are none.

    Raises:
        MissingDependencyError: If it needs a package that is not installed.
        DataError: If it cannot be used.
    """
    if isinstance(store, BaseStore):
        return store
    if not isinstance(store, (str, os.PathLike)):
        raise DataError(
            f"learn is {store!r}; give a LangGraph store, the path of a SQLite file, or the address of a "
            "PostgreSQL database"
        )
    if isinstance(store, str) and is_database(store):
        return _database_store(store)
    return _file_store(Path(os.path.expanduser(store)))


def _file_store(path: Path) -> BaseStore:
    sqlite = require("langgraph.store.sqlite", extra="learn", why="learning kept in a file")
    import sqlite3

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # As the package's own `from_conn_string` opens it, which is a context manager.
        connection = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, timeout=_PATIENCE
        )
        connection.execute("PRAGMA journal_mode=WAL")
        made: BaseStore = sqlite.SqliteStore(connection)
        with FileLock(f"{path}.lock"):  # two processes that make the tables at once fail
            made.setup()  # type: ignore[attr-defined]
    except (sqlite3.Error, OSError) as error:
        raise DataError(f"{path}: not a store that can be used ({error})") from None
    return made


def _database_store(address: str) -> BaseStore:
    why = "learning kept in PostgreSQL"
    postgres = require("langgraph.store.postgres", extra="postgres", why=why)
    pools = require("psycopg_pool", extra="postgres", why=why)
    import psycopg
    from psycopg.rows import dict_row

    # As the package's own `from_conn_string` connects, which is a context manager.
    settings: Any = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    try:
        with psycopg.connect(address, connect_timeout=10, **settings) as connection:
            # Two processes that make the tables at once fail. Tried again and again, as one that waits in
            # the database would be waited for by the making of an index.
            mine = f"SELECT 1 WHERE pg_try_advisory_lock({_SETUP_LOCK})"
            while connection.execute(mine).fetchone() is None:
                time.sleep(0.1)
            postgres.PostgresStore(connection).setup()
    except psycopg.Error as error:
        told = mask_secrets(" ".join(str(error).split()))
        raise DataError(f"PostgreSQL: not a store that can be used ({told})") from None
    # A pool connects again where the server was away.
    pool = pools.ConnectionPool(
        address,
        kwargs=settings,
        min_size=1,
        max_size=4,
        timeout=_PATIENCE,
        open=True,
        check=pools.ConnectionPool.check_connection,
    )
    made: BaseStore = postgres.PostgresStore(pool)
    return made
