"""Thoughts of models elsewhere: every family's marks, whole and in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from der_graph.nodes.providers import THOUGHT_MARKS, AnswerReader, split_thought


@pytest.mark.parametrize("marks", THOUGHT_MARKS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_marks_of_every_family_are_known(marks: tuple[str, str], size: int) -> None:
    text = f"\n{marks[0]}41? No, one more.\n{marks[1]}\n\nIt is 42."
    reader = AnswerReader(THOUGHT_MARKS)
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert shown + reader.close() == "It is 42."
    assert (reader.answer, reader.thought) == ("It is 42.", "41? No, one more.")
    assert not reader.unclosed
    assert split_thought(text) == ("41? No, one more.", "It is 42.", False)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_several_thoughts_before_an_answer(size: int) -> None:
    text = "<think>41?</think>\n\n<think>No.</think>\n\n It is 42. \n"
    reader = AnswerReader(THOUGHT_MARKS, exact=True)
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert shown + reader.close() == "It is 42. \n"
    assert (reader.answer, reader.thought) == ("It is 42.", "41?No.")


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>analysis<|message|>41?<|start|>assistant<|channel|>final<|message|>It is 42.<|return|>",
        "<|channel|>final<|message|>It is 42.<|return|>",
        "<|channel|>final<|message|>It is 42.",
        "<|channel>thought\n41?<channel|>It is 42.",
        "<|START_THINKING|>41?<|END_THINKING|><|START_RESPONSE|>It is 42.<|END_RESPONSE|>",
        "<|begin_of_thought|>41?<|end_of_thought|>\n\n<|begin_of_solution|>\nIt is 42.\n<|end_of_solution|>",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_control_tokens_around_the_answer_are_no_part_of_it(text: str, size: int) -> None:
    reader = AnswerReader(THOUGHT_MARKS, exact=True)
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert (shown + reader.close()).strip() == "It is 42."
    assert split_thought(text).answer == "It is 42."
    assert "42" not in split_thought(text).thought


def test_a_form_that_people_ask_for_is_part_of_the_answer() -> None:
    assert split_thought("<think>41?</think><answer>42</answer>").answer == "<answer>42</answer>"


def test_a_thought_without_end_is_no_answer() -> None:
    assert split_thought("<think>and so on") == ("and so on", "", True)


def test_a_thought_that_the_prompt_opened() -> None:
    assert split_thought("hm</think>42")[:2] == ("hm", "42")
    reader = AnswerReader((("", "</think>"),))
    assert reader.feed("hm, 41?") == ""
    assert reader.feed("</think> 42") == "42"


@pytest.mark.parametrize(
    "text",
    [
        "Write <think> and </think> around it.",
        "<thinker> is a word",
        "a < b and b > c",
        "Say <think>this</think>",
        "",
    ],
)
def test_marks_inside_an_answer_are_part_of_it(text: str) -> None:
    assert split_thought(text) == ("", text, False)


def test_what_closes_a_thought_that_only_models_open_is_prose_alone() -> None:
    text = "Gemma closes with <channel|> always."
    assert split_thought(text) == ("", text, False)
    assert split_thought("<|channel>thought\nhm<channel|>42")[:2] == ("hm", "42")


def test_many_thoughts_are_no_more_work_than_one() -> None:
    reader = AnswerReader(THOUGHT_MARKS)
    final = "<|start|>assistant<|channel|>final<|message|>"
    reader.feed(f"<|channel|>analysis<|message|>x{final}" * 50)
    assert reader._stop == ["<|return|>"]


@given(st.text(), st.integers(1, 9))
def test_without_marks_nothing_changes_in_an_exact_stream(text: str, size: int) -> None:
    reader = AnswerReader((), exact=True)
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert shown + reader.close() == text


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_character_that_comes_in_two_halves_is_one(size: int) -> None:
    text = "a \ud834\udd1e b \ud834 c\ud834"
    reader = AnswerReader(exact=True)
    shown = [reader.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join([*shown, reader.close()]) == "a \U0001d11e b \ufffd c\ufffd" == reader.answer


@given(st.text(alphabet="ab <>/think\n"), st.integers(1, 9))
def test_pieces_and_the_whole_give_one_answer(text: str, size: int) -> None:
    pieces, whole = AnswerReader(THOUGHT_MARKS), split_thought(text)
    for i in range(0, len(text), size):
        pieces.feed(text[i : i + size])
    pieces.close()
    assert (pieces.thought, pieces.answer, pieces.unclosed) == whole


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("hm, 41?</think>\n\nIt is 42.", "hm, 41?", "It is 42."),
        ("<think>hm</think>It is 42.", "hm", "It is 42."),
        ("</think>It is 42.", "", "It is 42."),
        ("hm</think><think>hm</think>42", "hmhm", "42"),
        ("It is 42.", "", "It is 42."),  # it did not think this time
        ("It is 42 END and so on", "", "It is 42"),
        ("END</think>It is 42 END and so on", "END", "It is 42"),
        ("", "", ""),
    ],
)
def test_a_thought_that_the_prompt_may_have_opened(
    text: str, thought: str, answer: str, size: int
) -> None:
    reader = AnswerReader(THOUGHT_MARKS, ["END"], exact=True, opened=("<think>", "</think>"))
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert (shown + reader.close()).strip() == answer
    assert (reader.thought, reader.answer, reader.unclosed) == (thought, answer, False)


def test_a_thought_that_the_text_opens_is_unclosed_whatever_the_prompt_does() -> None:
    reader = AnswerReader(THOUGHT_MARKS, exact=True, opened=("<think>", "</think>"))
    assert reader.feed("<think>hm") + reader.close() == ""
    assert (reader.thought, reader.answer, reader.unclosed) == ("hm", "", True)
