"""A call and another one beside it, and when a call is slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from der_graph.nodes.reliability import Health, arace, patience, race
from der_graph.nodes.reliability.hedging import Raced
from der_graph.nodes.reliability.threads import STOPS

PATIENCE = 30.0  # for events that come, on any machine


def raced(way: str, first: Any, second: Any, good: Callable[[str], bool]) -> Raced[str]:
    """The same calls, in threads or as tasks; the second begins at once."""
    if way == "threads":
        return race(first, second, 0.001, good, lambda: None)

    async def main() -> Raced[str]:
        def awaited(call: Any) -> Any:
            return lambda: asyncio.to_thread(call)

        return await arace(awaited(first), awaited(second), 0.001, good, lambda: None)

    return asyncio.run(main())


WAYS = pytest.mark.parametrize("way", ["threads", "tasks"])


@WAYS
def test_a_bad_result_is_kept_and_the_other_waited_for(way: str) -> None:
    seen = threading.Event()

    def first() -> str:
        assert seen.wait(PATIENCE)
        return "good"

    def good(result: str) -> bool:
        if result == "bad":
            seen.set()  # its badness was seen; only now the other answers
        return result == "good"

    assert raced(way, first, lambda: "bad", good) == Raced("good", "bad", True)


@WAYS
def test_what_either_raises_is_raised(way: str) -> None:
    never = threading.Event()

    def fails() -> str:
        never.set()
        raise KeyError("x")

    def waits() -> str:
        never.wait(PATIENCE)
        return "late"

    try:
        with pytest.raises(KeyError):
            raced(way, waits, fails, bool)
    finally:
        never.set()


def test_who_is_given_up_is_told_to_stop() -> None:
    stopped = threading.Event()

    def first() -> str:
        (stop,) = STOPS.get()
        if stop.wait(PATIENCE):
            stopped.set()
        return "late"

    assert race(first, lambda: "quick", 0.001, bool, lambda: None) == Raced(None, "quick", True)
    assert stopped.wait(PATIENCE)
    assert STOPS.get() == ()


def test_a_quick_call_is_made_alone() -> None:
    made: list[str] = []
    assert race(
        lambda: "quick", lambda: "other", PATIENCE, bool, lambda: made.append("other")
    ) == Raced("quick", None, False)
    assert made == []


def test_percentiles_are_those_of_the_last_calls() -> None:
    health = Health()
    assert patience("p95", health, None) is None  # nobody knows yet
    assert patience("p95", health, 2.0) == 4.0  # twice what its owner says
    assert patience(1.5, health, 2.0) == 1.5
    for i in range(1, 20):
        health.answered(i / 10)
    assert health.percentile(95) is None
    health.answered(2.0)
    assert [health.percentile(p) for p in (50, 90, 95, 99)] == [1.0, 1.8, 1.9, 2.0]
    assert patience("p90", health, 9.0) == 1.8
    # Calls that were given up at the percentile do not make it shrink.
    for _ in range(200):
        before = health.percentile(95)
        assert before is not None
        for seconds in (*(0.1,) * 19, before + 0.01):
            health.answered(seconds) if seconds < before else health.overtaken(seconds)
    assert (health.percentile(95) or 0.0) <= 0.2
