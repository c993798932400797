"""How a routing network learns a pool by its routes: tree, question features, observations, teacher, learner.

first answers ──experts that promise something──> tree ──> question axes ──> Observer
                                                    └────> teacher ──> TreeLearner ──> network
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent.network import FixedHead
from der_graph.policies.answers import AnswerSource, Outcome
from der_graph.policies.observation import Observer, TextEncoder
from der_graph.policies.observation.evidence import EPSILON
from der_graph.policies.observation.price_of_cost import PRICE_RANGE
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.routes.axes import FOLDS, fit_ridge, folds_of, question_axes
from der_graph.policies.training.routes.exploration import Explorer, greedy_routes
from der_graph.policies.training.routes.imputation import ImputedSource
from der_graph.policies.training.routes.induction import Worth, backward_induction
from der_graph.policies.training.routes.learner import TreeLearner, TreeSettings
from der_graph.policies.training.routes.observations import TreeObservations
from der_graph.policies.training.routes.shortlist import shortlist
from der_graph.policies.training.routes.tree import (
    Route,
    RouteTree,
    calls_of_all_routes,
    collect_tree,
)
from der_graph.state import Situation

PRICES = 8
"""At how many prices, log-evenly over the range of training, the teacher works choices out."""
_PRICES = 6  # log-evenly over the range of training, at which routes may look best
_BATCH = 4096  # situations observed at once

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class RouteLesson:
    """What there is to learn from.

    Attributes:
        tree: Routes and outcomes of the training questions.
        observer: Shows training questions by features that were fitted without them.
        fold: (questions,) fold of each.
        features: (questions, dims) those features.
        source: The training questions; it asks nobody on any route of the tree, and of chat models nobody
            at all.
    """

    tree: RouteTree
    observer: Observer
    fold: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    source: AnswerSource


def prepare_lesson(
    observer: Observer,
    source: AnswerSource,
    rules: RouteRules,
    first: Sequence[Sequence[Outcome]],
    encoder: TextEncoder,
    seed: int = 0,
    calls: float | None = None,
    price_range: tuple[float, float] = PRICE_RANGE,
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
        price_range: Prices of cost that the agent is trained for: at some of them routes may look best.
    """
    vectors = encoder.encode(source.questions)
    alone = np.array([[o.quality for o in row] for row in first])
    fold = folds_of(source.questions, seed)
    quality = fit_ridge(vectors, alone, fold)
    n, costs = len(source.examples), observer.costs.tolist()
    dims = observer.config.question_dims

    def best_routes() -> list[tuple[int, Route]]:
        """What looks best at some prices by what is known so far, the questions in a random order."""
        known = collect_tree(ImputedSource(source, vectors), experts, rules.max_steps)
        features = question_axes(vectors, known.quality[:, 1:], fold, dims).held_out
        prices, total = _spread(price_range, _PRICES), max(observer.total, 1e-12)
        choices = backward_induction(known, features, fold, prices, total).choices
        found = greedy_routes(choices, known.children, known.routes, known.inner.tolist())
        order = np.random.default_rng(0).permutation(len(found)).tolist()
        return [(question, route) for question in order for route in found[question]]

    if calls is None:
        experts = shortlist(source, quality.held_out, costs)
        tree = collect_tree(source, experts, rules.max_steps)
    else:
        explorer = Explorer(source, range(len(costs)), rules.max_steps, int(calls * n), seed)
        experts = shortlist(source, quality.held_out, costs, gains=explorer.together)
        few = explorer.left < n * calls_of_all_routes(source, experts, rules.max_steps)
        if few:
            explorer.narrow_to(experts)
            explorer.broadly()
            explorer.best(best_routes)
            source = ImputedSource(source, vectors)
        tree = collect_tree(source, experts, rules.max_steps)
        if not few:
            source = ImputedSource(source, vectors)  # nobody is asked beyond the tree
    axes = question_axes(vectors, tree.quality[:, 1:], fold, dims)
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
    return RouteLesson(tree, fitted, fold, axes.held_out, source)


def _spread(price_range: tuple[float, float], count: int) -> list[float]:
    """Prices log-evenly over a range; the one of a range of one."""
    low, high = price_range
    return list(map(float, np.geomspace(low, high, count))) if low < high else [low]


class Unseen(NamedTuple):
    """What shows how a network does on questions that are new to it.

    Attributes:
        network: One of the ensemble, over the whole pool.
        questions: Positions of the training questions that it has not learnt from.
    """

    network: FixedHead
    questions: npt.NDArray[np.int64]


class Learnt(NamedTuple):
    """What came of learning.

    Attributes:
        worth: What the teacher found.
        learners: Who learnt, one a network of the ensemble.
        unseen: Each network with what it has not learnt from; none where there is one network alone.
    """

    worth: Worth
    learners: list[TreeLearner]
    unseen: list[Unseen]

    def utility(self, price: float) -> tuple[float, bool]:
        """Mean utility at a price, and whether it is that on questions which are new to a network."""
        if self.unseen:
            found = [each.utility(price, each.left_out) for each in self.learners]
        else:
            found = [each.utility(price) for each in self.learners]
        return float(torch.cat(found).mean()), bool(self.unseen)


def learn_routes(
    network: FixedHead,
    lesson: RouteLesson,
    source: AnswerSource,
    rules: RouteRules,
    config: TrainConfig,
    *,
    before: Sequence[Weights] = (),
    after_each: Callable[[list[Weights]], None] = lambda networks: None,
) -> Learnt:
    """Teach a network what the routes show: an ensemble, each of which leaves some questions out.

    Each leaves out one fold, so that how it does there tells how it does on new questions. One network alone
    learns from all.

    Args:
        network: Changed in place.
        lesson: What there is to learn from.
        source: The training questions.
        rules: What is allowed on a route.
        config: The run's settings.
        before: Networks of an ensemble that have learnt already, in a run that was stopped.
        after_each: Gets the weights of all that have learnt, whenever one more has.
    """
    low, high = config.cost_weight_range
    prices = _spread((low, high), PRICES)
    total = max(lesson.observer.total, 1e-12)
    worth = backward_induction(lesson.tree, lesson.features, lesson.fold, prices, total)
    observer, tree = lesson.observer, lesson.tree
    chosen = sorted({expert for route in tree.routes for expert in route})
    base = observe_tree(tree, observer, source, rules)
    size, context = observer.expert_size, observer.context_size
    # Experts that are on no route say nothing: the network learns without them.
    columns = [*range(context), *(context + e * size + i for e in chosen for i in range(size))]
    seen = TreeObservations(
        tree.over(chosen),
        base if len(columns) == base.shape[2] else base[:, :, columns],
        observer.features,
        context,
        [float(observer.costs[e]) for e in chosen],
        (len(observer.features.state), observer.config.question_dims),
        rules.max_steps,
        total,
    )
    part = worth._replace(choices=worth.choices[:, :, [*chosen, tree.experts]])
    learners = []
    for attempt in range(config.ensemble):
        settings = TreeSettings(
            price_range=(low, high),
            budget_share=config.budget_share,
            short_share=config.short_share,
            seed=config.seed + attempt,
        )
        member = FixedHead(network.shape._replace(experts=len(chosen), hidden=config.hidden))
        if attempt < len(before):
            member.load_state_dict(before[attempt])
        left_out = np.flatnonzero(lesson.fold == attempt % FOLDS).tolist()
        if config.ensemble == 1 or len(left_out) == len(lesson.fold):
            left_out = []
        learners.append(TreeLearner(member, seen, settings, left_out))
    _teach(learners, len(before), part, after_each)
    utility = [float(np.mean([float(each.utility(p).mean()) for p in prices])) for each in learners]
    good = [
        each.network
        for each, u in zip(learners, utility, strict=True)
        if u >= max(utility) - _BEHIND
    ]
    combine(good, network, chosen, columns)
    unseen = []
    for each in learners:
        if len(each.left_out):
            alone = FixedHead(network.shape)
            combine([each.network], alone, chosen, columns)
            unseen.append(Unseen(alone, each.left_out.numpy()))
    return Learnt(worth, learners, unseen)


def _teach(
    learners: Sequence[TreeLearner],
    taught: int,
    worth: Worth,
    after_each: Callable[[list[Weights]], None],
) -> None:
    """Teach those that are not taught yet, as many at a time as torch may use threads.

    Each has random numbers of its own, so the result is the same however many there are at a time.
    """
    stop, cores = threading.Event(), torch.get_num_threads()

    def teach(learner: TreeLearner) -> None:
        torch.set_num_threads(1)  # within one network more gain little: its matrices are small
        learner.learn(worth, stop.is_set)

    waiting = learners[taught:]
    threads = ThreadPoolExecutor(max(1, min(len(waiting), cores)), "der-learner")
    try:
        for count, done in enumerate(
            [threads.submit(teach, learner) for learner in waiting], taught + 1
        ):
            done.result()
            after_each([each.network.state_dict() for each in learners[:count]])
    finally:
        stop.set()
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)


def combine(
    members: Sequence[FixedHead], whole: FixedHead, chosen: Sequence[int], columns: Sequence[int]
) -> None:
    """Make one network that scores as the mean of several over some of its experts does.

    Its hidden layers are those of the members side by side. Experts that the members do not know are never
    asked.

    Args:
        members: Over the chosen experts.
        whole: Over all; changed in place. Its hidden layers are as wide as all members' or wider.
        chosen: Positions of the experts in the pool.
        columns: Where each number of a member's observation is in the whole one.
    """
    outputs = [*chosen, whole.shape.experts]
    with torch.no_grad():
        for head in ("actor", "critic"):
            first, _, second, _, last = getattr(whole, head)
            for layer in (first, second, last):
                layer.weight.zero_()
                layer.bias.zero_()
            rows: list[int] | slice = outputs if head == "actor" else slice(None)
            for number, member in enumerate(members):
                one, _, two, _, three = getattr(member, head)
                width = member.shape.hidden
                place = slice(number * width, (number + 1) * width)
                first.weight[place, list(columns)] = one.weight
                first.bias[place] = one.bias
                second.weight[place, place] = two.weight
                second.bias[place] = two.bias
                last.weight[rows, place] = three.weight / len(members)
                last.bias[rows] += three.bias / len(members)
            if head == "actor":
                unknown = [i for i in range(whole.shape.experts) if i not in chosen]
                last.bias[unknown] = _NEVER


_BEHIND = 0.02
"""A member that is worse than the best one by more, in utility on the training questions, is left out."""
_NEVER = -8.0
"""Score of an expert that is on no route; where nobody else may be asked, it is."""


def observe_tree(
    tree: RouteTree, observer: Observer, source: AnswerSource, rules: RouteRules
) -> npt.NDArray[np.float32]:
    """(questions, inner routes, size): what is observed at a price of 1, without bounds."""
    inner = tree.inner.tolist()
    base = np.zeros((len(source.questions), len(inner), observer.size), dtype=np.float32)
    # Some questions at a time: all situations at once would take more memory than what is made of them.
    at_once = max(1, _BATCH // len(inner))
    for start in range(0, len(base), at_once):
        situations = []
        for question, text in enumerate(source.questions[start : start + at_once], start):
            for route in inner:
                answers = tree.answers(route, question)
                asked = set(tree.routes[route])
                mask = [*(i not in asked for i in range(tree.experts)), bool(answers)]
                spent = sum(answer["cost"] for answer in answers)
                situations.append(Situation(text, answers, mask, spent, rules.max_steps))
        seen = observer.observe(situations, [1.0] * len(situations))
        base[start : start + at_once] = seen.reshape(-1, len(inner), observer.size)
    return base
