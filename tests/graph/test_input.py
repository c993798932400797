"""What is refused, and how it is said: questions, experts, names, settings, states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import (
    ScriptedAgent,
    a_human,
    scripted_expert,
    three_experts,
)
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import MessagesState
from pydantic import BaseModel

from der_graph import ChatDER, DERContext, create_der_graph
from der_graph.errors import (
    AgentPoolMismatchError,
    PoolError,
    QuestionError,
)

# Questions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_an_empty_question_is_refused(text: str) -> None:
    experts, models = three_experts()
    with pytest.raises(QuestionError, match="the question is empty"):
        create_der_graph(experts, agent=ScriptedAgent("small")).compile().invoke(a_human(text))
    assert not models["small"].prompts


@pytest.mark.parametrize("messages", [[], [("ai", "Hello")], [("system", "Be brief.")]])
def test_without_a_human_message_the_error_shows_one(messages: list[Any]) -> None:
    experts, _ = three_experts()
    with pytest.raises(QuestionError, match=r'\{"messages": \[\("user", '):
        create_der_graph(experts, agent=ScriptedAgent("small")).compile().invoke(
            {"messages": messages}
        )


def test_content_blocks_are_read_as_text() -> None:
    experts, _ = three_experts()
    blocks = HumanMessage([{"type": "text", "text": "2 + "}, {"type": "text", "text": "3?"}])
    result = (
        create_der_graph(experts, agent=ScriptedAgent("small"))
        .compile()
        .invoke({"messages": [blocks]})
    )
    assert result["question"] == "2 + 3?"


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": "data:,"}}, "image_url"),
        ({"type": "image", "base64": "", "mime_type": "image/png"}, "image"),
        ({"type": "input_audio", "input_audio": {}}, "input_audio"),
        ({"no": "type"}, "?"),
    ],
)
@pytest.mark.parametrize("text", ["What is this?", ""])
@pytest.mark.parametrize("as_model", [False, True])
def test_a_question_of_more_than_text_is_refused(
    block: dict[str, Any], kind: str, text: str, as_model: bool
) -> None:
    experts, models = three_experts()
    question = HumanMessage([*([{"type": "text", "text": text}] if text else []), block])
    agent = ScriptedAgent("small")
    said = rf"a block of type '{re.escape(kind)}', and .* send a text, or blocks of type 'text'"
    asked: Any = {"messages": [question]}
    ensemble: Any = create_der_graph(experts, agent=agent).compile()
    if as_model:
        asked, ensemble = [question], ChatDER(pool=experts, agent=agent)
    with pytest.raises(QuestionError, match=said):
        ensemble.invoke(asked)
    assert not models["small"].prompts
    assert not agent.seen


def test_an_image_earlier_in_the_conversation_is_left_to_the_experts() -> None:
    experts, models = three_experts()
    image = HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])
    conversation = [image, AIMessage("A cat."), HumanMessage("How old is it?")]
    graph = create_der_graph(experts, agent=ScriptedAgent("small")).compile()
    assert graph.invoke({"messages": conversation})["question"] == "How old is it?"
    assert models["small"].prompts[0][0].content == image.content


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, {"response_format": {"type": "json_object"}}])
def test_experts_are_told_who_asks(settings: dict[str, Any] | None) -> None:
    """In a conversation of several, "and me?" says nothing without a name."""
    first, model = scripted_expert("first", '{"a": 1}')
    second, later = scripted_expert("second", '{"a": 2}')
    graph = create_der_graph([first, second], agent=ScriptedAgent("first", "second")).compile()
    said = [HumanMessage("I am here.", name="ann"), HumanMessage("And me?", name="ben")]
    graph.invoke({"messages": said}, context=DERContext(model_settings=settings))
    for prompt in (*model.prompts, *later.prompts):
        assert [message.name for message in prompt] == ["ann", "ben"]


def test_a_graph_needs_an_expert() -> None:
    with pytest.raises(PoolError, match="the pool has no experts"):
        create_der_graph([], agent=ScriptedAgent())


def test_names_are_unique() -> None:
    experts = [scripted_expert("a", "1")[0], scripted_expert("a", "2")[0]]
    with pytest.raises(PoolError, match="two experts are named 'a'"):
        create_der_graph(experts, agent=ScriptedAgent())


@pytest.mark.parametrize("name", ["", "a:b", "a|b", "a b", "END", "answer", "der_agent", "__end__"])
def test_a_name_that_cannot_be_a_nodes_is_refused(name: str) -> None:
    with pytest.raises(PoolError, match="expert name"):
        scripted_expert(name, "1")


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_a_cost_is_a_number_from_zero(cost: float) -> None:
    with pytest.raises(PoolError, match=r"expert 'a': cost is .*; it must be a number >= 0"):
        scripted_expert("a", "1", cost=cost)


def test_an_agent_for_other_experts_is_refused_when_the_graph_is_made() -> None:
    class Picky(ScriptedAgent):
        def check_pool(self, names: Sequence[str]) -> None:
            raise AgentPoolMismatchError("trained for other experts")

    with pytest.raises(AgentPoolMismatchError):
        create_der_graph(three_experts()[0], agent=Picky())


def test_other_settings_are_checked_when_the_graph_is_made() -> None:
    experts, _ = three_experts()
    with pytest.raises(PoolError, match="on_error is 'ignore'; allowed: 'continue', 'raise'"):
        create_der_graph(experts, agent=ScriptedAgent(), on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(PoolError, match="max_steps is 0"):
        create_der_graph(experts, agent=ScriptedAgent(), max_steps=0)
    with pytest.raises(PoolError, match="ktp 'papre' is unknown"):
        create_der_graph(experts, agent=ScriptedAgent(), ktp="papre")


def test_a_state_of_another_kind_is_refused() -> None:
    class Model(BaseModel):
        messages: list[Any]

    for schema, message in (
        (MessagesState, "has no field 'answer'"),
        (Model, "is not a TypedDict"),
    ):
        with pytest.raises(PoolError, match=f"{message}; extend der_graph.DERState"):
            create_der_graph(three_experts()[0], agent=ScriptedAgent(), state_schema=schema)
