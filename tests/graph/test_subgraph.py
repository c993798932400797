"""DER inside other graphs: nested, under a supervisor, in a swarm; messages once, context passed on."""

from __future__ import annotations

import asyncio
import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fakes import ScriptedAgent, a_human, three_experts
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from der_graph import DERContext, DERState, create_der_graph
from der_graph.errors import BudgetError
from der_graph.nodes.conversation import without_handovers

THREAD: Any = {"configurable": {"thread_id": "1"}}


def der(*script: str, **settings: Any) -> Any:
    return create_der_graph(three_experts()[0], agent=ScriptedAgent(*script), **settings).compile(
        name="der"
    )


def within(inner: Any, schema: type[Any] = MessagesState, context: type[Any] | None = None) -> Any:
    """A graph with one node, which is a graph, and one that says goodbye."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(schema, context_schema=context)
    builder.add_node("inner", inner)
    builder.add_node("goodbye", lambda state: {"messages": [AIMessage("Bye.")]})
    builder.add_edge(START, "inner")
    builder.add_edge("inner", "goodbye")
    builder.add_edge("goodbye", END)
    return builder


def run(graph: Any, asynchronous: bool, given: Any, *args: Any, **more: Any) -> Any:
    if asynchronous:
        return asyncio.run(graph.ainvoke(given, *args, **more))
    return graph.invoke(given, *args, **more)


def texts(result: dict[str, Any]) -> list[str]:
    return [message.text for message in result["messages"]]


# Graphs of one's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", ["final", "experts"])
def test_nested_twice_it_doubles_no_message(asynchronous: bool, mode: str) -> None:
    inner = within(der("small", "middle", output_mode=mode)).compile(name="inner")
    graph = within(inner).compile(checkpointer=InMemorySaver())
    answers = ["It is 6."] if mode == "final" else ["It is 5.", "It is 6."]
    turn = ["2 + 3?", *answers, "Bye.", "Bye."]
    assert texts(run(graph, asynchronous, a_human("2 + 3?"), THREAD)) == turn
    assert texts(run(graph, asynchronous, a_human("2 + 3?"), THREAD)) == turn * 2


class Wide(DERState):
    """The user's own state: DER's, with more."""

    customer: str
    log: Annotated[list[str], operator.add]


class Narrow(MessagesState):
    """A parent that shares some of it."""

    customer: str
    cost: float
    answer: str


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_users_own_state_goes_in_and_out(asynchronous: bool) -> None:
    graph = within(der("small", state_schema=Wide), Narrow).compile()
    result = run(graph, asynchronous, {**a_human("2 + 3?"), "customer": "ann"})
    assert texts(result) == ["2 + 3?", "It is 5.", "Bye."]
    assert (result["customer"], result["cost"], result["answer"]) == ("ann", 1.0, "It is 5.")


# Context ------------------------------------------------------------------------------------------


@dataclass
class Request:
    """The parent's own settings, some of which are DER's as well."""

    user: str = "ann"
    max_cost: float | None = None
    forbidden_experts: list[str] | None = None


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (None, "It is 6."),
        (Request(), "It is 6."),
        (Request(max_cost=1.5), "It is 5."),
        (Request(forbidden_experts=["middle", "large"]), "It is 5."),
    ],
)
def test_a_context_passes_through_two_graphs(asynchronous: bool, context: Any, answer: str) -> None:
    inner = within(der("small", "middle"), context=Request).compile()
    graph = within(inner, context=Request).compile()
    result = run(graph, asynchronous, a_human("2 + 3?"), context=context)
    assert texts(result)[1] == answer


def test_ders_own_context_passes_through_too() -> None:
    graph = within(der("small", "middle"), context=DERContext).compile()
    result = graph.invoke(a_human("2 + 3?"), context=DERContext(allowed_experts=["large"]))
    assert texts(result)[1] == "It is 7."


def test_a_parents_field_of_another_meaning_is_an_error_that_says_so() -> None:
    @dataclass
    class Calendar:
        deadline: timedelta

    graph = within(der("small"), context=Calendar).compile()
    with pytest.raises(
        BudgetError, match=r"deadline is datetime.timedelta\(days=1\); it must be a number"
    ):
        graph.invoke(a_human("2 + 3?"), context=Calendar(timedelta(days=1)))


# Supervisor and swarm -----------------------------------------------------------------------------


class ScriptedChat(BaseChatModel):
    """A chat model that gives its messages in turn, tool calls and all."""

    script: list[AIMessage]
    position: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedChat:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        message = self.script[self.position]
        self.position += 1
        return ChatResult(generations=[ChatGeneration(message=message)])


def call(tool: str, number: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": {}, "id": f"call-{number}"}])


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", ["last_message", "full_history"])
@pytest.mark.filterwarnings("ignore::langgraph.warnings.LangGraphDeprecationWarning")
def test_under_a_supervisor(asynchronous: bool, mode: Any) -> None:
    supervisor = pytest.importorskip("langgraph_supervisor")
    if sys.version_info < (3, 11):
        pytest.skip("LangGraph cannot compile its own create_react_agent on Python 3.10")
    model = ScriptedChat(
        script=[
            call("transfer_to_der", 1),
            AIMessage("Der says 6."),
            call("transfer_to_der", 2),
            AIMessage("Again 6."),
        ]
    )
    experts, models = three_experts()
    agent = ScriptedAgent("small", "middle")
    expert_team = create_der_graph(experts, agent=agent).compile(name="der")
    app = supervisor.create_supervisor([expert_team], model=model, output_mode=mode).compile(
        checkpointer=InMemorySaver()
    )
    first = run(app, asynchronous, a_human("2 + 3?"), THREAD)
    assert texts(first).count("2 + 3?") == 1
    assert texts(first).count("It is 6.") == 1
    assert texts(first)[-1] == "Der says 6."
    second = run(app, asynchronous, a_human("And 2 + 4?"), THREAD)
    assert texts(second).count("It is 6.") == 2
    assert texts(second)[-1] == "Again 6."
    ids = [message.id for message in second["messages"]]
    assert len(ids) == len(set(ids))
    # Both turns were routed as questions, not as hand-overs; the second by its subject.
    asked = [seen.question for seen in agent.seen]
    assert asked[0] == "2 + 3?"
    assert asked[-1] == "And 2 + 4?\n2 + 3?\nAnd 2 + 4?"
    assert [m.text for m in models["small"].prompts[0]] == ["2 + 3?"]
    assert [m.text for m in models["small"].prompts[1]] == [
        "2 + 3?",
        "It is 6.",
        "Der says 6.",
        "And 2 + 4?",
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.filterwarnings("ignore::langgraph.warnings.LangGraphDeprecationWarning")
def test_in_a_swarm(asynchronous: bool) -> None:
    swarm = pytest.importorskip("langgraph_swarm")
    from langchain.agents import create_agent

    hand_over = swarm.create_handoff_tool(agent_name="der")
    alice = create_agent(
        ScriptedChat(script=[call("transfer_to_der", 1)]), tools=[hand_over], name="alice"
    )
    app = swarm.create_swarm([alice, der("small", "middle")], default_active_agent="alice").compile(
        checkpointer=InMemorySaver()
    )
    first = run(app, asynchronous, a_human("2 + 3?"), THREAD)
    assert [m.type for m in first["messages"]] == ["human", "ai", "tool", "ai"]
    assert texts(first)[-1] == "It is 6."
    assert first["active_agent"] == "der"
    second = run(app, asynchronous, a_human("And 2 + 4?"), THREAD)  # der goes on speaking
    assert [m.type for m in second["messages"]][4:] == ["human", "ai"]
    assert texts(second).count("It is 6.") == 2


def test_hand_overs_are_left_out_and_what_was_said_beside_them_stays() -> None:
    search = {"name": "search", "args": {}, "id": "2", "type": "tool_call"}
    leave = {"name": "transfer_to_der", "args": {}, "id": "1", "type": "tool_call"}
    marked = {"name": "ask_the_sums_team", "args": {}, "id": "3", "type": "tool_call"}
    messages: list[Any] = [
        HumanMessage("2 + 3?"),
        AIMessage("Let me see.", tool_calls=[search, leave]),
        ToolMessage("Found.", tool_call_id="2"),
        ToolMessage("Successfully transferred to der", tool_call_id="1"),
        AIMessage(
            [{"type": "text", "text": "Over."}, {"type": "tool_use", "id": "3"}],
            tool_calls=[marked],
        ),
        ToolMessage("Gone.", tool_call_id="3", response_metadata={"__handoff_destination": "der"}),
    ]
    kept = without_handovers(messages)
    assert [(m.type, m.content) for m in kept] == [
        ("human", "2 + 3?"),
        ("ai", "Let me see."),
        ("tool", "Found."),
        ("ai", "Over."),
    ]
    assert [getattr(m, "tool_calls", None) for m in kept] == [None, [search], None, []]
    plain: list[Any] = [HumanMessage("x"), AIMessage("", tool_calls=[search])]
    assert without_handovers(plain) == plain
