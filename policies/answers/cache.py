"""Answers that were given before: the same prompt to the same expert is never generated twice.

    Expert.cache_key(messages)  ──get_many──>  Answer, or nothing

A greedy answer is a function of the expert, its generation settings and the prompt, which is what
the key digests. Kept in one SQLite file that several threads and processes may share: write-ahead
log, so readers never wait for a writer; each `put_many` is one transaction, there wholly or not at
all. Values are JSON, so opening a file from elsewhere runs nothing. A damaged file is reported and
never deleted; a damaged answer in it is as if it were not there.

Failed answers are not kept: the next try may succeed.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from der_graph.data.untrusted import parse_json
from der_graph.errors import CacheError
from der_graph.nodes.huggingface.weights import cache_folder
from der_graph.nodes.reliability.charge import are_counts
from der_graph.state import Answer

log = logging.getLogger("der_graph.cache")

Found = TypeVar("Found")

MEMORY = ":memory:"
"""In place of a path: a cache that lives as long as the process."""

# "DER!" in the file's header: tells our file from any other SQLite file.
_APPLICATION_ID = 0x44455221
_VERSION = 2  # of the table; raise it when `Answer` or the table changes
# Not `__required_keys__`: with annotations kept as text it counts what is NotRequired as well.
_REQUIRED = frozenset(k for k, v in Answer.__annotations__.items() if "NotRequired" not in str(v))
_KINDS: dict[str, Any] = {
    "expert": str,
    "text": str,
    "value": (str, type(None)),
    "cost": (int, float),
    "seconds": (int, float),
    "logprob": (int, float, type(None)),
    "error": type(None),
}
_MOMENT = 1.0  # seconds that a request waits for another process
_REST = 30.0  # seconds for which requests leave a file alone that could not be used
_KEYS_A_QUERY = 500  # SQLite's default limit of variables was 999 for long
_TABLE = """
    CREATE TABLE IF NOT EXISTS answers (
        key TEXT PRIMARY KEY, expert TEXT NOT NULL, answer TEXT NOT NULL, made REAL
    ) WITHOUT ROWID
"""
_INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)"
_UPGRADE = "ALTER TABLE answers ADD COLUMN made REAL"  # from version 1, whose answers have no date


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds, and how it was used.

    Attributes:
        path: The file, or `:memory:`.
        answers: Number of answers.
        experts: Number of answers by expert.
        bytes: Size of the database.
        hits: Answers found since this object was opened.
        misses: Keys without one since then.
        oldest: When the oldest answer of each expert was given, in seconds since 1970; None where the file is
            from a version that did not note it.
    """

    path: str
    answers: int
    experts: dict[str, int]
    bytes: int
    hits: int
    misses: int
    oldest: dict[str, float | None]


def default_path() -> Path:
    """The user's cache file, beside what else the package keeps: see `cache_folder`."""
    return cache_folder() / "answers.sqlite"


def open_cache(path: str | os.PathLike[str] | None = None) -> AnswerCache:
    """Open a cache file, or make it.

    Args:
        path: The file; None for the user's own (`default_path`), `:memory:` for none.

    Raises:
        CacheError: If the file cannot be opened, is damaged, or belongs to something else.
    """
    return AnswerCache(default_path() if path is None else path)


class AnswerCache:
    """Answers by key, in one SQLite file.

    One object may be used by several threads; pickled or forked, it opens the file anew.

    Args:
        path: The file, made with its folder if it is missing; or `:memory:`.
        timeout: Seconds to wait for another process that writes.

    Raises:
        CacheError: If the file cannot be opened, is damaged, or belongs to something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 30.0,
    ) -> None:
        self.path = os.fspath(path)
        self._timeout = timeout
        self._lock = threading.RLock()
        self._hits = self._misses = 0
        self._resting: dict[str, float] = {}  # what requests do not try, and until when
        self._open()

    def get_many(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there, by key; keys without one are left out.

        Raises:
            CacheError: If the file cannot be read.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Answer] = {}
        damaged = 0
        with self._lock, self._database() as database:
            for start in range(0, len(wanted), _KEYS_A_QUERY):
                chunk = wanted[start : start + _KEYS_A_QUERY]
                marks = ",".join("?" * len(chunk))
                rows = database.execute(
                    f"SELECT key, answer FROM answers WHERE key IN ({marks})", chunk
                )
                for key, text in rows:
                    answer = _decode(text)
                    if answer is None:  # damaged: as if it were not there, and written anew
                        damaged += 1
                    else:
                        found[key] = answer
            if damaged:
                log.warning(
                    "answer cache %s: %d damaged answers are passed over", self.path, damaged
                )
            self._hits += len(found)
            self._misses += len(wanted) - len(found)
        return found

    def put_many(self, items: Mapping[str, Answer]) -> None:
        """Keep answers, in one transaction; a key that is there gets the new answer.

        Raises:
            CacheError: If the file cannot be written; what was there before is still there.
        """
        rows = _rows(items)
        if rows:
            with self._lock, self._database() as database, database:
                database.executemany(_INSERT, rows)

    def replace(self, expert: str, items: Mapping[str, Answer]) -> None:
        """Keep answers in place of all that an expert gave before, in one transaction.

        Raises:
            CacheError: As `put_many`.
        """
        with self._lock, self._database() as database, database:
            database.execute("DELETE FROM answers WHERE expert = ?", [expert])
            database.executemany(_INSERT, _rows(items))

    def find(self, key: str) -> Answer | None:
        """Look for the answer of a request that is being waited for.

        A file that cannot be read within a moment is reported, and left alone for a while: nobody waits for
        another process, and the log is not filled. The answer counts as not there.
        """
        return (self._in_passing("read", lambda: self.get_many([key])) or {}).get(key)

    def keep(self, key: str, answer: Answer) -> None:
        """Keep the answer of a request that is being waited for; as `find`, without an error."""
        self._in_passing("written", lambda: self.put_many({key: answer}))

    def _in_passing(self, done: str, work: Callable[[], Found]) -> Found | None:
        with self._lock:  # who waits for another thread's try knows then how it ended
            if time.monotonic() < self._resting.get(done, 0.0):
                return None
            try:
                with self._database(_MOMENT) as database:
                    database.execute(f"PRAGMA busy_timeout = {_MOMENT * 1000:.0f}")
                try:
                    return work()
                finally:
                    with self._database() as database:
                        database.execute(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}")
            except CacheError as error:
                self._resting[done] = time.monotonic() + _REST
                log.warning("%s; it is not %s for %.0f s", error, done, _REST)
                return None

    def made(self, keys: Sequence[str]) -> dict[str, float | None]:
        """When answers were given, in seconds since 1970, by key; None where nobody noted it."""
        found: dict[str, float | None] = {}
        with self._lock, self._database() as database:
            for start in range(0, len(keys), _KEYS_A_QUERY):
                chunk = list(keys[start : start + _KEYS_A_QUERY])
                marks = ",".join("?" * len(chunk))
                found.update(
                    database.execute(f"SELECT key, made FROM answers WHERE key IN ({marks})", chunk)
                )
        return found

    def stats(self) -> CacheStats:
        """What the cache holds."""
        with self._lock, self._database() as database:
            rows = database.execute(
                "SELECT expert, COUNT(*), MIN(made) FROM answers GROUP BY 1 ORDER BY 1"
            ).fetchall()
            by_expert = {expert: count for expert, count, _ in rows}
            pages = database.execute("PRAGMA page_count").fetchone()[0]
            page_size = database.execute("PRAGMA page_size").fetchone()[0]
        return CacheStats(
            path=self.path,
            answers=sum(by_expert.values()),
            experts=by_expert,
            bytes=pages * page_size,
            hits=self._hits,
            misses=self._misses,
            oldest={expert: made for expert, _, made in rows},
        )

    def clear(self, expert: str | None = None) -> int:
        """Remove all answers, or those of one expert.

        Returns:
            How many there were.
        """
        with self._lock, self._database() as database:
            with database:
                where, names = ("", []) if expert is None else (" WHERE expert = ?", [expert])
                removed = database.execute(f"DELETE FROM answers{where}", names).rowcount
            with suppress(sqlite3.OperationalError):  # another process reads: the space is reused
                database.execute("VACUUM")
        return removed

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._finalizer()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[AnswerCache], tuple[str]]:
        if self.path == MEMORY:
            raise CacheError("a cache in memory cannot be handed to another process; use a file")
        return AnswerCache, (self.path,)

    def _open(self, patience: float | None = None) -> None:
        patience = self._timeout if patience is None else patience
        if self.path != MEMORY:
            with self._explained():
                Path(self.path).absolute().parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        while True:
            try:
                with self._explained():
                    self._connection = self._connect(patience)
                break
            except CacheError as error:
                # Switching to the write-ahead log needs the file alone and does not wait by itself.
                locked = isinstance(error.__cause__, sqlite3.OperationalError) and "locked" in str(
                    error.__cause__
                )
                if not locked or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, self._connection.close)

    def _connect(self, patience: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=patience, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # The table first: another process may be making the file, and writes all three in one transaction.
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        identity = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if tables and identity != _APPLICATION_ID:
            raise CacheError(
                f"{self.path} is an SQLite file, but no answer cache of der-graph; choose another "
                "path for the cache"
            )
        if tables and version == 1:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                columns = [row[1] for row in connection.execute("PRAGMA table_info(answers)")]
                if "made" not in columns:  # another process may have been first
                    connection.execute(_UPGRADE)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif tables and version != _VERSION:
            raise CacheError(
                f"{self.path} is an answer cache of version {version}, this is version {_VERSION}; "
                "choose another path, or delete the file to start a new one"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # survives a kill at any moment
        if not tables:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                connection.execute(_TABLE)

    @contextmanager
    def _database(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid() and self.path != MEMORY:
            self._finalizer.detach()  # SQLite forbids to use, or close, a parent's connection
            self._open(patience)
        with self._explained():
            yield self._connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into one that says what to do."""
        try:
            yield
        except (sqlite3.Error, OSError, json.JSONDecodeError) as error:
            raise CacheError(f"answer cache {self.path}: {_cure(error)} ({error})") from error


def _rows(items: Mapping[str, Answer]) -> list[tuple[str, str, str, float]]:
    now = time.time()
    return [
        (key, answer["expert"], json.dumps(answer), now)
        for key, answer in items.items()
        if answer["error"] is None
    ]


def _decode(text: Any) -> Answer | None:
    """The answer that a row holds; None if it holds none."""
    try:
        answer = parse_json(text)
    except (ValueError, TypeError):
        return None
    if not isinstance(answer, dict) or _REQUIRED - answer.keys():
        return None
    fits = all(
        isinstance(answer[name], kinds) and not isinstance(answer[name], bool)
        for name, kinds in _KINDS.items()
    )
    numbers = [answer["cost"], answer["seconds"], answer["logprob"] or 0]
    counts = (answer["input_tokens"], answer["output_tokens"])
    details = (answer.get("cached_tokens", 0), answer.get("reasoning_tokens", 0))
    fits = fits and are_counts(*counts, *details)
    if not fits or answer["error"] is not None or not all(map(_is_number, numbers)):
        return None
    calls = answer.get("tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return None
    return cast(Answer, answer)


def _is_number(value: Any) -> bool:
    return bool(abs(value) <= sys.float_info.max)  # not for NaN


def _cure(error: Exception) -> str:
    """What happened and what to do, from the words of SQLite's error."""
    text = str(error)
    if "full" in text or "I/O" in text:
        return (
            "the disk is full or failing; what was kept before is safe, free some space and go on"
        )
    if "locked" in text:
        return "another process has been writing for too long; wait for it to end, or end it"
    if "readonly" in text or "unable to open" in text or isinstance(error, OSError):
        return "the file cannot be opened or written; check its folder and permissions"
    if "closed" in text:
        return "it was closed before"
    return (
        "the file is damaged; nothing was deleted. To start anew, move it away together with its "
        "-wal and -shm files; 'sqlite3 FILE .recover' may save what it holds"
    )
