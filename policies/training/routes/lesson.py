"""How a routing network learns a pool by its routes: tree, question features, observations, teacher, learner.

first answers ──experts that promise something──> tree ──> question axes ──> Observer
                                                    └────> teacher ──> TreeLearner ──> network
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent.network import FixedHead
from der_graph.policies.answers import AnswerSource, Outcome
from der_graph.policies.observation import Observer, TextEncoder
from der_graph.policies.observation.evidence import EPSILON
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.routes.axes import fit_ridge, folds_of, question_axes
from der_graph.policies.training.routes.induction import Worth, backward_induction
from der_graph.policies.training.routes.learner import TreeLearner, TreeSettings
from der_graph.policies.training.routes.observations import TreeObservations
from der_graph.policies.training.routes.tree import RouteTree, choose_experts, collect_tree
from der_graph.state import Situation

PRICES = 8
"""At how many prices, log-evenly over the range of training, the teacher works choices out."""
_BATCH = 4096  # situations observed at once


@dataclass(frozen=True, eq=False)
class RouteLesson:
    """What there is to learn from.

    Attributes:
        tree: Routes and outcomes of the training questions.
        observer: Shows training questions by features that were fitted without them.
        fold: (questions,) fold of each.
        features: (questions, dims) those features.
    """

    tree: RouteTree
    observer: Observer
    fold: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]


def prepare_lesson(
    observer: Observer,
    source: AnswerSource,
    rules: RouteRules,
    first: Sequence[Sequence[Outcome]],
    encoder: TextEncoder,
    seed: int = 0,
    calls: float | None = None,
) -> RouteLesson:
    """Ask along the routes, and fit what the agent sees of a question to their outcomes.

    Args:
        observer: Fitted on the training questions; its question features are replaced.
        source: The training questions.
        rules: What is allowed on a route.
        first: Every expert's first answer to every question.
        encoder: The frozen sentence encoder.
        seed: Of the folds.
        calls: New answers that a question may take beyond the first ones, on average; None for no bound.
    """
    vectors = encoder.encode(source.questions)
    alone = np.array([[o.quality for o in row] for row in first])
    fold = folds_of(source.questions, seed)
    quality = fit_ridge(vectors, alone, fold)
    experts = choose_experts(source, quality.held_out, observer.costs.tolist(), pairs=calls is None)
    tree = collect_tree(source, experts, rules.max_steps, calls)
    axes = question_axes(vectors, tree.quality[:, 1:], fold, observer.config.question_dims)
    arrays = {
        **observer.arrays,
        "question_mean": axes.mean,
        "question_axes": axes.axes,
        "quality_mean": quality.ridge.mean.astype(np.float32),
        "quality_axes": quality.ridge.weights.astype(np.float32),
    }
    fitted = observer.with_arrays(arrays)
    expected = np.clip(quality.held_out, EPSILON, 1 - EPSILON).astype(np.float32)
    fitted.remember(source.questions, axes.held_out, expected)
    return RouteLesson(tree, fitted, fold, axes.held_out)


def learn_routes(
    network: FixedHead,
    lesson: RouteLesson,
    source: AnswerSource,
    rules: RouteRules,
    config: TrainConfig,
) -> tuple[Worth, TreeLearner]:
    """Teach a network what the routes show: some times from the beginning, and the best one is kept.

    Args:
        network: Changed in place.
        lesson: What there is to learn from.
        source: The training questions.
        rules: What is allowed on a route.
        config: The run's settings.

    Returns:
        What the teacher found, and who taught.
    """
    low, high = config.cost_weight_range
    prices = np.geomspace(low, high, PRICES) if low < high else np.array([low])
    total = max(lesson.observer.total, 1e-12)
    worth = backward_induction(lesson.tree, lesson.features, lesson.fold, prices.tolist(), total)
    observer, tree = lesson.observer, lesson.tree
    chosen = sorted({expert for route in tree.routes for expert in route})
    base = observe_tree(tree, observer, source, rules)
    size, context = observer.expert_size, observer.context_size
    # Experts that are on no route say nothing: the network learns without them.
    columns = [*range(context), *(context + e * size + i for e in chosen for i in range(size))]
    seen = TreeObservations(
        tree.over(chosen),
        base[:, :, columns],
        observer.features,
        context,
        [float(observer.costs[e]) for e in chosen],
        (len(observer.features.state), observer.config.question_dims),
        rules.max_steps,
        total,
    )
    part = worth._replace(choices=worth.choices[:, :, [*chosen, tree.experts]])
    best: TreeLearner | None = None
    for attempt in range(config.restarts):
        settings = TreeSettings(
            price_range=(low, high),
            budget_share=config.budget_share,
            short_share=config.short_share,
            seed=config.seed + attempt,
        )
        fresh = FixedHead(network.shape._replace(experts=len(chosen)))
        learner = TreeLearner(fresh, seen, settings)
        learner.learn(part)
        if best is None or _mean(learner, prices) > _mean(best, prices):
            best = learner
    assert best is not None
    widen(best.network, network, chosen, columns)
    return worth, best


def widen(part: FixedHead, whole: FixedHead, chosen: Sequence[int], columns: Sequence[int]) -> None:
    """Give a network the weights of one that knows some of its experts; the others it never asks.

    Args:
        part: Over the chosen experts.
        whole: Over all; changed in place.
        chosen: Positions of the experts in the pool.
        columns: Where each number of the part's observation is in the whole one.
    """
    with torch.no_grad():
        for small, large in ((part.actor, whole.actor), (part.critic, whole.critic)):
            layers: list[tuple[torch.nn.Linear, torch.nn.Linear]] = [
                (small[i], large[i])  # type: ignore[misc]
                for i in (0, 2, 4)
            ]
            first, second, last = layers
            first[1].weight.zero_()
            first[1].weight[:, list(columns)] = first[0].weight
            first[1].bias.copy_(first[0].bias)
            second[1].load_state_dict(second[0].state_dict())
            if large is whole.critic:
                last[1].load_state_dict(last[0].state_dict())
                continue
            outputs = [*chosen, whole.shape.experts]
            last[1].weight.zero_()
            last[1].bias.fill_(_NEVER)
            last[1].weight[outputs] = last[0].weight
            last[1].bias[outputs] = last[0].bias


_NEVER = -8.0
"""Score of an expert that is on no route; where nobody else may be asked, it is."""


def _mean(learner: TreeLearner, prices: npt.NDArray[np.floating]) -> float:
    """Mean utility over questions and prices."""
    return float(np.mean([float(learner.utility(float(p)).mean()) for p in prices]))


def observe_tree(
    tree: RouteTree, observer: Observer, source: AnswerSource, rules: RouteRules
) -> npt.NDArray[np.float32]:
    """(questions, inner routes, size): what is observed at a price of 1, without bounds."""
    situations = []
    for question, text in enumerate(source.questions):
        for route in tree.inner.tolist():
            answers = tree.answers(route, question)
            asked = set(tree.routes[route])
            mask = [*(i not in asked for i in range(tree.experts)), bool(answers)]
            spent = sum(answer["cost"] for answer in answers)
            situations.append(Situation(text, answers, mask, spent, rules.max_steps))
    parts = [
        observer.observe(situations[i : i + _BATCH], [1.0] * len(situations[i : i + _BATCH]))
        for i in range(0, len(situations), _BATCH)
    ]
    return np.concatenate(parts).reshape(len(source.questions), len(tree.inner), -1)
