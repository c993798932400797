"""Answers age: when they were given is kept, and a model that has changed behind its name is found."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import an_answer
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from toy import WordEncoder, profile_observer, toy_examples

from der_graph.data import Example
from der_graph.errors import CacheError, DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import ktp_template
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import is_remote
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, make_network
from der_graph.policies.answers import AnswerCache, AnswerSource, Outcome
from der_graph.policies.answers.source import Repeated
from der_graph.policies.quality import get_metric
from der_graph.policies.training.new_experts import probe_expert, refresh_expert

EXAMPLES = [Example(str(i), f"What is {i} + 1?", str(i + 1)) for i in range(8)]


def remote(right: bool, version: str = "m-1") -> Expert:
    """A remote model, before or after it went bad, behind the same name."""

    def answer(messages: list[BaseMessage]) -> AIMessage:
        number = int(messages[-1].text.split()[2])
        return AIMessage(
            str(number + 1 if right else 99), response_metadata={"model_name": version}
        )

    return as_expert(answer, name="dear", cost=1.0, fingerprint="openai:dear", max_concurrency=2)


def source(expert: Expert, cache: AnswerCache) -> AnswerSource:
    made = AnswerSource([expert], EXAMPLES, get_metric("match"), cache=cache)
    made.first_answers()
    return made


def test_a_model_that_went_bad_is_found_behind_the_cache(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.db")
    assert source(remote(True), cache).ask_again(4) == []  # nothing came from the cache
    hidden = source(remote(False), cache)
    assert all(row[0].quality == 1.0 for row in hidden.first_answers())
    (found,) = hidden.ask_again(4)
    assert (found.expert, len(found.new), found.different) == ("dear", 8, 8)
    assert found.qualities() == (1.0, 0.0)
    assert found.since == pytest.approx(time.time(), abs=60)
    assert found.line().startswith("warning: dear: 8 cached answers asked again")
    assert "der pool refresh dear" in found.line()
    assert cache.stats().answers == 8  # what is said now does not mix with what was said then
    (same,) = source(remote(True), cache).ask_again(4)
    assert not same.changed
    (renamed,) = source(remote(True, "m-2"), cache).ask_again(4)
    assert "the provider's model is 'm-2', was 'm-1'" in renamed.line()


def test_a_model_that_draws_its_answers_is_not_taken_for_another_one() -> None:
    def repeated(then: str, now: str) -> Repeated:
        old, new = (
            [
                Outcome(an_answer("a", text=f"{i}{mark}"), float(mark == "+"))
                for i, mark in enumerate(marks)
            ]
            for marks in (then, now)
        )
        return Repeated("dear", old, new, None)

    assert not repeated("+++++", "+++--").changed  # two of five may be chance
    assert not repeated("+-+-+-+-+-", "-+-++--+-+").changed
    assert repeated("++++++++++-", "+++-------+").changed


def test_more_is_asked_where_something_is_different(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.db")
    source(remote(True), cache)
    (same,) = source(remote(True), cache).ask_again(2)
    (other,) = source(remote(False), cache).ask_again(2)
    assert (len(same.old), len(other.old)) == (2, 8)
    assert other.changed
    assert source(remote(True), cache).ask_again(0) == []


def test_remote_models_are_known_under_what_is_bound_to_them() -> None:
    bounded = remote(True).model
    assert is_remote(bounded)
    assert is_remote(bounded.bind(stop=["x"]).with_retry())
    assert not is_remote(RunnableLambda(str))


def test_a_cache_of_the_first_version_is_read_and_gets_dates(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    AnswerCache(path).close()
    with sqlite3.connect(path) as old:
        old.execute("DROP TABLE answers")
        old.execute(
            "CREATE TABLE answers (key TEXT PRIMARY KEY, expert TEXT NOT NULL, answer TEXT NOT NULL) "
            "WITHOUT ROWID"
        )
        old.execute("PRAGMA user_version = 1")
    old.close()
    cache = AnswerCache(path)
    cache.put_many({"k": an_answer("a")})
    assert cache.stats().oldest["a"] == pytest.approx(time.time(), abs=60)
    assert list(cache.made(["k", "none"])) == ["k"]
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(CacheError, match="version 9"):
        AnswerCache(path)


def test_a_refreshed_expert_is_known_by_what_it_says_now() -> None:
    observer = profile_observer()
    shape = Shape(4, observer.context_size, observer.expert_size, 8, "profile")
    agent = DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))
    fallen = as_expert(lambda question: "squawk", name="facts", cost=2.0)
    changed, quality = refresh_expert(agent, fallen, toy_examples(20), count=20)
    assert quality == 0.0
    assert observer.skill[2] == pytest.approx(0.5)
    assert changed.observer.skill[2] == 0.0
    assert changed.names == agent.names
    others = [0, 1, 3]
    assert changed.observer.skill[others].tolist() == observer.skill[others].tolist()
    assert agent.observer.skill[2] == pytest.approx(0.5)  # the agent before is as it was
    assert isinstance(observer.encoder, WordEncoder)


@pytest.mark.parametrize("head", ["profile", "fixed"])
def test_old_answers_are_dropped_once_the_expert_has_answered(tmp_path: Path, head: Any) -> None:
    """They were dropped before, and lost where its provider was down."""
    observer = profile_observer()
    shape = Shape(4, observer.context_size, observer.expert_size, 8, head)
    agent = DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))
    cache = AnswerCache(tmp_path / "c.db")

    def facts(says: Callable[[str], str]) -> Expert:
        return as_expert(says, name="facts", cost=2.0, fingerprint="openai:facts")

    def down(question: str) -> str:
        raise ConnectionError("refused")

    def held() -> list[str]:
        prompts = facts(str).prompt([], examples[0].question, [], ktp_template("default"))
        kept = cache.get_many(["old", facts(str).cache_key(prompts)])
        return [answer["text"] for answer in kept.values()]

    examples = toy_examples(20)
    AnswerSource(
        [facts(lambda question: "well")], examples, get_metric("match"), cache=cache
    ).first_answers()
    cache.put_many({"old": an_answer("facts"), "other": an_answer("b")})
    with pytest.raises(DataError, match="answered none of 20"):
        refresh_expert(agent, facts(down), examples, count=20, cache=cache)
    assert sorted(held()) == ["42", "well"]
    refresh_expert(agent, facts(lambda question: "squawk"), examples, count=20, cache=cache)
    assert held() == ["squawk"]
    assert cache.stats().experts == {"facts": 20, "b": 1}


def test_what_was_answered_is_kept_where_the_judge_fails(tmp_path: Path) -> None:
    """It was paid for, and lost; old answers to other questions stay until all are answered."""
    observer = profile_observer()
    shape = Shape(4, observer.context_size, observer.expert_size, 8, "profile")
    agent = DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))
    expert = as_expert(lambda question: "squawk", name="facts", cost=2.0, fingerprint="openai:f")
    cache = AnswerCache(tmp_path / "c.db")
    cache.put_many({"old": an_answer("facts")})

    class Interrupted:
        name = "judge"
        needs_reference = False

        def score(self, answers: Any, examples: Any) -> list[float]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh_expert(agent, expert, toy_examples(20), count=20, metric=Interrupted(), cache=cache)
    assert cache.stats().experts == {"facts": 21}
    refresh_expert(agent, expert, toy_examples(20), count=20, cache=cache)
    assert cache.stats().experts == {"facts": 20}


def test_an_expert_whose_tokens_nobody_counted_is_not_taken_for_free() -> None:
    observer = profile_observer()
    shape = Shape(4, observer.context_size, observer.expert_size, 8, "profile")
    agent = DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))
    for name, change in (("facts", refresh_expert), ("new", probe_expert)):
        expert = as_expert(lambda question: "squawk", name=name, cost=2.0, token_prices=(1.0, 2.0))
        changed, _ = change(agent, expert, toy_examples(20), count=20)
        assert changed.observer.costs[changed.names.index(name)] == 2.0
