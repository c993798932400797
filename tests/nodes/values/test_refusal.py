"""Answers that are none, and what rules and agreement make of them."""

from __future__ import annotations

import pytest
from fakes import an_answer, scripted_expert

from der_graph.nodes.rules import RouteRules
from der_graph.nodes.values import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I do not know.",
        "I don't know",
        "i don\u2019t know!",
        "I'm sorry, but I can't help with that.",
        "No idea.",
        "Sorry, I cannot answer this question.",
        "I am not sure.",
        "Unknown",
        "N/A",
        "ok ok ok",
        "I cannot say; ask gemma.",
        "As an AI language model, I cannot answer.",
        "I'm unable to determine the result.",
        "Not sure about that one.",
        "It is impossible to say.",
        "There is not enough information.",
        "Unfortunately, I have no answer to that.",
    ],
)
def test_answers_that_are_none(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "17",
        "I do not know, but 17 is likely.",
        "yes",
        "ok",
        "No",
        "Paris",
        "",
        "( 12 * 35 ) - 48",
        "The answer is unknown variable x.",
        "I know",
        "He did not know.",
        "B",
        "I don't know. The answer is Paris.",
        "Nobody knows what Shakespeare meant.",
        "x" * 1000,
        "I cannot say " + "word " * 100,
    ],
)
def test_answers(text: str) -> None:
    assert not is_refusal(text)


def test_two_who_do_not_know_do_not_agree() -> None:
    expert, _ = scripted_expert("a", "I do not know.")
    (answer,) = expert.ask([[]])
    assert answer["text"] == "I do not know."
    assert answer["value"] is None
    assert answer["error"] is None


def test_a_route_does_not_end_on_a_refusal_while_others_can_be_asked() -> None:
    rules = RouteRules(("a", "b"), (1.0, 1.0), max_steps=2)
    none, some = an_answer("a", "I do not know."), an_answer("b", "17")
    assert rules.mask([none])[0] == [False, True, False]
    assert rules.mask([an_answer("a", "17")])[0] == [False, True, True]
    assert rules.mask([none, some])[0] == [False, False, True]
    assert rules.mask([none, an_answer("b", "No idea.")])[0] == [
        False,
        False,
        True,
    ]  # nobody is left
