"""Routes with feedback as training data: what users found good, or bad, teaches the agent.

    RatedRoute ──training_rows──> MixInstruct rows: question, right answer, candidates, scores ──> der train

- The right answer is the one that a user gave, or else an answer that users found good.
- A candidate is what an expert said on a route. The final answer has its user's score; the others are
  compared with the right answer, or, where nobody knows it, score as the final answer where they agree.
- Routes with the same question, after the same conversation, are one row; the last ones count.

A route asks few experts, so most rows lack some. With live experts that does no harm: `der train` asks them
all, and needs the right answer only. Experts that replay answers need a row of all of them: name them, and
rows that lack one are left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from der_graph.data import Example
from der_graph.data.saving import save_text
from der_graph.errors import DataError
from der_graph.nodes.values import normalize_value, parse_number
from der_graph.observability.feedback import RatedRoute
from der_graph.policies.quality import get_metric
from der_graph.policies.quality.registry import DEFAULT_METRIC
from der_graph.state import Answer, good_answers

SCORE = "feedback"
"""Name of the candidates' score; `der train --metric recorded:feedback` reads it."""


class Export(NamedTuple):
    """What became of the routes.

    Attributes:
        rows: Rows of training data, as JSON has them.
        unrated: Questions that nobody said anything about.
        incomplete: Questions without an answer of every expert that was named.
        unknown: Questions of which no right answer is known, nor a score of every answer.
    """

    rows: list[dict[str, Any]]
    unrated: int
    incomplete: int
    unknown: int


def training_rows(
    routes: Iterable[RatedRoute],
    *,
    experts: Sequence[str] = (),
    good: float = 0.75,
    metric: str = DEFAULT_METRIC,
) -> Export:
    """Make training data of routes with feedback.

    Args:
        routes: The routes, older ones first.
        experts: Experts that will replay their answers; rows that lack one are left out.
        good: From this score on an answer counts as right where the user gave no other.
        metric: Compares the other answers with the right one.

    Returns:
        The rows, and how many questions were left out and why.
    """
    by_question: dict[Any, list[RatedRoute]] = {}
    for route in routes:
        by_question.setdefault((route.question.strip(), route.history), []).append(route)
    rows: list[dict[str, Any]] = []
    unrated = incomplete = unknown = 0
    for same in by_question.values():
        if all(route.score is None and route.reference is None for route in same):
            unrated += 1
            continue
        row = _row(same, good, metric)
        candidates = {each["model"]: each for each in row["candidates"]}
        if any(name not in candidates for name in experts):
            incomplete += 1
        elif not row["output"] and any(not each["scores"] for each in candidates.values()):
            unknown += 1
        else:
            rows.append(row)
    return Export(rows, unrated, incomplete, unknown)


def write_training_data(
    path: str | os.PathLike[str], routes: Iterable[RatedRoute], **settings: Any
) -> Export:
    """Write training data of routes with feedback.

    Args:
        path: The JSON Lines file; replaced if it is there.
        routes: The routes, older ones first.
        settings: Those of `training_rows`.

    Returns:
        What was written and what was left out.

    Raises:
        DataError: If no row is left, and says why; or if the file cannot be written.
    """
    export = training_rows(routes, **settings)
    if not export.rows:
        raise DataError(
            f"no training data in these routes: {export.unrated} questions without feedback, "
            f"{export.incomplete} without an answer of every expert, {export.unknown} without a right answer"
        )
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in export.rows]
    save_text(path, "".join(lines))
    return export


def _row(routes: Sequence[RatedRoute], good: float, metric: str) -> dict[str, Any]:
    """One row of routes with the same question."""
    last = routes[-1]
    right = _right_answer(routes, good)
    candidates: dict[str, dict[str, Any]] = {}
    for route in routes:
        final = _final(route)
        for answer in good_answers(route.answers):
            score = _score(answer, final, route, right, metric)
            candidates[answer["expert"]] = {
                "model": answer["expert"],
                "text": answer["text"],
                "answer": answer["value"],
                "tokens": answer["output_tokens"],
                "scores": {} if score is None else {SCORE: score},
            }
    row = {
        "id": last.id,
        "instruction": last.question.strip(),
        "input": "",
        "output": right or "",
        "task": SCORE,
        "candidates": list(candidates.values()),
    }
    if last.history:
        row["history"] = [{"role": role, "content": text} for role, text in last.history]
    return row


def _right_answer(routes: Sequence[RatedRoute], good: float) -> str | None:
    """What the last user who knew said, or else the value of the last answer found good."""
    for route in reversed(routes):
        if route.reference:
            return route.reference
    for route in reversed(routes):
        final = _final(route)
        if final is not None and route.score is not None and route.score >= good:
            # A value that is no number is for comparing: without spaces and signs that a text has.
            return final["value"] if parse_number(final["value"]) is not None else final["text"]
    return None


def _final(route: RatedRoute) -> Answer | None:
    """The answer that the user saw: the last with its text, as agents that vote choose among all."""
    answers = good_answers(route.answers)
    return next((each for each in reversed(answers) if each["text"] == route.answer), None)


def _score(
    answer: Answer, final: Answer | None, route: RatedRoute, right: str | None, metric: str
) -> float | None:
    if answer is final and route.score is not None:
        return route.score
    if right is not None:
        example = Example(route.id, route.question, right)
        return float(get_metric(metric).score([answer], [example])[0])
    agree = final is not None and _value(answer) == _value(final)
    return route.score if agree else None


def _value(answer: Answer) -> str:
    return answer["value"] or normalize_value(answer["text"])
