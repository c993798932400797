"""A bandit that learns who should open a run with tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import run
from fakes import an_answer
from tool_fakes import tool_expert
from toy import WordEncoder

from der_graph.errors import AgentError, AgentPoolMismatchError, DataError
from der_graph.policies.agent import load_agent
from der_graph.policies.agent.bandit import BanditAgent
from der_graph.policies.training.bandit import (
    AgentOutcome,
    _ridge,
    load_outcomes,
    train_bandit,
)
from der_graph.state import LoopState, Situation

POOL = [tool_expert("small", "", cost=1.0), tool_expert("large", "", cost=10.0)]


def runs(count: int = 40) -> list[AgentOutcome]:
    """The small one can count stock but not move it; the large one can do both."""
    rows = []
    for i in range(count):
        for task, small in (
            (f"count the apples of shop {i}", 1.0),
            (f"move the chairs to {i}", 0.0),
        ):
            rows.append(AgentOutcome(task, "small", small, 2.0))
            rows.append(AgentOutcome(task, "large", 1.0, 20.0))
    return rows


@pytest.fixture(scope="module")
def bandit() -> BanditAgent:
    return train_bandit(POOL, runs(), encoder=WordEncoder(), dims=4)


def wants(task: str, **more: Any) -> Situation:
    return Situation(task, **{"mask": [True, True, False], **more})


COUNT, MOVE = "count the apples of shop 99", "move the chairs to 99"


def test_the_task_says_who_opens(bandit: BanditAgent) -> None:
    first, second = bandit.decide([wants(COUNT), wants(MOVE)])
    assert (first.index, second.index) == (0, 1)
    success, cost = bandit.expected([COUNT, MOVE])
    assert success == pytest.approx(np.array([[1.0, 1.0], [0.0, 1.0]]), abs=0.1)
    assert cost == pytest.approx(np.array([[2 / 22, 20 / 22]] * 2), abs=0.02)


def test_a_price_of_cost_turns_it(bandit: BanditAgent) -> None:
    assert bandit.decide([wants(MOVE, cost_weight=2.0)])[0].index == 0
    assert bandit.decide([wants(MOVE, cost_weight=0.0)])[0].index == 1


def test_the_rules_bind_it(bandit: BanditAgent) -> None:
    choice = bandit.decide([wants(MOVE, mask=[True, False, False])])[0]
    assert choice.index == 0
    assert choice.probabilities == [1.0, 0.0, 0.0]


def test_who_opened_goes_on_and_a_good_answer_ends(bandit: BanditAgent) -> None:
    loop = LoopState("executing", calls=1, last_expert="small")
    assert bandit.decide([wants(MOVE, loop=loop)])[0].index == 0
    recovering = LoopState("recovering", calls=1, last_expert="small", errors=1)
    assert bandit.decide([wants(MOVE, loop=recovering)])[0].index == 1
    done = wants(MOVE, mask=[False, True, True], answers=[an_answer("small")])
    assert bandit.decide([done])[0].index == 2


def test_saved_and_loaded_it_is_the_same(bandit: BanditAgent, tmp_path: Path) -> None:
    bandit.save_pretrained(tmp_path)
    loaded = BanditAgent.from_pretrained(tmp_path, encoder=WordEncoder())
    assert loaded.decide([wants(COUNT), wants(MOVE)]) == bandit.decide([wants(COUNT), wants(MOVE)])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["kind"] == "bandit"
    config["encoder"] = "another"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AgentError, match="trained with the encoder 'another'"):
        BanditAgent.from_pretrained(tmp_path, encoder=WordEncoder())


def test_other_pools(bandit: BanditAgent) -> None:
    turned = bandit.for_pool(["large", "small"], [10.0, 1.0])
    assert [c.index for c in turned.decide([wants(COUNT), wants(MOVE)])] == [1, 0]
    with pytest.raises(
        AgentPoolMismatchError, match="does not know 'huge'; it knows 'small', 'large'"
    ):
        bandit.check_pool(["small", "huge"])


def test_rare_choices_count_for_more() -> None:
    # Asked for easy tasks nine times in ten, the small expert looks better than it is.
    seen = [AgentOutcome("count one", "small", 1.0, 1.0, 0.9)] * 9
    seen += [AgentOutcome("count one", "small", 0.0, 1.0, 0.1)]
    seen += [AgentOutcome("count one", "large", 0.5, 1.0)]
    plain = [AgentOutcome(r.task, r.expert, r.success, r.cost) for r in seen]
    weighted = train_bandit(POOL, seen, encoder=WordEncoder(), dims=1).expected(["count one"])[0]
    naive = train_bandit(POOL, plain, encoder=WordEncoder(), dims=1).expected(["count one"])[0]
    assert weighted[0, 0] == pytest.approx(0.5, abs=0.05)
    assert naive[0, 0] > 0.8


def test_errors_of_a_row_left_out_are_those_of_fits_without_it() -> None:
    rng = np.random.default_rng(0)
    x = np.hstack([rng.normal(size=(12, 2)), np.ones((12, 1))]).astype(np.float32)
    y, w = rng.normal(size=12), np.ones(12)
    errors = _ridge(x, y, w, 0.3, 2.0)[1]
    for i in range(12):
        rest = np.arange(12) != i
        fit = _ridge(x[rest], y[rest], w[rest], 0.3, 2.0)[0]
        assert errors[i] == pytest.approx(y[i] - x[i] @ fit, abs=1e-6)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: JSONDecodeError"),
        ("[]", "line 1: TypeError"),
        ('{"task": "a", "expert": "small"}', "line 1: KeyError: 'success'"),
        (
            '{"task": "a", "expert": "x", "success": 1, "cost": 1}',
            "expert is 'x'; the pool has: small",
        ),
        ('{"task": " ", "expert": "small", "success": 1, "cost": 1}', "task is empty"),
        ('{"task": "a", "expert": "small", "success": 2, "cost": 1}', "success is 2"),
        ('{"task": "a", "expert": "small", "success": 1, "cost": -1}', "cost is -1"),
        (
            '{"task": "a", "expert": "small", "success": 1, "cost": 1, "probability": 0}',
            "probability",
        ),
        ("", "no run was opened by 'small'"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError) as caught:
        load_outcomes(file, ["small", "large"])
    assert said in str(caught.value)
    with pytest.raises(DataError, match="nothing"):
        load_outcomes(tmp_path / "nothing", ["small"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    import der_graph.policies.training.bandit as module

    monkeypatch.setattr(module, "as_encoder", lambda _: WordEncoder())
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        "experts:\n"
        "  - {name: small, backend: langchain, model: 'fake:small', cost: 1}\n"
        "  - {name: large, backend: langchain, model: 'fake:large', cost: 10}\n"
    )
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in runs(8)))
    monkeypatch.setattr(
        "der_graph.nodes.langchain._init_chat_model", lambda *_: tool_expert("x", "").model
    )
    assert run("train", "--agent-task", file, "--pool", pool, "--out", tmp_path / "agent") == 0
    assert "small: 16 runs, success 0.500, cost 2" in capsys.readouterr().err
    assert isinstance(load_agent(tmp_path / "agent"), BanditAgent)
    assert run("train", "--pool", pool, "--out", tmp_path / "agent") == 2  # neither data nor runs
