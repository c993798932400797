"""Experts that become bad: noticed from disagreement and from feedback, and asked more rarely."""

from __future__ import annotations

import logging
import math
import pickle
import random
from collections import Counter
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert
from langgraph.store.memory import InMemoryStore

from der_graph import create_der_graph
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.drift import RECHECK, DriftWatch, LastNames
from der_graph.state import blank_answer

NAMES = ["a", "b", "c", "d"]
SKILL = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}


def said(rng: random.Random, bad: str | None = None, kind: str = "noise") -> dict[str, str | None]:
    """What three of the experts say to one question."""
    values: dict[str, str | None] = {}
    for name in rng.sample(NAMES, 3):
        right = rng.random() < SKILL[name]
        values[name] = "right" if right else f"wrong {rng.randrange(3)}"
        if name == bad:
            values[name] = str(rng.random()) if kind == "noise" else "wrong 1"
    return values


def profile() -> list[list[float]]:
    """How often two of them agree."""
    return [
        [SKILL[i] * SKILL[j] + (1 - SKILL[i]) * (1 - SKILL[j]) / 3 for j in NAMES] for i in NAMES
    ]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["noise", "wrong"])
@pytest.mark.parametrize("bad", NAMES[:3])
def test_an_expert_that_turns_bad_is_noticed_and_nobody_else(
    known: bool, kind: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(3)
    watch = DriftWatch(NAMES, profile() if known else None)
    for _ in range(400):
        assert watch.note(said(rng)) == []
    calls = 0
    with caplog.at_level(logging.WARNING, "der_graph.reliability"):
        while not watch.suspected and calls < 100:
            values = said(rng, bad, kind)
            calls += bad in values
            watch.note(values)
    assert watch.suspected == {bad}
    assert watch.view()[bad]["suspected"]
    assert f"expert '{bad}': agrees with the others far less than it used to" in caplog.text


def test_it_is_noticed_too_where_a_third_is_asked_only_if_two_differ() -> None:
    """Of three answers the first two always differ then, whoever is bad."""
    names = [f"e{number}" for number in range(8)]

    def two_or_three(rng: random.Random, bad: str) -> dict[str, str | None]:
        skill = rng.choice([0.97, 0.35])
        values: dict[str, str | None] = {}
        for name in rng.sample(names, 3):
            right = rng.random() < skill and name != bad
            values[name] = "right" if right else f"wrong {1 if name == bad else rng.choice('1123')}"
        first, second, third = values
        if values[first] == values[second]:
            del values[third]
        return values

    noticed = 0
    for seed in range(10):
        rng, watch, calls = random.Random(seed), DriftWatch(names), 0
        for _ in range(400):
            assert watch.note(two_or_three(rng, "nobody")) == []
        while calls < 40 and not watch.suspected:
            values = two_or_three(rng, "e0")
            calls += "e0" in values
            watch.note(values)
        noticed += watch.suspected == {"e0"}
    assert noticed >= 8


SHARES = [[1.0, 0.6, 0.8], [0.6, 1.0, 0.4], [0.8, 0.4, 1.0]]
"""How often a, b and c agree."""


@pytest.mark.parametrize(
    ("said", "a_is_bad", "b_is_bad"),
    [
        # All well: c agrees with one of the two in (0.8 + 0.4) / 2 = 0.6, with a twice as often as with
        # b: 0.4 and 0.2. If b is bad, c agrees with a in 0.8, with b half as often as it did: 0.1.
        # If a is bad, c agrees with b in 0.4, with a in 0.2.
        ("x", 0.2 / 0.4, 0.8 / 0.4),
        ("y", 0.4 / 0.2, 0.1 / 0.2),
        ("neither", 0.4 / 0.4, 0.1 / 0.4),
    ],
)
def test_what_a_third_answer_speaks_where_two_differ(
    said: str, a_is_bad: float, b_is_bad: float
) -> None:
    watch = DriftWatch(["a", "b", "c"], SHARES)
    before = {"a": "x", "b": "y"}
    joins = watch._joins("c", before)
    assert joins == pytest.approx({"x": 0.4, "y": 0.2})
    against = {each: watch._without("c", said, before, each, joins, True) for each in before}
    assert against == pytest.approx({"a": math.log(a_is_bad), "b": math.log(b_is_bad)})


def test_what_a_third_answer_speaks_where_two_agree() -> None:
    """If b is bad, that it agrees with a tells nothing of a: c agrees as often as with a alone."""
    watch = DriftWatch(["a", "b", "c"], SHARES)
    before = {"a": "x", "b": "x"}
    joins = watch._joins("c", before)
    assert joins == pytest.approx({"x": 0.6})
    assert watch._without("c", "x", before, "b", joins, True) == pytest.approx(math.log(0.8 / 0.6))
    assert watch._without("c", "z", before, "b", joins, True) == pytest.approx(math.log(0.2 / 0.4))


def test_before_it_is_known_how_often_a_third_agrees_only_whom_it_joins_tells() -> None:
    watch = DriftWatch(["a", "b", "c"], SHARES)
    before = {"a": "x", "b": "y"}
    joins = watch._joins("c", before)
    # Of those that c joins, a is two thirds; if b is bad, 0.8 of 0.9.
    told = watch._without("c", "x", before, "b", joins, False)
    assert told == pytest.approx(math.log((0.8 / 0.9) / (0.4 / 0.6)))
    assert watch._without("c", "neither", before, "b", joins, False) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_what_speaks_for_bad_experts_is_a_likelihood_ratio(seed: int) -> None:
    """Where all are well its mean is 1: so evidence does not grow."""
    rng = random.Random(seed)
    names = [f"e{number}" for number in range(6)]
    watch = DriftWatch(names, [[rng.random() for _ in names] for _ in names])
    for _ in range(100):
        asked = rng.sample(names, rng.randint(2, 6))
        watch.note({name: rng.choice("xxy z") for name in asked})
    *others, name = rng.sample(names, rng.randint(2, 6))
    before = {other: rng.choice("xyz") for other in others}
    joins = watch._joins(name, before)
    well = {**joins, "no other": 1 - sum(joins.values())}
    for each in before:
        ratios = {v: math.exp(watch._without(name, v, before, each, joins, True)) for v in well}
        assert sum(well[v] * ratios[v] for v in well) == pytest.approx(1.0)


def test_one_that_falls_for_what_others_fall_for_is_noticed_where_a_third_is_asked_if_two_differ() -> (
    None
):
    """Of the others' wrong answers half are the same, and it always gives that one."""
    names = [f"e{number}" for number in range(8)]

    def two_or_three(rng: random.Random, bad: str) -> dict[str, str | None]:
        skill = rng.choice([0.95, 0.1])
        values: dict[str, str | None] = {}
        for name in rng.sample(names, 3):
            right = rng.random() < skill and name != bad
            lured = name == bad or rng.random() < 0.5
            values[name] = "right" if right else "lure" if lured else f"wrong {rng.random()}"
        first, second, third = values
        if values[first] == values[second]:
            del values[third]
        return values

    found = Counter[str]()
    for seed in range(10):
        rng, watch, calls = random.Random(seed), DriftWatch(names), 0
        for _ in range(300):
            watch.note(two_or_three(rng, "nobody"))
        assert watch.suspected == frozenset()
        while calls < 50 and not watch.suspected:
            values = two_or_three(rng, "e0")
            calls += "e0" in values
            watch.note(values)
        found.update(watch.suspected)
    assert found["e0"] >= 9
    assert set(found) == {"e0"}


def test_one_that_is_well_again_is_let_back() -> None:
    rng = random.Random(4)
    watch = DriftWatch(NAMES, profile())
    for _ in range(200):
        watch.note(said(rng))
    while not watch.suspected:
        watch.note(said(rng, "a"))
    for _ in range(300):  # it is asked first, and is compared with those who come after it
        values = said(rng)
        watch.note({name: values[name] for name in sorted(values)})
    assert watch.suspected == set()


@pytest.mark.parametrize("agree", [0.15, 0.45, 0.95])
def test_service_that_differs_from_the_profile_is_no_alarm(agree: float) -> None:
    """Second opinions are asked on hard questions, and later experts read earlier answers."""
    rng = random.Random(5)
    watch = DriftWatch(["a", "b"], [[1.0, 0.7], [0.7, 1.0]])
    alarms = 0
    for _ in range(1500):
        alarms += len(watch.note({"a": "x", "b": "x" if rng.random() < agree else "y"}))
    assert alarms == 0


def test_answers_that_never_agree_tell_nothing() -> None:
    watch = DriftWatch(["a", "b"])
    for number in range(2000):
        assert watch.note({"a": f"an essay {number}", "b": f"another {number}"}) == []


def test_feedback_tells_too() -> None:
    rng = random.Random(6)
    watch = DriftWatch(["a", "b"], quality=[0.9, 0.9])
    expert, _ = scripted_expert("a", "5")
    (answer,) = expert.ask([[]])
    for number in range(300):  # users complain more often than there is reason to
        watch.ended(str(number), [answer])
        watch.rated(str(number), float(rng.random() < 0.6))
    assert watch.suspected == set()
    for number in range(300, 400):
        watch.ended(str(number), [answer])
        watch.rated(str(number), 0.0)
    watch.rated("never seen", 0.0)
    assert watch.suspected == {"a"}


def test_ratings_of_routes_tell_too() -> None:
    watch = DriftWatch(NAMES, quality=[0.8] * 4)
    for number in range(60):
        expert = "a" if number % 2 else "b"
        watch.ended(f"route {number}", [blank_answer(expert, text="5", value="5")])
    for number in range(60):
        for _ in range(2):  # the second time it is forgotten
            watch.rated(f"route {number}", 0.0 if number % 2 and number > 20 else 1.0)
    assert watch.suspected == {"a"}


def test_of_routes_the_last_ones_are_remembered() -> None:
    routes = LastNames(3)
    for number, name in enumerate(["a", "b", "a", "c", "d"]):
        routes.put(name, number)
    assert [routes.get(name) for name in ("a", "b", "c", "d", "d")] == [2, None, 3, 4, 4]
    for name in "acd":  # takes no second place
        routes.change(name, 9)
    assert [routes.get(name) for name in "acd"] == [9, 9, 9]


def test_a_route_whose_end_is_replayed_is_noted_once() -> None:
    once, again = DriftWatch(NAMES), DriftWatch(NAMES)
    for number in range(60):
        said = ["5", "7" if number > 40 else "5", "5"]
        answers = [blank_answer(n, text=v, value=v) for n, v in zip(NAMES, said, strict=False)]
        for watch, times in ((once, 1), (again, 3)):
            for _ in range(times):
                watch.ended(f"route {number}", answers)
                watch.rated(f"route {number}", 1.0)
    assert once.view() == again.view()
    assert once.evidence("b") > 0


def test_a_watch_does_not_grow() -> None:
    watch = DriftWatch(NAMES)
    sizes = []
    for number in range(2_000):
        watch.ended(f"route {number}", [blank_answer("a", text="5", value="5")])
        sizes.append(len(pickle.dumps(watch)) if number in (10, 1_999) else 0)
    assert sizes[-1] - sizes[10] < 20


def test_a_suspected_expert_is_asked_as_rarely_as_one_that_fails() -> None:
    watch = DriftWatch(["bad", "good"])
    watch._suspected.add("bad")
    experts = [scripted_expert("bad", "6")[0], scripted_expert("good", "5")[0]]
    graph = create_der_graph(experts, agent=ScriptedAgent("bad"), watch=watch).compile()
    firsts = [route_of(graph.invoke(a_human("2 + 3?")))[0] for _ in range(3 * RECHECK)]
    assert 1 <= firsts.count("bad") <= 8
    alone = create_der_graph(experts[:1], agent=ScriptedAgent("bad"), watch=watch).compile()
    assert route_of(alone.invoke(a_human("2 + 3?"))) == ["bad", "END"]


def test_a_graph_that_learns_has_a_watch(caplog: pytest.LogCaptureFixture) -> None:
    turned: list[bool] = []

    def answers(name: str) -> Any:
        def say(question: str) -> str:
            number = question.rsplit(maxsplit=1)[-1].strip("?")
            return f"{number}77" if turned and name == "b" else number

        return say

    experts = [as_expert(answers(name), name=name, cost=1.0) for name in "abc"]
    agent = ScriptedAgent("a", "b", "c")
    graph = create_der_graph(experts, agent=agent, learn=InMemoryStore(), ktp="none").compile()
    for number in range(110):
        if number == 60:
            turned.append(True)
        graph.invoke(a_human(f"What is {number}?"))
    assert "expert 'b': agrees with the others far less" in caplog.text
    assert "expert 'a'" not in caplog.text
