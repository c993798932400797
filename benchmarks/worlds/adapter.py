"""Worlds as der_graph sees them: experts, examples, judges, training with the defaults, baselines.

Where modules of der_graph move, this is the file to change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from numpy.typing import NDArray

from der_graph.data import Example
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines import PREDICTORS, BestCascades, OneShotRouter
from der_graph.policies.baselines.mixture import without_transfer
from der_graph.policies.observation import TextEncoder
from der_graph.policies.planning import Planner
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.training import preset, run_routes, split_dev, train_agent
from der_graph.state import Answer, DERContext

from .world import Question, World, unit

Numbers = NDArray[np.float64]
ALONE = ("cascade:best",)
"""Baselines whose experts answer without seeing each other's answers, as in `der eval`."""


class NoisyJudge:
    """A metric that turns right and wrong around for a share of the answers."""

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


class Chat(BaseChatModel):
    """An expert of a world as a chat model, whose calls training does not take for free.

    Attributes:
        says: Gives the answer to a prompt.
    """

    says: Callable[[str], str]

    @property
    def _llm_type(self) -> str:
        return "world"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        said = AIMessage(self.says(messages[-1].text))
        return ChatResult(generations=[ChatGeneration(message=said)])


def pool(world: World, *, chat: bool = False) -> tuple[list[Expert], RouteRules]:
    """A world's experts, as plain functions or as chat models, and the rules of its routes."""

    def expert(name: str) -> Any:
        return Chat(says=world.expert(name)) if chat else world.expert(name)

    experts = [
        as_expert(expert(name), name=name, cost=cost, fingerprint=f"{world.name}/{name}")
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
    world: World,
    questions: Sequence[Question],
    seed: int,
    encoder: TextEncoder,
    *,
    chat: bool = False,
    say: Callable[[str], None] | None = None,
) -> RoutingAgent:
    """Train an agent as `der train` does when it is given no flag but the seed and the metric."""
    experts, rules = pool(world, chat=chat)
    learnt, dev = split_dev(examples(world, questions), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        return train_agent(
            experts, learnt, dev, Path(folder), preset("default", seed=seed),
            rules=rules, metric=judges(world)[0], encoder=encoder, progress=False, say=say,
        )  # fmt: skip


def baselines(
    world: World, questions: Sequence[Question], encoder: TextEncoder
) -> dict[str, RoutingAgent]:
    """The baselines that learn, each fitted on the questions that DER has."""
    names, costs = list(world.names), list(world.costs.values())
    first = source(world, questions, judges(world)[0]).first_answers()
    qualities = [[outcome.quality for outcome in row] for row in first]
    values = [[outcome.answer["value"] for outcome in row] for row in first]
    answers = [[outcome.answer["text"] for outcome in row] for row in first]
    texts = [question.text for question in questions]
    agents: dict[str, RoutingAgent] = {
        f"router:{kind}": OneShotRouter(names, costs, encoder, PREDICTORS[kind]())
        .fit(texts, qualities)
        for kind in ("knn", "logistic")
    }  # fmt: skip
    cascades = BestCascades(names, costs, encoder).fit(texts, qualities, values)
    planner = Planner.fit(names, costs, texts, qualities, values, texts=answers, encoder=encoder)
    return {"planner": planner, "cascade:best": cascades, **agents}


def route(
    world: World, agent: RoutingAgent, answers: AnswerSource, price: float
) -> tuple[Numbers, Numbers, list[tuple[str, ...]]]:
    """Let an agent route all questions of a source at a price.

    Returns:
        Quality and cost of each route, and who was asked.
    """
    done = run_routes(agent, answers, pool(world)[1], context=DERContext(cost_weight=price))
    quality, cost = (np.array([getattr(e, part) for e in done]) for part in ("quality", "cost"))
    return quality, cost, [tuple(world.names[i] for i in each.experts) for each in done]
