"""What the agent sees, feature by feature, by hand."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import WordEncoder, toy_observer, toy_source

from der_graph.policies.observation import ObservationConfig, Observer, projection
from der_graph.policies.observation.features import EXPERT_FEATURES, STATE_FEATURES
from der_graph.state import Answer, Situation

NAMES = ["writer", "counter", "facts", "parrot"]
OPEN = [True, True, True, True, False]


def said(
    expert: str,
    text: str,
    value: str | None,
    *,
    logprob: float | None = None,
    error: str | None = None,
) -> Answer:
    return Answer(
        expert=expert,
        text=text,
        value=value,
        cost=1.0,
        input_tokens=1,
        output_tokens=1,
        seconds=0.1,
        logprob=logprob,
        error=error,
    )


@pytest.fixture(scope="module")
def observer() -> Observer:
    return toy_observer(toy_source(20))


Features = dict[str, float]


def look(
    observer: Observer, situation: Situation, weight: float = 0.1
) -> tuple[Features, list[Features]]:
    row = observer.observe([situation], [weight])[0]
    state = dict(zip(STATE_FEATURES, row.tolist(), strict=False))
    blocks = row[observer.context_size :].reshape(len(NAMES), observer.expert_size)
    return state, [dict(zip(EXPERT_FEATURES, block.tolist(), strict=False)) for block in blocks]


def test_before_the_first_answer(observer: Observer) -> None:
    state, experts = look(
        observer, Situation("Tell me, what is the colour of thing 3?", [], OPEN, max_steps=3)
    )
    assert state["step"] == 0.0
    assert state["answered"] == 0.0
    assert state["budget_left"] == 1.0
    assert state["log_price"] == pytest.approx(-1.0)
    assert [e["asked"] for e in experts] == [0.0] * 4
    # Alone, only `facts` is ever right, on the half of the questions that are facts.
    assert [e["skill"] for e in experts] == pytest.approx([0.0, 0.0, 0.5, 0.0])
    assert experts[2]["skill_here"] > 0.8 > experts[0]["skill_here"]
    assert [e["skill_per_cost_rank"] for e in experts] == pytest.approx([2 / 3, 0.0, 1.0, 1 / 3])


def test_evidence_in_the_answers(observer: Observer) -> None:
    answers = [
        said("facts", "It is red.", "red"),
        said("parrot", "", None, error="Timeout: late"),
        said("writer", "blue", "blue"),
        said("counter", "red", "red", logprob=-0.5),
    ]
    only_end = [False, False, False, False, True]
    situation = Situation("What?", answers, only_end, spent=1.8, max_steps=4, max_cost=3.6)
    state, experts = look(observer, situation)
    assert state["step"] == 0.75  # a call that failed is none
    assert state["spent"] == pytest.approx(0.5)
    assert state["budget_left"] == pytest.approx(0.5)
    assert state["agreeing"] == pytest.approx(0.5)  # facts agrees, writer does not
    assert state["backed"] == 1.0
    assert state["distinct"] == pytest.approx(2 / 3)
    assert state["failures"] == 1.0
    assert (state["logprob"], state["knows_logprob"]) == (-0.5, 1.0)
    assert state["length"] == pytest.approx(math.log1p(3) / 5)
    assert [e["asked"] for e in experts] == [1.0] * 4
    assert [e["failed"] for e in experts] == [0.0, 0.0, 0.0, 1.0]
    assert [e["is_last"] for e in experts] == [0.0, 1.0, 0.0, 0.0]
    assert [e["agrees_with_last"] for e in experts] == [0.0, 0.0, 1.0, 0.0]
    assert [e["disagrees_with_last"] for e in experts] == [1.0, 0.0, 0.0, 0.0]
    # facts has skill 0.5 (log-odds 0); counter and writer have none (log-odds of 0.02).
    low = math.log(0.02 / 0.98)
    assert state["weight_of_evidence"] == pytest.approx((low + 0.0 - max(0.0, low)) / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "value", "number", "expression", "hedges"),
    [
        ("( 5 + 3 ) * 2", "(5+3)*2", 0.0, 1.0, 0.0),
        ("16", "16", 1.0, 0.0, 0.0),
        ("?", None, 0.0, 0.0, 1.0),
        ("I don't know.", None, 0.0, 0.0, 1.0),
        ("Paris", "paris", 0.0, 0.0, 0.0),
    ],
)
def test_what_the_last_answer_looks_like(
    observer: Observer,
    text: str,
    value: str | None,
    number: float,
    expression: float,
    hedges: float,
) -> None:
    state, _ = look(observer, Situation("What?", [said("facts", text, value)], OPEN, max_steps=3))
    assert (state["is_number"], state["is_expression"], state["hedges"]) == (
        number,
        expression,
        hedges,
    )


def test_projections_have_unit_variance(observer: Observer) -> None:
    questions = [e.question for e in toy_source(20).examples]
    rows = observer.observe(
        [Situation(q, [], OPEN, max_steps=3) for q in questions], [0.1] * len(questions)
    )
    first_axis = rows[:, len(observer.features.state)]
    assert first_axis.mean() == pytest.approx(0.0, abs=1e-3)
    assert first_axis.std() == pytest.approx(1.0, abs=1e-2)


def test_no_question_looks_its_own_result_up() -> None:
    """The nearest probe of a training question is itself; its own quality must not show."""
    encoder = WordEncoder()
    questions = ["alpha beta", "alpha gamma", "delta"]
    quality = np.array([[1.0], [0.0], [0.0]], dtype=np.float32)
    observer = Observer.fit(
        ObservationConfig(1, 0),
        ["one"],
        [1.0],
        encoder,
        questions=questions,
        answers=[],
        qualities=quality,
    )
    row = observer.observe([Situation("alpha beta", [], [True, False], max_steps=2)], [0.1])[0]
    here = row[observer.context_size + EXPERT_FEATURES.index("skill_here")]
    assert here < 1 / 3  # both neighbours were wrong; the overall mean alone would give 1/3


def test_a_full_memory_loses_nothing_that_is_being_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither to the rest of its own batch nor to other threads; and what is seen stays the same."""
    monkeypatch.setattr(projection, "_REMEMBERED", 2)
    small = toy_observer(toy_source(20))
    pages = [
        [
            Situation(f"thing {i + k}?", [said("facts", f"red {i + k}", "red")], OPEN)
            for k in range(3)
        ]
        for i in range(12)
    ]
    expected = [_SHARED_20.observe(page, [0.1] * 3) for page in pages]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda page: small.observe(page, [0.1] * 3), pages * 10))
    for rows, wanted in zip(found, expected * 10, strict=True):
        np.testing.assert_allclose(rows, wanted, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(
        st.builds(
            said,
            st.sampled_from([*NAMES, "stranger"]),
            st.text(min_size=1, max_size=40),
            st.none() | st.sampled_from(["1", "2", "red"]),
            logprob=st.none() | st.floats(-50, 0),
            error=st.none() | st.just("failed"),
        ),
        max_size=5,
    ),
    spent=st.floats(0, 100),
    budget=st.none() | st.floats(0, 100),
    weight=st.floats(0, 1e6),
)
def test_every_feature_is_finite(
    answers: list[Answer], spent: float, budget: float | None, weight: float
) -> None:
    observer = _SHARED
    situation = Situation("What?", answers, OPEN, spent=spent, max_steps=5, max_cost=budget)
    assert np.isfinite(observer.observe([situation], [weight])).all()


_SHARED = toy_observer(toy_source(8))
_SHARED_20 = toy_observer(toy_source(20))


def test_where_texts_do_not_differ_there_is_no_axis() -> None:
    """On a line there is one: along it these are -1.5, -0.5, 0.5 and 1.5 lengths of 1.118."""
    line = np.outer([0.0, 1.0, 2.0, 3.0], [0.6, 0.8, 0.0]).astype(np.float32)
    mean, axes = projection.principal_axes(line, 3)
    found = (line - mean) @ axes
    np.testing.assert_allclose(found[:, 0], np.array([-1.5, -0.5, 0.5, 1.5]) / 1.25**0.5, rtol=1e-5)
    stranger = np.array([0.0, 0.0, 1.0], dtype=np.float32) - mean
    assert (stranger @ axes)[1:].tolist() == [0.0, 0.0]
    _, none = projection.principal_axes(np.ones((5, 3), dtype=np.float32), 2)
    assert not none.any()
