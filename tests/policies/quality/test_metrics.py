"""Quality metrics: worked by hand, always in [0, 1], always batched; scores that were recorded."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import pytest
from answered import answer, example, quality
from hypothesis import given, settings
from hypothesis import strategies as st

from der_graph.data import Candidate, Example
from der_graph.errors import DataError, MetricError
from der_graph.policies.quality import get_metric, metric_names

# metric, answer, reference -> quality
BY_HAND = [
    ("match", "She has 1,200 apples left.", "1200", 1),
    ("match", "So 3 * 4 = 12. The answer is 12.00", "12", 1),
    ("match", "0.33333", "1/3", 1),
    ("match", "0.333", "1/3", 0),
    ("match", "1000001", "1000000", 1),  # within 1e-4 of the reference
    ("match", "121", "120", 0),
    ("match", "140", "# 140", 1),
    ("match", "14000", "# 14,000", 1),
    ("match", "(5 + 3) * 2", "16", 0),  # an expression that nobody computed
    ("match", "2", "-2", 0),
    ("match", "The capital of France is Paris.", "Paris", 1),
    ("match", "Parisian", "Paris", 0),
    ("match", "the RED-fox!", "Red Fox", 1),
    ("match", "I do not know.\nParis", "Paris", 0),  # only the first line counts
    ("match", "\n\nParis\nand more", "Paris", 1),
    ("match", "Mark Twain", "Samuel Clemens | Mark Twain", 1),
    ("match", "four", "4 | four", 1),
    ("match", "Rome " * 29 + "Paris", "Paris", 1),
    ("match", "Rome " * 30 + "Paris", "Paris", 0),  # a list of everything
    ("match", "A", "A", 1),
    ("match", "A dog", "A", 0),
    ("numeric", "It costs $3.50.", "3.5", 1),
    ("numeric", "3/4", "0.75", 1),
    ("numeric", "45 / 9", "5", 0),  # nothing was computed
    ("numeric", "no idea", "0.75", 0),
    ("numeric", "7", "6 | 7", 1),
    ("exact", "Paris.", "paris", 1),
    ("exact", "It is Paris", "Paris", 0),
    ("exact", "The answer is Paris", "Paris", 1),
    ("exact", "-5", "5", 0),
    ("exact", "+", "+", 1),
    ("exact", "1,000", "1000.0", 1),
    ("choice", "B", "B", 1),
    ("choice", "b) Paris", "(B) Paris", 1),
    ("choice", "(A) looks right, but the answer is (C).", "C", 1),
    ("choice", "The answer: **D**", "D", 1),
    ("choice", r"\boxed{B}", "B", 1),
    ("choice", "I think it must be (C)", "C", 1),
    ("choice", "A dog", "A", 0),
    ("choice", "B. 42", "A | B", 1),
    ("token_f1", "the red fox", "a quick red fox", 0.8),  # 2 shared, 2 and 3 words: 4 / 5
    ("token_f1", "red red", "red fox", 0.5),  # a word counts as often as it is there
    ("token_f1", "blue", "red | blue", 1),
    ("token_f1", "...", "red", 0),
    # Stems are compared: all four words in order. Then only "the gunman" is: 2 of 4 and 2 of 4.
    ("rouge_l", "police kill the gunman", "police killed the gunman", 1),
    ("rouge_l", "the gunman kill police", "police killed the gunman", 0.5),
    ("math", r"\frac{1}{2}", "0.5", 1),
    ("math", r"The answer is $\boxed{\frac{3}{6}}$", r"\frac{1}{2}", 1),
    ("math", "$x + 1$", "1 + x", 1),
    ("math", "the answer is 7", "8", 0),
    ("math", "140", "# 140", 1),
]


@pytest.mark.parametrize(("name", "text", "reference", "expected"), BY_HAND)
def test_by_hand(name: str, text: str, reference: str, expected: float) -> None:
    metric = get_metric(name)
    assert metric.name == name
    assert quality(metric, text, reference) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_gets_a_quality(text: str, reference: str) -> None:
    for name in ("match", "exact", "token_f1", "rouge_l"):
        assert 0 <= quality(get_metric(name), text, reference) <= 1


def test_failed_answers_are_worth_nothing() -> None:
    given_answers = [answer("", error="timed out"), answer("5"), answer(" ")]
    for name in ("match", "numeric", "exact", "token_f1", "rouge_l", "math"):
        assert get_metric(name).score(given_answers, [example("5")] * 3) == [0.0, 1.0, 0.0]
        assert get_metric(name).score([], []) == []


def test_references_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match=r"'q1': the metric 'numeric' needs a number .*'Paris'"):
        quality(get_metric("numeric"), "5", "Paris")
    with pytest.raises(DataError, match=r"'q1': the metric 'choice' needs a letter .*'Paris'"):
        quality(get_metric("choice"), "B", "Paris")


def test_names_and_settings_are_checked() -> None:
    assert get_metric().name == "match"
    assert {"match", "bertscore", "judge", "recorded:<score name>"} <= set(metric_names())
    for name in ("matches", "recorded:", ""):
        with pytest.raises(MetricError, match="is unknown; choose one of: match, numeric, exact"):
            get_metric(name)
    with pytest.raises(
        MetricError, match=r"unexpected keyword argument 'stemm'; its settings are: stem"
    ):
        get_metric("rouge_l", stemm=True)
    with pytest.raises(MetricError, match="'match' has no settings, given: tolerance"):
        get_metric("match", tolerance=1)
    with pytest.raises(MetricError, match="missing a required argument: 'model'"):
        get_metric("judge")


def test_math_works_in_a_thread() -> None:
    found: list[float] = []
    metric = get_metric("math")
    thread = threading.Thread(target=lambda: found.append(quality(metric, "1/2", "0.5")))
    thread.start()
    thread.join()
    assert found == [1.0]


def recorded(**scores: float) -> Example:
    return example("5", candidates={"a": Candidate("a", "It is 5.", scores)})


def test_recorded_scores() -> None:
    metric = get_metric("recorded:accuracy")
    assert metric.name == "recorded:accuracy"
    failed = answer("", error="down")
    examples = [recorded(accuracy=0.25), recorded(accuracy=1.0)]
    assert metric.score([answer("?"), failed], examples) == [0.25, 0.0]
    scaled = get_metric("recorded:bartscore", low=-6.0, high=-2.0)
    values = (-7.0, -6.0, -3.0, -2.0, 0.0)
    assert [scaled.score([answer("?")], [recorded(bartscore=value)])[0] for value in values] == [
        0.0,
        0.0,
        0.75,
        1.0,
        1.0,
    ]


def test_recorded_scores_that_are_missing() -> None:
    metric = get_metric("recorded:accuracy")
    with pytest.raises(DataError, match="'q1', expert 'b': no recorded answer; recorded are: a"):
        metric.score([answer("5", expert="b")], [recorded(accuracy=1.0)])
    with pytest.raises(DataError, match="'q1', expert 'a': no score 'accuracy'; recorded are: f1"):
        metric.score([answer("5")], [recorded(f1=1.0)])
    with pytest.raises(DataError, match="'q1', expert 'a': the score 'accuracy' is NaN"):
        metric.score([answer("5")], [recorded(accuracy=math.nan)])
    with pytest.raises(
        DataError, match=r"is -3, outside of \[0, 1\]; give the metric .*low=.*high="
    ):
        metric.score([answer("5")], [recorded(accuracy=-3.0)])
    with pytest.raises(MetricError, match="low=1 must be below high=1"):
        get_metric("recorded:accuracy", low=1)


def test_importing_metrics_is_light() -> None:
    code = (
        "import sys, der_graph.policies.quality as q; q.get_metric('match'); "
        "print(*{'torch', 'transformers', 'bert_score', 'rouge_score', 'math_verify'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (r"so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"so \boxed{\dfrac12}", "0.5"),
        (r"\boxed{New York}", "New York"),
        (r"\boxed{-\sqrt{2}}", "-√2"),
        ("It takes 12 minutes.", "12 minutes"),
    ],
)
def test_exact_knows_the_spellings_of_a_value(text: str, reference: str) -> None:
    said = answer(text)
    assert get_metric("exact").score([said], [example(reference)]) == [1.0]
    assert get_metric("exact").score([said], [example(r"\sqrt{7}")]) == [0.0]
