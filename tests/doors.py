"""Every way to ask an ensemble, and what comes out of each, in one form that can be compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fakes import ScriptedAgent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from server_calls import client, raw

from der_graph import ChatDER, DERContext, create_der_graph
from der_graph.nodes.expert import Expert
from der_graph.pool import Pool, pool_from
from der_graph.server import create_app, in_background
from der_graph.state import answers_of

QUESTION = "6 * 7?"


class Seen(NamedTuple):
    """What comes out of a door.

    Attributes:
        text: The answer.
        tokens: Of all experts together, in and out.
        cost: Of the route.
        route: Who was asked, in order.
        finish: Why the answer ended.
        calls: The tools that it wants called, by name and arguments.
        details: How many of the tokens in came from a cache, and how many of those out were a thought.
    """

    text: str
    tokens: tuple[int, int]
    cost: float
    route: list[str]
    finish: str
    calls: list[tuple[str, Any]]
    details: tuple[int, int] = (0, 0)


class ErrorObject(Exception):
    """An error that a door gives as a value."""


Door = Callable[[], Seen]


@contextmanager
def open_doors(
    experts: Sequence[Expert],
    script: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    *,
    stream_tokens: Any = "final",
    **pool_settings: Any,
) -> Iterator[dict[str, Door]]:
    """All doors to one ensemble.

    Args:
        experts: Its experts.
        script: Whom the agent asks, in order.
        settings: What is asked of the models, by the names of OpenAI's protocol.
        stream_tokens: Whose tokens streams carry.
        pool_settings: Of the pool.
    """
    pool, agent = pool_from(list(experts), **pool_settings), ScriptedAgent(*script)
    asked = dict(settings or {})
    with in_background(create_app(pool, agent)) as address, client(address) as api:
        yield {
            **_graph_doors(pool, agent, asked, stream_tokens),
            **_model_doors(pool, agent, asked, stream_tokens),
            **_server_doors(api, address, asked, stream_tokens),
        }


# The graph --------------------------------------------------------------------------------------------------


def _of_state(state: Any) -> Seen:
    message: AIMessage = state["messages"][-1]
    return Seen(
        message.text,
        _tokens(message),
        state["cost"],
        [answer["expert"] for answer in answers_of(state["route"])],
        message.response_metadata.get("finish_reason", "stop"),
        [(call["name"], call["args"]) for call in message.tool_calls],
        _details(message),
    )


def _tokens(message: AIMessage) -> tuple[int, int]:
    usage = message.usage_metadata or {"input_tokens": 0, "output_tokens": 0}
    return usage["input_tokens"], usage["output_tokens"]


def _details(message: AIMessage) -> tuple[int, int]:
    usage: Any = message.usage_metadata or {}
    cached = usage.get("input_token_details", {}).get("cache_read", 0)
    return cached, usage.get("output_token_details", {}).get("reasoning", 0)


def _graph_doors(pool: Pool, agent: Any, asked: dict[str, Any], tokens: Any) -> dict[str, Door]:
    graph = create_der_graph(pool, agent=agent).compile()
    modes: Any = ["messages", "values"]
    context = DERContext(stream_tokens=tokens, model_settings=asked or None)

    def given() -> dict[str, Any]:
        return {"messages": [HumanMessage(QUESTION)]}

    def heard(parts: Sequence[Any]) -> Seen:
        """The last state; what was streamed must be its answer."""
        seen = _of_state([part for mode, part in parts if mode == "values"][-1])
        shown = [part[0] for mode, part in parts if mode == "messages"]
        text = "".join(each.text for each in shown if isinstance(each, AIMessageChunk))
        assert text in ("", seen.text), shown
        return seen

    async def astreamed() -> Seen:
        stream = graph.astream(given(), context=context, stream_mode=modes)
        return heard([part async for part in stream])

    async def abatched() -> Seen:
        return _of_state((await graph.abatch([given(), given()], context=context))[1])

    async def of_events() -> Seen:
        events = [e async for e in graph.astream_events(given(), context=context, version="v2")]
        (end,) = [e for e in events if e["event"] == "on_chain_end" and not e["parent_ids"]]
        return _of_state(end["data"]["output"])

    return {
        "invoke": lambda: _of_state(graph.invoke(given(), context=context)),
        "ainvoke": lambda: _of_state(asyncio.run(graph.ainvoke(given(), context=context))),
        "stream": lambda: heard(list(graph.stream(given(), context=context, stream_mode=modes))),
        "astream": lambda: asyncio.run(astreamed()),
        "astream_events": lambda: asyncio.run(of_events()),
        "batch": lambda: _of_state(graph.batch([given(), given()], context=context)[1]),
        "abatch": lambda: asyncio.run(abatched()),
    }


# The chat model ---------------------------------------------------------------------------------------------


def _of_message(message: Any) -> Seen:
    given = message.response_metadata
    return Seen(
        message.text,
        _tokens(message),
        given["der_cost"],
        given["der_experts"],
        given["finish_reason"],
        [(call["name"], call["args"]) for call in message.tool_calls],
        _details(message),
    )


def _merged(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def _model_doors(pool: Pool, agent: Any, asked: dict[str, Any], tokens: Any) -> dict[str, Door]:
    model = ChatDER(pool=pool, agent=agent, stream_tokens=tokens)
    der: Any = model.bind(**asked) if asked else model

    async def astreamed() -> Seen:
        return _of_message(_merged([chunk async for chunk in der.astream(QUESTION)]))

    async def abatched() -> Seen:
        return _of_message((await der.abatch([QUESTION, QUESTION]))[1])

    return {
        "ChatDER.invoke": lambda: _of_message(der.invoke(QUESTION)),
        "ChatDER.ainvoke": lambda: _of_message(asyncio.run(der.ainvoke(QUESTION))),
        "ChatDER.stream": lambda: _of_message(_merged(list(der.stream(QUESTION)))),
        "ChatDER.astream": lambda: asyncio.run(astreamed()),
        "ChatDER.batch": lambda: _of_message(der.batch([QUESTION, QUESTION])[1]),
        "ChatDER.abatch": lambda: asyncio.run(abatched()),
    }


# The server -------------------------------------------------------------------------------------------------


def _of_completion(done: Any) -> Seen:
    usage, der = done.usage, done.model_extra["der"]
    choice = done.choices[0]
    return Seen(
        choice.message.content or "",
        (usage.prompt_tokens, usage.completion_tokens),
        der["cost"],
        der["experts"],
        choice.finish_reason,
        _calls(choice.message.tool_calls),
        _details_of(usage),
    )


def _details_of(usage: Any) -> tuple[int, int]:
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return read.cached_tokens if read else 0, written.reasoning_tokens if written else 0


def _calls(calls: Any) -> list[tuple[str, Any]]:
    return [(each.function.name, json.loads(each.function.arguments)) for each in calls or ()]


def _of_chunks(chunks: list[Any]) -> Seen:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    (last,) = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    usage, der = chunks[-1].usage, last.model_extra["der"]
    return Seen(
        "".join(delta.content or "" for delta in deltas),
        (usage.prompt_tokens, usage.completion_tokens),
        der["cost"],
        der["experts"],
        last.choices[0].finish_reason,
        [call for delta in deltas for call in _calls(delta.tool_calls)],
        _details_of(usage),
    )


def _of_response(done: Any) -> Seen:
    der = done.model_extra["der"]
    calls = [each for each in done.output if each.type == "function_call"]
    cut = done.incomplete_details and done.incomplete_details.reason
    words = {"max_output_tokens": "length", "content_filter": "content_filter", None: "stop"}
    return Seen(
        done.output_text,
        (done.usage.input_tokens, done.usage.output_tokens),
        der["cost"],
        der["experts"],
        "tool_calls" if calls else words[cut],
        [(each.name, json.loads(each.arguments)) for each in calls],
        (
            done.usage.input_tokens_details.cached_tokens,
            done.usage.output_tokens_details.reasoning_tokens,
        ),
    )


def _server_doors(api: Any, address: str, asked: dict[str, Any], tokens: Any) -> dict[str, Door]:
    der = {"der": {"stream_tokens": tokens}}
    given: Any = {
        "model": "der",
        "messages": [{"role": "user", "content": QUESTION}],
        "extra_body": der,
        **asked,
    }
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    flat: Any = {"model": "der", "input": QUESTION, "extra_body": der, **_of_responses(asked)}

    def streamed_response() -> Seen:
        with api.responses.stream(**flat) as stream:
            events = list(stream)
        parts = [e.delta for e in events if e.type == "response.output_text.delta"]
        ends = ("response.completed", "response.incomplete", "response.failed")
        (done,) = [e.response for e in events if e.type in ends]
        if done.error is not None:
            raise ErrorObject(str(done.error))
        assert "".join(parts) == done.output_text
        return _of_response(done)

    def plain() -> Seen:
        """Without anybody's client."""
        body = {**given, **given["extra_body"]}
        body.pop("extra_body")
        kind = {"Content-Type": "application/json"}
        status, done = raw(address, "POST", "/v1/chat/completions", body, **kind)
        if status != 200:
            raise ErrorObject(json.dumps(done))
        choice, usage = done["choices"][0], done["usage"]
        calls = [each["function"] for each in choice["message"].get("tool_calls") or ()]
        return Seen(
            choice["message"]["content"] or "",
            (usage["prompt_tokens"], usage["completion_tokens"]),
            done["der"]["cost"],
            done["der"]["experts"],
            choice["finish_reason"],
            [(each["name"], json.loads(each["arguments"])) for each in calls],
            (
                usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
                usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0),
            ),
        )

    return {
        "server whole": lambda: _of_completion(api.chat.completions.create(**given)),
        "server stream": lambda: _of_chunks(list(api.chat.completions.create(**given, **options))),
        "server plain": plain,
        "server response": lambda: _of_response(api.responses.create(**flat)),
        "server response stream": streamed_response,
    }


def _of_responses(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of chat completions by the names of the responses' protocol."""
    flat = dict(asked)
    if "tools" in flat:
        flat["tools"] = [{"type": "function", **tool["function"]} for tool in flat["tools"]]
    if "max_tokens" in flat:
        flat["max_output_tokens"] = flat.pop("max_tokens")
    return flat
