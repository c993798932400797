"""`der eval` as a user types it, on recorded answers; and `--json` for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runs import run
from toy import WordEncoder, toy_source

from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, SharedHead
from der_graph.policies.evaluation import Report
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation import encoder as encoder_module
from der_graph.pool import load_pool


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder of these tests hashes words."""
    monkeypatch.setattr(
        encoder_module.SentenceEncoder, "encode", lambda self, texts: WordEncoder().encode(texts)
    )


def make_agent(pool_file: Path, folder: Path) -> Path:
    """An untrained agent for a pool."""
    source = toy_source(8)
    experts = list(load_pool(pool_file))
    names, costs = [e.name for e in experts], [e.cost for e in experts]
    mine = Observer.fit(
        ObservationConfig(question_dims=2, answer_dims=0), names, costs, WordEncoder(),
        questions=[example.question for example in source.examples], answers=[],
        qualities=np.array([[1.0, 0.5]] * 8, dtype=np.float32),
    )  # fmt: skip
    network = SharedHead(Shape(2, mine.context_size, mine.expert_size, 8))
    agent = DERAgent(
        mine, network, cost_weight=0.2, cost_weight_range=(0.02, 2.0),
        metadata={"training": {"metric": "recorded:accuracy"}},
    )  # fmt: skip
    agent.save_pretrained(folder)
    return folder


def test_a_report_of_recorded_answers(
    recorded: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool, data = recorded
    agent = make_agent(pool, tmp_path / "agent")
    out = tmp_path / "report"
    code = run(
        "eval", "--pool", pool, "--agent", agent, "--data", data, "--out", out, "--limit", 10,
        "--cost-weights", "0.1,1", "--baselines", "single,run_all,mixture,oracle",
        "--cache", tmp_path / "answers.db", "--json",
    )  # fmt: skip
    printed = capsys.readouterr()
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
    assert json.loads((out / "report.json").read_text()) == json.loads(printed.out)
    assert "written to" in printed.err


def test_quiet_leaves_the_result(
    recorded: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool, data = recorded
    agent = make_agent(pool, tmp_path / "agent")
    code = run(
        "eval", "--pool", pool, "--agent", agent, "--data", data, "--out", tmp_path / "r", "--limit", 4,
        "--cost-weights", "1", "--baselines", "single", "--cache", tmp_path / "answers.db", "--quiet",
    )  # fmt: skip
    printed = capsys.readouterr()
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
    recorded: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    pool, data = recorded
    agent = make_agent(pool, tmp_path / "agent")
    given = ["eval", "--pool", pool, "--agent", agent, "--data", data, "--out", tmp_path / "r"]
    assert run(*given, "--cache", tmp_path / "answers.db", *words) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "r").exists()
