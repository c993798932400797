"""The whole ensemble as one LangChain chat model.

    messages ──DERContext──> compiled graph of DER ──answer_of──> one AIMessage

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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableMap,
    RunnablePassthrough,
)
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from der_graph.chat_model.answer import STREAM_MODES, AnswerStream, answer_of, counted
from der_graph.chat_model.runs import (
    RUNS,
    adispatch,
    apart,
    dispatch,
    input_of,
    nested,
    of_run,
    stream_config,
    wide,
)
from der_graph.chat_model.settings import (
    CONTEXT_FIELDS,
    MODEL_FIELDS,
    agent_fingerprint,
    check_names,
    request_of,
)
from der_graph.errors import ChatModelError, ToolsNotSupportedError
from der_graph.graph import create_der_graph
from der_graph.nodes.batching import expected_calls
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.ktp import estimate_tokens
from der_graph.nodes.model_settings import can_call_tools
from der_graph.nodes.reliability.copying import remade
from der_graph.policies.agent import find_agent
from der_graph.policies.agent.batched import BatchedAgent
from der_graph.pool import Pool, as_pool, load_pool
from der_graph.state import DERContext, answer_only


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
    max_cost: float | None = None
    """Budget of a route; this and the next seven as in `DERContext`, where the call gives no others."""
    max_steps: int | None = None
    cost_weight: float | None = None
    deadline: float | None = None
    allowed_experts: Any = None
    forbidden_experts: Any = None
    ktp: str | None = None
    stickiness: float | None = None
    stream_tokens: Literal["final", "live"] | None = None
    """`live` shows tokens as soon as nobody can follow; drafts are never streamed here."""
    temperature: float | None = None
    """Handed on to experts that are chat models, in place of their own; so are the next seven."""
    top_p: float | None = None
    max_tokens: int | None = None
    """Longest answer of each such expert."""
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None
    stop: list[str] | None = None
    """Texts that end the answer and are not part of it."""
    timeout: float | None = None
    """LangChain's word for `deadline`: seconds for the whole route."""
    streaming: bool = False
    """Stream in `invoke` as well, for whoever listens to the callbacks?"""
    max_retries: int | None = None
    """Without effect, as experts have their own; taken for code that builds any chat model."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Without effect, as experts have their own; taken for code that builds any chat model."""

    # Pool and agent as they were given: names of files go into a pickle, and not what is in the files.
    _sources: dict[str, Any] = PrivateAttr(default_factory=dict)
    _graph: Any = PrivateAttr(default=None)
    _deciding: Any = PrivateAttr(default=None)
    _agent_fingerprint: str = PrivateAttr(default="")

    def __init__(self, **given: Any) -> None:
        """Load pool and agent where they are named, and check all settings."""
        # Here and not in validators: pydantic would wrap the errors in its own.
        given = {**(given.pop("settings", None) or {}), **given}
        check_names(list(given), set(type(self).model_fields))
        if "max_completion_tokens" in given:
            given["max_tokens"] = given.pop("max_completion_tokens")
        request_of({}, {name: given[name] for name in _ROUTE if name in given}, None)
        super().__init__(**given)
        if self.experts is not None:
            if not isinstance(self.pool, str) or self.pool != "demo":
                raise ChatModelError("ChatDER was given a pool and experts; give one of the two")
            self.pool, self.experts = self.experts, None
        self._sources = {"pool": self.pool, "agent": self.agent}
        if isinstance(self.pool, (str, os.PathLike)):
            self.pool = load_pool(os.fspath(self.pool))
        self.pool = as_pool(self.pool)
        self.agent = find_agent(self.agent, self.pool)
        # A trained agent chooses by the situations alone; one of the user's own stays in its thread.
        trained = hasattr(self.agent, "save_pretrained")
        self._deciding = BatchedAgent(self.agent) if trained else self.agent
        self._request(None, {})
        graph = create_der_graph(self.pool, agent=self._deciding)
        self._graph = graph.compile(checkpointer=False, name="der")

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """A copy of the settings over the same pool and agent, which may hold models in memory."""
        return self.model_copy()

    def __reduce__(self) -> Any:
        return remade(self, experts=None, **self._sources)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a route that were given, by the names of `DERContext`."""
        given = {name: getattr(self, name) for name in CONTEXT_FIELDS}
        return {name: value for name, value in given.items() if value is not None}

    def _request(self, stop: Sequence[str] | None, given: Mapping[str, Any]) -> DERContext:
        return request_of({name: getattr(self, name) for name in _ROUTE}, given, stop)

    def _answer(self, state: Mapping[str, Any]) -> AIMessage:
        unit = self.pool.settings.cost_unit
        return answer_of(state, model_name=self.model_name, cost_unit=unit)

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
            "parallel": settings.parallel,
            "hedge": settings.hedge,
            "agent": self._agent_fingerprint,
            **{name: getattr(self, name) for name in (*MODEL_FIELDS, "timeout")},
            **self.settings,
        }

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        kwargs.pop(RUNS, None)
        return super()._get_invocation_params(stop, **kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        kwargs.pop(RUNS, None)
        return super()._get_llm_string(stop, **kwargs)

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


_ROUTE = (*CONTEXT_FIELDS, *MODEL_FIELDS, "timeout")


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
        context = self._request(stop, kwargs)
        with apart():
            state = self._graph.invoke(input_of(messages), config, context=context)
        return ChatResult(generations=[ChatGeneration(message=self._answer(state))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        context = self._request(stop, kwargs)
        with apart():
            state = await self._graph.ainvoke(input_of(messages), config, context=context)
        return ChatResult(generations=[ChatGeneration(message=self._answer(state))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        context = self._request(stop, kwargs)
        answer, parts = AnswerStream(), self._parts(messages, context, config)
        with contextlib.closing(self._graph.stream(**parts)) as source:
            with apart():
                part = next(source, None)
            while part is not None:
                events, chunks = answer.read(*part)
                for event in events:
                    dispatch(event, config)
                yield from map(_generation, chunks)
                part = next(source, None)
        yield from map(_generation, answer.close(self._answer(answer.state)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        config = nested(run_manager, kwargs.pop(RUNS, None))
        context = self._request(stop, kwargs)
        answer, parts = AnswerStream(), self._parts(messages, context, config)
        async with contextlib.aclosing(self._graph.astream(**parts)) as source:
            with apart():
                part = await anext(source, None)
            while part is not None:
                events, chunks = answer.read(*part)
                for event in events:
                    await adispatch(event, config)
                for chunk in chunks:
                    yield _generation(chunk)
                part = await anext(source, None)
        for chunk in answer.close(self._answer(answer.state)):
            yield _generation(chunk)

    def _parts(
        self, messages: Sequence[BaseMessage], context: DERContext, config: RunnableConfig
    ) -> dict[str, Any]:
        return {
            "input": input_of(messages),
            "config": config,
            "context": answer_only(context),
            "stream_mode": STREAM_MODES,
        }

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with of_run(run_manager):
            return super()._generate_with_cache(messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with of_run(run_manager):
            return await super()._agenerate_with_cache(messages, stop, run_manager, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """As many numbers as a text has tokens, by estimate: each expert has a tokenizer of its own."""
        return list(range(estimate_tokens(text)))

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
        for chunk in super().stream(input, config, stop=stop, **kwargs):
            yield counted(chunk)

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
                yield counted(chunk)

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Answer conversations; see `BaseChatModel.generate`."""
        return _counted(super().generate(*args, **kwargs))

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Answer conversations without blocking the event loop; see `BaseChatModel.agenerate`."""
        return _counted(await super().agenerate(*args, **kwargs))

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
        tool_choice: Any = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let experts call tools; the calls of the last expert's answer come out.

        Experts that cannot call tools are not asked.

        Args:
            tools: As in any chat model.
            tool_choice: A tool's name, `auto`, `any` or `none`.
            strict: Should calls fit the tools' schemas exactly, where a provider can see to it?
            parallel_tool_calls: May one answer call several tools?
            response_format: The form of the answer; see `der_graph.nodes.model_settings`.
            kwargs: Passed on to each expert's own `bind_tools`.

        Raises:
            ToolsNotSupportedError: If no expert can call tools.
        """
        if response_format is not None and strict is None:
            strict = True  # providers that take both demand it
        bound: dict[str, Any] = {
            "tools": [convert_to_openai_tool(tool, strict=strict) for tool in tools],
            "tool_choice": tool_choice,
            "strict": strict,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
            "ls_structured_output_format": kwargs.pop("ls_structured_output_format", None),
            "tool_settings": kwargs or None,
        }
        if tools and not any(can_call_tools(expert.model) for expert in self.pool):
            raise ToolsNotSupportedError(
                f"these experts cannot call tools: {', '.join(self.pool.names)}. Tools, and structured "
                "output, need an expert that is a chat model with `bind_tools` (backend: langchain)"
            )
        return self.bind(**{name: value for name, value in bound.items() if value is not None})

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers as objects of a schema; see `BaseChatModel.with_structured_output`.

        Args:
            schema: A pydantic class, a TypedDict or a JSON schema.
            include_raw: Give a dict with `raw`, `parsed` and `parsing_error`, and do not raise where a tool's
                call cannot be parsed. With the other methods, experts whose answer is not of the form have
                failed, which is an error where all have.
            method: By a tool's call; by a `response_format` with the schema; or by one for any JSON, where
                the prompt has to describe the schema.
            strict: As in `bind_tools`.
            kwargs: None are known.

        Raises:
            ToolsNotSupportedError: If the method needs tools and no expert can call them.
        """
        if kwargs:
            raise ChatModelError(f"with_structured_output has no argument '{next(iter(kwargs))}'")
        tool = convert_to_openai_tool(schema, strict=strict)
        name = tool["function"]["name"]
        traced = {"kwargs": {"method": method, "strict": strict}, "schema": tool}
        a_class: Any = (
            schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None
        )
        if method == "function_calling":
            model = self.bind_tools(
                [schema],
                tool_choice=name,
                strict=strict,
                parallel_tool_calls=False,
                ls_structured_output_format=traced,
            )
            parser: Runnable[Any, Any] = (
                PydanticToolsParser(tools=[a_class], first_tool_only=True)
                if a_class
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
        else:
            form: dict[str, Any] = {"type": "json_object"}
            if method == "json_schema":
                given = {"name": name, "schema": tool["function"]["parameters"]}
                if strict is not None:
                    given["strict"] = strict
                form = {"type": "json_schema", "json_schema": given}
            model = self.bind(response_format=form, ls_structured_output_format=traced)
            parser = (
                PydanticOutputParser(pydantic_object=a_class) if a_class else JsonOutputParser()
            )
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
        )
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks(
            [failed], exception_key="parsing_error"
        )


def _counted(result: LLMResult) -> LLMResult:
    # Copies: callbacks and caches hold the messages without the sum.
    generations: list[Any] = [
        [
            ChatGeneration(message=counted(each.message), generation_info=each.generation_info)
            for each in of_one
            if isinstance(each, ChatGeneration)
        ]
        for of_one in result.generations
    ]
    return LLMResult(generations=generations, llm_output=result.llm_output, run=result.run)


def _generation(chunk: AIMessageChunk) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=chunk)
