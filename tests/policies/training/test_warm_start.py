"""The warm start: the policy learns what a teacher does, and training goes on from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import WordEncoder, toy_examples, toy_rules, toy_source
from training import SMALL, evaluate, interrupt_at, train

pytest.importorskip("stable_baselines3")
pytest.importorskip("sklearn")

from der_graph.errors import AgentError
from der_graph.policies.baselines import FixedOrder
from der_graph.policies.training import TrainConfig
from der_graph.policies.training.ppo import features_learner
from der_graph.policies.training.warm_start import _returns, _Shown, imitate


def test_the_policy_does_what_the_teacher_does() -> None:
    """The teacher asks the writer, then the counter, and stops: two calls whatever the question."""
    source = toy_source(40)
    rules = toy_rules(source.experts)
    # An agent that knows experts by position: by their results, there is no reason to begin with the writer.
    config = replace(SMALL, any_pool=False)
    learner = features_learner(config, source, rules, source.first_answers(), WordEncoder(), {})
    teacher = FixedOrder(rules.names, rules.costs, ["writer", "counter"])
    share = imitate(learner.model.policy, learner.env, teacher, rounds=8)
    assert share > 0.95
    agent = learner.agent_now()
    episodes = evaluate(agent, toy_examples(20, seed=5))
    names = [[rules.names[index] for index in episode.experts] for episode in episodes]
    assert names == [["writer", "counter"]] * 20


def test_returns_end_where_the_route_ends() -> None:
    """Two environments, three steps: one route ends after the second step, the other is still going on."""
    nothing = np.zeros((3, 2, 1), dtype=np.float32)
    rewards = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], dtype=np.float32)
    ended = np.array([[False, False], [True, False], [False, False]])
    shown = _Shown(nothing, nothing.astype(bool), nothing[..., 0].astype(int), rewards, ended)
    returns, known = _returns(shown, gamma=0.5)
    assert returns[:, 0].tolist() == [2.0, 2.0, 4.0]  # 1 + 0.5 * 2, then 2; the next route is open
    assert known[:, 0].tolist() == [1.0, 1.0, 0.0]
    assert known[:, 1].tolist() == [0.0, 0.0, 0.0]


def test_a_warm_start_is_ahead_at_once(tmp_path: Path) -> None:
    """Facts are answered by one expert alone, which the best cascade asks. One update is all that PPO gets:
    from random weights it finds nothing in that."""
    short = replace(
        SMALL, steps=512, evaluations=1, any_pool=True, warm_start="none", hidden=64, entropy=0.03
    )
    quality = {}
    for start in ("none", "cascades"):
        agent = train(tmp_path / start, replace(short, warm_start=start))
        quality[start] = np.mean([e.quality for e in evaluate(agent, toy_examples(40, seed=7))])
    assert quality["cascades"] >= quality["none"] + 0.1


def test_a_killed_run_goes_on_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm start is not repeated on resume."""
    config = replace(SMALL, steps=2048, evaluations=4, warm_start="cascades")
    whole = train(tmp_path / "whole", config)
    lines: list[str] = []
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1100)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "part", config, say=lines.append)
    assert sum("warm start" in line for line in lines) == 1
    again: list[str] = []
    agent = train(tmp_path / "part", config, resume=True, say=again.append)
    assert not any("warm start" in line for line in again)
    assert agent.metadata["training"]["warm_start"] == "cascades"
    for mine, same in zip(whole.network.parameters(), agent.network.parameters(), strict=True):
        assert bool((mine == same).all())


def test_what_cannot_start_warm() -> None:
    with pytest.raises(AgentError, match="choose one of: none, routes, cascades"):
        TrainConfig(warm_start="hot")  # type: ignore[arg-type]
    with pytest.raises(AgentError, match="leave warm_start at 'none'"):
        TrainConfig(
            warm_start="cascades",
            text_encoder="x",
            cost_weight=1.0,
            cost_weight_range=(1.0, 1.0),
            budget_share=0.0,
            short_share=0.0,
        )
