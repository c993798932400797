"""An expert that joins after training: asked probe questions, and used without a gradient step.

    new expert ──k probe questions──> quality, length of answers ──> profile ──> same weights, one expert more

Only for agents that know experts by their profiles, as `der train` makes them, not by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from der_graph.data import Example
from der_graph.errors import AgentPoolMismatchError, DataError
from der_graph.nodes.expert import Expert, counted_size
from der_graph.nodes.reliability.charge import CallSize, Charge
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import (
    MEMORY,
    AnswerCache,
    AnswerSource,
    Outcome,
    Request,
    check_recorded,
)
from der_graph.policies.observation import Observer
from der_graph.policies.observation.call_costs import expected_costs, fit_call_costs
from der_graph.policies.observation.evidence import answer_tokens
from der_graph.policies.observation.profiles import (
    choose_questions,
    ease_of,
    refreshed,
    with_expert,
)
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.training.preflight import usable
from der_graph.state import Answer

PROBES = 30
"""Questions that a new expert is asked; `policies/observation/profiles.py` says how well it is then known."""
CANDIDATES = 2000
"""Questions that the probes are chosen among, at most: each is encoded."""


def probe_expert(
    agent: DERAgent,
    expert: Expert,
    examples: Sequence[Example],
    *,
    count: int = PROBES,
    metric: str | QualityMetric = "match",
    cache: AnswerCache | None = None,
    seed: int = 0,
    fresh: bool = False,
) -> tuple[DERAgent, float]:
    """Ask a new expert some questions and add it to an agent.

    Args:
        agent: Knows its experts by profile.
        expert: The new one.
        examples: Questions with references to draw from.
        count: How many to ask.
        metric: What a good answer is; the one that the agent was trained with.
        cache: Durable store of answers.
        seed: Of the draw.
        fresh: Ask it whatever the cache holds? Once it has answered, that takes the place of its old answers.

    Returns:
        The agent with the expert, and the expert's mean quality.

    Raises:
        DataError: If there are no questions, the metric cannot compare with a reference, every call failed,
            or a recorded answer is missing.
        AgentPoolMismatchError: See `add_expert`.
    """
    _check_new(agent, expert.name)
    if not examples:
        raise DataError("there are no probe questions; give a file with at least one row")
    probes, outcomes = _ask_probes(agent, expert, examples, count, metric, cache, seed, fresh)
    changed = add_expert(
        agent,
        expert.name,
        expert.cost,
        questions=[probe.question for probe in probes],
        qualities=[outcome.quality for outcome in outcomes],
        lengths=[answer_tokens(outcome.answer) for outcome in outcomes],
        description=expert.description,
        charge=expert.charge,
        sizes=_sizes(outcomes, expert),
    )
    return changed, float(np.mean([outcome.quality for outcome in outcomes]))


def refresh_expert(
    agent: DERAgent,
    expert: Expert,
    examples: Sequence[Example],
    *,
    count: int = PROBES,
    metric: str | QualityMetric = "match",
    cache: AnswerCache | None = None,
    seed: int = 0,
) -> tuple[DERAgent, float]:
    """Ask an expert that an agent knows some questions again, and know it by what it says now.

    A network with an output for each expert has learnt when to ask it as it was: that output is retired, and
    the expert joins as a new one does. Args, returns and raises as `probe_expert`, but that the expert is
    known. Its answers in the cache are not read, and are replaced once it has answered.

    Raises:
        AgentPoolMismatchError: If the agent does not know it.
    """
    agent.check_pool([expert.name])
    if not examples:
        raise DataError("there are no probe questions; give a file with at least one row")
    observer, position = agent.observer, agent.observer.names.index(expert.name)
    shape = agent.network.shape
    if shape.head == "fixed" and position < shape.experts and not agent.positional:
        number = sum(name.startswith(f"{expert.name}~") for name in observer.names) + 1
        old, settings = f"{expert.name}~{number}", agent.settings
        if agent.planner is not None:  # it has learnt what the expert was
            settings["planner"] = agent.planner.with_name(expert.name, old)
        renamed = observer.with_name(expert.name, old)
        trained = DERAgent(renamed.some(shape.experts), agent.network, **settings)
        retired = trained.over(renamed)
        return probe_expert(
            retired,
            expert,
            examples,
            count=count,
            metric=metric,
            cache=cache,
            seed=seed,
            fresh=True,
        )
    probes, outcomes = _ask_probes(agent, expert, examples, count, metric, cache, seed, True)
    learnt = fit_call_costs([[size] for size in _sizes(outcomes, expert)], [expert.charge])
    costs = observer.costs.tolist()
    (costs[position],) = expected_costs([expert.cost], [expert.charge], learnt.get("call_size"))
    arrays = refreshed(
        observer.arrays,
        observer.encoder,
        position,
        [probe.question for probe in probes],
        np.array([outcome.quality for outcome in outcomes], dtype=np.float32),
        np.array([answer_tokens(outcome.answer) for outcome in outcomes], dtype=np.float32),
        costs=costs,
        call_costs=learnt,
    )
    changed = agent.over(observer.with_arrays(arrays).for_pool(observer.names, costs))
    return changed, float(np.mean([outcome.quality for outcome in outcomes]))


def _sizes(outcomes: Sequence[Outcome], expert: Expert) -> list[CallSize | None]:
    return [counted_size(outcome.answer, expert.charge) for outcome in outcomes]


def _ask_probes(
    agent: DERAgent,
    expert: Expert,
    examples: Sequence[Example],
    count: int,
    metric: str | QualityMetric,
    cache: AnswerCache | None,
    seed: int,
    fresh: bool,
) -> tuple[list[Example], list[Outcome]]:
    """Choose telling questions and ask an expert: the questions, and its answers with their qualities."""
    rng = np.random.default_rng(seed)
    scorer = get_metric(metric) if isinstance(metric, str) else metric
    among, _, _ = usable(examples, scorer, [expert.name], "probe")
    if len(among) > CANDIDATES:
        among = [among[i] for i in sorted(rng.permutation(len(among))[:CANDIDATES].tolist())]
    observer = agent.observer
    easy = ease_of(observer.arrays, observer.encoder, [example.question for example in among])
    probes = [among[i] for i in choose_questions(easy, count, rng)]
    check_recorded([expert], probes)
    answered = _Answered() if fresh and cache is not None else None
    source = AnswerSource([expert], probes, scorer, cache=cache if answered is None else answered)
    keep = getattr(scorer, "keep_marks_in", None)
    if keep is not None and cache is not None:  # as a source with a cache does
        keep(cache)
    requests = [Request(i, 0, []) for i in range(len(probes))]
    try:
        outcomes = source.ask(requests)
    except BaseException:  # of the judge, say, or Ctrl-C: what was paid for is kept
        if answered is not None and cache is not None:
            cache.put_many(answered.items)
        raise
    if all(outcome.answer["error"] is not None for outcome in outcomes):
        raise DataError(
            f"expert '{expert.name}' answered none of {len(probes)} probe questions: "
            f"{outcomes[0].answer['error']}"
        )
    if (
        answered is not None and cache is not None
    ):  # now, and not before: it might not have answered
        cache.replace(expert.name, answered.items)
    return probes, outcomes


class _Answered(AnswerCache):
    """What an expert answers now, in place of a cache that is not to be read."""

    def __init__(self) -> None:
        super().__init__(MEMORY)
        self.items: dict[str, Answer] = {}

    def put_many(self, items: Mapping[str, Answer]) -> None:
        super().put_many(items)
        self.items.update(items)


def add_expert(
    agent: DERAgent,
    name: str,
    cost: float,
    *,
    questions: Sequence[str],
    qualities: Sequence[float],
    lengths: Sequence[float],
    description: str = "",
    charge: Charge | None = None,
    sizes: Sequence[CallSize | None] = (),
) -> DERAgent:
    """Make an agent that knows one more expert, by its results on probe questions.

    Args:
        agent: Knows its experts by profile.
        name: The new expert.
        cost: Price of one call.
        questions: What it was asked.
        qualities: Its quality on each, in [0, 1].
        lengths: Tokens of its answers.
        description: What it is good at, in words.
        charge: How its calls are charged, where that is not `cost` for each.
        sizes: What each call used; None for a failed one, or where nobody counted.

    Raises:
        AgentPoolMismatchError: If it is known already, or the agent was trained for a fixed pool.
    """
    _check_new(agent, name)
    observer = agent.observer
    learnt = {} if charge is None else fit_call_costs([[size] for size in sizes], [charge])
    (cost,) = expected_costs([cost], [charge] if charge else [], learnt.get("call_size"))
    costs = [*observer.costs.tolist(), cost]
    arrays = with_expert(
        observer.arrays,
        observer.encoder,
        questions,
        np.asarray(qualities, dtype=np.float32),
        np.asarray(lengths, dtype=np.float32),
        description,
        costs=costs,
        call_costs=learnt,
    )
    return agent.over(
        Observer(
            observer.config,
            [*agent.names, name],
            costs,
            observer.encoder,
            arrays,
            observer.features,
            np.zeros((len(agent.names) + 1, 0), dtype=np.float32),
            observer.scale,
        )
    )


def _check_new(agent: DERAgent, name: str) -> None:
    if name in agent.names:
        raise AgentPoolMismatchError(f"the agent knows '{name}' already")
    if agent.positional:
        raise AgentPoolMismatchError(
            "this agent was trained for a fixed pool and tells its experts by position; "
            "der train makes one that takes new experts, by default or with --any-pool"
        )
