"""Tools through `ChatDER`: who can be given them, what comes out, what experts read after a tool has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, an_answer, scripted_expert
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel
from tool_fakes import ToolModel, tool_expert

from der_graph import ChatDER, Expert, create_der_graph
from der_graph.errors import DERError, ToolsNotSupportedError
from der_graph.nodes.conversation import find_question
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.ktp import ktp_messages
from der_graph.nodes.model_settings import can_call_tools
from der_graph.nodes.reliability.redaction import Guarded
from der_graph.nodes.tools import reads_tools, tail_of, with_tools, without_tools


def call(name: str = "add", **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": "c1", "type": "tool_call"}])


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


RESULT = ToolMessage("5", tool_call_id="c1", name="add")


def texts(messages: list[BaseMessage]) -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in messages]


# The tail -------------------------------------------------------------------------------------------------


def test_the_tail_goes_up_to_the_last_result() -> None:
    history: list[Any] = [SystemMessage("s"), HumanMessage("before")]
    question = HumanMessage("What is 2 + 3?")
    calling, said = call(a=2, b=3), AIMessage("It is 5.")
    found = find_question([*history, question, calling, RESULT])
    assert found == (history, question, [calling, RESULT])
    assert find_question([question, calling, RESULT, said])[2] == [calling, RESULT]
    assert find_question([question, said])[2] == []  # answered, so it is asked afresh
    assert tail_of([]) == []


def test_experts_read_the_tail_in_order_and_knowledge_after_it() -> None:
    calling = call(a=2, b=3)
    prompt = ktp_messages([SystemMessage("s")], "Q?", [], tail=[calling, RESULT])
    assert prompt[2] is calling
    assert texts(prompt) == [("system", "s"), ("human", "Q?"), ("ai", ""), ("tool", "5")]
    informed = ktp_messages([], "Q?", [an_answer(text="five")], tail=[calling, RESULT])
    assert texts(informed)[:3] == [("human", "Q?"), ("ai", ""), ("tool", "5")]
    assert informed[3].type == "human"
    assert "five" in informed[3].text
    assert len(informed) == 4


def test_an_expert_that_reads_text_only_gets_no_tools() -> None:
    expert = Expert("local", HuggingFaceChat(pipeline=_Pipeline(), model="x"), cost=1.0)
    assert not reads_tools(expert.model)
    assert not reads_tools(expert.model.with_retry())
    history = [HumanMessage("before"), call(a=1, b=1), RESULT, AIMessage("2")]
    from der_graph.nodes.ktp import TEMPLATES

    prompt = expert.prompt(history, "Q?", [], TEMPLATES["default"], [call(a=2, b=3), RESULT])
    assert texts(prompt) == [("human", "before"), ("ai", "2"), ("human", "Q?")]
    assert without_tools(history) == [history[0], history[3]]


class _Pipeline:
    """As much of a pipeline as is looked at before a model is asked."""

    class _Tokenizer:
        pad_token_id = 0
        pad_token = "<pad>"

    class _Model:
        name_or_path = "x"

        def eval(self) -> None:
            """Nothing to do."""

    tokenizer, model = _Tokenizer(), _Model()


# Calls ----------------------------------------------------------------------------------------------------


def test_a_call_without_text_is_an_answer_and_is_kept_as_plain_data() -> None:
    expert = tool_expert("a", call(a=2, b=3))
    graph = create_der_graph([expert], agent=ScriptedAgent("a")).compile(
        checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    state = graph.invoke(a_human("What is 2 + 3?"), config)
    answer = state["route"][0]["answer"]
    assert answer["error"] is None
    assert answer["tool_calls"] == [
        {"name": "add", "args": {"a": 2, "b": 3}, "id": "c1", "type": "tool_call"}
    ]
    assert state["messages"][-1].tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert graph.get_state(config).values["route"][0]["answer"] == answer
    # The same thread goes on after the tool: a new route over the same question.
    state = graph.invoke({"messages": [RESULT]}, config)
    model: Any = expert.model
    assert [m.type for m in model.prompts[1]] == ["human", "ai", "tool"]
    assert len(state["route"]) == 2


@pytest.mark.parametrize("said", ["", "I don't know, so I look it up."])
def test_the_planner_stops_where_calls_agree(said: str) -> None:
    """Calls are compared like other values, whatever is said beside them, and whatever their ids."""
    calls = [call(a=2, b=3), call(b=3, a=2), call(a=2, b=3), call(a=2, b=3)]
    experts = [
        tool_expert(name, AIMessage(said, tool_calls=[{**message.tool_calls[0], "id": name}]))
        for name, message in zip("abcd", calls, strict=True)
    ]
    answer = ChatDER(pool=experts).bind_tools([add]).invoke("What is 2 + 3?")
    assert answer.tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert len(answer.response_metadata["der_experts"]) == 2
    # Other calls do not agree.
    other = [tool_expert(name, call(a=i, b=3)) for i, name in enumerate("abcd")]
    answer = ChatDER(pool=other).bind_tools([add]).invoke("What is 2 + 3?")
    assert len(answer.response_metadata["der_experts"]) > 2


def test_an_answer_without_calls_has_no_such_key() -> None:
    assert "tool_calls" not in scripted_expert("a", "x")[0].answer_from(AIMessage("yes"), 0.1)


def test_the_loop_of_create_agent() -> None:
    a = tool_expert("a", "let me see", "nearly")
    b = tool_expert("b", call(a=2, b=3), "It is 5.")
    der = ChatDER(pool=[a, b], agent=ScriptedAgent("a", "b"))
    agent: Any = create_agent(der, [add], system_prompt="Use tools.")
    messages = agent.invoke(a_human("What is 2 + 3?"))["messages"]
    assert texts(messages) == [
        ("human", "What is 2 + 3?"),
        ("ai", ""),
        ("tool", "5"),
        ("ai", "It is 5."),
    ]
    assert messages[1].response_metadata["finish_reason"] == "tool_calls"
    model: Any = b.model
    assert model.settings[0]["tools"][0]["function"]["name"] == "add"
    last = model.prompts[-1]
    assert [m.type for m in last] == ["system", "human", "ai", "tool", "human"]
    assert last[1].text == "What is 2 + 3?"
    assert last[2].tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert "nearly" in last[4].text  # a's second answer, told after what both had read


def test_calls_are_streamed_with_the_last_chunk() -> None:
    experts = [tool_expert("a", call(a=2, b=3))]
    der: Any = ChatDER(pool=experts, agent=ScriptedAgent("a")).bind_tools([add])
    chunks = list(der.stream("What is 2 + 3?"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert whole.tool_calls[0]["args"] == {"a": 2, "b": 3}


def test_bound_settings_reach_every_expert() -> None:
    a, b = tool_expert("a", "x"), tool_expert("b", "y")
    der = ChatDER(pool=[a, b], agent=ScriptedAgent("a", "b"))
    bound = der.bind_tools([add], tool_choice="add", strict=True)
    assert bound.invoke("Q").content == "y"
    for expert in (a, b):
        model: Any = expert.model
        (settings,) = model.settings
        assert (settings["tool_choice"], settings["strict"]) == ("add", True)
    assert der.invoke("Q").content == "y"  # the model itself is not changed
    model = a.model
    assert model.settings[1] == {}


class Sum(BaseModel):
    """The sum."""

    value: int


def test_structured_output() -> None:
    der = ChatDER(pool=[tool_expert("a", call("Sum", value=5))], agent=ScriptedAgent("a"))
    chain = der.with_structured_output(Sum)
    assert chain.invoke("What is 2 + 3?") == Sum(value=5)


def test_experts_that_cannot_are_named() -> None:
    experts = [scripted_expert("b", "y")[0], scripted_expert("c", "z")[0]]
    der = ChatDER(pool=experts, agent=ScriptedAgent("a"))
    asks: list[Callable[[], Any]] = [
        lambda: der.bind_tools([add]),
        lambda: der.with_structured_output(Sum),
    ]
    for ask in asks:
        with pytest.raises(ToolsNotSupportedError, match="cannot call tools: b, c") as caught:
            ask()
        assert isinstance(caught.value, NotImplementedError)
        assert isinstance(caught.value, DERError)


def test_models_whose_profile_says_that_they_call_no_tools_are_not_asked() -> None:
    model = ToolModel(answers=["words"], profile={"tool_calling": False})
    assert not can_call_tools(model)
    assert not can_call_tools(model.with_retry())
    assert can_call_tools(ToolModel(answers=["words"], profile={"image_inputs": True}))
    pool = [Expert("writer", model, cost=1.0), tool_expert("caller", call(a=2, b=3), cost=2.0)]
    said = (
        ChatDER(pool=pool, agent=ScriptedAgent("writer")).bind_tools([add]).invoke("What is 2 + 3?")
    )
    assert said.response_metadata["der_experts"] == ["caller"]
    assert model.prompts == []


def test_wrappers_keep_their_duties() -> None:
    model = ToolModel(answers=[RuntimeError("key abcdefgh is wrong"), "fine"])
    guarded = Guarded(bound=model, secrets=("abcdefgh",))
    with pytest.raises(Exception, match=r"key \*\*\* is wrong"):
        with_tools(guarded, [add]).invoke([HumanMessage("Q")])
    assert with_tools(guarded, [add]).invoke([HumanMessage("Q")]).text == "fine"
    assert len(model.settings[1]["tools"]) == 1
    spare = ToolModel(answers=["spare"])
    backed = ToolModel(answers=[RuntimeError("down")]).with_fallbacks([spare])
    assert with_tools(backed, [add], "any").invoke([HumanMessage("Q")]).text == "spare"
    assert spare.settings[0]["tool_choice"] == "any"
    retried = ToolModel(answers=[RuntimeError("once"), "again"]).with_retry()
    assert with_tools(retried, [add]).invoke([HumanMessage("Q")]).text == "again"
    with pytest.raises(NotImplementedError, match="RunnableLambda"):
        with_tools(RunnableLambda(lambda m: m), [add])
