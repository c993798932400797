"""Calls that come too fast for a provider, where nobody else can answer in place of who was asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from langchain_core.messages import BaseMessage, HumanMessage

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.policies.answers import AnswerCache, AnswerSource, Request
from der_graph.policies.answers.collect import collect_answers
from der_graph.policies.answers.patience import patiently
from der_graph.policies.planning.probing.asking import probe
from der_graph.policies.quality import get_metric

EXAMPLES = [Example(str(i), f"What is {i} + 1?", str(i + 1), "sums") for i in range(6)]


class TooFastError(RuntimeError):
    """What a provider's client raises."""

    status_code = 429

    def __init__(self, wait: float) -> None:
        super().__init__("Rate limit reached")
        self.response = SimpleNamespace(headers={"retry-after": str(wait)})


def limited(refused: int, wait: float = 0.01) -> tuple[Expert, list[str]]:
    """A remote model that refuses its first calls, and all calls."""
    calls: list[str] = []

    def answer(question: str) -> str:
        calls.append(question)
        if len(calls) <= refused:
            raise TooFastError(wait)
        return str(int(question.split()[2]) + 1)

    return as_expert(answer, name="a", cost=1.0, fingerprint="a", max_concurrency=2), calls


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("der_graph.policies.answers.patience._WAITS", (0.01,) * 6)


@pytest.mark.parametrize("at_a_time", [1, 6])
def test_a_call_that_came_too_fast_is_no_wrong_answer(at_a_time: int) -> None:
    expert, calls = limited(5)
    source = AnswerSource([expert], EXAMPLES, get_metric("match"))
    requests = [Request(i, 0, []) for i in range(6)]
    outcomes = [
        outcome
        for start in range(0, 6, at_a_time)
        for outcome in source.ask(requests[start : start + at_a_time])
    ]
    assert [outcome.quality for outcome in outcomes] == [1.0] * 6
    assert len(calls) == 11


def test_a_quota_that_is_used_up_is_not_waited_for() -> None:
    expert, calls = limited(1000, wait=3600)
    outcomes = AnswerSource([expert], EXAMPLES, get_metric("match")).first_answers()
    assert {row[0].answer["failure"] for row in outcomes} == {"rate_limit"}
    assert len(calls) == 6


def test_who_refuses_again_and_again_has_failed_in_the_end() -> None:
    expert, calls = limited(1000)
    outcomes = AnswerSource([expert], EXAMPLES, get_metric("match")).first_answers()
    assert {row[0].answer["failure"] for row in outcomes} == {"rate_limit"}
    assert len(calls) == 6 * 7


def test_nothing_is_waited_for_once_it_is_stopped() -> None:
    expert, calls = limited(1000)
    stopped = threading.Event()
    stopped.set()
    prompts: list[list[BaseMessage]] = [[HumanMessage(e.question)] for e in EXAMPLES]
    given = list(patiently(lambda some: [(some, expert.ask(some))], prompts, stopped))
    assert len(calls) == 6
    assert [len(answers) for _, answers in given] == [6]


def test_what_is_answered_is_handed_on_before_anything_is_waited_for() -> None:
    """Ctrl-C would lose what is paid for."""
    expert, calls = limited(1)
    prompts: list[list[BaseMessage]] = [[HumanMessage(e.question)] for e in EXAMPLES]
    given = patiently(lambda some: [(some, expert.ask(some))], prompts, threading.Event())
    asked, answers = next(given)
    assert (len(calls), len(asked), {each["error"] for each in answers}) == (6, 5, {None})
    assert [len(answers) for _, answers in given] == [1]


def test_collecting_waits_too(tmp_path: Path) -> None:
    expert, _ = limited(5)
    with AnswerCache(tmp_path / "c.db") as cache:
        done = collect_answers([expert], EXAMPLES, cache, progress=False)
    assert (done.failed, dict(done.asked)) == ({}, {"a": 6})


def test_a_probe_does_not_leave_out_who_was_asked_too_fast() -> None:
    expert, _ = limited(5)
    said: list[str] = []
    found = probe([expert], EXAMPLES, get_metric("match"), count=6, say=said.append)
    assert len(found.examples) == 6
    assert (found.quality == 1.0).all()
    assert not any("left out" in line for line in said)


def test_calls_beside_each_other_take_as_long_as_each_took() -> None:
    """A share of the batch's time would be half of that, and so would a price of seconds."""

    def answer(question: str) -> str:
        time.sleep(0.05)
        return "1"

    expert = as_expert(answer, name="a", cost=1.0, max_concurrency=6, second_price=1.0)
    for (outcome,) in AnswerSource([expert], EXAMPLES, get_metric("match")).first_answers():
        assert outcome.answer["seconds"] >= 0.05
        assert outcome.answer["cost"] >= 1.05
