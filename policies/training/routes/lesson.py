"""How a routing network learns a pool by its routes: tree, question features, observations, teacher, learner.

first answers ──experts that promise something──> tree ──> question axes ──> Observer
                                                    └────> teacher ──> TreeLearner ──> network
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    experts = choose_experts(source, quality.held_out, rules.costs, pairs=calls is None)
    tree = collect_tree(source, experts, rules.max_steps, calls)
    axes = question_axes(vectors, tree.quality[:, 1:], fold, observer.config.question_dims)
    arrays = {
        **observer.arrays,
        "question_mean": axes.mean,
        "question_axes": axes.axes,
        "quality_mean": quality.ridge.mean.astype(np.float32),
        "quality_axes": quality.ridge.weights.astype(np.float32),
    }
    fitted = Observer(
        observer.config, observer.names, rules.costs, encoder, arrays, observer.features
    )
    expected = np.clip(quality.held_out, EPSILON, 1 - EPSILON).astype(np.float32)
    fitted.remember(source.questions, axes.held_out, expected)
    return RouteLesson(tree, fitted, fold, axes.held_out)


def learn_routes(
    network: FixedHead,
    lesson: RouteLesson,
    source: AnswerSource,
    rules: RouteRules,
    config: TrainConfig,
    advance: Callable[[float], None] = lambda share: None,
) -> tuple[Worth, TreeLearner]:
    """Teach a network what the routes show.

    Args:
        network: Changed in place.
        lesson: What there is to learn from.
        source: The training questions.
        rules: What is allowed on a route.
        config: The run's settings.
        advance: Receives the share that is done.

    Returns:
        What the teacher found, and who taught.
    """
    low, high = config.cost_weight_range
    prices = np.geomspace(low, high, PRICES) if low < high else np.array([low])
    total = max(sum(rules.costs), 1e-12)
    worth = backward_induction(lesson.tree, lesson.features, lesson.fold, prices.tolist(), total)
    observer = lesson.observer
    seen = TreeObservations(
        lesson.tree,
        observe_tree(lesson.tree, observer, source, rules),
        observer.features,
        observer.context_size,
        rules.costs,
        (len(observer.features.state), observer.config.question_dims),
        rules.max_steps,
    )
    settings = TreeSettings(
        price_range=(low, high),
        budget_share=config.budget_share,
        short_share=config.short_share,
        seed=config.seed,
    )
    learner = TreeLearner(network, seen, settings)
    learner.learn(worth, advance)
    return worth, learner


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
