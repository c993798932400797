"""The command line: what a user types, what he reads, and never a traceback for his own mistake."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from cli_runs import run
from toy import WordEncoder, toy_agent, toy_examples, toy_experts, toy_source

from der_graph.commands.options.common import answer_cache
from der_graph.pool import pool_from


def test_train_ask_and_json(
    recorded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    pool, data = recorded
    cache = tmp_path / "answers.db"
    out = tmp_path / "agent"
    code = run(
        "train", "--pool", pool, "--data", data, "--out", out, "--steps", 2048, "--cache", cache,
        "--metric", "recorded:accuracy", "--question-dims", 2,
    )  # fmt: skip
    printed = capsys.readouterr().err
    assert code == 0, printed
    assert "big: quality alone 1.000" in printed
    assert (out / "agent.safetensors").is_file()

    question = toy_examples(2)[1].question
    assert run("ask", question, "--pool", pool, "--agent", out) == 0
    shown, said = capsys.readouterr()
    assert "loading the agent's text encoder" in said  # that takes some seconds
    assert "agent" in shown
    assert toy_examples(2)[1].reference in shown

    assert run("ask", question, "--pool", pool, "--agent", out, "--max-cost", 7, "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert [step["choice"] for step in state["route"]] == ["small", "END"]
    assert (state["cost"], state["cost_unit"]) == (7.0, "parameters_b")

    more = ("--json", "--forbid", "big", "--allow", "small", "--allow", "big", "--deadline", 60)
    assert run("ask", question, "--pool", pool, "--agent", out, *more) == 0
    state = json.loads(capsys.readouterr().out)
    assert [step["choice"] for step in state["route"]] == ["small", "END"]
    assert state["route"][-1]["reason"] == "not_allowed"

    assert run("ask", question, "--pool", pool, "--agent", out, "--allow", "nobody") == 2
    assert "there is no expert 'nobody'; the pool has: big, small" in capsys.readouterr().err

    assert run("cache", "info", "--cache", cache) == 0
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*answers\.db: [\d,]+ answers, \d+\.\d MB", told[0])
    assert told[2].split() == ["expert", "answers", "oldest"]
    assert [line.split()[0] for line in told[4:]] == ["big", "small"]
    assert run("cache", "clear", "--cache", cache, "--expert", "big") == 0
    assert "answers removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", "  ", "--pool", "POOL", "--agent", "AGENT"], "the question is empty"),
        (["ask", "x", "--pool", "nowhere.yaml"], "nowhere.yaml"),
        (["ask", "x", "--agent", "./nowhere"], "no such folder"),
        (["ask", "x", "--pool", "POOL", "--agent", "AGENT"], "the agent does not know"),
        (["ask", "x", "--max-cost", "-1"], "not a number >= 0"),
        (["ask", "x", "--max-cost", "cheap"], "'cheap' is not a number"),
        (["ask", "x", "--deadline", "0"], "not a number above 0"),
        (["train", "--pool", "POOL", "--data", "none.jsonl", "--out", "o"], "none.jsonl"),
        (["train", "--pool", "POOL", "--out", "o"], "--data"),
        (["pool", "check", "nowhere.yaml"], "nowhere.yaml"),
        (["frobnicate"], "invalid choice"),
    ],
)
def test_mistakes_end_with_one_clear_line(
    recorded: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    pool, _ = recorded
    agent = tmp_path / "other-agent"
    toy_agent(toy_source(8)).save_pretrained(agent)
    if said == "the question is empty":
        from der_graph.policies.agent import DERAgent

        mine = DERAgent.from_pretrained(agent, encoder=WordEncoder())
        mine.observer.names[:] = ["big", "small", "c", "d"]
        pool.write_text(pool.read_text().replace("settings:", _two_more() + "settings:"))
        mine.save_pretrained(agent)
    filled = [{"POOL": str(pool), "AGENT": str(agent)}.get(word, word) for word in words]
    assert run(*filled) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err


def _two_more() -> str:
    return "".join(
        f"  - {{name: {n}, backend: recorded, data: data.jsonl, cost: 1}}\n" for n in "cd"
    )


def test_a_question_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    toy_agent(toy_source(8)).save_pretrained(tmp_path / "agent")
    monkeypatch.setattr(
        "der_graph.pool.load_pool", lambda name, **more: pool_from(toy_experts(), max_steps=3)
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(toy_examples(2)[1].question))
    assert run("ask", "-", "--agent", tmp_path / "agent", "--json") == 0
    assert json.loads(capsys.readouterr().out)["question"] == toy_examples(2)[1].question


def test_ctrl_c_is_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("der_graph.pool.load_pool", interrupted)
    assert run("ask", "x") == 130
    assert capsys.readouterr().err.strip() == "der: interrupted"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for command in ("ask", "train", "pool", "cache", "demo"):
        assert command in text


def test_model_output_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from der_graph.display import printable, shortened

    assert printable("a\x1b[2Jb\x07") == "a\\x1b[2Jb\\x07"
    assert shortened("x" * 300, 50).count("x") == 44


def test_resume_takes_the_steps_of_its_run(
    recorded: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("stable_baselines3")
    pool, data = recorded
    taken: list[int] = []
    monkeypatch.setattr(
        "der_graph.policies.training.train_agent",
        lambda experts, examples, dev, out, config, **more: taken.append(config.steps),
    )
    words = [
        "train",
        "--pool",
        pool,
        "--data",
        data,
        "--out",
        tmp_path / "run",
        "--cache",
        ":memory:",
    ]
    assert run(*words, "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    kept = {"format": 2, "config": json.dumps({"steps": 4321})}
    torch.save(kept, tmp_path / "run" / "checkpoint.pt")
    assert run(*words, "--resume") == run(*words, "--resume", "--steps", 9000) == run(*words) == 0
    assert taken == [4321, 9000, 60_000]


@pytest.mark.parametrize(
    ("words", "usage", "error"),
    [(("ask", "Why?", "--cost-wieght", "1"), "usage: der ask ", "did you mean --cost-weight?"),
     (("pool", "check", "p.yaml", "--zzz"), "usage: der pool check ", "arguments: --zzz\n"),
     (("ask", "Why?", "another"), "usage: der ask ", "arguments: another\n")],
)  # fmt: skip
def test_the_command_itself_says_what_it_does_not_know(
    words: tuple[str, ...], usage: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith(usage)
    assert error in said


@pytest.mark.parametrize("file", [True, False])
def test_ctrl_c_says_what_the_cache_holds_where_it_stays(
    file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "c.db") if file else ":memory:"
    with pytest.raises(KeyboardInterrupt), answer_cache(Namespace(cache=path)):
        raise KeyboardInterrupt
    assert ("the answer cache has what was answered" in capsys.readouterr().err) is file
