"""`der eval` as a user types it, on recorded answers; and `--json` for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run
from toy import toy_agent

from der_graph.data import load_examples
from der_graph.policies.answers import AnswerSource
from der_graph.policies.evaluation import Report
from der_graph.policies.quality import get_metric
from der_graph.pool import load_pool

Evaluate = Callable[..., tuple[int, Any]]


@pytest.fixture
def evaluate(
    recorded: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Evaluate:
    """`der eval` of an untrained agent, with more options: its exit code, and what it printed."""
    pool, data = recorded
    metric = get_metric("recorded:accuracy")
    agent = toy_agent(AnswerSource(list(load_pool(pool)), load_examples(data), metric))
    agent.metadata = {"training": {"metric": metric.name}}
    agent.save_pretrained(tmp_path / "agent")
    given = {
        "pool": pool, "data": data, "agent": tmp_path / "agent", "out": tmp_path / "report",
        "cache": tmp_path / "answers.db",
    }  # fmt: skip
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    return lambda *words: (run("eval", *options, *words), capsys.readouterr())


def test_a_report_of_recorded_answers(evaluate: Evaluate, tmp_path: Path) -> None:
    code, printed = evaluate(
        "--limit", 10, "--cost-weights", "0.1,1", "--baselines", "single,run_all,mixture,oracle", "--json"
    )  # fmt: skip
    assert code == 0, printed.err
    report = Report.model_validate_json(printed.out)
    # Big is always right; small on every other question.
    assert report.method("single:big").quality.estimate == 1.0
    assert report.method("single:small").quality.estimate == 0.5
    assert report.method("oracle").cost.estimate == (5 * 70 + 5 * 7) / 10
    assert report.method("single:big").latency_s is None  # recorded answers took no time
    assert report.data.metric == "recorded:accuracy"  # what the agent was trained with
    assert report.data.questions == 10
    assert [m.name for m in report.methods][:3] == ["der", "der@0.1", "der@1"]
    assert any(s.name == "mixture" and "live pool" in s.reason for s in report.skipped)
    assert not report.pool.live
    assert report.wall_clock is None
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == json.loads(printed.out)
    assert "written to" in printed.err


def test_quiet_leaves_the_result(evaluate: Evaluate) -> None:
    code, printed = evaluate(
        "--limit", 4, "--cost-weights", "1", "--baselines", "single", "--quiet"
    )
    assert code == 0, printed.err
    assert printed.out.startswith("DER is ")
    assert printed.out.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--baselines", "runall"], "baseline 'runall' is unknown; choose from"),
        (["--cost-weights", "0.1,cheap"], "--cost-weights 0.1,cheap: 'cheap' is not a number"),
        (["--metric", "bleu"], "metric 'bleu' is unknown"),
        (["--train", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--fixed-order", "big,huge"], "'huge' is not in the pool"),
    ],
)
def test_mistakes_end_with_one_line(
    evaluate: Evaluate, tmp_path: Path, words: list[str], said: str
) -> None:
    code, printed = evaluate(*words)
    assert code == 2
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "report").exists()
