"""The answer cache: durable, shared, and honest about its faults."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from der_graph.errors import CacheError
from der_graph.policies.answers.cache import AnswerCache, default_path, open_cache
from der_graph.state import Answer


def answer(expert: str = "a", text: str = "42", error: str | None = None) -> Answer:
    return Answer(
        expert=expert,
        text=text,
        value=text,
        cost=1.5,
        input_tokens=3,
        output_tokens=4,
        seconds=0.25,
        logprob=None,
        error=error,
    )


def fill(path: str, writer: int) -> None:
    """What each of several processes does."""
    with open_cache(path) as cache:
        for item in range(40):
            cache.put_many(
                {f"{writer}-{item}": answer(text=f"{writer}-{item}"), "shared": answer()}
            )
            assert f"{writer}-{item}" in cache.get_many([f"{writer}-{item}"])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "answers.sqlite"
    given = {"k1": answer(), "k2": answer("b", 'naïve "quotes" \ud800 ✓\n')}
    with open_cache(path) as cache:
        assert cache.get_many([]) == {}
        assert cache.get_many(["k1"]) == {}
        cache.put_many(given)
    with open_cache(path) as cache:
        assert cache.get_many(["k1", "k2", "k3", "k1"]) == given
        cache.put_many({"k1": answer(text="new")})
        assert cache.get_many(["k1"])["k1"]["text"] == "new"


def test_many_keys_at_once() -> None:
    with open_cache(":memory:") as cache:
        cache.put_many({f"{i}": answer(text=f"t{i}") for i in range(3000)})
        found = cache.get_many([f"{i}" for i in range(4000)])
        assert len(found) == 3000
        assert found["2999"]["text"] == "t2999"
        stats = cache.stats()
        assert (stats.answers, stats.hits, stats.misses) == (3000, 3000, 1000)


def test_failed_answers_are_not_kept() -> None:
    with open_cache(":memory:") as cache:
        cache.put_many({"k": answer(error="timed out")})
        assert cache.stats().answers == 0


def test_stats_and_clear(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c") as cache:
        cache.put_many({"1": answer("a"), "2": answer("a"), "3": answer("b")})
        stats = cache.stats()
        assert stats.experts == {"a": 2, "b": 1}
        assert stats.bytes > 0
        assert stats.path == str(tmp_path / "c")
        assert cache.clear("a") == 2
        assert set(cache.get_many(["1", "2", "3"])) == {"3"}
        assert cache.clear("nobody") == 0
        assert cache.clear() == 1
        assert cache.stats().answers == 0


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "answers.sqlite")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(path, writer)) for writer in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    with open_cache(path) as cache:
        assert cache.stats().answers == 81


def test_threads_share_an_object(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(cache: AnswerCache, thread: int) -> None:
        try:
            for item in range(50):
                cache.put_many({f"{thread}-{item}": answer()})
                assert len(cache.get_many([f"{thread}-{item}", "none"])) == 1
        except BaseException as error:
            failures.append(error)

    with open_cache(tmp_path / "c") as cache:
        threads = [threading.Thread(target=work, args=(cache, i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert cache.stats().answers == 200


def test_pickling_opens_the_file_anew(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c") as cache:
        cache.put_many({"k": answer()})
        with pickle.loads(pickle.dumps(cache)) as other:
            assert other.get_many(["k"]) == {"k": answer()}
    with open_cache(":memory:") as cache, pytest.raises(CacheError, match="use a file"):
        pickle.dumps(cache)


def test_survives_a_kill(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "c")
    cache.put_many({"k": answer()})
    # No close: another reader sees what was written, as it would after a kill.
    with open_cache(tmp_path / "c") as other:
        assert other.get_many(["k"]) == {"k": answer()}
    cache.close()


def overwrite_start(path: Path) -> None:
    path.write_bytes(b"this is no database at all, but long enough to look like a header" * 30)


def overwrite_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)
    path.write_bytes(data)


def read_everything(path: Path) -> None:
    with open_cache(path) as cache:
        cache.get_many([f"{i}" for i in range(200)])


@pytest.mark.parametrize("damage", [overwrite_start, overwrite_middle])
def test_a_damaged_file_is_reported_and_kept(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "c"
    with open_cache(path) as cache:
        cache.put_many({f"{i}": answer(text="x" * 500) for i in range(200)})
    damage(path)
    before = path.read_bytes()
    with pytest.raises(CacheError, match="damaged; nothing was deleted") as caught:
        read_everything(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (mine TEXT)")
    connection.close()
    with pytest.raises(CacheError, match="no answer cache of der-graph"):
        open_cache(path)
    newer = tmp_path / "newer"
    open_cache(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CacheError, match="version 99"):
        open_cache(newer)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c") as cache:
        cache.put_many({"old": answer()})
        pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]
        cache._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(CacheError, match="disk is full"):
            cache.put_many({f"{i}": answer(text="x" * 2000) for i in range(100)})
        assert set(cache.get_many(["old", "0", "1"])) == {"old"}


def test_unusable_paths_are_explained(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot be opened or written"):
        open_cache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="check its folder"):
        open_cache(tmp_path / "file" / "c")
    cache = open_cache(tmp_path / "c")
    cache.close()
    with pytest.raises(CacheError, match="closed before"):
        cache.stats()


def test_waiting_for_a_writer_ends(tmp_path: Path) -> None:
    path = tmp_path / "c"
    open_cache(path).close()
    writer = sqlite3.connect(path)
    writer.execute("BEGIN IMMEDIATE")
    with (
        AnswerCache(path, timeout=0.05) as cache,
        pytest.raises(CacheError, match="another process"),
    ):
        cache.put_many({"k": answer()})
    writer.close()


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DER_CACHE", str(tmp_path))
    assert default_path() == tmp_path / "answers.sqlite"
    with open_cache() as cache:
        assert cache.path == str(tmp_path / "answers.sqlite")


@pytest.mark.parametrize(
    "damage",
    ["[]", "[" * 100_000, b"\xff\xfe", "9" * 5000, "null", '{"text": "x"}', "", None,
     {"text": 5}, {"error": 7}, {"error": "x"}, {"cost": "1"}, {"cost": 1e999}, {"seconds": None},
     {"value": []}, {"input_tokens": True}, {"tool_calls": "x"}, {"logprob": "0"},
     {"input_tokens": 2**70}, {"output_tokens": 10**9}, {"output_tokens": -1}, {"output_tokens": 1.5},
     {"cached_tokens": "1"}, {"cached_tokens": -1}, {"input_tokens": 5, "cached_tokens": 6},
     {"reasoning_tokens": "1"}, {"output_tokens": 5, "reasoning_tokens": 6}],
)  # fmt: skip
def test_a_damaged_answer_is_a_miss(tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "answers.sqlite"
    good = answer("a", "fine")
    with open_cache(file) as cache:
        cache.put_many({"k": good, "other": good})
        text = json.dumps({**good, **damage}) if isinstance(damage, dict) else damage
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(
                "UPDATE answers SET answer = ? WHERE key = 'k'", ("" if text is None else text,)
            )
        assert cache.get_many(["k", "other"]) == {"other": good}
        cache.put_many({"k": good})
        assert cache.get_many(["k"]) == {"k": good}


def test_a_request_waits_a_moment_for_another_writer_and_the_next_ones_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("der_graph.policies.answers.cache._MOMENT", 0.05)
    path = tmp_path / "cache.sqlite"
    with AnswerCache(path) as cache, closing(sqlite3.connect(path)) as other:
        cache.keep("before", answer())
        other.execute("BEGIN IMMEDIATE")
        for key in ("a", "b"):
            cache.keep(key, answer())
            assert cache.find("before") is not None  # readers are not concerned
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "another process has been writing" in caplog.text
        other.rollback()
        cache._resting.clear()
        cache.keep("c", answer())
        assert cache.find("c") is not None
        # Others still wait as long as they were told to.
        assert cache._connection.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


def test_in_a_forked_child_a_request_waits_a_moment_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited as long as training may, as the child opens the file anew."""
    waits: list[float] = []

    def connect(path: str, timeout: float, **_: object) -> None:
        waits.append(timeout)
        raise sqlite3.OperationalError("database is locked")

    with AnswerCache(tmp_path / "c.db", timeout=1.0) as cache:
        monkeypatch.setattr("der_graph.policies.answers.cache._MOMENT", 0.01)
        monkeypatch.setattr(cache, "_process", 0)  # as if that had been the parent's
        monkeypatch.setattr(sqlite3, "connect", connect)
        assert cache.find("key") is None
        assert set(waits) == {0.01}
