"""Small training runs on the toy pool, for tests."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import WordEncoder, toy_examples, toy_experts, toy_rules

pytest.importorskip("stable_baselines3")

from der_graph.data import Example
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import ObservationConfig
from der_graph.policies.quality import get_metric
from der_graph.policies.training import TrainConfig, train_agent
from der_graph.policies.training.mdp import Episode, run_routes
from der_graph.state import DERContext

SMALL = TrainConfig(
    steps=12_000,
    envs=64,
    rollout=8,
    batch=128,
    epochs=6,
    learning_rate=3e-3,
    evaluations=4,
    cost_weight=0.1,
    cost_weight_range=(0.05, 5.0),
    observation=ObservationConfig(question_dims=4, answer_dims=3),
    ensemble=1,
)


def train(out: Path, config: TrainConfig = SMALL, **more: Any) -> DERAgent:
    experts = toy_experts()
    agent = train_agent(
        experts,
        toy_examples(60, seed=1),
        toy_examples(20, seed=2),
        out,
        config,
        rules=toy_rules(experts),
        encoder=WordEncoder(),
        progress=False,
        **more,
    )
    assert isinstance(agent, DERAgent)
    return agent


def evaluate(agent: Any, examples: list[Example], **context: Any) -> list[Episode]:
    experts = toy_experts()
    source = AnswerSource(experts, examples, get_metric("match"))
    return run_routes(agent, source, toy_rules(experts), context=DERContext(**context))


def quality(episodes: list[Episode]) -> float:
    return float(np.mean([episode.quality for episode in episodes]))


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of progress.csv without the wall clock."""
    with (folder / "progress.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "time/seconds"} for row in csv.DictReader(file)
        ]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C once so many steps were taken."""
    from der_graph.policies.training.progress import TrainingProgress

    original = TrainingProgress._on_step

    def killed(self: TrainingProgress) -> bool:
        if self.model.num_timesteps > step:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(TrainingProgress, "_on_step", killed)
