"""The belief model against brute force, and the planner's tree against enumeration and by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from der_graph.policies.planning.belief import (
    Told,
    believe,
)
from der_graph.policies.planning.forms import (
    FORMS,
)
from der_graph.policies.planning.tables import (
    HARDNESS_WEIGHT,
    Floats,
    Tables,
    at_zero,
    mean_skill,
    sigmoid,
)
from der_graph.policies.planning.transfer import (
    Contexts,
)
from der_graph.policies.planning.tree import Bounds, Tree

SKILLS = np.array([0.3, 0.5, 0.6, 0.8])


def nobody_reads(logit: Floats, chance: float, steps: Floats | None = None, **more: Any) -> Tables:
    """Experts of whom none reads or copies another."""
    n = len(logit)
    shares = np.zeros((n, 1)) if steps is None else steps
    return Tables(
        logit=logit,
        chance=chance,
        steps=shares[None],
        right_shift=np.zeros((1, n)),
        wrong_shift=np.zeros((1, n)),
        repeats=np.full((1, n), np.nan),
        claim_context=np.zeros(n, dtype=np.int64),
        step_context=np.zeros((1, n, shares.shape[1]), dtype=np.int64),
        **more,
    )


def independent(skills: Floats = SKILLS, chance: float = 0.15) -> Tables:
    steps = np.zeros((len(skills), len(FORMS)))
    steps[:, 0] = 0.2
    return nobody_reads(at_zero(skills), chance, steps)


def with_transfer() -> Tables:
    """Expert 1 checks: good after a right claim of expert 0. Expert 2 makes expressions that 3 works out."""
    contexts = Contexts.of(4, [((2, 1),)], claims=True)
    right, wrong = np.zeros((2, contexts.count, 4))
    right[1, 1], wrong[1, 1], wrong[5, 3] = 3.0, -0.5, 4.0
    repeats = np.full((contexts.count, 4), np.nan)
    repeats[1, 1] = 0.6
    steps = np.zeros((contexts.count, 4, len(FORMS)))
    steps[:, :, 0], steps[:, 2, 1] = 0.1, 0.8
    return Tables(
        at_zero(SKILLS), 0.15, steps, right, wrong, repeats, contexts.claim, contexts.step
    )


TABLES = {"independent": independent(), "transfer": with_transfer()}


def probability(tables: Tables, told: Sequence[Told], hardness: float, truth: int | None) -> float:
    """Of these answers, given d and the value that is right (None: none of theirs), by the rules in words."""
    total = 1.0
    wrong: list[int] = []
    context = 0
    last: int | None = None
    for answer in told:
        i = answer.expert
        shift = tables.right_shift if last is not None and last == truth else tables.wrong_shift
        p = float(sigmoid(tables.logit[i] + hardness + shift[context, i]))
        if answer.step >= 0:
            total *= (1 - p) * tables.steps[context, i, answer.step]
            context, last = int(tables.step_context[context, i, answer.step]), None
            continue
        if answer.value == truth:
            total *= p
        else:
            claims = 1 - tables.steps[context, i].sum()
            join = {value: tables.chance for value in wrong}
            if last is not None and last in join and not np.isnan(tables.repeats[context, i]):
                join[last] = float(tables.repeats[context, i])
            known = answer.value in wrong
            total *= (1 - p) * claims * (join[answer.value] if known else 1 - sum(join.values()))
            if not known:
                wrong.append(answer.value)
        context, last = int(tables.claim_context[i]), answer.value
    return total


def brute_force(tables: Tables, told: Sequence[Told]) -> tuple[float, float]:
    """Probability of the answers; and of them with the last one right."""
    truths = [*dict.fromkeys(a.value for a in told if a.step < 0), None]
    total = right = 0.0
    for weight, d in zip(HARDNESS_WEIGHT.tolist(), tables.hardness.tolist(), strict=True):
        for truth in truths:
            p = weight * probability(tables, told, d, truth)
            total += p
            right += p * (told[-1].step < 0 and told[-1].value == truth)
    return total, right


def answers(experts: Sequence[int], steps: Sequence[tuple[int, int]]) -> Iterator[list[Told]]:
    """Every way in which these experts may answer in turn: partitions into values, and steps."""

    def grow(k: int, told: list[Told], values: int) -> Iterator[list[Told]]:
        if k == len(experts):
            yield told
            return
        for value in range(values + 1):
            yield from grow(k + 1, [*told, Told(experts[k], value, -1)], max(values, value + 1))
        for expert, form in steps:
            if expert == experts[k]:
                yield from grow(k + 1, [*told, Told(experts[k], -1, form)], values)

    yield from grow(0, [], 0)


STEPS = [(i, 0) for i in range(4)] + [(2, 1)]


@pytest.mark.parametrize("name", TABLES)
def test_posteriors_by_brute_force(name: str) -> None:
    tables = TABLES[name]
    for experts in ([0], [0, 1], [2, 3], [0, 1, 3], [2, 3, 0]):
        everything = 0.0
        for told in answers(experts, STEPS):
            total, right = brute_force(tables, told)
            everything += total
            if total > 1e-12:
                assert believe(tables, told).right[0] == pytest.approx(right / total, abs=1e-9), (
                    told
                )
        assert everything == pytest.approx(
            1.0
        )  # a distribution: nothing is lost, nothing counted twice


def best(tables: Tables, told: list[Told], costs: Floats, left: int) -> float:
    """Worth of the best plan from here, times the probability of being here, by enumeration."""
    total, right = brute_force(tables, told) if told else (1.0, 0.0)
    found = right
    asked = {a.expert for a in told}
    values = len({a.value for a in told if a.step < 0})
    for j in range(4) if left else ():
        if j in asked:
            continue
        worth = -costs[j] * total
        options = [Told(j, v, -1) for v in range(values + 1)]
        options += [Told(j, -1, f) for i, f in STEPS if i == j]
        for option in options:
            worth += best(tables, [*told, option], costs, left - 1)
        found = max(found, worth)
    return found


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("price", [0.0, 0.02, 0.1])
def test_the_plan_is_the_best_by_enumeration(name: str, price: float) -> None:
    tables, costs = TABLES[name], np.array([1.0, 0.5, 1.5, 4.0])
    tree = Tree(tables, (), np.arange(4), costs, np.zeros(4), 3)
    worth = tree.solve(price, Bounds(np.ones(4, dtype=np.bool_)))
    # Answers that are rarer than one in a thousand are not planned for.
    assert worth.ask.max() == pytest.approx(best(tables, [], costs * price, 3), abs=3e-3)


def test_worths_by_hand() -> None:
    """Two experts, 0.6 and 0.8, no hardness to speak of: END after one, or ask the other for its price."""
    skills = np.array([0.6, 0.8])
    tables = nobody_reads(at_zero(skills, 1e-6), 0.1, spread=1e-6)
    tree = Tree(tables, (), np.arange(2), np.array([1.0, 2.0]), np.zeros(2), 1)
    worth = tree.solve(0.1, Bounds(np.ones(2, dtype=np.bool_)))
    assert worth.ask.tolist() == pytest.approx([0.5, 0.6])
    two = Tree(tables, (), np.arange(2), np.array([1.0, 2.0]), np.zeros(2), 2)
    free = two.solve(0.0, Bounds(np.ones(2, dtype=np.bool_)))
    # After expert 0's answer, expert 1's replaces it: 0.8, whatever it says.
    assert free.ask[0] == pytest.approx(0.8)
    agree = believe(tables, [Told(0, 0, -1), Told(1, 0, -1)])
    assert agree.right[0] == pytest.approx(0.48 / (0.48 + 0.4 * 0.2 * 0.1))


def test_copies_are_one_witness() -> None:
    same = np.zeros((4, 4))
    same[0, 1] = same[1, 0] = 0.9
    plain = independent()
    copied = Tables(**{**plain.__dict__, "copies": same})
    two = [Told(0, 0, -1), Told(1, 0, -1)]
    alone = believe(plain, two[:1]).right[0]
    assert believe(plain, two).right[0] > believe(copied, two).right[0] + 0.1
    assert believe(copied, two).right[0] == pytest.approx(alone, abs=0.12)


def test_experts_are_right_as_often_as_expected() -> None:
    np.testing.assert_allclose(mean_skill(at_zero(SKILLS)), SKILLS, atol=1e-6)


def test_a_refusal_speaks_for_a_hard_question() -> None:
    tables = independent()
    before = believe(tables, []).joint.sum(axis=2)[0] @ sigmoid(tables.logit[3] + tables.hardness)
    nodes = believe(tables, [Told(0, -1, 0)])
    after = nodes.joint.sum(axis=2)[0] @ sigmoid(tables.logit[3] + tables.hardness)
    assert nodes.right[0] == 0.0
    assert after < before


def test_claims_that_cannot_be_compared() -> None:
    tables = nobody_reads(at_zero(SKILLS), 0.1, comparable=False)
    told = [Told(0, -1, -1), Told(3, -1, -1)]
    assert believe(tables, told).right[0] == pytest.approx(0.8, abs=1e-6)
    tree = Tree(tables, (), np.arange(4), np.ones(4), np.zeros(4), 3)
    assert tree.solve(0.01, Bounds(np.ones(4, dtype=np.bool_))).ask.argmax() == 3


@settings(max_examples=40, deadline=None)
@given(
    skills=st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    values=st.lists(st.integers(-1, 2), min_size=1, max_size=4),
    chance=st.floats(0.01, 0.9),
)
def test_all_are_probabilities(
    skills: list[float], order: list[int], values: list[int], chance: float
) -> None:
    tables = nobody_reads(at_zero(np.array(skills)), chance)
    told = [Told(i, value, -1) for i, value in zip(order, values, strict=False)]
    nodes = believe(tables, told)
    assert nodes.joint.min() >= 0.0
    assert nodes.mass[0] == pytest.approx(1.0)
    assert 0.0 <= nodes.right[0] <= 1.0 + 1e-9


def test_deeper_plans_are_worth_no_less() -> None:
    tables = with_transfer()
    worths = []
    for depth in (1, 2, 3, 4):
        tree = Tree(tables, (), np.arange(4), np.ones(4), np.zeros(4), depth)
        worths.append(tree.solve(0.02, Bounds(np.ones(4, dtype=np.bool_))).ask.max())
    assert worths == sorted(worths)
