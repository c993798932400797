"""The whole ensemble as one LangChain chat model.

    messages ──Request──> compiled graph of DER ──answer_of──> one AIMessage

Every call is a run of `create_der_graph`, so each decision and each expert's call is a child run of the chat
model's run. Calls that run at the same time, as those of `batch` and `abatch`, meet at the experts and at the
agent and are answered there in batches (`nodes/waiting.py`). Keeps nothing between calls: there is no
checkpointer, the conversation is what the caller sends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from der_graph.chat_answer import STREAM_MODES, AnswerStream
from der_graph.chat_base import BaseChatDER
from der_graph.chat_runs import (
    RUNS,
    adispatch,
    apart,
    dispatch,
    input_of,
    nested,
    stream_config,
    wide,
)
from der_graph.chat_settings import Request
from der_graph.nodes.expert import Expert
from der_graph.nodes.hub import RoutingAgent
from der_graph.nodes.waiting import crowd
from der_graph.pool import Pool


class ChatDER(BaseChatDER):
    """Dynamic Ensemble Reasoning as a chat model: several experts inside, one answer outside.

    Settings of a route (`max_cost`, `max_steps`, `cost_weight` and all else that `DERContext` has), of the
    experts (`temperature`, `max_tokens`) and `stop` can be given here, with every call, or by `bind`.

    Args:
        pool: A pool, the path of a pool file, `demo`, or experts in the order that the agent knows.
        agent: An agent, an agent folder, a Hub id, or `demo`.
        settings: As above, and those of every LangChain chat model (`cache`, `rate_limiter`, `tags` ...).

    Raises:
        DERError: If pool, agent or a setting cannot be used.

    Examples:
        ```python
        from der_graph import ChatDER

        der = ChatDER(max_cost=0.5)
        der.invoke("What is 37 * 48?").content
        der.invoke("What is 37 * 48?", max_steps=1).response_metadata["der_cost"]
        ```
    """

    def __init__(
        self,
        *,
        pool: Pool | Sequence[Expert] | str | os.PathLike[str] = "demo",
        agent: RoutingAgent | str | os.PathLike[str] = "demo",
        **settings: Any,
    ) -> None:
        super().__init__(pool=pool, agent=agent, **settings)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        request = self._request(stop, kwargs)
        graph = self._graph(request.equipment)
        with apart():
            state = graph.invoke(input_of(messages), config, context=request.context)
        return ChatResult(generations=[ChatGeneration(message=self._answer(state, request))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        request = self._request(stop, kwargs)
        graph = self._graph(request.equipment)
        with apart():
            state = await graph.ainvoke(input_of(messages), config, context=request.context)
        return ChatResult(generations=[ChatGeneration(message=self._answer(state, request))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        request = self._request(stop, kwargs)
        answer, parts = AnswerStream(live=not request.stop), self._parts(messages, request, config)
        with contextlib.closing(self._graph(request.equipment).stream(**parts)) as source:
            with apart():
                part = next(source, None)
            while part is not None:
                events, chunks = answer.read(*part)
                for event in events:
                    dispatch(event, config)
                yield from map(_generation, chunks)
                part = next(source, None)
        yield from map(_generation, answer.close(self._answer(answer.state, request)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        request = self._request(stop, kwargs)
        answer, parts = AnswerStream(live=not request.stop), self._parts(messages, request, config)
        async with contextlib.aclosing(self._graph(request.equipment).astream(**parts)) as source:
            with apart():
                part = await anext(source, None)
            while part is not None:
                events, chunks = answer.read(*part)
                for event in events:
                    await adispatch(event, config)
                for chunk in chunks:
                    yield _generation(chunk)
                part = await anext(source, None)
        for chunk in answer.close(self._answer(answer.state, request)):
            yield _generation(chunk)

    def _parts(
        self, messages: Sequence[BaseMessage], request: Request, config: RunnableConfig
    ) -> dict[str, Any]:
        return {
            "input": input_of(messages),
            "config": config,
            "context": dataclasses.replace(request.context, stream_tokens="final"),
            "stream_mode": STREAM_MODES,
        }

    # What LangChain calls ---------------------------------------------------------------------------------

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream the answer; decisions and drafts are custom events (`astream_events`)."""
        config, kwargs[RUNS] = stream_config(config, asynchronous=False)
        yield from super().stream(input, config, stop=stop, **kwargs)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream the answer without blocking the event loop; see `stream`."""
        config, kwargs[RUNS] = stream_config(config, asynchronous=True)
        async with contextlib.aclosing(
            super().astream(input, config, stop=stop, **kwargs)  # type: ignore[type-var]
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    def batch(
        self,
        inputs: list[Any],
        config: Any = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer many conversations; those that reach an expert at the same time are one batch there."""
        if not inputs:
            return []
        configs = wide(config, len(inputs))
        with crowd(len(inputs)):
            return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: Any = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer many conversations without blocking the event loop; see `batch`."""
        with crowd(len(inputs)):
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let every expert call tools; the calls of the last expert's answer come out.

        Args:
            tools: As in any chat model.
            tool_choice: A tool's name, `auto` or `any`.
            kwargs: Passed on to each expert's own `bind_tools`, such as `strict`.

        Raises:
            ToolsNotSupportedError: If an expert cannot call tools; names all that cannot.
        """
        bound: dict[str, Any] = {"tools": [convert_to_openai_tool(tool) for tool in tools]}
        if "ls_structured_output_format" in kwargs:  # for traces
            bound["ls_structured_output_format"] = kwargs.pop("ls_structured_output_format")
        if tool_choice is not None:
            bound["tool_choice"] = tool_choice
        if kwargs:
            bound["tool_settings"] = kwargs
        self._graph(self._request(None, bound).equipment)  # says now what cannot be
        return self.bind(**bound)


def _generation(chunk: AIMessageChunk) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=chunk)
