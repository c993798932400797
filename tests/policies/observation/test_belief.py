"""What the answers of a route say: against the model integrated by brute force, and the laws that it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import said
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import WordEncoder, profile_observer

from der_graph.policies.observation import Observer
from der_graph.policies.observation.belief import SPREAD, Belief, believe
from der_graph.policies.observation.evidence import Evidence, gather, log_odds
from der_graph.policies.observation.features import PROFILE_FEATURES
from der_graph.policies.observation.profiles import chosen_experts, with_expert, wrong_pairs
from der_graph.state import Answer, Situation

NAMES = "abcde"


def seen(*answers: Answer) -> Evidence:
    return gather(
        [Situation("q", list(answers), [True] * 6)], {name: i for i, name in enumerate(NAMES)}
    )


def after(
    answers: Sequence[Answer], expected: Sequence[float], chance: float = 0.1
) -> tuple[float, list[float]]:
    """That the last answer is right; and every expert's probability."""
    table = np.array([expected], dtype=np.float32)
    found = believe(seen(*answers), table, np.array([chance], dtype=np.float32))
    return float(found.right_now[0]), found.expected[0].tolist()


def brute_force(
    values: Sequence[str], expected: Sequence[float], chance: float
) -> tuple[float, list[float]]:
    """The model of `belief`, summed over a fine grid of d; expert i gave `values[i]`."""
    wider = np.sqrt(1 + np.pi * SPREAD**2 / 8)
    odds = [wider * np.log(p / (1 - p)) for p in expected]
    last = total = 0.0
    later = np.zeros(len(expected))
    for d in np.linspace(-7, 7, 1401):
        right = [1 / (1 + np.exp(-(o + d * SPREAD))) for o in odds]
        weight = np.exp(-d * d / 2)
        for truth in (*dict.fromkeys(values), None):
            joint, wrong = weight, []
            for value, p in zip(values, right, strict=False):
                joint *= p if value == truth else 1 - p
                if value != truth:
                    joint *= chance if value in wrong else 1.0
                    wrong.append(value)
            total += joint
            last += joint * (values[-1] == truth)
            later += joint * np.array(right)
    return last / total, (later / total).tolist()


@pytest.mark.parametrize(
    "values", [["7"], ["7", "7"], ["7", "8"], ["7", "8", "7"], ["7", "8", "8"], ["7", "7", "7"]]
)
@pytest.mark.parametrize("chance", [0.05, 0.35])
def test_the_model_by_brute_force(values: list[str], chance: float) -> None:
    expected = [0.2, 0.35, 0.6, 0.8, 0.5]
    answers = [said(name, value) for name, value in zip(NAMES, values, strict=False)]
    right, later = after(answers, expected, chance)
    want, then = brute_force(values, expected, chance)
    assert right == pytest.approx(want, abs=3e-3)
    np.testing.assert_allclose(later, then, atol=3e-3)


def test_one_answer_says_what_was_expected() -> None:
    right, later = after([said("a", "7")], [0.3, 0.6])
    assert right == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(later, [0.3, 0.6], atol=0.01)


def test_weak_experts_that_agree_are_believed_and_make_the_question_look_easy() -> None:
    weak = [0.2, 0.25, 0.4, 0.7]
    agreed, easier = after([said("a", "7"), said("b", "7")], weak)
    differed, harder = after([said("a", "7"), said("b", "8")], weak)
    assert agreed > 0.5 > 0.25 > differed
    assert easier[3] > 0.75 > 0.7 > harder[3]


def test_agreeing_counts_less_where_wrong_answers_are_alike() -> None:
    two = [said("a", "7"), said("b", "7")]
    rare, common = after(two, [0.3, 0.3], 0.05)[0], after(two, [0.3, 0.3], 0.6)[0]
    assert rare > common + 0.1


def test_what_has_no_value_agrees_with_nobody() -> None:
    weak = [0.3, 0.3, 0.3]
    right, later = after([said("a", None), said("b", None)], weak)
    same, then = after([said("a", "7"), said("b", "8")], weak)
    assert right == pytest.approx(same)
    assert later == pytest.approx(then)


def test_failed_calls_and_strangers_say_nothing() -> None:
    alone = after([said("b", "7")], [0.3, 0.6])
    with_failure = after([said("a", None, error="down"), said("b", "7")], [0.3, 0.6])
    with_stranger = after([said("left long ago", "7"), said("b", "7")], [0.3, 0.6])
    assert alone[0] == pytest.approx(with_failure[0])
    assert alone[1] == pytest.approx(with_failure[1])
    assert alone[1] == pytest.approx(with_stranger[1])
    assert after([said("b", "7"), said("left long ago", "7")], [0.3, 0.6])[0] == 0.0
    nobody, unchanged = after([], [0.3, 0.6])
    assert nobody == 0.0
    assert unchanged == pytest.approx([0.3, 0.6])


def test_an_expert_that_repeats_itself_is_one_witness() -> None:
    once = after([said("a", "7"), said("b", "8")], [0.3, 0.4])
    twice = after([said("a", "7"), said("a", "7"), said("b", "8")], [0.3, 0.4])
    assert twice[0] == pytest.approx(once[0])
    assert twice[1] == pytest.approx(once[1])
    alone, again = after([said("a", "7")], [0.3]), after([said("a", "7"), said("a", "7")], [0.3])
    assert again[0] == pytest.approx(alone[0])


def test_a_route_without_answers_does_not_depend_on_its_batch() -> None:
    routes = [[], [said("a", "7"), said("b", "7")]]
    situations = [Situation("q", answers, [True] * 3) for answers in routes]
    table = np.array([[0.3, 1.0], [0.3, 0.4]], dtype=np.float32)
    both = believe(gather(situations, {"a": 0, "b": 1}), table, np.full(2, 0.1, dtype=np.float32))
    np.testing.assert_array_equal(both.expected[0], table[0])
    assert both.right_now[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    expected=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5),
    values=st.lists(st.sampled_from(["1", "2", "3", None]), max_size=5),
    chance=st.floats(0.02, 0.98),
)
def test_all_are_probabilities(
    expected: list[float], values: list[str | None], chance: float
) -> None:
    answers = [said(name, value) for name, value in zip(NAMES, values, strict=False)]
    right, later = after(answers, expected, chance)
    assert all(0.0 <= p <= 1.0 for p in (right, *later))


@given(order=st.permutations(range(4)))
def test_the_order_of_the_others_does_not_matter(order: list[int]) -> None:
    values = ["7", "8", "7", "9"]
    answers = [said(NAMES[i], values[i]) for i in order] + [said("e", "7")]
    expected = [0.2, 0.4, 0.5, 0.7, 0.3]
    plain = [said(NAMES[i], values[i]) for i in range(4)] + [said("e", "7")]
    assert after(answers, expected)[0] == pytest.approx(after(plain, expected)[0], abs=1e-5)


def test_agents_from_before_see_what_they_saw() -> None:
    """Without `wrong_pairs` among an agent's arrays, the answers tell nothing of others."""
    table = np.array([[0.3, 0.3]], dtype=np.float32)
    two = seen(said("a", "7"), said("b", "7"))
    found: Belief = believe(two, table, None)
    assert found.expected is table
    assert found.right_now == pytest.approx(two.belief(log_odds(table)))
    assert found.right_now[0] < 0.3 < after([said("a", "7"), said("b", "7")], [0.3, 0.3])[0]
    odds = log_odds(table)
    assert two.weight(odds, np.array([0.1], dtype=np.float32)) == pytest.approx(
        two.weight(odds) + np.log(10)  # one more than the first has this value
    )


def test_pairs_of_wrong_answers_by_hand() -> None:
    quality = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, np.nan]], dtype=np.float32)
    values: list[list[str | None]] = [
        ["5", "6", "6", "7"],
        ["5", "5", "5", None],
        ["5", "5", "6", "6"],
    ]
    # 6-6, 6-7, 6-7; three pairs of 5; nobody is known to be wrong beside the third expert
    assert wrong_pairs(quality, values).tolist() == [[3, 1], [3, 3], [0, 0]]


@pytest.fixture(scope="module")
def observer() -> Observer:
    return profile_observer()


def test_the_agent_sees_it(observer: Observer) -> None:
    """Agreement raises what is expected of those not asked yet; difference lowers it."""
    at = PROFILE_FEATURES.expert.index("expected")

    def expected_of_facts(*answers: Answer) -> float:
        row = observer.observe([Situation("What?", list(answers), [True] * 5, max_steps=3)], [0.1])
        block = row[0][observer.context_size :].reshape(4, observer.expert_size)
        return float(block[2, at])

    before = expected_of_facts()
    agree = expected_of_facts(said("writer", "7"), said("counter", "7"))
    differ = expected_of_facts(said("writer", "7"), said("counter", "8"))
    assert differ < before < agree


def test_the_pairs_go_with_the_questions(observer: Observer) -> None:
    arrays = observer.arrays
    assert arrays["wrong_pairs"].shape == (20, 2)
    assert chosen_experts(arrays, [0, 2])["wrong_pairs"].shape == (20, 2)
    added = with_expert(
        arrays,
        WordEncoder(),
        ["Quite another question?"],
        np.array([1.0], dtype=np.float32),
        np.array([5.0], dtype=np.float32),
        costs=[1.0, 0.1, 2.0, 0.5, 1.0],
    )
    assert added["wrong_pairs"].shape == (21, 2)
    assert added["wrong_pairs"][-1].tolist() == [0, 0]
