r"""What the answers of a route say: is the last one right, and would the others be?

    tables of a kind ──answers of a route──> joint probability of (how hard, which value is right)

The model is that of `der_graph.policies.observation.belief`, with three things added. Given how hard the
question is, d, expert i is right with logit(p_i) = logit_i + d. Right answers share one value; a wrong one
has the value of another wrong one with a small probability. Added are: *steps*, answers that are never
right by themselves (a refusal, an expression, a list of facts) but may lead to one; *contexts*, what an
expert is worth after the answer that it reads; and *copies*, experts that repeat another's answer more
often than chance would have it. Every distribution sums to 1, so that the planner can draw what would be
answered next from the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from der_graph.policies.planning.tables import HARDNESS_WEIGHT, Floats, Ints, Tables, sigmoid

NOT_COMPARABLE = -1
"""Value of a claim without one, in a route: it agrees with nobody."""
_MOST_COINCIDENCE = 0.95  # of a wrong answer with all the wrong ones before it


class Told(NamedTuple):
    """One good answer of a route.

    Attributes:
        expert: Position in the pool.
        value: Number of its value: equal for equal values; `NOT_COMPARABLE` for a claim without one.
        step: Form of the step that it is; -1 for a claim.
    """

    expert: int
    value: int
    step: int


@dataclass(frozen=True, eq=False)
class Nodes:
    """Beliefs after n routes; H classes of claims, K candidates to ask next.

    Attributes:
        joint: (n, D, H + 1) probability of the route's answers, of each d, and of each class being the right
            one; column 0: no class is. Not normalised, so that sums over nodes are expectations.
        classes: (n,) how many classes there are; columns beyond are 0.
        last: (n,) column of the last answer; 0 if it is a step, or there is none.
        context: (n,) what the next expert reads.
        copied: (n, K) probability that a candidate copies; None if nobody does.
        source: (n, K) column of the answer that it would copy; 0 for a step.
    """

    joint: Floats
    classes: Ints
    last: Ints
    context: Ints
    copied: Floats | None = None
    source: Ints | None = None

    @property
    def mass(self) -> Floats:
        """(n,) probability of each route's answers."""
        result: Floats = self.joint.sum(axis=(1, 2))
        return result

    @property
    def right(self) -> Floats:
        """(n,) the same, and that the last answer is right."""
        rows = np.arange(len(self.last))
        mass = self.joint[rows, :, self.last].sum(axis=1)
        result: Floats = np.where(self.last > 0, mass, 0.0)
        return result


class Asked(NamedTuple):
    """What each candidate would do at each node: all (n, K, D, H + 1), parts of the joint probability.

    Attributes:
        right: It is right, and so is the class of the column; column 0 is then a new class.
        wrong: It is wrong on its own account.
        copy: It is wrong because it copies.
    """

    right: Floats
    wrong: Floats
    copy: Floats | None


def ask(tables: Tables, nodes: Nodes, experts: Ints) -> Asked:
    """Split the joint probability by whether each candidate is right.

    Args:
        tables: The beliefs.
        nodes: n of them.
        experts: (K,) candidates.
    """
    base = tables.logit[experts][:, None] + tables.hardness  # (K, D)
    wide = nodes.joint[:, None]
    if len(tables.right_shift) == 1:
        probability = sigmoid(base)[None, :, :, None]
    else:
        at = nodes.context[:, None], experts[None, :]
        after_wrong = sigmoid(base + tables.wrong_shift[at][:, :, None])
        after_right = sigmoid(base + tables.right_shift[at][:, :, None])
        read = np.zeros((len(nodes.last), 1, 1, nodes.joint.shape[2]))
        read[np.arange(len(nodes.last)), 0, 0, nodes.last] = nodes.last > 0
        probability = after_wrong[..., None] * (1.0 - read) + after_right[..., None] * read
    if nodes.copied is None or nodes.source is None:
        right = wide * probability
        return Asked(right, wide - right, None)
    n, k = nodes.copied.shape
    source = np.zeros((n, k, 1, nodes.joint.shape[2]))
    source[np.arange(n)[:, None], np.arange(k)[None, :], 0, nodes.source] = nodes.source > 0
    copied = nodes.copied[:, :, None, None]
    right = wide * ((1.0 - copied) * probability + copied * source)
    wrong = wide * (1.0 - copied) * (1.0 - probability)
    return Asked(right, wrong, wide * copied * (1.0 - source))


def right_mass(tables: Tables, nodes: Nodes, experts: Ints) -> Floats:
    """(n, K) probability of each route's answers and of each candidate being right after them."""
    if len(tables.right_shift) == 1 and nodes.copied is None:
        plain = sigmoid(tables.logit[experts][:, None] + tables.hardness)
        result: Floats = nodes.joint.sum(axis=2) @ plain.T
        return result
    found: Floats = ask(tables, nodes, experts).right.sum(axis=(2, 3))
    return found


def coincidence(tables: Tables, nodes: Nodes, experts: Ints) -> tuple[Floats, Floats]:
    """Where wrong answers go.

    Returns:
        (n, K, H + 1) probability of a wrong claim joining each class, if that is wrong, too; column 0 is 0.
        (n, K, H + 1) probability of a new class, for each class being the right one.
    """
    n, width = len(nodes.last), nodes.joint.shape[2]
    join = np.zeros((n, len(experts), width))
    taken = np.arange(1, width)[None, :] <= nodes.classes[:, None]
    join[:, :, 1:] = np.where(taken, tables.chance, 0.0)[:, None, :]
    repeats = tables.repeats[nodes.context[:, None], experts[None, :]]
    known = ~np.isnan(repeats) & (nodes.last > 0)[:, None]
    rows, columns = np.nonzero(known)
    join[rows, columns, nodes.last[rows]] = repeats[rows, columns]
    total = join.sum(axis=2, keepdims=True)
    join *= np.minimum(1.0, _MOST_COINCIDENCE / np.maximum(total, 1e-12))
    new: Floats = 1.0 - (join.sum(axis=2, keepdims=True) - join)
    return join, new


def after_claim(tables: Tables, nodes: Nodes, split: Asked, experts: Ints, column: int) -> Floats:
    """The joint probability after each candidate's claim with the value of a class.

    Args:
        tables: The beliefs.
        nodes: n of them.
        split: Of `ask`.
        experts: (K,) candidates.
        column: The class; 0 for a new one, which is then the last column of the result.

    Returns:
        (n, K, D, H + 1), with one more column for a new class.
    """
    join, new = coincidence(tables, nodes, experts)
    claims = 1.0 - tables.steps[nodes.context[:, None], experts[None, :]].sum(axis=2)
    if column:
        result = split.wrong * (claims * join[:, :, column])[:, :, None, None]
        if split.copy is not None and nodes.source is not None:
            result = result + split.copy * (nodes.source == column)[:, :, None, None]
        result[..., column] = split.right[..., column]
        joined: Floats = result
        return joined
    wrong = split.wrong * (claims[:, :, None] * new)[:, :, None, :]
    found: Floats = np.concatenate([wrong, split.right[..., :1]], axis=3)
    return found


def after_any_claim(split: Asked) -> Floats:
    """The joint probability after each candidate's claim, where claims cannot be compared: (n, K, D, 2).

    Only the last answer's class is kept: column 1, that it is right; column 0, that it is not.
    """
    wrong = split.wrong if split.copy is None else split.wrong + split.copy
    return np.stack([wrong.sum(axis=3), split.right.sum(axis=3)], axis=3)


def after_step(tables: Tables, nodes: Nodes, split: Asked, experts: Ints, form: int) -> Floats:
    """The joint probability after a step of each candidate: (n, K, D, H + 1)."""
    share = tables.steps[nodes.context[:, None], experts[None, :], form]
    result: Floats = split.wrong * share[:, :, None, None]
    if split.copy is not None and nodes.source is not None and form == 0:
        result = result + split.copy * (nodes.source == 0)[:, :, None, None]
    return result


def believe(tables: Tables, told: Sequence[Told]) -> Nodes:
    """The beliefs after one route.

    Args:
        tables: The beliefs before.
        told: Its good answers, in order, one of each expert.

    Returns:
        One node, normalised, without candidates.
    """
    zero = np.zeros(1, dtype=np.int64)
    nodes = Nodes(HARDNESS_WEIGHT[None, :, None].copy(), zero, zero, zero)
    columns: dict[int, int] = {}
    for k, answer in enumerate(told):
        experts = np.array([answer.expert])
        nodes = with_candidates(tables, nodes, told[:k], experts)
        split = ask(tables, nodes, experts)
        context = int(nodes.context[0])
        if answer.step >= 0:
            joint = after_step(tables, nodes, split, experts, answer.step)[:, 0]
            context, column = int(tables.step_context[context, answer.expert, answer.step]), 0
        elif tables.comparable:
            column = columns.get(answer.value, 0)
            joint = after_claim(tables, nodes, split, experts, column)[:, 0]
            column = column or joint.shape[2] - 1
            if answer.value != NOT_COMPARABLE:
                columns[answer.value] = column
            context = int(tables.claim_context[answer.expert])
        else:
            joint, column = after_any_claim(split)[:, 0], 1
            context = int(tables.claim_context[answer.expert])
        joint = _normal(joint, nodes)
        classes = np.array([joint.shape[2] - 1])
        nodes = Nodes(joint, classes, np.array([column]), np.array([context]))
    return nodes


def with_candidates(tables: Tables, nodes: Nodes, told: Sequence[Told], experts: Ints) -> Nodes:
    """One node after a route, with whom each candidate would copy."""
    if tables.copies is None:
        return Nodes(nodes.joint, nodes.classes, nodes.last, nodes.context)
    copied, source = np.zeros((1, len(experts))), np.zeros((1, len(experts)), dtype=np.int64)
    columns = columns_of(told) if tables.comparable else {}
    for answer in told:
        weight = tables.copies[answer.expert, experts]
        column = 0 if answer.step >= 0 else columns.get(answer.value, 0)
        if answer.step < 0 and not column:
            continue  # a claim that cannot be compared
        better = weight > copied[0]
        source[0, better] = column
        copied[0] = np.maximum(copied[0], weight)
    return Nodes(nodes.joint, nodes.classes, nodes.last, nodes.context, copied, source)


def _normal(joint: Floats, before: Nodes) -> Floats:
    """Normalised; what the model holds impossible changes nothing but the columns."""
    total = joint.sum()
    if total > 1e-300:
        result: Floats = joint / total
        return result
    kept = np.zeros_like(joint)
    kept[..., : before.joint.shape[2]] = before.joint
    return kept


def columns_of(told: Sequence[Told]) -> dict[int, int]:
    """The column that `believe` gives to each value."""
    columns: dict[int, int] = {}
    count = 0
    for answer in told:
        if answer.step >= 0:
            continue
        if answer.value == NOT_COMPARABLE:
            count += 1
        elif answer.value not in columns:
            count += 1
            columns[answer.value] = count
    return columns
