"""Calls stay within their price and their length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes import ScriptedAgent
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from der_graph import ChatDER, DERContext, create_der_graph
from der_graph.errors import AllExpertsFailedError, BudgetError, PoolError
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.call_limits import MOST_TOKENS, TOKEN_LIMITS, Priced, priced
from der_graph.nodes.streaming import Trimmed
from der_graph.server.failures import failure_of


class Talker(BaseChatModel):
    """Writes as many tokens as it may, and as many as it has bytes of prompt."""

    wants: int = 10**6
    max_tokens: int | None = None
    num_predict: int | None = None
    max_output_tokens: int | None = None
    asked: list[Any] = Field(default_factory=list)
    told: list[dict[str, Any]] = Field(default_factory=list)
    pieces: int = 0

    @property
    def _llm_type(self) -> str:
        return "talker"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.asked.append(kwargs.get("max_tokens"))
        self.told.append(kwargs)
        tokens = min(self.wants, kwargs.get("max_tokens") or self.wants)
        read = sum(len(str(m.content).encode()) for m in messages)
        usage = {"input_tokens": read, "output_tokens": tokens, "total_tokens": read + tokens}
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage("ok", usage_metadata=usage))]
        )

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for _ in range(10**6):
            self.pieces += 1
            chunk = ChatGenerationChunk(message=AIMessageChunk(content="word "))
            if run_manager:
                run_manager.on_llm_new_token("word ", chunk=chunk)
            yield chunk


prices = st.floats(0.01, 100)


@given(prices, prices, st.floats(0, 2), st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_call_costs_more_than_it_may(
    per_in: float, per_out: float, cost: float, text: str
) -> None:
    expert = as_expert(Talker(asked=[]), name="a", cost=cost, token_prices=(per_in, per_out))
    (answer,) = expert.ask([[HumanMessage(text)]])
    assert answer["cost"] <= cost * (1 + 1e-9)
    if answer["error"]:
        assert "may cost more than a call may" in answer["error"]
    for one in expert.ask([[HumanMessage(text)], [HumanMessage("x")]]):
        assert one["cost"] <= cost * (1 + 1e-9)


def test_a_prompt_that_costs_more_than_a_call_may_is_too_long() -> None:
    expert = as_expert(Talker(), name="a", cost=0.001, token_prices=(1, 1))
    graph = create_der_graph([expert], agent=ScriptedAgent("a")).compile()
    with pytest.raises(AllExpertsFailedError, match="may cost more than a call may") as caught:
        graph.invoke({"messages": [("user", "x" * 9000)]})
    assert failure_of(caught.value, "id").code == "context_length_exceeded"
    (answer,) = as_expert(Talker(), name="a", cost=1e-9, token_prices=(1, 1)).ask(
        [[HumanMessage("hi")]]
    )
    assert answer["failure"] == "request"  # no shortening helps


def test_the_smallest_bound_counts() -> None:
    model = Talker(asked=[], max_tokens=50)
    expert = as_expert(model, name="a", cost=1, token_prices=(0, 10))
    expert.ask([[HumanMessage("x")]])
    assert model.asked == [50]
    dear = Talker(asked=[])
    as_expert(dear, name="a", cost=0.001, token_prices=(0, 10)).ask([[HumanMessage("x")]])
    assert dear.asked == [99]  # 0.001 pays for 100 at 10 a million, less the rounding
    rich = Talker(asked=[])
    as_expert(rich, name="a", cost=1e6, token_prices=(0, 10)).ask([[HumanMessage("x")]])
    assert rich.asked == [MOST_TOKENS]
    free = Talker(asked=[])
    as_expert(free, name="a", cost=1).ask([[HumanMessage("x")]])
    assert free.asked == [None]


def test_what_a_request_bounds_holds_for_models_with_prices_of_tokens() -> None:
    model = Talker(asked=[])
    for chat in (model, model.bind(max_tokens=50), model.bind(max_completion_tokens=50)):
        expert = as_expert(chat, name="a", cost=1, token_prices=(0, 10), max_concurrency=2)
        expert.ask([[HumanMessage("x")]], settings={"max_tokens": 5})
        expert.ask([[HumanMessage("x")], [HumanMessage("y")]], settings={"max_tokens": 6})
        ChatDER(experts=[expert]).invoke("x", max_completion_tokens=7)
        expert.ask([[HumanMessage("x")]])
    free, bound = [5, 6, 6, 7, MOST_TOKENS], [5, 6, 6, 7, 50]
    assert model.asked == [*free, *bound, *bound]


@pytest.mark.parametrize("name", ["num_predict", "max_output_tokens"])
def test_a_models_own_limit_counts_by_all_its_names(name: str) -> None:
    own: dict[str, Any] = {name: 50}
    model = Talker(**own)
    as_expert(model, name="a", cost=1, token_prices=(0, 10)).ask([[HumanMessage("x")]])
    assert model.told == [{"max_tokens": 50}]


@pytest.mark.parametrize("name", TOKEN_LIMITS)
def test_a_limit_of_a_call_counts_by_all_its_names(name: str) -> None:
    model = Talker()
    chat = priced(model, (0, 10), 1)
    five, six, seven = ({name: each} for each in (5, 6, 7))
    chat.invoke("x", None, **five)
    chat.bind(**six).invoke("x")
    chat.bind(**seven).batch(["x"], None, return_exceptions=False, **six)
    assert [set(each.values()) for each in model.told] == [{5}, {6}, {6}]
    assert all(set(each) == {name, "max_tokens"} for each in model.told)


def test_what_is_made_of_a_model_with_a_price_keeps_it() -> None:
    model = Talker()
    chat = priced(model, (0, 10), 0.001)
    heard: list[Any] = []
    listening: Any = chat.with_listeners(on_end=heard.append)
    made = [chat.bind(stop=["A"]), chat.with_config(tags=["A"]), chat.with_retry(), listening]
    for each in (*made, chat.with_types(input_type=str)):
        each.invoke("x")
    assert [each["max_tokens"] for each in model.told] == [99] * 5
    assert len(heard) == 1
    dearer = priced(chat.bind(max_tokens=500), (0, 1), 0.001)
    assert isinstance(dearer, Priced)
    dearer.invoke("x")
    assert model.told[-1] == {"max_tokens": 500}  # of 999
    priced(dearer, (0, 0), 1.0).invoke("x")
    assert model.told[-1] == {"max_tokens": 500}
    assert priced(chat, (0, 0), 1.0) is model


@pytest.mark.parametrize(
    ("responses", "sent"), [(False, "max_completion_tokens"), (True, "max_output_tokens")]
)
@pytest.mark.parametrize("own", [None, 40])
@pytest.mark.parametrize("name", [None, "max_tokens", "max_completion_tokens"])
def test_openais_models_send_one_limit(
    responses: bool, sent: str, own: int | None, name: str | None
) -> None:
    openai = pytest.importorskip("langchain_openai")
    bodies: list[dict[str, Any]] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(400, json={"error": {"message": "no"}})

    with httpx.Client(transport=httpx.MockTransport(refuse)) as client:
        chat = openai.ChatOpenAI(
            model="gpt-4o",
            api_key="x",
            max_completion_tokens=own,
            use_responses_api=responses,
            http_client=client,
        )
        model = chat.bind(**{name: 50}) if name else chat
        for cost in (1, 0.0002):
            expert = as_expert(model, name="a", cost=cost, token_prices=(0, 10))
            for settings in ({}, {"max_tokens": 5}):
                expert.ask([[HumanMessage("x")]], settings=settings)
    limits = [{k: v for k, v in body.items() if k in TOKEN_LIMITS} for body in bodies]
    alone = min(own or MOST_TOKENS, 50 if name else MOST_TOKENS)
    assert limits == [{sent: alone}, {sent: 5}, {sent: 19}, {sent: 5}]


def test_what_cannot_be_bounded_is_not_asked_under_a_budget() -> None:
    usage = {"input_tokens": 10**6, "output_tokens": 10**6, "total_tokens": 2 * 10**6}

    def dear(question: str) -> AIMessage:
        return AIMessage("ok", usage_metadata=usage)

    by_token = as_expert(dear, name="dear", cost=0.1, token_prices=(5, 5))
    by_call = as_expert(lambda q: "fine", name="cheap", cost=0.1)
    question = {"messages": [("user", "x")]}
    alone = create_der_graph([by_token], agent=ScriptedAgent("dear", "END")).compile()
    with pytest.raises(BudgetError, match="nothing bounds its tokens"):
        alone.invoke(question, context=DERContext(max_cost=5))
    assert alone.invoke(question)["cost"] == 10
    both = create_der_graph([by_token, by_call], agent=ScriptedAgent("cheap", "END")).compile()
    found = both.invoke(question, context=DERContext(max_cost=5))
    assert found["route"][0]["mask"]["dear"] is False
    assert found["cost"] == 0.1


def test_answers_are_cut_and_streams_ended() -> None:
    long = as_expert(lambda q: "A" * 5_000_000, name="a", cost=1)
    (answer,) = long.ask([[HumanMessage("x")]])
    assert len(answer["text"]) == 100_000
    short = as_expert(lambda q: "abcdef", name="a", cost=1, max_answer_chars=3)
    assert short.ask([[HumanMessage("x")]])[0]["text"] == "abc"
    with pytest.raises(PoolError, match="max_answer_chars is 0"):
        as_expert(lambda q: "x", name="a", cost=1, max_answer_chars=0)


def test_a_stream_that_goes_on_is_ended() -> None:
    model = Talker(asked=[])
    expert = as_expert(model, name="a", cost=1, max_answer_chars=100)
    graph = create_der_graph([expert], agent=ScriptedAgent("a"), max_steps=1).compile()
    state: dict[str, Any] = {}
    shown = ""
    parts: Any = graph.stream({"messages": [("user", "x")]}, stream_mode=["messages", "values"])
    for mode, part in parts:
        if mode == "values":
            state = part
        else:
            shown += part[0].text
    assert model.pieces <= 25
    assert state["answer"] == ("word " * 20).strip() == shown
    assert state["route"][0]["answer"]["error"] is None


def test_what_is_streamed_ends_where_the_answer_is_cut() -> None:
    shown = Trimmed(10)
    assert [shown.add(part) for part in (" ab ", "cd  ", "efghij", "k", " l")] == [
        "ab",
        " cd",
        "  efg",
        "",
        "",
    ]
    assert shown.text == " ab cd  efghijk l".strip()[:10]
    assert "".join(map(Trimmed(5).add, ("word ", "word"))) == "word"
