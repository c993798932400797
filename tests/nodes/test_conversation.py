"""Several turns: what the agent reads, what the experts get, who goes on speaking."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import ScriptedAgent, a_human, scripted_expert
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.memory import InMemorySaver

from der_graph import create_der_graph
from der_graph.errors import PoolError
from der_graph.nodes.conversation import conversation_text, history_for_experts, last_experts
from der_graph.nodes.decision import Choice
from der_graph.state import Situation

THREAD: Any = {"configurable": {"thread_id": "1"}}


# What the agent reads -----------------------------------------------------------------------------


def test_a_first_question_is_read_as_it_is() -> None:
    assert conversation_text([], "2 + 3?") == "2 + 3?"
    assert conversation_text([SystemMessage("Be brief.")], "2 + 3?") == "2 + 3?"


def test_a_later_one_is_read_after_what_it_goes_on_from() -> None:
    history: list[AnyMessage] = [
        SystemMessage("Be brief."),
        HumanMessage("Hello!"),
        AIMessage("Hi."),
        HumanMessage("What is 3 * 4?"),
        AIMessage("It is 12."),
        HumanMessage("And 5 * 6?"),
        AIMessage("It is 30."),
    ]
    assert conversation_text(history, "And twice that?") == (
        "And twice that?\nAnd 5 * 6?\nAnd twice that?"
    )


def test_what_the_agent_reads_is_bounded() -> None:
    history: list[AnyMessage] = []
    for i in range(50):
        history += [HumanMessage(f"start{i} " + "word " * 500 + f"end{i}"), AIMessage("x" * 9000)]
    first, before, again = conversation_text(history, "And twice that?").split("\n")
    assert first == again == "And twice that?"
    assert before.startswith("start49 word")
    assert before.endswith("word end49")
    assert len(before) <= 200


def test_a_picture_alone_is_no_turn_to_go_on_from() -> None:
    picture = HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}])
    assert conversation_text([picture], "What is this?") == "What is this?"
    assert conversation_text([HumanMessage("A cat."), picture], "And?") == "And?\nA cat.\nAnd?"


# What the experts get -----------------------------------------------------------------------------


def test_a_system_prompt_holds_in_every_turn() -> None:
    expert, model = scripted_expert("small", "5", "6", system="You compute.")
    other, plain = scripted_expert("other", "7")
    graph = create_der_graph([expert, other], agent=ScriptedAgent("small", "other"))
    app = graph.compile(checkpointer=InMemorySaver())
    app.invoke({"messages": [("system", "Be brief."), ("user", "2 + 3?")]}, THREAD)
    app.invoke(a_human("And 2 + 4?"), THREAD)
    assert [m.text for m in model.prompts[1]] == [
        "You compute.\n\nBe brief.",
        "2 + 3?",
        "7",
        "And 2 + 4?",
    ]
    assert [m.type for m in plain.prompts[1]] == ["system", "human", "ai", "human"]


def test_a_system_prompt_that_comes_with_every_turn_stands_once_and_first() -> None:
    """Most chat templates refuse one in the middle."""
    expert, model = scripted_expert("small", "5", "6")
    app = create_der_graph([expert], agent=ScriptedAgent("small")).compile(
        checkpointer=InMemorySaver()
    )
    for question in ("2 + 3?", "2 + 4?"):
        app.invoke({"messages": [("system", "Be brief."), ("user", question)]}, THREAD)
    assert [(m.type, m.text) for m in model.prompts[1]] == [
        ("system", "Be brief."),
        ("human", "2 + 3?"),
        ("ai", "5"),
        ("human", "2 + 4?"),
    ]


def test_different_system_prompts_are_put_together() -> None:
    messages: list[AnyMessage] = [
        SystemMessage("Be brief."),
        HumanMessage("Hi"),
        SystemMessage("Be kind."),
        SystemMessage("Be brief."),
    ]
    system, human = history_for_experts(messages)
    assert (system.text, human.text) == ("Be brief.\n\nBe kind.", "Hi")


def test_a_system_prompt_after_the_question_holds_too() -> None:
    expert, model = scripted_expert("a", "Oui.")
    graph = create_der_graph([expert], agent=ScriptedAgent("a", "END")).compile()
    call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    brief, french = SystemMessage("Be brief."), SystemMessage("Answer in French.")
    for after in ([french], [call, french, ToolMessage("7", tool_call_id="1"), brief]):
        graph.invoke({"messages": [brief, HumanMessage("2 + 3?"), *after]})
        first, *others = model.prompts[-1]
        assert first.text == "Be brief.\n\nAnswer in French."
        assert not any(isinstance(each, SystemMessage) for each in others)
    assert [each.type for each in others] == ["human", "ai", "tool"]


def test_the_route_of_a_follow_up_is_chosen_by_its_subject() -> None:
    agent = ScriptedAgent("small")
    expert, _ = scripted_expert("small", "It is 12.", "24")
    app = create_der_graph([expert], agent=agent).compile(checkpointer=InMemorySaver())
    app.invoke(a_human("What is 3 * 4?"), THREAD)
    result = app.invoke(a_human("And twice that?"), THREAD)
    assert [seen.question for seen in agent.seen] == [
        "What is 3 * 4?",
        "And twice that?\nWhat is 3 * 4?\nAnd twice that?",
    ]
    assert result["question"] == "And twice that?"


# Who goes on speaking -----------------------------------------------------------------------------


class Undecided(ScriptedAgent):
    """Gives the probabilities that it was told, and takes the likeliest."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.probabilities = list(probabilities)

    def _choose(self, situation: Situation) -> Choice:
        if situation.answers:
            return Choice(len(self.names), [0.0] * len(self.names) + [1.0])
        best = max(range(len(self.names)), key=self.probabilities.__getitem__)
        return Choice(best, [*self.probabilities, 0.0])


def second_turn(margin: float | None, context: float | None = None) -> dict[str, Any]:
    """First `a` is the best, then `b` by 0.04."""
    agent = Undecided(0.6, 0.3, 0.1)
    experts = [scripted_expert(name, name)[0] for name in "abc"]
    more = {} if margin is None else {"stickiness": margin}
    app = create_der_graph(experts, agent=agent, **more).compile(checkpointer=InMemorySaver())  # type: ignore[arg-type]
    first = app.invoke(a_human("One?"), THREAD)
    assert [step["reason"] for step in first["route"]] == ["agent", "agent"]
    agent.probabilities = [0.43, 0.47, 0.1]
    result: dict[str, Any] = app.invoke(a_human("Two?"), THREAD, context={"stickiness": context})
    return result


@pytest.mark.parametrize(
    ("margin", "context", "expert", "reason"),
    [
        (None, None, "a", "stickiness"),  # 0.05 where nothing is said
        (0.041, None, "a", "stickiness"),
        (0.039, None, "b", "agent"),
        (0.0, None, "b", "agent"),
        (0.0, 0.1, "a", "stickiness"),
        (0.1, 0.0, "b", "agent"),
    ],
)
def test_equals_do_not_take_turns(
    margin: float | None, context: float | None, expert: str, reason: str
) -> None:
    opening = second_turn(margin, context)["route"][0]
    assert (opening["choice"], opening["reason"]) == (expert, reason)
    assert opening["probabilities"]["b"] == 0.47  # what the agent thought stays on record


def test_stickiness_obeys_the_mask() -> None:
    agent = Undecided(0.6, 0.4)
    experts = [scripted_expert(name, name)[0] for name in "ab"]
    app = create_der_graph(experts, agent=agent).compile(checkpointer=InMemorySaver())
    app.invoke(a_human("One?"), THREAD)
    agent.probabilities = [0.0, 1.0]  # as every agent has it: what is forbidden has no probability
    result = app.invoke(
        a_human("Two?"), THREAD, context={"forbidden_experts": ["a"], "stickiness": 1.0}
    )
    assert result["route"][0]["choice"] == "b"


def test_who_spoke_last_is_read_from_the_message() -> None:
    """So it works without a checkpointer too, and inside other graphs."""
    said = AIMessage("5", response_metadata={"der_experts": ["a", "b"]})
    assert last_experts([HumanMessage("x"), said, AIMessage("Anything else?")]) == ["a", "b"]
    assert last_experts([HumanMessage("x"), AIMessage("5")]) == []


@pytest.mark.parametrize("margin", [-0.1, 1.1, float("nan")])
def test_stickiness_is_a_share(margin: float) -> None:
    with pytest.raises(PoolError, match="stickiness is"):
        create_der_graph([scripted_expert("a", "1")[0]], agent=ScriptedAgent(), stickiness=margin)


# What is added to the conversation ----------------------------------------------------------------


def test_every_experts_message_on_request() -> None:
    experts = [
        scripted_expert(name, text)[0] for name, text in (("a", "5?"), ("b", ""), ("c", "5!"))
    ]
    agent = ScriptedAgent("a", "b", "c")
    app = create_der_graph(experts, agent=agent, output_mode="experts").compile(
        checkpointer=InMemorySaver()
    )
    messages = app.invoke(a_human("2 + 3?"), THREAD)["messages"]
    assert [(m.type, m.name, m.text) for m in messages] == [
        ("human", None, "2 + 3?"),
        ("ai", "a", "5?"),
        ("ai", "c", "5!"),  # the answer, once; the failed one said nothing
    ]
    draft, final = messages[1:]
    assert draft.id == f"{final.id}-0"
    assert draft.usage_metadata is None
    assert final.response_metadata["der_experts"] == ["a", "b", "c"]


def test_drafts_are_passed_over_in_later_turns() -> None:
    first, _ = scripted_expert("a", "5?", "7?")
    last, model = scripted_expert("c", "5!", "7!")
    agent = ScriptedAgent("a", "c")
    app = create_der_graph([first, last], agent=agent, output_mode="experts").compile(
        checkpointer=InMemorySaver()
    )
    app.invoke(a_human("2 + 3?"), THREAD)
    result = app.invoke(a_human("3 + 4?"), THREAD)
    assert [m.text for m in result["messages"]] == ["2 + 3?", "5?", "5!", "3 + 4?", "7?", "7!"]
    assert [m.text for m in model.prompts[1]][:2] == ["2 + 3?", "5!"]
    assert agent.seen[-1].question == "3 + 4?\n2 + 3?\n3 + 4?"


def test_an_answer_that_was_selected_comes_last() -> None:
    class First(ScriptedAgent):
        def select(self, answers: Any, question: str) -> int:
            return 0

    experts = [scripted_expert(name, name)[0] for name in "ab"]
    graph = create_der_graph(experts, agent=First("a", "b"), output_mode="experts").compile()
    assert [m.name for m in graph.invoke(a_human("x"))["messages"]] == [None, "b", "a"]


def test_other_output_modes_are_refused() -> None:
    with pytest.raises(PoolError, match="output_mode is 'all'; allowed: 'final', 'experts'"):
        create_der_graph(
            [scripted_expert("a", "1")[0]], agent=ScriptedAgent(), output_mode="all"  # type: ignore[arg-type]
        )  # fmt: skip
