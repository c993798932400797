"""Many questions into a file: asked once, within the budget, and gone on with after a stop."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_runs import recorded, run

from der_graph.batch import GIVE_UP, answer_file, first_decisions
from der_graph.data import Example
from der_graph.errors import BudgetError, DataError, ExpertError
from der_graph.nodes.langchain import as_expert
from der_graph.policies.answers import AnswerCache
from der_graph.policies.baselines import FixedOrder, Single
from der_graph.pool import Pool, pool_from
from der_graph.progress_bar import AnswerBar
from der_graph.state import DERContext

__all__ = ["recorded"]

QUESTIONS = [Example(f"q{i}", f"Question {i}?", "") for i in range(8)]


class Clerk:
    """Answers by hand, counts, and fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: set[str] = set()
        self.recovers = ""
        self._lock = threading.Lock()

    def pool(self, cost: float = 1.0) -> Pool:
        def answer(question: str) -> str:
            with self._lock:
                self.asked.append(question)
            if question == self.recovers:
                self.fails = set()
            if question in self.fails:
                raise ValueError("out of ink")
            return f"answer to {question}"

        return pool_from(
            [as_expert(answer, name="clerk", cost=cost, fingerprint="clerk-1")], cost_unit="usd"
        )


AGENT = Single(["clerk"], [1.0], "clerk")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_question_has_a_line_in_order_and_is_asked_once(tmp_path: Path) -> None:
    clerk, out = Clerk(), tmp_path / "out.jsonl"
    twice = Example("again", " question 3? ", "", history=())
    done = answer_file(clerk.pool(), AGENT, [*QUESTIONS, twice], out, concurrency=3)
    assert (done.answered, done.failed, done.left, done.cost) == (9, 0, 0, 8.0)
    found = rows(out)
    assert [row["id"] for row in found] == [*(e.id for e in QUESTIONS), "again"]
    assert found[3]["answer"] == found[8]["answer"] == "answer to Question 3?"
    assert (found[3]["experts"], found[3]["cost"], found[8]["cost"]) == (["clerk"], 1.0, 0.0)
    assert sorted(clerk.asked) == [e.question for e in QUESTIONS]


def test_the_same_run_goes_on_from_its_file(tmp_path: Path) -> None:
    clerk, out = Clerk(), tmp_path / "out.jsonl"
    pool = clerk.pool()
    answer_file(pool, AGENT, QUESTIONS[:3], out)
    with out.open("a") as file:
        file.write('{"id": "q5", "question": "Ques')  # killed here
    done = answer_file(pool, AGENT, QUESTIONS, out)
    assert (done.answered, done.before, done.cost) == (8, 3, 8.0)
    assert len(clerk.asked) == 8
    assert [row["id"] for row in rows(out)] == [e.id for e in QUESTIONS]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clerk, out = Clerk(), tmp_path / "out.jsonl"

    def stopped(self: AnswerBar, count: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AnswerBar, "advance", stopped)
        with pytest.raises(KeyboardInterrupt):
            answer_file(clerk.pool(), AGENT, QUESTIONS, out, concurrency=1)
    assert [row["id"] for row in rows(out)] == ["q0"]
    assert answer_file(clerk.pool(), AGENT, QUESTIONS, out).answered == 8


def test_the_budget_of_the_whole_file_is_hard(tmp_path: Path) -> None:
    names = ["a", "b"]
    pool = pool_from(
        [as_expert(lambda question: question, name=name, cost=1.0, fingerprint=name) for name in names],
        max_steps=2, cost_unit="usd",
    )  # fmt: skip
    both = FixedOrder(names, [1.0, 1.0], names)
    out = tmp_path / "out.jsonl"
    done = answer_file(pool, both, QUESTIONS, out, budget=7.5, concurrency=4)
    assert (done.answered, done.left, done.cost) == (4, 4, 7.0)  # the last one with one expert
    assert [len(row["experts"]) for row in rows(out)] == [2, 2, 2, 1]
    done = answer_file(pool, both, QUESTIONS, out, budget=10.0, concurrency=4)
    assert (done.answered, done.left, done.cost) == (6, 2, 10.0)
    assert answer_file(pool, both, QUESTIONS, out, budget=10.0).answered == 6
    assert answer_file(pool, both, QUESTIONS, out).answered == 8


def test_experts_dearer_than_the_whole_budget_are_named(tmp_path: Path) -> None:
    prices = {"cheap": 0.001, "dear": 0.02, "barred": 0.03}
    pool = pool_from(
        [
            as_expert(lambda question: question, name=name, cost=cost, fingerprint=name)
            for name, cost in prices.items()
        ],
        cost_unit="usd",
    )
    agent = FixedOrder(list(prices), list(prices.values()), ["dear", "cheap"])
    lines: list[str] = []
    answer_file(
        pool, agent, QUESTIONS[:2], tmp_path / "out.jsonl", budget=0.01, say=lines.append,
        context=DERContext(forbidden_experts=["barred"]),
    )  # fmt: skip
    assert lines[0].startswith(
        "warning: one call of dear may cost more than the whole budget of 0.01"
    )


def test_what_failed_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    clerk, out = Clerk(), tmp_path / "out.jsonl"
    clerk.fails = {"Question 2?"}
    done = answer_file(clerk.pool(), AGENT, QUESTIONS, out, concurrency=1)
    assert (done.answered, done.failed) == (7, 1)
    assert "out of ink" in done.error
    assert "out of ink" in rows(out)[2]["error"]
    clerk.fails, clerk.asked = set(), []
    done = answer_file(clerk.pool(), AGENT, QUESTIONS, out)
    assert (done.answered, done.failed) == (8, 0)
    assert clerk.asked == ["Question 2?"]
    assert sum(row["cost"] for row in rows(out)) == done.cost


def test_what_failed_is_asked_once_more_at_the_end(tmp_path: Path) -> None:
    clerk, out = Clerk(), tmp_path / "out.jsonl"
    clerk.fails = {"Question 2?"}
    clerk.recovers = "Question 7?"
    done = answer_file(clerk.pool(), AGENT, QUESTIONS, out, concurrency=1)
    assert (done.answered, done.failed, done.error) == (8, 0, "")
    assert clerk.asked[-1] == "Question 2?"
    assert [row["id"] for row in rows(out)] == [e.id for e in QUESTIONS]
    assert sum(row["cost"] for row in rows(out)) == done.cost


def test_a_run_of_failures_ends_early(tmp_path: Path) -> None:
    many = [Example(str(i), f"{i}?", "") for i in range(3 * GIVE_UP)]
    clerk = Clerk()
    clerk.fails = {example.question for example in many}
    with pytest.raises(
        ExpertError, match=f"none of the first {GIVE_UP} questions could be answered"
    ):
        answer_file(clerk.pool(), AGENT, many, tmp_path / "out.jsonl", concurrency=1)
    with pytest.raises(BudgetError, match=r"max_cost=0.5 does not pay for a single call"):
        answer_file(
            Clerk().pool(), AGENT, many, tmp_path / "b.jsonl", context=DERContext(max_cost=0.5)
        )


def test_another_runs_file_is_left_alone(tmp_path: Path) -> None:
    pool, out = Clerk().pool(), tmp_path / "out.jsonl"
    answer_file(pool, AGENT, QUESTIONS, out)
    before = out.read_text()
    for message, change in (
        ("another pool, agent or limits", {"context": DERContext(max_steps=1)}),
        ("another question than those to ask", {"examples": QUESTIONS[1:]}),
    ):
        given: dict[str, Any] = {"examples": QUESTIONS} | change
        with pytest.raises(DataError, match=message):
            answer_file(pool, AGENT, out=out, **given)
    out.write_text("my notes\nand more\n")
    with pytest.raises(DataError, match="no answer of an earlier run"):
        answer_file(pool, AGENT, QUESTIONS, out)
    assert out.read_text() == "my notes\nand more\n"
    assert before.count("\n") == 8
    with pytest.raises(DataError, match="cannot be written"):
        answer_file(pool, AGENT, QUESTIONS, tmp_path / "none" / "out.jsonl")


def test_answers_of_the_cache_are_not_asked_for_again(tmp_path: Path) -> None:
    clerk, cache = Clerk(), AnswerCache(tmp_path / "c.db")
    for name in ("a.jsonl", "b.jsonl"):
        done = answer_file(clerk.pool(), AGENT, QUESTIONS, tmp_path / name, cache=cache)
        assert done.answered == 8
    assert len(clerk.asked) == 8


def test_without_a_fingerprint_nothing_is_kept(tmp_path: Path) -> None:
    lock = threading.Lock()  # cannot be looked into

    def answer(question: str) -> str:
        with lock:
            return "x"

    cache = AnswerCache(tmp_path / "c.db")
    pool = pool_from([as_expert(answer, name="clerk", cost=1.0)])
    assert pool["clerk"].fingerprint == ""
    assert answer_file(pool, AGENT, QUESTIONS, tmp_path / "a.jsonl", cache=cache).answered == 8
    assert cache.stats().answers == 0


def test_who_would_be_asked_first() -> None:
    clerk = Clerk()
    (decision,) = first_decisions(clerk.pool(), AGENT, QUESTIONS[:1])
    assert (decision["choice"], decision["probabilities"]["clerk"]) == ("clerk", 1.0)
    assert clerk.asked == []
    with pytest.raises(BudgetError):
        first_decisions(clerk.pool(), AGENT, QUESTIONS[:1], DERContext(max_cost=0.5))


def test_the_command(
    recorded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, data = recorded
    pool.write_text(pool.read_text().replace("settings: {", "settings: {agent: planner, "))
    out, cache = tmp_path / "out.jsonl", tmp_path / "c.db"
    given = ("ask", "--file", data, "--pool", pool, "--cache", cache, "--limit", 5)
    assert run(*given, "--out", out) == 0
    assert f"{out}: 5 of 5 questions answered, for" in capsys.readouterr().out
    assert len(rows(out)) == 5
    assert (
        run(*given, "--out", tmp_path / "b.jsonl", "--budget", 8, "--allow", "small", "--json") == 1
    )
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "answered": 1, "failed": 0, "left": 4, "cost": 7.0, "before": 0, "error": "",
    }  # fmt: skip
    assert (
        "the budget is used up, as 1.000 B are left and another call may cost more" in printed.err
    )
    assert "4 questions were not asked" in printed.err
    assert run(*given, "--out", data) == 2
    assert "is the file of questions; give another one" in capsys.readouterr().err
    assert run(*given, "--route-only", "--forbid", "big", "--out", tmp_path / "c.jsonl") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["small", "5", "100%"]
    assert rows(tmp_path / "c.jsonl")[0]["choice"] == "small"
    question = rows(out)[0]["question"]
    assert run("ask", question, "--pool", pool, "--forbid", "big", "--route-only") == 0
    assert "ask small" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give one question, or --file with many"),
        (("x", "--file", "a.jsonl"), "give one question, or --file with many"),
        (("x", "--budget", "1"), "--out and --budget are for many questions"),
        (("--file", "DATA"), "--file needs --out"),
        (("--file", "DATA", "--out", "o", "--concurrency", "0"), "concurrency is 0"),
    ],
)
def test_mistakes_are_said(
    recorded: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    pool, data = recorded
    filled = [str(data) if word == "DATA" else word for word in words]
    assert run("ask", *filled, "--pool", pool) == 2
    assert says in capsys.readouterr().err
