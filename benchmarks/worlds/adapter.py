"""Worlds as der_graph sees them: experts, examples and judges; and the training, with `der train`'s defaults.

Where modules of der_graph move, this file and `contenders.py` are the ones to change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.hub import RoutingAgent
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.encoder import TextEncoder
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.rollout import Episode, run_routes
from der_graph.policies.train import split_dev, train_agent
from der_graph.policies.train_config import preset
from der_graph.policies.transfer import without_transfer
from der_graph.state import Answer, DERContext

from .world import Question, World, unit

Numbers = NDArray[np.float64]


class NoisyJudge:
    """A metric that turns right and wrong around for a share of the answers.

    Args:
        metric: What it should have said.
        share: How often it errs.
    """

    name = "noisy"

    def __init__(self, metric: QualityMetric, share: float) -> None:
        self.metric, self.share = metric, share

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[float]:
        """Judge each answer by the example at its position."""
        rows = zip(self.metric.score(answers, examples), answers, examples, strict=True)
        return [
            1.0 - score if unit("judge", example.question, answer["text"]) < self.share else score
            for score, answer, example in rows
        ]


def judges(world: World) -> tuple[QualityMetric, QualityMetric]:
    """The judge of the training, and the one who is always right."""
    metric = get_metric(world.metric)
    return (NoisyJudge(metric, world.noise) if world.noise else metric), metric


def pool(world: World) -> tuple[list[Expert], RouteRules]:
    """A world's experts, as plain functions, and the rules of its routes."""
    experts = [
        as_expert(world.expert(name), name=name, cost=cost, fingerprint=f"{world.name}/{name}")
        for name, cost in world.costs.items()
    ]
    return experts, RouteRules(world.names, tuple(world.costs.values()), max_steps=world.max_steps)


def examples(world: World, questions: Sequence[Question]) -> list[Example]:
    """Questions with their references."""
    return [
        Example(str(number), text, world.reference(text), topic)
        for number, (topic, text) in enumerate(questions)
    ]


def source(
    world: World, questions: Sequence[Question], metric: QualityMetric, *, alone: bool = False
) -> AnswerSource:
    """Answers of a world's experts; alone, they see none of each other's."""
    experts, _ = pool(world)
    members = without_transfer(experts) if alone else experts
    return AnswerSource(members, examples(world, questions), metric)


def train(
    world: World, questions: Sequence[Question], seed: int, encoder: TextEncoder
) -> RoutingAgent:
    """Train an agent as `der train` does when it is given no flag but the seed and the metric."""
    experts, rules = pool(world)
    learnt, dev = split_dev(examples(world, questions), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        return train_agent(
            experts, learnt, dev, Path(folder), preset("default", seed=seed),
            rules=rules, metric=judges(world)[0], encoder=encoder, progress=False,
        )  # fmt: skip


def route(
    world: World, agent: RoutingAgent, answers: AnswerSource, price: float
) -> tuple[Numbers, Numbers, list[tuple[str, ...]]]:
    """Let an agent route all questions of a source at a price.

    Returns:
        Quality and cost of each route, and who was asked.
    """
    _, rules = pool(world)
    done: list[Episode] = run_routes(agent, answers, rules, context=DERContext(cost_weight=price))
    return (
        np.array([each.quality for each in done]),
        np.array([each.cost for each in done]),
        [tuple(world.names[index] for index in each.experts) for each in done],
    )
