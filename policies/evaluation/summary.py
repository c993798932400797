"""From the routes of an evaluation to its report: means with intervals, tests, routes, the headline.

    Evaluation ──summarize──> Report        Evaluation ──write_episodes──> a line per method and question

`describe_routes` and `example_routes` say what DER's routes look like.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import pairwise

import numpy as np

from der_graph.data import Example
from der_graph.data.saving import replacing
from der_graph.nodes.recorded import RecordedChat
from der_graph.policies.answers.source import Repeated
from der_graph.policies.evaluation.evaluate import Evaluation
from der_graph.policies.evaluation.methods import Method
from der_graph.policies.evaluation.report_schema import (
    AgentInfo,
    Comparison,
    DataInfo,
    Drift,
    Estimate,
    ExampleRoute,
    Flow,
    MethodResult,
    PoolInfo,
    Report,
    RouteCount,
    Routes,
    Run,
    SkippedMethod,
    TaskResult,
    WallClock,
    shown_cost,
)
from der_graph.policies.evaluation.statistics import (
    Scores,
    bootstrap_interval,
    bootstrap_intervals,
    compare,
    wilson_interval,
)
from der_graph.policies.training.mdp import Episode
from der_graph.state import END_CHOICE

SIGNIFICANT = 0.05


def summarize(
    evaluation: Evaluation,
    *,
    run: Run,
    pool: PoolInfo,
    agent: AgentInfo,
    data: DataInfo,
    wall_clock: WallClock | None = None,
) -> Report:
    """Make the report of an evaluation.

    Args:
        evaluation: The routes of every method.
        run: How it was made.
        pool: The pool.
        agent: The agent.
        data: The questions.
        wall_clock: Where the time goes, if it was measured.
    """
    episodes, seed = evaluation.episodes, run.seed
    pool = pool.model_copy(update={"run_all_cost": _cost_of_everyone(evaluation, pool)})
    methods = [
        _result(method, episodes[method.name], evaluation.examples, pool, seed)
        for method in evaluation.methods
    ]
    scores = {
        name: Scores(np.array([r.quality for r in routes]), np.array([r.cost for r in routes]))
        for name, routes in episodes.items()
    }
    curve = {m.name: scores[m.name] for m in evaluation.methods if m.curve == "der"}
    # Swept points of routers would be compared many times over; their curves are in the plot.
    others = {
        m.name: scores[m.name]
        for m in evaluation.methods
        if m.family != "der" and m.name in (m.curve, m.name.split("@")[0])
    }
    comparisons = compare(scores["der"], others, curve, seed=seed)
    names = evaluation.methods[0].rules.names
    drift = [_drift(each) for each in evaluation.repeated]
    return Report(
        headline=headline(methods, comparisons, pool, data, drift),
        run=run,
        pool=pool,
        agent=agent,
        data=data,
        methods=methods,
        comparisons=comparisons,
        routes=describe_routes(episodes["der"], evaluation.examples, names),
        wall_clock=wall_clock,
        examples=example_routes(episodes["der"], evaluation.examples, seed=seed),
        skipped=[SkippedMethod(name=s.name, reason=s.reason) for s in evaluation.skipped],
        drift=drift,
    )


def _cost_of_everyone(evaluation: Evaluation, pool: PoolInfo) -> float:
    """What asking every expert once costs; calls that are charged by what they use, what they did cost."""
    # Who reads no answers pays for a shorter prompt: of each question such calls count, where there are any.
    costs: dict[str, dict[int, dict[tuple[bool, str], float]]] = {}
    for method in evaluation.methods:
        for episode in evaluation.episodes.get(method.name, ()):
            for step, answer in enumerate(episode.answers):
                if answer["error"] is None:
                    of_question = costs.setdefault(answer["expert"], {}).setdefault(
                        episode.example, {}
                    )
                    of_question[step < method.together, answer["text"]] = answer["cost"]
    saved = 0.0
    for expert in evaluation.methods[0].experts:
        if not expert.charge.fixed and (known := costs.get(expert.name)):
            paid = []
            for calls in known.values():
                alone = [cost for (first, _), cost in calls.items() if first]
                paid.append(float(np.mean(alone or list(calls.values()))))
            saved += expert.cost - sum(paid) / len(paid)
    return pool.run_all_cost - saved


def _drift(repeated: Repeated) -> Drift:
    then, now = repeated.qualities()
    since = repeated.since
    date = None if since is None else datetime.fromtimestamp(since, timezone.utc)
    return Drift(
        expert=repeated.expert,
        asked=len(repeated.old),
        different=repeated.different,
        then=then,
        now=now,
        changed=repeated.changed,
        since=None if date is None else date.isoformat(timespec="seconds"),
    )


def headline(
    methods: Sequence[MethodResult],
    comparisons: Sequence[Comparison],
    pool: PoolInfo,
    data: DataInfo,
    drift: Sequence[Drift] = (),
) -> str:
    """The result in a few sentences, whichever way it went: as good as what, at which share of its cost.

    Args:
        methods: All methods, DER at its default price first.
        comparisons: DER against each of them.
        pool: The pool.
        data: The questions.
        drift: Experts whose cached answers were asked again.
    """
    der = methods[0]
    what = (
        f"a quality of {der.quality.estimate:.3f} [{der.quality.low:.3f}, {der.quality.high:.3f}] on "
        f"{data.questions} questions, at {shown_cost(der.cost.estimate, pool.unit)} "
        f"({der.share_of_run_all:.0%} of asking everyone)."
    )
    warnings = "".join(
        f" Warning: '{each.expert}' has changed since its answers were cached (quality {each.then:.3f} "
        f"then, {each.now:.3f} now, on {each.asked} of them asked again), so these figures are those of then."
        for each in drift
        if each.changed
    )
    rivals = [m for m in methods if m.family not in ("der", "oracle") and m.curve in (None, m.name)]
    if not rivals:
        return f"DER has {what}{warnings}"
    best = max(rivals, key=lambda m: (m.quality.estimate, -m.cost.estimate))
    found = next(c for c in comparisons if c.method == best.name)
    gap = found.difference
    if found.p >= SIGNIFICANT:
        verdict = f"as good as {best.label}, as far as {data.questions} questions tell"
    else:
        verdict = f"{'better' if gap.estimate > 0 else 'worse'} than {best.label}"
    others = "the best of the other methods" if len(rivals) > 1 else "the only other method"
    return (
        f"DER is {verdict}, at {share_of(der.cost.estimate, best.cost.estimate)} its cost; "
        f"{_at_this_budget(der, rivals)}. It has {what} {best.label}, {others}, has "
        f"{best.quality.estimate:.3f} at {shown_cost(best.cost.estimate, pool.unit)}; difference "
        f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], {shown_p(found.p)}.{warnings}"
    )


def share_of(cost: float, other: float) -> str:
    """A cost in terms of another, as one says it: `31% of`, `1.8 times`, `210 times`."""
    if not other:
        return "no more than" if not cost else "more than"
    share = cost / other
    if share < 1.1:
        return f"{share:.0%} of"
    return f"{share:.1f} times" if share < 10 else f"{share:,.0f} times"


def _at_this_budget(der: MethodResult, rivals: Sequence[MethodResult]) -> str:
    """Does anything that costs no more do better?"""
    budget = der.cost.estimate * (1 + 1e-9)
    within = [m for m in rivals if m.cost.estimate <= budget]
    if not within:
        return "nothing else costs as little"
    best = max(within, key=lambda m: m.quality.estimate)
    if best.quality.estimate > der.quality.estimate:
        return f"{best.label} is better at no more cost ({best.quality.estimate:.3f})"
    if best.quality.estimate == der.quality.estimate:
        return f"{best.label} is as good at no more cost"
    return "best at this budget"


def shown_p(p: float) -> str:
    """A p-value as it is written."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def write_episodes(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write a line per method and question, from which every number of the report can be computed again.

    Args:
        evaluation: The routes.
        path: A `.jsonl.gz` file.
    """
    with replacing(path) as part, gzip.open(part, "wt", encoding="utf-8") as file:
        for method in evaluation.methods:
            names = method.rules.names
            for episode in evaluation.episodes[method.name]:
                example = evaluation.examples[episode.example]
                row = {
                    "method": method.name,
                    "id": example.id,
                    "task": example.task,
                    "experts": [names[i] for i in episode.experts],
                    "final": episode.final,
                    "values": [answer["value"] for answer in episode.answers],
                    "quality": round(episode.quality, 6),
                    "cost": round(episode.cost, 6),
                    "seconds": round(sum(a["seconds"] for a in episode.answers), 4),
                    "failed": sum(a["error"] is not None for a in episode.answers),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def is_live(evaluation: Evaluation) -> bool:
    """Did models answer, and not recordings?"""
    return not any(isinstance(e.model, RecordedChat) for e in evaluation.methods[0].experts)


def _result(
    method: Method,
    episodes: Sequence[Episode],
    examples: Sequence[Example],
    pool: PoolInfo,
    seed: int,
) -> MethodResult:
    columns: dict[str, list[float]] = {
        "quality": [e.quality for e in episodes],
        "cost": [e.cost for e in episodes],
        "calls": [float(e.calls) for e in episodes],
        "latency_s": [sum(a["seconds"] for a in e.answers) for e in episodes],
        "latency_parallel_s": [_together(e, method.together) for e in episodes],
    }
    table = np.array(list(columns.values())).T
    found = {
        name: Estimate(**interval._asdict())
        for name, interval in zip(columns, bootstrap_intervals(table, seed=seed), strict=True)
    }
    # Resampling equals gives equals, however few they are.
    if set(columns["quality"]) in ({0.0}, {1.0}):
        found["quality"] = _few(columns["quality"], seed)
    return MethodResult(
        name=method.name,
        label=method.label,
        family=method.family,
        curve=method.curve,
        cost_weight=method.context.cost_weight,
        quality=found["quality"],
        cost=found["cost"],
        share_of_run_all=found["cost"].estimate / (pool.run_all_cost or 1.0),
        calls=found["calls"],
        latency_s=found["latency_s"] if pool.live else None,
        latency_parallel_s=found["latency_parallel_s"] if pool.live else None,
        failed_calls=sum(a["error"] is not None for e in episodes for a in e.answers),
        tasks=_by_task(episodes, examples, seed),
    )


def _few(qualities: Sequence[float], seed: int) -> Estimate:
    """The mean of few qualities: right or wrong takes Wilson's interval, which is honest also at 0 and 1."""
    if all(quality in (0.0, 1.0) for quality in qualities):
        found = wilson_interval(round(sum(qualities)), len(qualities))
    else:
        found = bootstrap_interval(qualities, resamples=2000, seed=seed)
    mean, low, high = found
    return Estimate(estimate=mean, low=min(low, mean), high=max(high, mean))  # rounding, at 0 and 1


def _together(episode: Episode, first: int) -> float:
    """Seconds of a route whose first calls run at the same time."""
    seconds = [answer["seconds"] for answer in episode.answers]
    return max(seconds[:first], default=0.0) + sum(seconds[first:])


def _by_task(
    episodes: Sequence[Episode], examples: Sequence[Example], seed: int
) -> dict[str, TaskResult]:
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(examples[episode.example].task or "other", []).append(episode)
    found = {}
    for task, mine in sorted(groups.items()):
        interval = _few([e.quality for e in mine], seed)
        found[task] = TaskResult(
            questions=len(mine),
            quality=interval,
            cost=float(np.mean([e.cost for e in mine])),
            calls=float(np.mean([e.calls for e in mine])),
        )
    return found


START = "START"
_SHOWN = 12  # most common routes in a report
_EXAMPLES = 12  # single routes in it
_LONGEST = 600  # characters of a text in a report


def describe_routes(
    episodes: Sequence[Episode],
    examples: Sequence[Example],
    names: Sequence[str],
) -> Routes:
    """Describe the agent's finished routes.

    Args:
        episodes: The routes.
        examples: The questions that `Episode.example` points to.
        names: The experts, in the pool's order.
    """
    asked = Counter(i for episode in episodes for i in episode.experts)
    calls = max(1, sum(asked.values()))
    by_route: dict[tuple[int, ...], list[Episode]] = {}
    by_task: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_route.setdefault(tuple(episode.experts), []).append(episode)
        by_task.setdefault(examples[episode.example].task or "other", []).append(episode)
    common = sorted(by_route.items(), key=lambda item: (-len(item[1]), item[0]))[:_SHOWN]
    return Routes(
        method="der",
        shares={name: asked[i] / calls for i, name in enumerate(names)},
        lengths=dict(sorted(Counter(episode.calls for episode in episodes).items())),
        most_common=[
            RouteCount(
                experts=[names[i] for i in route],
                questions=len(mine),
                quality=float(np.mean([episode.quality for episode in mine])),
                cost=float(np.mean([episode.cost for episode in mine])),
            )
            for route, mine in common
        ],
        flow=flow(episodes, names),
        flow_by_task={task: flow(mine, names) for task, mine in sorted(by_task.items())},
    )


def flow(episodes: Sequence[Episode], names: Sequence[str]) -> Flow:
    """Count who follows whom: rows START and the experts, columns the experts and END."""
    end = len(names)
    counts = np.zeros((end + 1, end + 1), dtype=int)
    for episode in episodes:
        route = [-1, *episode.experts, end]
        for before, after in pairwise(route):
            counts[before + 1, after] += 1
    return Flow(
        rows=[START, *names],
        columns=[*names, END_CHOICE],
        counts=[list(map(int, row)) for row in counts],
    )


def example_routes(
    episodes: Sequence[Episode], examples: Sequence[Example], *, seed: int = 0
) -> list[ExampleRoute]:
    """A few routes to look at, drawn evenly from all tasks, right and wrong ones alike."""
    order = np.random.default_rng(seed).permutation(len(episodes)).tolist()
    seen: Counter[str] = Counter()
    ranked = []
    for i in order:
        task = examples[episodes[i].example].task
        ranked.append((seen[task], task, i))
        seen[task] += 1
    chosen = [i for _, _, i in sorted(ranked)[:_EXAMPLES]]
    return [_example(episodes[i], examples[episodes[i].example]) for i in chosen]


def _example(episode: Episode, example: Example) -> ExampleRoute:
    return ExampleRoute(
        id=example.id,
        task=example.task,
        question=_short(example.question),
        reference=_short(example.reference),
        steps=[
            (a["expert"], _short(a["text"] or f"failed: {a['error']}")) for a in episode.answers
        ],
        quality=episode.quality,
        cost=episode.cost,
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]} …"
