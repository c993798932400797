"""Questions that come twice, and digests that tell whether one was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from der_graph.data import Example
from der_graph.data.leaks import digests_of, duplicates, seen_before, shared_questions

QUESTIONS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12)


def examples(questions: list[str]) -> list[Example]:
    return [Example(str(i), question, "x") for i, question in enumerate(questions)]


@given(QUESTIONS, QUESTIONS)
def test_digests_tell_what_comparing_tells(known: list[str], asked: list[str]) -> None:
    seen = seen_before(examples(asked), digests_of(examples(known)))
    assert seen == shared_questions(examples(asked), examples(known))


def test_case_spaces_and_history_decide_whether_two_questions_are_one() -> None:
    one, two = Example("1", "Who  is it?", "Ann"), Example("2", "who is IT? ", "Bob")
    later = Example("3", "Who is it?", "Cid", history=(("user", "Hi"),))
    assert duplicates([one, two, later]) == ([1], [(0, 1)])
    assert duplicates([one, Example("4", "Who is it?", "ANN")]) == ([1], [])
