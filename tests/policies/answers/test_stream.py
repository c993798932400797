"""Answers as they come: nobody waits for a stranger, and nothing depends on who is quick."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from toy import toy_examples, toy_experts

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert, bounded
from der_graph.nodes.reliability.bulkhead import SIZE
from der_graph.policies.answers import AnswerSource, Request
from der_graph.policies.answers.stream import AnswerStream
from der_graph.policies.quality import get_metric
from der_graph.state import Answer


class Recording:
    """A metric that notes what it is given, in which order."""

    name = "recording"

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        self.given.append([f"{e.id} {a['expert']}" for a, e in zip(answers, examples, strict=True)])
        return [0.5] * len(answers)


def slow(name: str, says: Callable[[str], str], places: int = 4) -> Expert:
    """An expert that takes some prompts at the same time."""
    made = as_expert(says, name=name, cost=1.0)
    return replace(made, model=bounded(made.model, places))


def source_of(experts: Sequence[Expert], count: int = 3) -> tuple[AnswerSource, Recording]:
    metric = Recording()
    examples = [Example(str(i), f"Question {i}", "") for i in range(count)]
    return AnswerSource(list(experts), examples, metric), metric


def test_a_route_goes_on_while_another_one_waits() -> None:
    """The first expert answers question 0 only once the second one was asked question 1."""
    second_asked = threading.Event()

    def first(prompt: str) -> str:
        return f"waited {second_asked.wait(10) if 'Question 0' in prompt else False}"

    def second(prompt: str) -> str:
        second_asked.set()
        return "read it"

    source, _ = source_of([slow("first", first), slow("second", second)])
    found: dict[int, str] = {}
    stream = AnswerStream(source)
    for question in (0, 1):

        def go_on(answer: Answer, question: int = question) -> None:
            found[question] = answer["text"]
            stream.ask(Request(question, 1, [answer]), then=lambda answer: None)

        stream.ask(Request(question, 0, []), go_on)
    stream.run()
    assert found == {0: "waited True", 1: "waited False"}
    known = source.known([Request(0, 0, []), Request(1, 0, [])])
    assert known is not None
    assert [outcome.quality for outcome in known] == [0.5, 0.5]


@pytest.mark.parametrize("quick", [0, 2])
def test_metrics_are_given_the_same_whoever_is_quick(quick: int) -> None:
    others = threading.Event()

    def says(prompt: str) -> str:
        if f"Question {quick}" in prompt:
            others.set()
        else:
            assert others.wait(10)
        return "said"

    source, metric = source_of([slow("one", says), slow("two", says)])
    stream = AnswerStream(source)
    for question in (2, 0, 1):
        for expert in (1, 0):
            stream.ask(Request(question, expert, []), then=lambda answer: None)
    stream.run()
    assert metric.given == [["0 one", "0 two", "1 one", "1 two", "2 one", "2 two"]]


def test_what_is_known_is_not_scored_again() -> None:
    """A judge is paid for every answer that it marks."""
    source, metric = source_of([slow("one", lambda prompt: "said")])
    first = source.first_answers()
    stream = AnswerStream(source)
    for question in range(3):
        stream.ask(Request(question, 0, []), then=lambda answer: None)
        stream.ask(Request(question, 0, [first[question][0].answer]), then=lambda answer: None)
    stream.run()
    assert [len(given) for given in metric.given] == [3, 3]


def test_what_comes_to_the_same_is_asked_once() -> None:
    """At the same time or later, and of questions that come twice."""
    asked: list[str] = []

    def says(prompt: str) -> str:
        asked.append(prompt)
        return "said"

    expert = slow("one", says)
    examples = [Example("a", "Question", "x"), Example("b", "Question", "y")]
    source = AnswerSource([expert], examples, get_metric("match"))
    heard: list[str] = []
    stream = AnswerStream(source)

    def again(answer: Answer) -> None:
        for question in (0, 1):
            stream.ask(Request(question, 0, []), then=lambda answer: heard.append(answer["text"]))

    keys = [stream.ask(Request(question, 0, []), then=again) for question in (0, 0, 1)]
    stream.run()
    assert keys[0] == keys[1] != keys[2]
    assert heard == ["said"] * 6
    assert len(asked) == 1
    assert source.generated == 1


def test_questions_that_read_alike_in_another_conversation_are_two() -> None:
    """Agents read a short form of what was said before, experts all of it."""
    chats = [
        Example(
            name,
            "And its capital?",
            "",
            history=(("system", f"We speak of {name}."), ("user", "Hello"), ("assistant", "Hi")),
        )
        for name in ("France", "Germany", "France")
    ]
    asked: list[str] = []

    def says(prompt: list[BaseMessage]) -> str:
        asked.append(prompt[0].text)
        return f"That of {prompt[0].text}"

    told = as_expert(RunnableLambda(says), name="one", cost=1.0)
    source = AnswerSource([replace(told, model=bounded(told.model, 4))], chats, Recording())
    assert len(set(source.questions)) == 1
    heard: list[str] = []
    stream = AnswerStream(source)
    for question in range(3):
        stream.ask(Request(question, 0, []), then=lambda answer: heard.append(answer["text"]))
    stream.run()
    assert sorted(asked) == ["We speak of France.", "We speak of Germany."]
    assert sorted(heard) == [
        "That of We speak of France.",
        "That of We speak of France.",
        "That of We speak of Germany.",
    ]


def test_experts_that_take_very_many_at_once_get_some_together() -> None:
    """Their threads are fewer than their places: a call must not wait there while its time runs."""
    source, _ = source_of([slow("one", lambda prompt: "said", places=4 * SIZE)], 10)
    sizes: list[int] = []
    ask = source.answers_to

    def counting(wanted: Any, *more: Any, **most: Any) -> Any:
        sizes.append(len(wanted))
        return ask(wanted, *more, **most)

    source.answers_to = counting  # type: ignore[method-assign]
    stream = AnswerStream(source)
    heard: list[str] = []
    for question in range(10):
        stream.ask(Request(question, 0, []), then=lambda answer: heard.append(answer["text"]))
    stream.run()
    assert sorted(sizes) == [2, 4, 4]
    assert heard == ["said"] * 10


def test_experts_that_take_one_batch_at_a_time_get_batches() -> None:
    """Of the one for which most is waiting, as long as those that are asked beside them have nothing."""
    sizes: list[int] = []

    class Batches(Runnable[Any, Any]):
        def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            return "local"

        def batch(self, inputs: Any, *args: Any, **more: Any) -> Any:
            sizes.append(len(inputs))
            return ["local"] * len(inputs)

    local = Expert("local", Batches(), cost=1.0)
    source, _ = source_of([local, slow("far", lambda prompt: "far")], 40)
    stream = AnswerStream(source)
    heard: list[str] = []
    for question in range(40):
        for expert in (0, 1):
            stream.ask(Request(question, expert, []), lambda answer: heard.append(answer["text"]))
    stream.run()
    assert sizes == [32, 8]
    assert (heard.count("local"), heard.count("far")) == (40, 40)


def test_an_error_ends_it_without_what_was_still_to_be_asked() -> None:
    asked: list[str] = []

    def says(prompt: str) -> str:
        asked.append(prompt)
        return "said"

    source, metric = source_of([slow("one", says, places=1)], 200)
    stream = AnswerStream(source)

    def fail(answer: Answer) -> None:
        raise RuntimeError("no more")

    for question in range(200):
        stream.ask(Request(question, 0, []), fail)
    with pytest.raises(RuntimeError, match="no more"):
        stream.run()
    assert len(asked) < 200
    assert metric.given == []


def test_a_toy_pool_is_answered_as_in_rounds() -> None:
    experts = toy_experts()
    source = AnswerSource(experts, toy_examples(6), get_metric("match"))
    stream = AnswerStream(source)
    for question in range(6):
        for expert in range(len(experts)):
            stream.ask(Request(question, expert, []), then=lambda answer: None)
    stream.run()
    other = AnswerSource(toy_experts(), toy_examples(6), get_metric("match"))
    plain = [[(o.answer["text"], o.quality) for o in row] for row in source.first_answers()]
    assert plain == [[(o.answer["text"], o.quality) for o in row] for row in other.first_answers()]
