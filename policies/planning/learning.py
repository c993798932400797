r"""Skills that follow what is seen while serving: Bayesian, and forgetting.

    answers of a route, perhaps how good the last was ──who was probably right──> log-odds moved a little

Each answer moves its expert's log-odds along the gradient of the likelihood, the less the surer they are.
What was learnt loses weight with every answer, so that an expert that changes is noticed: the last
1 / `FORGETTING` answers of an expert on a kind of question count, more or less. Without an outcome the
answers that agree stand in for it, at half the weight. Where claims cannot be compared the last answer alone
counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from der_graph.policies.planning.model import (
    Told,
    believe,
    columns_of,
)
from der_graph.policies.planning.tables import (
    Floats,
    Tables,
    sigmoid,
)

FORGETTING = 0.03
"""Share of the precision that an answer makes obsolete."""
_LEAST_PRECISION = 1.0  # of log-odds
_UNSEEN = 0.5  # weight of a route without an outcome
_SHARED = 0.3  # of a step on one kind of question goes for the others
_MOST = 1.0  # log-odds that one answer moves


def learn(
    tables: Tables,
    told: Sequence[Told],
    outcome: float | None,
    kind: int,
    logit: Floats,
    precision: Floats,
) -> tuple[Floats, Floats]:
    """Move the skills by one route.

    Args:
        tables: The beliefs on the question's kind, with the skills so far.
        told: The route's good answers.
        outcome: Quality of the last one, in [0, 1]; None where nobody said.
        kind: The question's kind.
        logit: (G, N) log-odds so far.
        precision: (G, N) of these.

    Returns:
        Both, changed.
    """
    logit, precision = logit.copy(), precision.copy()
    if not told:
        return logit, precision
    after = _given_outcome(tables, told, outcome)
    weight = _UNSEEN if outcome is None else 1.0
    columns = columns_of(told)
    context = last = 0
    opened = 0
    for answer in told:
        column = 0
        if answer.step < 0 and not tables.comparable:
            column = 1
        elif answer.step < 0:
            new = answer.value < 0 or columns[answer.value] > opened
            column = opened + 1 if new else columns[answer.value]
            opened = max(opened, column)
        i = answer.expert
        if not tables.comparable and answer is not told[-1]:
            last, context = column, _next(tables, context, answer)
            continue
        shift = np.full(after.shape[1], tables.wrong_shift[context, i])
        if last:
            shift[last] = tables.right_shift[context, i]
        # How probably it was right, knowing what is known now; and how probably it would be.
        right = float(after[:, column].sum()) if column else 0.0
        chance = sigmoid(logit[kind, i] + tables.hardness[:, None] + shift)
        expected = float((after * chance).sum())
        bend = float((after * chance * (1.0 - chance)).sum())
        kept = np.maximum(precision[kind, i] * (1.0 - FORGETTING), _LEAST_PRECISION)
        precision[kind, i] = kept + weight * bend
        move = float(np.clip(weight * (right - expected) / precision[kind, i], -_MOST, _MOST))
        share = np.full(len(logit), _SHARED)
        share[kind] = 1.0
        logit[:, i] += share * move
        last, context = column, _next(tables, context, answer)
    return logit, precision


def _next(tables: Tables, context: int, answer: Told) -> int:
    """The context after an answer."""
    if answer.step >= 0:
        return int(tables.step_context[context, answer.expert, answer.step])
    return int(tables.claim_context[answer.expert])


def _given_outcome(tables: Tables, told: Sequence[Told], outcome: float | None) -> Floats:
    """(D, H + 1) probability of each d and of each class being right, after the route and its outcome."""
    nodes = believe(tables, told)
    joint: Floats = nodes.joint[0]
    if outcome is None:
        return joint
    column = int(nodes.last[0])
    is_right = np.zeros(joint.shape[1])
    is_right[column] = column > 0
    good, bad = joint * is_right, joint * (1.0 - is_right)
    found: Floats = np.zeros(joint.shape)
    for share, part in ((outcome, good), (1.0 - outcome, bad)):
        if part.sum() > 0:
            found += share * part / part.sum()
    return found / found.sum() if found.sum() > 0 else joint
