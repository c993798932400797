"""Filling the answer cache ahead of training: everything once, and on from where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from toy import toy_examples, toy_experts, toy_rules

from der_graph.cli import main
from der_graph.data import Example, load_examples
from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert, bounded
from der_graph.policies.answers import AnswerCache, AnswerSource, open_cache
from der_graph.policies.answers.collect import (
    Done,
    Job,
    LocalEngine,
    chunks_of,
    collect_answers,
)
from der_graph.policies.answers.source import MAX_BATCH
from der_graph.policies.quality import get_metric
from der_graph.policies.training.mdp import Lockstep
from der_graph.pool import load_pool


def calls(experts: Sequence[Expert]) -> list[int]:
    return [expert.model.func.calls for expert in experts]  # type: ignore[attr-defined]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[AnswerCache]:
    with open_cache(tmp_path / "answers.db") as opened:
        yield opened


def test_first_answers(cache: AnswerCache) -> None:
    experts, lines = toy_experts(), list[str]()
    done = collect_answers(experts, toy_examples(6), cache, progress=False, say=lines.append)
    assert calls(experts) == [6, 6, 6, 6]
    assert dict(done.asked) == {"writer": 6, "counter": 6, "facts": 6, "parrot": 6}
    assert (done.cached, done.failed) == (0, {})
    assert lines == ["depth 1: 24 answers, 0 of them cached"]
    again = collect_answers(experts, toy_examples(6), cache, progress=False)
    assert (again.cached, sum(again.asked.values())) == (24, 0)
    assert calls(experts) == [6, 6, 6, 6]


def test_answers_to_what_is_handed_on(cache: AnswerCache) -> None:
    """Of a fact and a sum. The writer looks at the question alone: nothing new. The counter gets the other's
    answer alone, so five: "no idea", a colour, the sum's expression, "not sure", and "squawk" once for both.
    Facts and parrot get each question with each of three answers."""
    experts = toy_experts()
    done = collect_answers(experts, toy_examples(2), cache, depth=2, progress=False)
    assert calls(experts) == [2, 2 + 5, 2 + 6, 2 + 6]
    assert (done.cached, cache.stats().answers) == (0, 2 + 7 + 8 + 8)


def test_training_after_it_asks_nobody(cache: AnswerCache) -> None:
    """Every route of two calls over every question finds its answers in the cache."""
    examples = toy_examples(4)
    collect_answers(toy_experts(), examples, cache, depth=2, progress=False)
    experts = toy_experts()
    source = AnswerSource(experts, examples, get_metric("match"), cache=cache)
    routes = Lockstep(source, toy_rules(experts, max_steps=2), 1)
    for example in range(len(examples)):
        for a in range(4):
            for b in set(range(4)) - {a}:
                routes.start(0, example)
                routes.advance([a])
                routes.advance([b])
    assert (source.generated, calls(experts)) == (0, [0, 0, 0, 0])


class Interrupted(LocalEngine):
    """Ctrl-C after the first batch."""

    def answers(self, jobs: Sequence[Job]) -> Iterator[Done]:
        yield next(super().answers(jobs))
        raise KeyboardInterrupt


def test_an_interrupted_collection_goes_on(cache: AnswerCache) -> None:
    experts, examples = toy_experts(), toy_examples(MAX_BATCH + 8)
    with pytest.raises(KeyboardInterrupt):
        collect_answers(experts, examples, cache, engine=Interrupted(experts), progress=False)
    assert cache.stats().answers == MAX_BATCH
    done = collect_answers(experts, examples, cache, progress=False)
    assert done.cached == MAX_BATCH
    assert sum(calls(experts)) == 4 * len(examples)  # none twice


def test_a_failing_expert_is_reported_and_asked_again_next_time(cache: AnswerCache) -> None:
    down = [True]

    def answer(text: str) -> str:
        if down[0]:
            raise ConnectionError("gone for a moment")
        return "red"

    experts = [as_expert(answer, name="a", cost=1.0), toy_experts()[3]]
    done = collect_answers(experts, toy_examples(2), cache, depth=2, progress=False)
    # The parrot's answer is handed to `a`, which fails again; nothing is handed on by a failed call.
    assert dict(done.failed) == {"a": 4}
    assert done.errors == {"a": "ConnectionError: gone for a moment"}
    assert cache.stats().experts == {"parrot": 2}
    down[0] = False
    assert not collect_answers(experts, toy_examples(2), cache, depth=2, progress=False).failed
    assert cache.stats().experts == {"a": 4, "parrot": 4}


def test_local_and_remote_experts_are_both_asked(cache: AnswerCache) -> None:
    remote = [
        as_expert(str.upper, name=name, cost=1.0, max_concurrency=2, fingerprint=name)
        for name in "ab"
    ]
    experts = [remote[0], toy_experts()[3], remote[1]]
    done = collect_answers(experts, toy_examples(MAX_BATCH + 1), cache, progress=False)
    assert dict(done.asked) == {"a": 33, "parrot": 33, "b": 33}


def test_batches_are_of_one_expert_and_of_similar_lengths() -> None:
    from langchain_core.messages import HumanMessage

    jobs = [Job(i % 2, f"{i}", [HumanMessage("x" * (i + 1))]) for i in range(2 * MAX_BATCH + 2)]
    chunks = chunks_of(jobs)
    assert [len(chunk) for chunk in chunks] == [MAX_BATCH, 1, MAX_BATCH, 1]
    assert all(len({job.expert for job in chunk}) == 1 for chunk in chunks)
    assert chunks[0][0].key == f"{2 * MAX_BATCH}"  # the longest prompt first
    assert sorted(job.key for chunk in chunks for job in chunk) == sorted(job.key for job in jobs)


def test_what_cannot_be_collected(cache: AnswerCache) -> None:
    with pytest.raises(DataError, match="depth is 0"):
        collect_answers(toy_experts(), toy_examples(1), cache, depth=0)
    with pytest.raises(DataError, match="no questions"):
        collect_answers(toy_experts(), [], cache)


@pytest.fixture
def recorded_pool(tmp_path: Path) -> Path:
    """A pool file of two recorded experts, and its data beside it."""
    rows = [
        {
            "id": f"q{i}",
            "question": f"What is {i} + 1?",
            "answer": f"{i + 1}",
            "candidates": [{"model": m, "text": f"{m} says {i + 1}"} for m in ("a", "b")],
        }
        for i in range(70)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "pool.yaml").write_text(
        "experts:\n"
        "  - {name: a, backend: recorded, data: rows.jsonl, cost: 1}\n"
        "  - {name: b, backend: recorded, data: rows.jsonl, cost: 2}\n",
        encoding="utf-8",
    )
    return tmp_path / "pool.yaml"


def command(pool: Path, cache: str, *more: str) -> list[str]:
    data = pool.with_name("rows.jsonl")
    return [
        "collect",
        "--pool",
        str(pool),
        "--data",
        str(data),
        "--cache",
        str(pool.with_name(cache)),
        *more,
    ]


def test_the_command(recorded_pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(recorded_pool, "c.db", "--limit", "5", "--depth", "2")) == 0
    assert "10 answers generated, 0 were cached" in capsys.readouterr().err
    assert main(command(recorded_pool, "c.db", "--limit", "6")) == 0
    assert "2 answers generated, 10 were cached" in capsys.readouterr().err


def test_ctrl_c_ends_the_command_cleanly(
    recorded_pool: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(self: LocalEngine, jobs: Sequence[Job]) -> Iterator[Done]:
        yield self._ask(chunks_of(jobs)[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalEngine, "answers", answers)
    assert main(command(recorded_pool, "c.db")) == 130
    assert "the same command asks the rest" in capsys.readouterr().err
    with open_cache(recorded_pool.with_name("c.db")) as cache:
        assert cache.stats().answers == MAX_BATCH


@pytest.mark.slow
def test_a_ray_cluster_collects_the_same(recorded_pool: Path) -> None:
    """Real Ray on this machine, in a process of its own: it opens sockets that the tests do not allow."""
    pytest.importorskip("ray")
    arguments = command(recorded_pool, "ray.db", "--engine", "ray", "--workers", "2")
    done = subprocess.run(
        [sys.executable, "-m", "der_graph", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    assert "140 answers generated, 0 were cached" in done.stderr
    pool = load_pool(recorded_pool)
    examples = load_examples(recorded_pool.with_name("rows.jsonl"))
    with open_cache(recorded_pool.with_name("ray.db")) as cache:
        source = AnswerSource(list(pool), examples, get_metric("match"), cache=cache)
        assert source.first_answers()[69][1].answer["text"] == "b says 70"
        assert source.generated == 0


def test_a_cluster_that_is_not_there(
    recorded_pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    arguments = ("--engine", "ray", "--address", "127.0.0.1:1")
    assert main(command(recorded_pool, "ray.db", *arguments)) == 2
    assert "no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
    assert main(command(recorded_pool, "ray.db", "--engine", "ray", "--workers", "0")) == 2
    assert "--workers is 0" in capsys.readouterr().err


def test_a_slow_call_holds_up_nobody_but_its_own_batch(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call waits for one of the next batch, which is asked meanwhile, within the bound."""
    monkeypatch.setattr("der_graph.policies.answers.source.MAX_BATCH", 2)
    begun, later = threading.Event(), threading.Event()
    lock, running, most = threading.Lock(), [0], [0]

    def answer(question: str) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            if question == "1":
                begun.set()
                return "yes" if later.wait(20) else "no"
            if question == "33333":
                begun.wait(20)
                later.set()
            return "yes"
        finally:
            with lock:
                running[0] -= 1

    expert = as_expert(answer, name="slow", cost=1.0, fingerprint="slow")
    expert = replace(expert, model=bounded(expert.model, 2))
    examples = [Example(text, text, "yes") for text in ("1", "22", "33333", "4444444", "555555555")]
    source = AnswerSource([expert], examples, get_metric("match"), cache=cache)
    assert [row[0].quality for row in source.first_answers()] == [1.0] * 5
    assert source.generated == 5
    assert most == [2]
    assert cache.stats().answers == 5
