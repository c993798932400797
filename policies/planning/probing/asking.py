r"""Finding out who is good at what: probe questions, the one that tells most next.

    experts, questions ──round: of each kind the most telling──> answers ──until budget or number──> Probed

The shipped questions were written for the project: eleven kinds, sixteen of each, from easy to hard, with
answers that can be checked. A question tells most where experts like these are right half of the time; how
hard a question is, is taken from its place in its kind. All experts are asked the same questions, so that
results can be compared. Whoever fails three times in a row is not asked again. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from der_graph.data import Example, load_examples
from der_graph.errors import BudgetError, DataError, ExpertError
from der_graph.nodes.expert import Expert
from der_graph.policies.answers import AnswerSource
from der_graph.policies.answers.cache import AnswerCache
from der_graph.policies.answers.source import Request
from der_graph.policies.planning.probing.profile import Probed
from der_graph.policies.planning.probing.sizes import sizes_of
from der_graph.policies.planning.skills import (
    PRICE_CURVE,
    SIZE_CURVE,
    estimate,
    prior_skill,
    telling,
)
from der_graph.policies.planning.tables import SPREAD, Floats, at_zero, mean_skill, widened
from der_graph.policies.quality import QualityMetric, check_references

EASIEST = 2.0
"""Log-odds by which the first question of a kind is taken to be easier than usual; the last one is harder."""
_FAILURES = 3


def shipped_probes() -> list[Example]:
    """The questions that come with the package, by kind from easy to hard."""
    return load_examples(Path(str(files("der_graph") / "data" / "probes.jsonl")))


def probe(
    experts: Sequence[Expert],
    examples: Sequence[Example],
    metric: QualityMetric,
    *,
    count: int,
    max_cost: float | None = None,
    cost_unit: str = "",
    cache: AnswerCache | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Probed:
    """Ask experts probe questions.

    Args:
        experts: The experts.
        examples: Questions with answers that can be checked; by kind (`task`) from easy to hard.
        metric: What a good answer is.
        count: Questions for each expert, at most.
        max_cost: What all calls may cost together, in the pool's unit.
        cost_unit: The unit.
        cache: Answers are looked up and kept there.
        say: Gets a line for each round, and where something is wrong.

    Raises:
        DataError: If a question has no answer to check, or one that the metric cannot compare with.
        BudgetError: If the budget does not pay for a question.
        ExpertError: If nobody answers.
    """
    bare = next((e for e in examples if not e.reference.strip()), None)
    if bare is not None:
        raise DataError(f"question {bare.id!r} has no answer; a probe is checked by its answer")
    check_references(metric, examples)
    prices = np.array([expert.cost for expert in experts])
    if max_cost is not None and prices.sum() > max_cost:
        raise BudgetError(
            f"max_cost={max_cost:g} does not pay for one question to {len(experts)} experts, which costs up "
            f"to {prices.sum():g}; raise it, or probe fewer experts"
        )
    source = AnswerSource(experts, examples, metric, cache=cache)
    shape = len(examples), len(experts)
    quality, seconds = np.full(shape, np.nan), np.full(shape, np.nan)
    values: list[list[str | None]] = [[None] * shape[1] for _ in examples]
    texts = [[""] * shape[1] for _ in examples]
    failing = np.zeros(shape[1], dtype=np.int64)
    asked: list[int] = []
    spent = 0.0
    while len(asked) < min(count, len(examples)):
        able = np.flatnonzero(failing < _FAILURES)
        if not len(able):
            break
        wanted = _round(examples, asked, skills(experts, quality, cost_unit)[0][able])
        wanted = wanted[: count - len(asked)]
        if max_cost is not None:
            most = int((max_cost - spent) * (1 + 1e-9) / max(float(prices[able].sum()), 1e-12))
            wanted = wanted[:most]
        if not wanted:
            break
        requests = [Request(q, int(i), []) for q in wanted for i in able]
        for request, outcome in zip(requests, source.ask(requests), strict=True):
            q, i, answer = request.example, request.expert, outcome.answer
            spent += answer["cost"]
            if answer["error"] is not None:
                failing[i] += 1
                if failing[i] == _FAILURES:
                    say(f"{experts[i].name} does not answer and is left out: {answer['error']}")
                continue
            failing[i] = 0 if failing[i] < _FAILURES else failing[i]
            quality[q, i], seconds[q, i] = outcome.quality, answer["seconds"]
            values[q][i], texts[q][i] = answer["value"], answer["text"]
        asked += wanted
        say(f"{len(asked)} questions, cost {spent:.4g}")
    asked.sort()
    if np.isnan(quality).all():
        raise ExpertError(
            "no expert answered a probe question; der pool check, and a look at the keys"
        )
    counts = (~np.isnan(seconds)).sum(axis=0)
    return Probed(
        names=tuple(expert.name for expert in experts),
        fingerprints=tuple(expert.fingerprint for expert in experts),
        examples=tuple(examples[q] for q in asked),
        quality=quality[asked],
        values=[values[q] for q in asked],
        texts=[texts[q] for q in asked],
        seconds=np.where(counts > 0, np.nansum(seconds, axis=0) / np.maximum(counts, 1), np.nan),
        spent=spent,
        cost_unit=cost_unit,
        metric=metric.name,
    )


def skills(
    experts: Sequence[Expert], quality: Floats, cost_unit: str = ""
) -> tuple[Floats, Floats]:
    """What results say of experts, with the prior: (N,) log-odds at d = 0, and their standard deviations."""
    sizes = sizes_of(experts, cost_unit)
    known = sizes if all(sizes) else None
    prior = at_zero(prior_skill([expert.cost for expert in experts], sizes=known))
    deviation = (SIZE_CURVE if known else PRICE_CURVE).spread * widened(SPREAD)
    found = estimate(quality, prior, deviation)
    return found.logit, found.precision**-0.5


def summary(experts: Sequence[Expert], found: Probed) -> tuple[list[list[str]], list[list[str]]]:
    """Who is good at what, how sure: rows of two tables.

    Returns:
        Expert, skill, its 95 % interval, questions, mean seconds, best and worst kind, where they differ; and
        for each kind the share of right answers of every expert.
    """
    logit, deviation = skills(experts, found.quality, found.cost_unit)
    low, middle, high = (mean_skill(logit + k * 1.96 * deviation) for k in (-1, 0, 1))
    kinds = list(dict.fromkeys(example.task for example in found.examples))
    of = np.array([kinds.index(example.task) for example in found.examples])
    share = np.full((len(kinds), len(found.names)), np.nan)
    for k in range(len(kinds)):
        there = found.quality[of == k]
        counts = (~np.isnan(there)).sum(axis=0)
        share[k] = np.where(counts > 0, np.nansum(there, axis=0) / np.maximum(counts, 1), np.nan)
    rows = []
    for i, name in enumerate(found.names):
        n = int((~np.isnan(found.quality[:, i])).sum())
        ranked = [k for k in np.argsort(-share[:, i]).tolist() if not np.isnan(share[k, i])]
        if ranked and share[ranked[0], i] == share[ranked[-1], i]:
            ranked = []  # alike on all kinds
        rows.append(
            [
                name,
                f"{middle[i]:.2f}",
                f"{low[i]:.2f}-{high[i]:.2f}",
                str(n),
                "-" if np.isnan(found.seconds[i]) else f"{found.seconds[i]:.1f}",
                kinds[ranked[0]] if ranked else "-",
                kinds[ranked[-1]] if ranked else "-",
            ]
        )
    by_kind = [
        [kind or "-", *("-" if np.isnan(s) else f"{s:.2f}" for s in share[k].tolist())]
        for k, kind in enumerate(kinds)
    ]
    return rows, by_kind


def _round(examples: Sequence[Example], asked: Sequence[int], logit: Floats) -> list[int]:
    """Of each kind the question that tells most, of those that were not asked."""
    kinds: dict[str, list[int]] = {}
    for q, example in enumerate(examples):
        kinds.setdefault(example.task, []).append(q)
    done = set(asked)
    chosen = []
    for members in kinds.values():
        ease = np.linspace(EASIEST, -EASIEST, len(members))
        value = telling(logit, ease)
        free = [k for k, q in enumerate(members) if q not in done]
        if free:
            chosen.append(members[max(free, key=lambda k: value[k])])
    return chosen
