"""What routes look like: who is asked, who follows whom, how long they are, which are the most common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from der_graph.data import Example
from der_graph.policies.report_parts import ExampleRoute, Flow, RouteCount, Routes
from der_graph.policies.rollout import Episode
from der_graph.state import END_CHOICE

START = "START"
_SHOWN = 12  # most common routes in a report
_LONGEST = 600  # characters of a text in a report


def describe_routes(
    episodes: Sequence[Episode],
    examples: Sequence[Example],
    names: Sequence[str],
    method: str = "der",
) -> Routes:
    """Describe finished routes.

    Args:
        episodes: The routes.
        examples: The questions that `Episode.example` points to.
        names: The experts, in the pool's order.
        method: Whose routes they are.
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
        method=method,
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
    episodes: Sequence[Episode], examples: Sequence[Example], *, most: int = 12, seed: int = 0
) -> list[ExampleRoute]:
    """A few routes to look at, drawn evenly from all tasks, right and wrong ones alike."""
    order = np.random.default_rng(seed).permutation(len(episodes)).tolist()
    seen: Counter[str] = Counter()
    ranked = []
    for i in order:
        task = examples[episodes[i].example].task
        ranked.append((seen[task], task, i))
        seen[task] += 1
    chosen = [i for _, _, i in sorted(ranked)[:most]]
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
