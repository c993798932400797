"""Evaluation: DER and everything that it is compared with, on the same questions, with the same accounting.

    pool, agent, questions ──build_methods──> routes of every method ──statistics──> Report

Answers come from the answer cache or go there at once, so an evaluation that was interrupted takes up
where it stopped, and another agent for the same pool is evaluated in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from der_graph.data import Example
from der_graph.errors import DataError
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource, check_recorded
from der_graph.policies.answers.cache import MEMORY, AnswerCache
from der_graph.policies.answers.source import Repeated
from der_graph.policies.baselines import Select
from der_graph.policies.evaluation.methods import (
    BASELINES,
    Learnt,
    Method,
    Setting,
    Skipped,
    build_methods,
    check_wanted,
)
from der_graph.policies.observation import TextEncoder
from der_graph.policies.observation.price_of_cost import PRICE_RANGE
from der_graph.policies.quality import QualityMetric
from der_graph.policies.training.mdp import Episode, run_routes
from der_graph.progress_bar import AnswerBar

KNOB_POINTS = 9

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, question by question; `summary.py` makes the report of it.

    Attributes:
        methods: The methods, in order.
        episodes: Their routes: by method, one per question.
        skipped: Methods that were not run, and why.
        examples: The questions.
        generated: Answers that were generated and not found in the cache.
        seconds: Wall clock of everything.
        repeated: What experts say now whose cached answers were asked again.
    """

    methods: list[Method]
    episodes: dict[str, list[Episode]]
    skipped: list[Skipped]
    examples: list[Example]
    generated: int
    seconds: float
    repeated: list[Repeated] = field(default_factory=list)


def evaluate(
    experts: Sequence[Expert],
    agent: RoutingAgent,
    examples: Sequence[Example],
    metric: QualityMetric,
    *,
    rules: RouteRules | None = None,
    ktp: str | KTPTemplate | None = None,
    train: Sequence[Example] | None = None,
    baselines: Sequence[str] = BASELINES,
    cost_weights: Sequence[float] | None = None,
    encoder: TextEncoder | None = None,
    ranker: Select | None = None,
    fixed_orders: Sequence[Sequence[str]] = (),
    cache: AnswerCache | None = None,
    seed: int = 0,
    fresh: int = 0,
    progress: bool = True,
    say: Say | None = None,
) -> Evaluation:
    """Run DER and its baselines.

    Args:
        experts: The pool's experts, in order.
        agent: The trained agent.
        examples: Questions with references that neither agent nor routers were trained on.
        metric: What a good answer is.
        rules: What is allowed on a route; four calls, no repeats, where left out.
        ktp: The graph's template.
        train: Questions that one-shot routers learn from; without them there are no routers.
        baselines: Groups of baselines, see `BASELINES`; none for DER alone.
        cost_weights: Points of the knob; spread over the agent's range where left out.
        encoder: For routers and centroids; the agent's own where left out.
        fixed_orders: Experts to ask in the same order for every question; the pool's order where left out.
        ranker: Selects among the answers of everyone, for `run_all:rank`.
        cache: Durable store of answers; kept in memory where left out.
        seed: Of what is random.
        fresh: Cached first answers of each remote expert to ask again, to see whether it still is the same.
        progress: Show a bar of the answers being generated, on a terminal.
        say: Receives one-line messages.

    Returns:
        The routes of every method.

    Raises:
        DataError: If there are no questions, or a baseline is unknown.
        AgentPoolMismatchError: If the agent was trained for other experts.
    """
    started = time.perf_counter()
    say = say or (lambda line: None)
    if not examples:
        raise DataError("there are no questions to evaluate on; give a file with at least one row")
    check_wanted(baselines)
    members = list(experts)
    rules = rules or RouteRules.of(members)
    agent.check_pool(rules.names)
    check_recorded(members, [*examples, *(train or [])])
    cache = cache if cache is not None else AnswerCache(MEMORY)
    sources = _Sources(metric, ktp, cache, examples)
    if encoder is None:
        encoder = getattr(getattr(agent, "observer", None), "encoder", None)
    wants_oracle = any(name.split(":")[0] == "oracle" for name in baselines)
    with sources.progress("first answers", show=progress, say=say):
        say(f"first answers: {len(examples)} questions, {len(members)} experts")
        first = sources.of(members).first_answers() if wants_oracle else []
        learned = None
        expected: tuple[float, ...] = ()
        if train:
            say(f"first answers that routers and cascades learn from: {len(train)} questions")
            taught = AnswerSource(
                members, train, metric, ktp=ktp, cache=cache, on_asked=sources.count
            )
            rows = taught.first_answers()
            if not all(expert.charge.fixed for expert in members):
                expected = tuple(
                    float(np.mean([row[i].answer["cost"] for row in rows]))
                    for i in range(len(members))
                )
            learned = Learnt(
                taught.questions,
                np.array([[o.quality for o in row] for row in rows], dtype=np.float64),
                [[o.answer["value"] for o in row] for row in rows],
            )
    setting = Setting(
        experts=members,
        rules=rules,
        questions=sources.of(members).questions,
        first=first,
        cost_weights=knob_points(agent) if cost_weights is None else list(cost_weights),
        ktp=ktp,
        encoder=encoder,
        train=learned,
        ranker=ranker,
        fixed_orders=fixed_orders,
        seed=seed,
        expected=expected,
    )
    methods, skipped = build_methods(agent, setting, baselines)
    episodes: dict[str, list[Episode]] = {}
    width = max(len(method.name) for method in methods)
    for number, method in enumerate(methods, 1):
        before, start = sources.generated, time.perf_counter()
        label = f"{method.name} ({number} of {len(methods)})"
        with sources.progress(label, show=progress, say=say):
            routes = run_routes(
                method.agent, sources.of(method.experts), method.rules, context=method.context
            )
        episodes[method.name] = routes
        quality = float(np.mean([route.quality for route in routes]))
        cost = float(np.mean([route.cost for route in routes]))
        generated = sources.generated - before
        say(
            f"{method.name:<{width}}  quality {quality:.3f}  cost {cost:8.4g}"
            f"  ({time.perf_counter() - start:.1f} s, {generated} new answers)"
        )
    repeated = sources.of(members).ask_again(fresh, seed)
    for each in repeated:
        say(each.line())
    return Evaluation(
        methods=methods,
        episodes=episodes,
        skipped=skipped,
        examples=list(examples),
        generated=sources.generated,
        seconds=time.perf_counter() - started,
        repeated=repeated,
    )


def knob_points(agent: RoutingAgent, count: int = KNOB_POINTS) -> list[float]:
    """Prices of cost to sweep: even steps on a log scale over the range that the agent was trained with."""
    low, high = getattr(agent, "cost_weight_range", PRICE_RANGE)
    if not 0 < low < high:
        return [float(high)]
    points: NDArray[np.float64] = np.geomspace(low, high, count)
    return [float(f"{point:.3g}") for point in points]


class _Sources:
    """Answer sources by experts, all on one cache, with one count of what was generated."""

    def __init__(
        self,
        metric: QualityMetric,
        ktp: str | KTPTemplate | None,
        cache: AnswerCache,
        examples: Sequence[Example],
    ) -> None:
        self._metric, self._ktp, self._cache, self._examples = metric, ktp, cache, examples
        self._sources: dict[tuple[tuple[str, str], ...], AnswerSource] = {}
        self._bar: AnswerBar | None = None
        self.generated = 0

    def of(self, experts: Sequence[Expert]) -> AnswerSource:
        """The source of these experts, by how they receive knowledge."""
        key = tuple((e.name, e.ktp.fingerprint if e.ktp else "") for e in experts)
        if key not in self._sources:
            self._sources[key] = AnswerSource(
                experts,
                self._examples,
                self._metric,
                ktp=self._ktp,
                cache=self._cache,
                on_asked=self.count,
            )
        return self._sources[key]

    def count(self, answers: int) -> None:
        """Some answers were generated."""
        self.generated += answers
        if self._bar is not None:
            self._bar.advance(answers)

    @contextmanager
    def progress(self, label: str, *, show: bool, say: Say) -> Iterator[None]:
        """A bar of generated answers while something runs."""
        with AnswerBar(label, None, show=show, say=say) as self._bar:
            try:
                yield
            finally:
                self._bar = None
