"""The contract of the doors: whoever asks, and however, gets one and the same answer.

Every kind of expert (local, remote, function, graph) is asked through every door, and the answer's text, its
tokens, its cost, the route and the reason of its end are compared with those of a plain `invoke`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakes import ScriptedAgent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from provider_stub import provider, remote_model
from server_calls import client
from tiny_models import save_tiny

from der_graph import ChatDER, create_der_graph
from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.langchain import as_expert
from der_graph.pool import Pool, pool_from
from der_graph.server import create_app, in_background
from der_graph.state import answers_of

KINDS = ("local", "remote", "remote cut", "remote thinking", "function", "graph")
QUESTION = "6 * 7?"
PRICES = (1.0, 2.0)


class Seen(NamedTuple):
    """What comes out of a door."""

    text: str
    tokens: tuple[int, int]
    cost: float
    route: list[str]
    finish: str


@pytest.fixture(scope="module")
def urls() -> Iterator[str]:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        text = {"thinking": "<think>41? No.</think> It is 42."}.get(body["model"], "It is 42 then")
        return {"content": text, "finish": "length" if body["model"] == "cut" else "stop"}

    with provider(reply) as stub:
        yield stub.url


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def an_expert(kind: str, url: str, tiny: Path) -> Expert:
    more: dict[str, Any] = {"name": "first", "cost": 1.0, "token_prices": PRICES}
    if kind == "local":
        chat = HuggingFaceChat(model=str(tiny), generation={"max_new_tokens": 6})
        return as_expert(chat, **more)
    if kind.startswith("remote"):
        return as_expert(remote_model(url, kind.split()[-1]), **more)
    if kind == "function":
        return as_expert(lambda text: f"You asked {text}", **more)
    model = remote_model(url, stream_usage=True)  # its owner's to say: it is not asked by us
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return as_expert(builder.compile(), **more)


def of_state(state: Any) -> Seen:
    message: AIMessage = state["messages"][-1]
    answers = answers_of(state["route"])
    tokens = message.usage_metadata or {"input_tokens": 0, "output_tokens": 0}
    return Seen(
        message.text,
        (tokens["input_tokens"], tokens["output_tokens"]),
        state["cost"],
        [answer["expert"] for answer in answers],
        message.response_metadata.get("finish_reason", "stop"),
    )


def of_message(message: Any) -> Seen:
    tokens = message.usage_metadata or {"input_tokens": 0, "output_tokens": 0}
    given = message.response_metadata
    return Seen(
        message.text,
        (tokens["input_tokens"], tokens["output_tokens"]),
        given["der_cost"],
        given["der_experts"],
        given["finish_reason"],
    )


def merged(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def asked(fresh: bool = True) -> dict[str, Any]:
    return {"messages": [HumanMessage(QUESTION)]}


def graph_doors(pool: Pool, agent: ScriptedAgent) -> dict[str, Callable[[], Seen]]:
    graph = create_der_graph(pool, agent=agent).compile()
    modes: Any = ["messages", "values"]

    def streamed() -> Seen:
        return of_state(
            [p for m, p in graph.stream(asked(), stream_mode=modes) if m == "values"][-1]
        )

    async def astreamed() -> Seen:
        parts = [p async for m, p in graph.astream(asked(), stream_mode=modes) if m == "values"]
        return of_state(parts[-1])

    async def abatched() -> Seen:
        return of_state((await graph.abatch([asked(), asked()]))[1])

    return {
        "invoke": lambda: of_state(graph.invoke(asked())),
        "ainvoke": lambda: of_state(asyncio.run(graph.ainvoke(asked()))),
        "stream": streamed,
        "astream": lambda: asyncio.run(astreamed()),
        "batch": lambda: of_state(graph.batch([asked(), asked()])[1]),
        "abatch": lambda: asyncio.run(abatched()),
    }


def model_doors(pool: Pool, agent: ScriptedAgent) -> dict[str, Callable[[], Seen]]:
    der = ChatDER(pool=pool, agent=agent)

    async def astreamed() -> Seen:
        return of_message(merged([chunk async for chunk in der.astream(QUESTION)]))

    return {
        "ChatDER.invoke": lambda: of_message(der.invoke(QUESTION)),
        "ChatDER.ainvoke": lambda: of_message(asyncio.run(der.ainvoke(QUESTION))),
        "ChatDER.stream": lambda: of_message(merged(list(der.stream(QUESTION)))),
        "ChatDER.astream": lambda: asyncio.run(astreamed()),
        "ChatDER.batch": lambda: of_message(der.batch([QUESTION, QUESTION])[1]),
    }


def of_completion(done: Any) -> Seen:
    usage, der = done.usage, done.model_extra["der"]
    choice = done.choices[0]
    return Seen(
        choice.message.content,
        (usage.prompt_tokens, usage.completion_tokens),
        der["cost"],
        der["experts"],
        choice.finish_reason,
    )


def of_chunks(chunks: list[Any]) -> Seen:
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    (last,) = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    usage, der = chunks[-1].usage, last.model_extra["der"]
    return Seen(
        text.strip(),
        (usage.prompt_tokens, usage.completion_tokens),
        der["cost"],
        der["experts"],
        last.choices[0].finish_reason,
    )


def server_doors(api: Any) -> dict[str, Callable[[], Seen]]:
    given: Any = {"model": "der", "messages": [{"role": "user", "content": QUESTION}]}
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}

    def response() -> Seen:
        done = api.responses.create(model="der", input=QUESTION)
        der = done.model_extra["der"]
        cut = done.status == "incomplete"
        return Seen(
            done.output_text,
            (done.usage.input_tokens, done.usage.output_tokens),
            der["cost"],
            der["experts"],
            "length" if cut else "stop",
        )

    return {
        "server whole": lambda: of_completion(api.chat.completions.create(**given)),
        "server stream": lambda: of_chunks(list(api.chat.completions.create(**given, **options))),
        "server response": response,
    }


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_door_gives_the_same(kind: str, steps: int, urls: str, tiny: Path) -> None:
    """With one step the first answer is the last for certain, and streamed as it comes."""
    other = as_expert(lambda text: "never asked", name="other", cost=9.0)
    pool = pool_from([an_expert(kind, urls, tiny), other], max_steps=steps)
    agent = ScriptedAgent("first")
    with in_background(create_app(pool, agent)) as address, client(address) as api:
        doors = {
            **graph_doors(pool, agent),
            **model_doors(pool, agent),
            **server_doors(api),
        }
        seen = {name: door() for name, door in doors.items()}
    expected = seen["invoke"]
    assert seen == dict.fromkeys(seen, expected)
    assert expected.route == ["first"]
    assert expected.text
    if kind.startswith("remote") or kind == "graph":
        assert expected.tokens == (10, 5)
        assert expected.cost == pytest.approx((10 * 1.0 + 5 * 2.0) / 1e6)
        assert expected.finish == ("length" if kind == "remote cut" else "stop")
    if kind == "remote thinking":
        assert expected.text == "It is 42."
    if kind == "local":
        assert expected.tokens[1] == 6
        assert expected.finish == "length"
