"""Calls that find the model busy are its next batch; one that is given up is not begun."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from der_graph.nodes.batching import RequestQueue


@dataclass
class Call:
    name: str
    cancel: threading.Event | None = field(default_factory=threading.Event)


class Model:
    """Its first batch takes until `go` is set."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, calls: Sequence[Any], _: None) -> list[Any]:
        self.batches.append([call.name for call in calls])
        self.begun.set()
        assert self.go.wait(30)
        return [ValueError(call.name) if call.name == "bad" else call.name * 2 for call in calls]


def line_up(model: Model, line: RequestQueue, calls: list[Call], at_most: int) -> list[Future[Any]]:
    """The first one occupies the model while the others join."""
    futures = [line.join(calls[0], model, at_most)]
    assert model.begun.wait(30)
    return futures + [line.join(call, model, at_most) for call in calls[1:]]


def test_those_who_wait_are_the_next_batch() -> None:
    model, line = Model(), RequestQueue()
    futures = line_up(model, line, [Call(name) for name in "abcd"], 2)
    model.go.set()
    assert [future.result(30) for future in futures] == ["aa", "bb", "cc", "dd"]
    assert model.batches == [["a"], ["b", "c"], ["d"]]


def test_an_error_belongs_to_its_call() -> None:
    model, line = Model(), RequestQueue()
    futures = line_up(model, line, [Call("a"), Call("bad"), Call("c")], 8)
    model.go.set()
    assert futures[0].result(30) == "aa"
    with pytest.raises(ValueError, match="bad"):
        futures[1].result(30)
    assert futures[2].result(30) == "cc"


def test_when_the_batch_fails_all_learn_it_and_the_line_goes_on() -> None:
    def fail(calls: Sequence[Any], _: None) -> list[Any]:
        raise MemoryError("no room")

    line = RequestQueue()
    with pytest.raises(MemoryError, match="no room"):
        line.join(Call("a"), fail, 8).result(30)
    model = Model()
    model.go.set()
    assert line.join(Call("b"), model, 8).result(30) == "bb"


def test_results_that_are_not_one_each_are_an_error_and_the_line_goes_on() -> None:
    model, line = Model(), RequestQueue()
    model.go.set()
    with pytest.raises(ValueError, match="zip"):
        line.join(Call("a"), lambda calls, _: ["a", "b"], 8).result(30)
    assert line.join(Call("b"), model, 8).result(30) == "bb"


def test_a_call_that_was_given_up_is_not_begun() -> None:
    model, line = Model(), RequestQueue()
    calls = [Call("a"), Call("b"), Call("c", None)]
    futures = line_up(model, line, calls, 8)
    assert calls[1].cancel is not None
    calls[1].cancel.set()
    model.go.set()
    with pytest.raises(CancelledError):
        futures[1].result(30)
    assert futures[2].result(30) == "cc"
    assert model.batches == [["a"], ["c"]]


def test_a_copy_of_a_model_answers_for_itself() -> None:
    first, second, line = Model(), Model(), RequestQueue()
    futures = line_up(first, line, [Call("a")], 8)
    second.go.set()
    futures += [line.join(Call(n), m, 8) for n, m in (("b", first), ("c", second), ("d", first))]
    first.go.set()
    assert [future.result(30) for future in futures] == ["aa", "bb", "cc", "dd"]
    assert first.batches == [["a"], ["b", "d"]]
    assert second.batches == [["c"]]
