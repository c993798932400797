"""Who can answer: experts that cannot read a prompt, call tools or see images are not asked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy
from provider_stub import provider, remote_model
from pydantic import Field
from tiny_models import save_tiny
from tool_fakes import tool_expert

from der_graph import ChatDER, DERState, Expert, create_der_graph
from der_graph.errors import ContextLengthError, ToolsNotSupportedError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.langchain import as_expert

TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
FORM: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "sum",
        "schema": {
            "type": "object",
            "properties": {"value": {"type": "integer"}},
            "required": ["value"],
        },
    },
}


def test_who_cannot_read_the_prompt_takes_no_step_and_costs_nothing(tmp_path: Path) -> None:
    small = HuggingFaceChat(model=str(save_tiny(tmp_path, context=64)))
    experts = [as_expert(small, name="small", cost=1.0), scripted_expert("large", "I did")[0]]
    graph = create_der_graph(experts, agent=ScriptedAgent("small"), max_steps=1).compile()
    state = graph.invoke(a_human("x" * 200))
    assert (route_of(state), state["cost"]) == (["large", "END"], 1.0)
    assert route_of(graph.invoke(a_human("hi"))) == ["small", "END"]


def test_a_length_that_the_pool_names_holds_for_models_elsewhere() -> None:
    short, model = scripted_expert("short", "never", context_length=50)
    graph = create_der_graph([short], agent=ScriptedAgent("short")).compile()
    with pytest.raises(ContextLengthError, match="shorten it"):
        graph.invoke(a_human("word " * 200))
    assert not model.prompts


def test_a_refusal_of_the_provider_takes_no_step() -> None:
    error = {"message": "This model's maximum context length is 8192 tokens."}
    with provider(lambda body: {"status": 400, "error": error}) as stub:
        experts = [
            as_expert(remote_model(stub.url), name="remote", cost=5.0),
            scripted_expert("other", "fine")[0],
        ]
        graph = create_der_graph(experts, agent=ScriptedAgent("remote", "other"), max_steps=1)
        state = graph.compile().invoke(a_human("q"), context={"max_cost": 5.0})
    assert (route_of(state), state["cost"]) == (["remote", "other", "END"], 1.0)


def test_tools_are_for_those_who_can_call_them() -> None:
    plain, model = scripted_expert("plain", "no")
    experts = [plain, tool_expert("able", "yes")]
    graph = create_der_graph(experts, agent=ScriptedAgent("plain")).compile()
    state = graph.invoke(a_human("q"), context={"model_settings": {"tools": [TOOL]}})
    assert route_of(state) == ["able", "END"]
    assert not model.prompts
    asked = {"model_settings": {"tools": [TOOL], "tool_choice": "none"}}
    assert route_of(graph.invoke(a_human("q"), context=asked)) == ["plain", "END"]
    alone = create_der_graph([plain], agent=ScriptedAgent("plain")).compile()
    with pytest.raises(ToolsNotSupportedError, match="cannot call tools: plain"):
        alone.invoke(a_human("q"), context={"model_settings": {"tools": [TOOL]}})


def test_images_are_for_those_who_read_them() -> None:
    blind, _ = scripted_expert("blind", "no")
    seeing, model = scripted_expert("seeing", "a cat", inputs=frozenset({"image"}))
    picture: Any = {"type": "image_url", "image_url": {"url": "data:,"}}
    question = HumanMessage([{"type": "text", "text": "What is this?"}, picture])
    graph = create_der_graph([blind, seeing], agent=ScriptedAgent("blind")).compile()
    state = graph.invoke({"messages": [question]})
    assert route_of(state) == ["seeing", "END"]
    assert model.prompts[0][-1].content == [{"type": "text", "text": "What is this?"}, picture]


def test_texts_between_images_stay_in_their_places() -> None:
    first, told = scripted_expert("first", "a cat", inputs=frozenset({"image"}))
    second, shown = scripted_expert("second", "a dog", inputs=frozenset({"image"}))
    graph = create_der_graph([first, second], agent=ScriptedAgent("first", "second")).compile()

    def text(words: str) -> dict[str, str]:
        return {"type": "text", "text": words}

    def picture(name: str) -> Any:
        return {"type": "image_url", "image_url": {"url": f"https://x.test/{name}.png"}}

    asked: list[Any] = [
        "Which is larger?",
        text(" First: <|im_end|>"),
        picture("a"),
        text("Second:"),
        picture("b"),
    ]
    graph.invoke({"messages": [HumanMessage(asked)]})
    safe = text(" First: < |im_end|>")
    pictures = [text("Which is larger?"), safe, picture("a"), text("Second:"), picture("b")]
    assert told.prompts[0][-1].content == pictures
    content: Any = shown.prompts[0][-1].content
    knowledge, *others = content
    assert "a cat" in knowledge["text"]
    assert others == pictures
    halves: list[Any] = [
        picture("a"),
        text("Who? <|im_"),
        picture("b"),
        text("end|>"),
        picture("c"),
    ]
    graph.invoke({"messages": [HumanMessage(halves)]})
    assert told.prompts[1][-1].content == [text("Who? < |im_end|>"), *halves[::2]]
    graph.invoke({"messages": [HumanMessage([picture("a"), text("Who?"), text(" Me?")])]})
    assert told.prompts[2][-1].content == [text("Who? Me?"), picture("a")]
    blank: Any
    for blank in ("", text(""), text("\n"), {"type": "text", "text": None}):
        more = [text("Which?"), picture("a"), text("First"), picture("b"), blank, picture("c")]
        graph.invoke({"messages": [HumanMessage([*more, blank])]})
        assert told.prompts[-1][-1].content == [*more[:4], picture("c")]
        graph.invoke({"messages": [HumanMessage([text("Which?"), *more[1:2], blank, *more[3:4]])]})
        assert told.prompts[-1][-1].content == [text("Which?"), *more[1:4:2]]


def test_an_answer_of_the_wrong_form_is_repaired_by_the_next_expert() -> None:
    first, _ = scripted_expert("first", "It is five.")
    second, repairing = scripted_expert("second", '```json\n{"value": 5}\n```')
    der = ChatDER(pool=[first, second], agent=ScriptedAgent("first", "second"))
    answer = der.invoke("2 + 3?", response_format=FORM)
    assert answer.text == '{"value": 5}'
    prompt = repairing.prompts[0][-1].text
    assert "It is five." in prompt
    assert "it is not JSON" in prompt
    assert '"required": ["value"]' in prompt
    errors = [step.get("error") for step in answer.response_metadata["der_route"]]
    assert "not of the form" in errors[0]


class Counting(FakeListChatModel):
    """Has a tokenizer, and says which threads it worked in."""

    threads: list[int] = Field(default_factory=list)

    def count_tokens(self, text: str) -> int:
        self.threads.append(threading.get_ident())
        return len(text)

    def count_prompt(self, messages: Any) -> int:
        self.threads.append(threading.get_ident())
        return 1


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("length", [8, None])
def test_tokens_are_not_counted_on_the_event_loop(wrapped: bool, length: int | None) -> None:
    model = Counting(responses=["Surely 4."])
    b = Expert("b", model.with_retry() if wrapped else model, cost=2.0, context_length=length)
    a, _ = scripted_expert("a", "Perhaps 5.")
    graph = create_der_graph([a, b], agent=ScriptedAgent("a", "b")).compile()
    state = asyncio.run(graph.ainvoke(a_human("2 + 2?")))
    assert route_of(state) == ["a", "b", "END"]
    assert model.threads
    assert threading.get_ident() not in model.threads


def test_a_node_cache_keeps_the_answer_and_not_the_route() -> None:
    x, asked_x = scripted_expert("x", "X says 4")
    y, asked_y = scripted_expert("y", "Y says 5", cost=2.0)
    agent = ScriptedAgent("x")
    builder = create_der_graph([x, y], agent=agent, max_steps=2)
    builder.nodes["x"].cache_policy = CachePolicy(key_func=lambda task: task["question"])
    graph = builder.compile(cache=InMemoryCache())
    graph.invoke(a_human("2 + 2?"))
    agent.script = ("y", "x")
    state = graph.invoke(a_human("2 + 2?"))
    assert route_of(state) == ["y", "x", "END"]
    assert (state["cost"], state["answer"]) == (3.0, "X says 4")
    assert (len(asked_x.prompts), len(asked_y.prompts)) == (1, 1)
    assert builder.nodes["x"].cache_policy is not None  # the builder is as it was


def test_the_default_key_of_a_node_cache_is_the_whole_prompt() -> None:
    x, asked = scripted_expert("x", "X")
    builder = create_der_graph([x], agent=ScriptedAgent("x"))
    builder.nodes["x"].cache_policy = CachePolicy()
    graph = builder.compile(cache=InMemoryCache())
    for question, settings in (("a", {}), ("a", {}), ("b", {}), ("a", {"temperature": 1.0})):
        graph.invoke(a_human(question), context={"model_settings": settings})
    assert len(asked.prompts) == 3


def test_a_cache_policy_for_all_nodes_is_for_the_experts() -> None:
    x, asked = scripted_expert("x", "X says 4")
    y, _ = scripted_expert("y", "Y says 5", cost=2.0)
    agent = ScriptedAgent("x")
    builder = create_der_graph([x, y], agent=agent, max_steps=2)
    builder.add_node("own", lambda state: {"knowledge": ""})
    assert builder.set_node_defaults(cache_policy=CachePolicy()) is builder
    graph = builder.compile(cache=InMemoryCache())
    question = {"messages": [HumanMessage("2 + 2?", id="1")]}  # the hub sees the same state again
    assert route_of(graph.invoke(question)) == ["x", "END"]
    agent.script = ("y", "x")
    assert route_of(graph.invoke(question)) == ["y", "x", "END"]
    agent.script = ("x",)
    assert route_of(graph.invoke(question)) == ["x", "END"]
    assert len(asked.prompts) == 2  # once at once, once after y
    policies = {name: node.cache_policy for name, node in graph.nodes.items()}
    assert [name for name, policy in policies.items() if policy] == ["own"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_cache_is_cleared_with_the_others(asynchronous: bool) -> None:
    x, asked_x = scripted_expert("x", "X says 4")
    y, asked_y = scripted_expert("y", "Y says 5", cost=2.0)
    builder = create_der_graph([x, y], agent=ScriptedAgent("x", "y"))
    builder.set_node_defaults(cache_policy=CachePolicy())
    graph = builder.compile(cache=InMemoryCache())

    def clear(nodes: list[str] | None) -> None:
        if asynchronous:
            asyncio.run(graph.aclear_cache(nodes))
        else:
            graph.clear_cache(nodes)

    def calls() -> tuple[int, int]:
        graph.invoke(a_human("2 + 2?"))
        return len(asked_x.prompts), len(asked_y.prompts)

    assert calls() == calls() == (1, 1)
    clear(["x"])
    assert calls() == (2, 1)
    clear(None)
    assert calls() == (3, 2)


def test_two_graphs_may_end_in_one_step_of_a_parent_that_shares_the_state() -> None:
    parent = StateGraph(DERState)
    for name in ("a", "b"):
        expert, _ = scripted_expert(f"expert-{name}", f"says {name}")
        child = create_der_graph([expert], agent=ScriptedAgent(f"expert-{name}"))
        parent.add_node(name, child.compile(name=name))
        parent.add_edge(START, name)
    graph: Any = parent.compile()
    state = graph.invoke(a_human("q"))
    assert {message.text for message in state["messages"][1:]} == {"says a", "says b"}
    assert state["answer"] in ("says a", "says b")
    assert route_of(state)[-1] == "END"
