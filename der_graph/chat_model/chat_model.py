"""The whole ensemble as one LangChain chat model.

    messages ──Request──> compiled graph of DER ──answer_of──> one AIMessage

Every call is a run of `create_der_graph`, so each decision and each expert's call is a child run of the
chat model's run. Calls that run at the same time, as those of `batch` and `abatch`, meet at the experts and
at the agent and are answered there in batches (`nodes/batching.py`). Nothing is kept between calls: there
is no checkpointer, the conversation is what the caller sends.

The base class holds what a model is made of (settings, graph, its name for LangChain); `ChatDER` is the
calls.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from der_graph.chat_model.answer import STREAM_MODES, AnswerStream, answer_of
from der_graph.chat_model.runs import (
    RUNS,
    adispatch,
    apart,
    dispatch,
    input_of,
    nested,
    stream_config,
    wide,
)
from der_graph.chat_model.settings import (
    CONTEXT_FIELDS,
    SAMPLING,
    Equipment,
    Request,
    agent_fingerprint,
    check_names,
    equipped,
    request_of,
)
from der_graph.errors import ChatModelError
from der_graph.graph import create_der_graph
from der_graph.nodes.batching import expected_calls
from der_graph.nodes.hub import RoutingAgent
from der_graph.policies.agent.batched import BatchedAgent
from der_graph.policies.planning import find_agent
from der_graph.pool import Pool, as_pool, load_pool
from der_graph.state import answer_only


class BaseChatDER(BaseChatModel):
    """Settings, graph and identity of `ChatDER`."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    pool: Any = Field(default="demo", exclude=True, repr=False)
    """A pool, the path of a pool file, or `demo`."""
    experts: Any = Field(default=None, exclude=True, repr=False)
    """In place of a pool: a list of chat models, model strings, functions and experts."""
    agent: Any = Field(default=None, exclude=True, repr=False)
    """The agent: an object, `planner`, an agent folder, a Hub id, or `demo`; the pool's where left out, which
    is the planner where the pool names none."""
    model_name: str = "der"
    """Name in traces and in `response_metadata`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of a route where the call gives no others, by the names of `DERContext`."""
    temperature: float | None = None
    """Handed on to experts that are chat models, in place of their own."""
    max_tokens: int | None = None
    """Longest answer of each such expert, in place of its own."""
    stop: list[str] | None = None
    """Texts that end the answer and are not part of it. Drafts are not cut."""
    timeout: float | None = None
    """LangChain's word for `deadline`: seconds for the whole route."""
    streaming: bool = False
    """Stream in `invoke` as well, for whoever listens to the callbacks?"""
    max_retries: int | None = None
    """Without effect, as experts have their own; taken for code that builds any chat model."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Without effect, as experts have their own; taken for code that builds any chat model."""

    _graphs: dict[Equipment, Any] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _deciding: Any = PrivateAttr(default=None)
    _agent_fingerprint: str = PrivateAttr(default="")

    def __init__(self, **given: Any) -> None:
        """Load pool and agent where they are named, and check all settings."""
        # Here and not in validators: pydantic would wrap the errors in its own.
        check_names(list(given), {*type(self).model_fields, *CONTEXT_FIELDS})
        route = {name: given.pop(name) for name in CONTEXT_FIELDS if name in given}
        given["settings"] = {**(given.get("settings") or {}), **route}
        super().__init__(**given)
        if self.experts is not None:
            if not isinstance(self.pool, str) or self.pool != "demo":
                raise ChatModelError("ChatDER was given a pool and experts; give one of the two")
            self.pool, self.experts = self.experts, None
        if isinstance(self.pool, (str, os.PathLike)):
            self.pool = load_pool(os.fspath(self.pool))
        self.pool = as_pool(self.pool)
        self.agent = find_agent(self.agent, self.pool)
        # A trained agent chooses by the situations alone; one of the user's own stays in its thread.
        trained = hasattr(self.agent, "save_pretrained")
        self._deciding = BatchedAgent(self.agent) if trained else self.agent
        self._request(None, {})
        self._graph(Equipment())

    def _request(self, stop: Sequence[str] | None, given: Mapping[str, Any]) -> Request:
        own = {name: getattr(self, name) for name in (*SAMPLING, "stop", "timeout")}
        return request_of({**own, **self.settings}, given, stop)

    def _graph(self, equipment: Equipment) -> Any:
        """The compiled graph over experts that are called in a certain way."""
        with self._lock:
            if equipment not in self._graphs:
                if len(self._graphs) > 16:  # tools that are made anew for every call
                    self._graphs.clear()
                graph = create_der_graph(equipped(self.pool, equipment), agent=self._deciding)
                self._graphs[equipment] = graph.compile(checkpointer=False, name="der")
            return self._graphs[equipment]

    def _answer(self, state: Mapping[str, Any], request: Request) -> AIMessage:
        unit = self.pool.settings.cost_unit
        return answer_of(state, model_name=self.model_name, cost_unit=unit, stop=request.stop)

    # How it names itself -----------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "der"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        # All that an answer depends on and no secret: LangChain's caches and tracers read this.
        settings = self.pool.settings
        # Once: agents may be large.
        self._agent_fingerprint = self._agent_fingerprint or agent_fingerprint(self.agent)
        return {
            "model_name": self.model_name,
            "experts": list(self.pool.names),
            "pool": self.pool.fingerprint,
            "max_steps": settings.max_steps,
            "repeat_experts": settings.repeat_experts,
            "agent": self._agent_fingerprint,
            **{name: getattr(self, name) for name in (*SAMPLING, "stop", "timeout")},
            **self.settings,
        }

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        kwargs.pop(RUNS, None)
        return super()._get_invocation_params(stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        given = LangSmithParams(
            ls_provider="der",
            ls_model_name=kwargs.get("model") or self.model_name,
            ls_model_type="chat",
        )
        temperature = kwargs.get("temperature", self.temperature)
        max_tokens = kwargs.get("max_tokens", self.max_tokens)
        stops = stop or self.stop
        if temperature is not None:
            given["ls_temperature"] = temperature
        if max_tokens is not None:
            given["ls_max_tokens"] = max_tokens
        if stops:
            given["ls_stop"] = list(stops)
        return given


class ChatDER(BaseChatDER):
    """Dynamic Ensemble Reasoning as a chat model: several experts inside, one answer outside.

    Settings of a route (`max_cost`, `max_steps`, `cost_weight` and all else that `DERContext` has), of the
    experts (`temperature`, `max_tokens`) and `stop` can be given here, with every call, or by `bind`.

    Args:
        pool: A pool, the path of a pool file, or `demo`.
        experts: In place of a pool: a list of chat models, model strings, functions and experts.
        agent: An agent, an agent folder, a Hub id, `demo`, or `planner`, which needs no training; where left
            out the pool's, which is the planner where the pool file names none.
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
        pool: Pool | Sequence[Any] | str | os.PathLike[str] = "demo",
        experts: Sequence[Any] | None = None,
        agent: RoutingAgent | str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(pool=pool, experts=experts, agent=agent, **settings)

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
            "context": answer_only(request.context),
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
        with expected_calls(len(inputs)):
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
        with expected_calls(len(inputs)):
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
