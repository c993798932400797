"""Is there anything to learn? Asked before a run spends money, and again before it writes an agent.

    questions ──usable──> those with a reference     first answers ──check_first_answers──> or DataError

A server that is down, references that are empty, experts that nobody can tell apart: each would train without
an error, and give an agent that is worth nothing. Knows nothing of PPO.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from der_graph.data import Example
from der_graph.data.leaks import duplicates, shared_questions
from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.providers.secrets import mask, secrets_in
from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.observation import TextEncoder
from der_graph.policies.quality import QualityMetric, check_references, needs_reference
from der_graph.policies.training.config import TrainConfig

FIRST_CALLS = 8
"""Questions that every expert is asked before all others: where all of those fail, nothing more is spent."""
NEARLY_THE_SAME = 0.98
"""Cosine of two questions' embeddings from which on they count as one, if their references are the same."""

_BEYOND = 2.0  # how far above the price that decides the highest one is: some questions cost less than most
_ABOUT = 1.5  # prices within this factor are about the same
_AS_CHEAP = 1.25  # experts that cost at most so many times what the cheapest one does are as cheap
_PAIRS = 64  # answers to what another expert said, where first answers tell no experts apart
_COMPARED = 128  # dev questions compared with all training questions at a time
_SHOWN = 60  # characters of a question in a message

Outcomes = Sequence[Sequence[Outcome]]


class Verdict(NamedTuple):
    """What users thought of an answer to a question without a reference.

    Attributes:
        example: The question.
        expert: Position of the expert whose answer was shown.
        quality: The score, in [0, 1].
    """

    example: Example
    expert: int
    quality: float


def usable(
    examples: Sequence[Example], metric: QualityMetric, names: Sequence[str], what: str
) -> tuple[list[Example], list[Verdict], list[str]]:
    """The questions that a metric can judge answers to.

    Args:
        examples: All questions.
        metric: What a good answer is.
        names: The experts, in order.
        what: What the questions are for, for messages.

    Returns:
        The questions; the verdicts of users on the others; and what to say of them.

    Raises:
        DataError: If there is none, or the metric cannot compare with a reference.
    """
    if not needs_reference(metric):
        return list(examples), [], []
    good = [example for example in examples if example.reference.strip()]
    rest = [example for example in examples if not example.reference.strip()]
    verdicts = [
        Verdict(example, names.index(name), min(1.0, max(0.0, candidate.scores["feedback"])))
        for example in rest
        for name, candidate in example.candidates.items()
        if name in names and "feedback" in candidate.scores
    ]
    if not good:
        known = (
            f"; {len(verdicts)} users' scores say which answers were bad, and nothing says which are right"
            if verdicts
            else ""
        )
        raise DataError(
            f"none of {len(examples)} {what} questions has a reference answer, which the metric "
            f"'{metric.name}' compares with{known}. Add right answers, or use a metric that needs none, such "
            "as --metric judge:MODEL"
        )
    check_references(metric, good)
    lines = []
    judged = {verdict.example.id for verdict in verdicts}
    if judged:
        lines.append(
            f"{len(judged)} {what} questions have users' scores and no reference: they count for the "
            "experts whose answers were shown, and for nothing else"
        )
    if len(rest) > len(judged):
        lines.append(
            f"warning: {len(rest) - len(judged)} of {len(examples)} {what} questions have no reference and "
            f"are left out: the metric '{metric.name}' needs one"
        )
    return good, verdicts, lines


def failed_on_routes(source: AnswerSource) -> list[str]:
    """Who answers alone, and fails after others: a longer prompt may be too long, or too dear.

    Args:
        source: Training questions that were asked along routes.
    """
    answers = [source.after_others(i) for i in range(len(source.experts))]
    failed = [[a["error"] for a in each if a["error"] is not None] for each in answers]
    return [
        f"warning: {expert.name} failed in {len(bad):,} of {len(all_):,} calls after others; the first "
        f"error: {_masked(bad[0])}"
        for expert, all_, bad in zip(source.experts, answers, failed, strict=True)
        if bad and 2 * len(bad) >= len(all_)
    ]


def leak_warnings(examples: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    """What is wrong with training and dev questions together, one line each.

    Args:
        examples: Training questions.
        dev: Dev questions.
    """
    lines = []
    shared = shared_questions(dev, examples)
    if shared:
        lines.append(
            f"warning: {len(shared)} of {len(dev)} dev questions are training questions as well (first: "
            f"{_shown(dev[shared[0]])}), so the best agent would be chosen by what it has seen; give other "
            "dev questions"
        )
    for what, questions in (("training", examples), ("dev", dev)):
        again, conflicts = duplicates(questions)
        if conflicts:
            one, two = (questions[i] for i in conflicts[0])
            lines.append(
                f"warning: {len(conflicts)} {what} questions come twice with different references (first: "
                f"{_shown(one)}, {one.reference[:_SHOWN]!r} in {one.id} and {two.reference[:_SHOWN]!r} in "
                f"{two.id}); one of each is wrong"
            )
        if len(again) > len(conflicts):
            lines.append(f"{len(again) - len(conflicts)} {what} questions come twice")
    return lines


def ask_a_few(source: AnswerSource) -> None:
    """Ask every expert some questions, before all of them are asked.

    Raises:
        DataError: If every call of an expert failed.
    """
    count = min(FIRST_CALLS, len(source.examples))
    experts = range(len(source.experts))
    outcomes = source.ask([Request(e, i, []) for e in range(count) for i in experts])
    n = len(source.experts)
    _check_failures(source.experts, [outcomes[k : k + n] for k in range(0, len(outcomes), n)])


def check_first_answers(source: AnswerSource, first: Outcomes, *, pairs: bool = True) -> list[str]:
    """Refuse what no agent can learn from.

    Args:
        source: Training questions and answers.
        first: Every expert's first answer to each.
        pairs: Where first answers tell no experts apart, try whether an answer before helps.

    Returns:
        What to say where little can be learnt.

    Raises:
        DataError: If every call of an expert failed, no answer is right, or nothing tells the experts apart,
            neither quality nor cost.
    """
    _check_failures(source.experts, first)
    quality = np.array([[outcome.quality for outcome in row] for row in first])
    same = not (quality != quality[:, :1]).any()
    if len(source.experts) < 2 or not same or (pairs and _transfer_helps(source, first)):
        return []
    level = float(quality.mean())
    if level == 0.0:
        example, answer = source.examples[0], first[0][0].answer
        raise DataError(
            f"no answer of any expert is right: quality 0.000 on all {len(first)} training questions by the "
            f"metric '{source.metric.name}'. Question {_shown(example)}: the reference is "
            f"{example.reference[:_SHOWN]!r}, '{answer['expert']}' said {answer['text'][:_SHOWN]!r}. Check "
            "the references, or choose another metric"
        )
    costs = np.array([[outcome.answer["cost"] for outcome in row] for row in first]).mean(axis=0)
    what = f"each expert has the same quality on every training question (mean {level:.3f})"
    if np.ptp(costs) <= 1e-9 * costs.max():
        raise DataError(
            f"nothing tells the experts apart: {what}, and all cost the same, so there is nothing to learn. "
            "Give harder questions, or another metric"
        )
    cheapest = source.experts[int(costs.argmin())].name
    return [
        f"warning: {what}; all that can be learnt is to ask '{cheapest}', the cheapest. Harder questions, or "
        "another metric, may tell them apart"
    ]


def first_report(experts: Sequence[Expert], first: Outcomes, dev_first: Outcomes) -> list[str]:
    """One line an expert: how good alone, what it costs, how many calls failed."""
    lines = []
    for i, expert in enumerate(experts):
        mine, dev = [row[i] for row in first], [row[i] for row in dev_first]
        failed = sum(outcome.answer["error"] is not None for outcome in [*mine, *dev])
        error = next((o.answer["error"] for o in [*mine, *dev] if o.answer["error"]), None)
        note = "" if error is None else f" (first: {_masked(error)})"
        lines.append(
            f"  {expert.name}: quality alone {_mean(mine):.3f} (train), {_mean(dev):.3f} (dev), cost "
            f"{np.mean([o.answer['cost'] for o in mine]):.4g} a call, {len(mine) + len(dev) - failed} "
            f"answered, {failed} failed{note}"
        )
    if first:
        best = float(np.mean([max(o.quality for o in row) for row in first]))
        lines.append(f"  best first answer per question: {best:.3f}")
    return lines


def with_prices_for(
    config: TrainConfig,
    experts: Sequence[Expert],
    first: Outcomes,
    before: tuple[float, float] | None = None,
) -> TrainConfig:
    """Settings whose prices reach from the dearest sensible expert to the cheapest alone.

    Where calls are charged by what they use, experts' real costs may differ by much more than a pool's prices
    usually do, and the range of prices that serves other pools may not reach the cheapest of them. At the
    highest price even a right answer in place of a wrong one is not worth the next dearer expert: means over
    all questions would not tell, as experts may differ more on some kind of them. A run that goes on keeps
    the range that it had `before` where that is about the same: calls that are made again take another time,
    and so have another price.
    """
    usual = TrainConfig()
    if config.cost_weight_range != usual.cost_weight_range or all(e.charge.fixed for e in experts):
        return config
    costs = np.array([[outcome.answer["cost"] for outcome in row] for row in first]).mean(axis=0)
    cheapest = costs.min()
    dearer = costs[costs > cheapest * _AS_CHEAP]
    low, high = usual.cost_weight_range
    if len(dearer):
        enough = _BEYOND * costs.sum() / (dearer.min() - cheapest)
        high = max(high, float(f"{enough:.3g}"))
    if before is not None and low == before[0] and high / _ABOUT < before[1] < high * _ABOUT:
        low, high = before
    return replace(config, cost_weight_range=(low, high))


def _check_failures(experts: Sequence[Expert], outcomes: Outcomes) -> None:
    for i, expert in enumerate(experts):
        errors = [row[i].answer["error"] for row in outcomes]
        if errors and all(error is not None for error in errors):
            raise DataError(
                f"expert '{expert.name}' answered none of {len(errors)} questions; the first error: "
                f"{_masked(errors[0] or '')}. No agent was written. Check its server, key and settings (der "
                "pool check shows them), or leave it out of the pool"
            )


def _transfer_helps(source: AnswerSource, first: Outcomes) -> bool:
    """Is an answer to what another expert said better than the first answers, which are all alike?"""
    n = len(source.experts)
    requests: list[Request] = []
    before: list[float] = []
    for example, row in enumerate(first):
        for i in range(n):
            for j in range(n):
                if i != j and row[i].answer["error"] is None and len(requests) < _PAIRS:
                    requests.append(Request(example, j, [row[i].answer]))
                    before.append(row[j].quality)
    after = source.ask(requests)
    return any(outcome.quality > old for outcome, old in zip(after, before, strict=True))


def near_duplicates(
    examples: Sequence[Example], dev: Sequence[Example], encoder: TextEncoder
) -> list[str]:
    """What to say of dev questions that nearly are training questions with the same reference."""
    there = encoder.encode([example.question for example in examples])
    shared = set(shared_questions(dev, examples))
    left = [example for i, example in enumerate(dev) if i not in shared]
    near: list[tuple[Example, Example]] = []
    for start in range(0, len(left), _COMPARED):
        some = left[start : start + _COMPARED]
        similar = encoder.encode([e.question for e in some]) @ there.T >= NEARLY_THE_SAME
        for row in np.flatnonzero(similar.any(axis=1)).tolist():
            reference = some[row].reference.strip().casefold()
            twins = (examples[i] for i in np.flatnonzero(similar[row]).tolist())
            twin = next((e for e in twins if e.reference.strip().casefold() == reference), None)
            if twin is not None:
                near.append((some[row], twin))
    if not near:
        return []
    return [
        f"warning: {len(near)} of {len(dev)} dev questions nearly are training questions with the same "
        f"reference (first: {_shown(near[0][0])} and {_shown(near[0][1])})"
    ]


def _mean(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([outcome.quality for outcome in outcomes])) if outcomes else 0.0


def _masked(error: str) -> str:
    """An error without what the environment keeps secret: a provider may quote the key that it was sent."""
    return mask(error, secrets_in(dict(os.environ)))


def _shown(example: Example) -> str:
    text = " ".join(example.question.split())
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
