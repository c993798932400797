"""What the Knowledge Transfer Prompt is worth: the same routes, with and without knowledge.

    DER's routes ──replayed without transfer, with other templates──> quality of the same experts in order
    every pair A, B ──B after A against B alone──> when an earlier answer helps, and when it misleads

Replaying fixes who is asked, so that the difference is the transfer's alone and not the agent's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from der_graph.data import Example
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerCache, AnswerSource, Request
from der_graph.policies.baselines import Baseline
from der_graph.policies.baselines.mixture import transfers, with_template, without_transfer
from der_graph.policies.evaluation.report_schema import Estimate
from der_graph.policies.evaluation.statistics import mcnemar_p, paired_difference, permutation_p
from der_graph.policies.quality import QualityMetric
from der_graph.policies.training.mdp import Episode, run_routes
from der_graph.state import Situation

PAPER_ALL = KTPTemplate(
    "paper_all",
    TEMPLATES["paper"]
    .transfer.replace(
        "Another student answered this question as follows: {answer}",
        "Other students answered this question as follows:\n{answers}",
    )
    .replace("that answer", "those answers"),
)
"""The paper's wording with all earlier answers instead of the last one."""

VARIANTS: Mapping[str, KTPTemplate] = {
    "default, last answer": TEMPLATES["default"],
    "default, all answers": TEMPLATES["default_all"],
    "paper, last answer": TEMPLATES["paper"],
    "paper, all answers": PAPER_ALL,
}
"""Templates that are compared, for experts without a template of their own."""

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """The quality with knowledge, compared with the quality without it, question by question.

    Attributes:
        name: What was compared.
        questions: How many.
        without: Mean quality without.
        with_it: Mean quality with.
        difference: `with_it - without`, with its interval.
        relative: `difference / without`; None where `without` is 0.
        helped: Questions that became better.
        harmed: Questions that became worse.
        p: Exact McNemar test where qualities are right or wrong, else a paired permutation test.
    """

    name: str
    questions: int
    without: float
    with_it: float
    difference: Estimate
    relative: float | None
    helped: int
    harmed: int
    p: float


class Pair(NamedTuple):
    """One expert after another.

    Attributes:
        first: Who answered before.
        then: Who answers with that answer in its prompt.
        template: How.
        overall: Against its own first answers, on all questions.
        after_right: The same on the questions that the first expert had right (quality at least 0.5).
        after_wrong: And on those that it had wrong; None where there are none.
    """

    first: str
    then: str
    template: str
    overall: Difference
    after_right: Difference | None
    after_wrong: Difference | None


class Replay(Baseline):
    """Asks the experts of given routes again, question by question.

    Args:
        names: The pool's experts.
        costs: Their costs.
        routes: Positions of the experts, by question.
    """

    def __init__(
        self, names: Sequence[str], costs: Sequence[float], routes: Mapping[str, Sequence[int]]
    ) -> None:
        super().__init__(names, costs)
        self._routes = routes

    def choose(self, situation: Situation) -> int:
        """The next expert of the question's route, then END."""
        route, step = self._routes[situation.question], len(situation.answers)
        return route[step] if step < len(route) else len(self.names)


def compare_transfer(name: str, without: Floats, with_it: Floats, *, seed: int = 0) -> Difference:
    """Compare qualities with and without knowledge.

    Args:
        name: What is compared.
        without: (n,) qualities without.
        with_it: (n,) qualities with, on the same questions.
        seed: Of resampling.
    """
    binary = bool(np.isin([without, with_it], (0.0, 1.0)).all())
    gap = paired_difference(with_it, without, seed=seed)
    base = float(without.mean())
    return Difference(
        name=name,
        questions=len(without),
        without=base,
        with_it=float(with_it.mean()),
        difference=Estimate(**gap._asdict()),
        relative=gap.estimate / base if base > 0 else None,
        helped=int(np.sum(with_it > without)),
        harmed=int(np.sum(with_it < without)),
        p=mcnemar_p(with_it, without) if binary else permutation_p(with_it, without, seed=seed),
    )


class KTPStudy:
    """Runs the comparisons on one pool and one set of questions; answers are generated once.

    Args:
        experts: The pool's experts, live.
        rules: What is allowed on a route.
        examples: The questions.
        metric: What a good answer is.
        ktp: The graph's template.
        cache: Durable store of answers.
        seed: Of resampling.
        say: Receives one-line messages.
    """

    def __init__(
        self,
        experts: Sequence[Expert],
        rules: RouteRules,
        examples: Sequence[Example],
        metric: QualityMetric,
        *,
        ktp: str | KTPTemplate | None = None,
        cache: AnswerCache | None = None,
        seed: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.experts = list(experts)
        self.rules, self.seed = rules, seed
        self._examples, self._metric, self._ktp, self._cache = examples, metric, ktp, cache
        self._say = say or (lambda line: None)

    def routes(
        self, agent: RoutingAgent, variants: Mapping[str, KTPTemplate] = VARIANTS
    ) -> list[Difference]:
        """The agent's routes as they are, and replayed with other transfers, each against no transfer.

        Returns:
            First the pool's own templates, then the variants for experts that have none of their own; and the
            same on the routes of two and more calls alone, where there is something to transfer.
        """
        source = self._source(self.experts)
        episodes = run_routes(agent, source, self.rules)
        wanted = {source.questions[e.example]: e.experts for e in episodes}
        replay = Replay(self.rules.names, self.rules.costs, wanted)
        off = self._qualities(replay, without_transfer(self.experts, self._ktp))
        longer = np.array([episode.calls > 1 for episode in episodes])
        found = {"as in the pool": _qualities(episodes)}
        for name, template in variants.items():
            self._say(f"routes with the template: {name}")
            found[name] = self._qualities(replay, with_template(self.experts, template))
        compared = [compare_transfer(n, off, q, seed=self.seed) for n, q in found.items()]
        if longer.any():
            compared += [
                compare_transfer(
                    f"{n} (routes of 2+ calls)", off[longer], q[longer], seed=self.seed
                )
                for n, q in found.items()
            ]
        return compared

    def pairs(self, templates: Mapping[str, KTPTemplate | None]) -> list[Pair]:
        """Every expert after every other, with its answer as knowledge, against its own first answer.

        Args:
            templates: Templates by name, for experts without one of their own; None for the pool's.

        Returns:
            One pair per template and ordered pair whose second expert sees earlier answers at all.
        """
        first = self._source(self.experts).first_answers()
        alone = np.array([[o.quality for o in row] for row in first]).T
        found = []
        for name, template in templates.items():
            members = self.experts if template is None else with_template(self.experts, template)
            source = self._source(members)
            for b, then in enumerate(members):
                own = self.experts[b].ktp is not None
                if not transfers(then, self._ktp) or (template is not None and own):
                    continue
                for a, before in enumerate(members):
                    if a == b:
                        continue
                    self._say(f"{name}: {then.name} after {before.name}")
                    requests = [Request(i, b, [row[a].answer]) for i, row in enumerate(first)]
                    after = np.array([outcome.quality for outcome in source.ask(requests)])
                    found.append(
                        self._pair(before.name, then.name, name, alone[a], alone[b], after)
                    )
        return found

    def _pair(
        self, first: str, then: str, template: str, before: Floats, alone: Floats, after: Floats
    ) -> Pair:
        def part(label: str, rows: NDArray[np.bool_]) -> Difference | None:
            if not rows.any():
                return None
            return compare_transfer(label, alone[rows], after[rows], seed=self.seed)

        label = f"{first} → {then}"
        whole = compare_transfer(label, alone, after, seed=self.seed)
        right = before >= 0.5
        return Pair(first, then, template, whole, part(label, right), part(label, ~right))

    def _source(self, experts: Sequence[Expert]) -> AnswerSource:
        return AnswerSource(experts, self._examples, self._metric, ktp=self._ktp, cache=self._cache)

    def _qualities(self, agent: RoutingAgent, experts: Sequence[Expert]) -> Floats:
        return _qualities(run_routes(agent, self._source(experts), self.rules))


def _qualities(episodes: Sequence[Episode]) -> Floats:
    return np.array([episode.quality for episode in episodes], dtype=np.float64)
