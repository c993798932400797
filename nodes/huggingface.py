"""A transformers text-generation pipeline as a chat model.

    messages ──PromptWriter──> ids ──generate_rows──> Row ──> AIMessage (usage, finish_reason, mean_logprob)

Why not `ChatHuggingFace(llm=HuggingFacePipeline(...))` of langchain-huggingface 1.2, with a pipeline: the
answer begins with the prompt, settings of a call (`max_new_tokens`, `temperature`, `stop`) are ignored,
`ainvoke` and `astream` raise, `batch` calls the model once per input, there is no token usage and no model
name in traces, a template's start token is doubled, and an error in the generating thread shows as
`queue.Empty` after 60 seconds. Its pipelines are welcome all the same: `HuggingFaceChat.from_pipeline` takes
one and uses the model and tokenizer inside.

Greedy batches in float32 give the answers that single calls give. Knows nothing of pools or routes.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr

from der_graph.errors import ExpertError, PoolError, require
from der_graph.nodes.batching import BatchedChatModel, in_thread, seat_for
from der_graph.nodes.generation import GenerationSettings, Row, generate_rows, new_row
from der_graph.nodes.ktp import check_fields
from der_graph.nodes.loading import LoadedModel, LoadSpec, Quantization, load, load_tokenizer
from der_graph.nodes.prompts import DEFAULT_STOP, FORMAT_FIELDS, Prompt, PromptWriter
from der_graph.nodes.weights import Weights, find_weights, parameters_b, path_digest

THINK_TAGS = ("<think>", "</think>")
"""What opens and closes a thought in most open models that think."""

_NOT_FOR_US = frozenset({"stream", "stream_usage", "ls_structured_output_format"})  # LangChain's own words


class Request(NamedTuple):
    """One prompt with its settings."""

    messages: Sequence[BaseMessage]
    settings: GenerationSettings


class HuggingFaceChat(BatchedChatModel):
    """A local model as a LangChain chat model: `invoke`, `stream`, `batch` and their asynchronous forms.

    Loaded at first use, or by `load()`. Settings of `generation` can be given with every call as well:
    `chat.invoke(messages, max_new_tokens=20, temperature=0.7, seed=1)`.

    Examples:
        ```python
        chat = HuggingFaceChat(model="HuggingFaceTB/SmolLM2-135M-Instruct", generation={"max_new_tokens": 64})
        chat.invoke("Name a primary colour.").content
        ```
    """

    model: str = ""
    """Hub id, local folder or GGUF file; with `pipeline`, only a name."""
    pipeline: Any = Field(default=None, exclude=True, repr=False)
    """A pipeline that is in memory already, in place of a model to load."""
    adapter: str | None = None
    """Folder of a LoRA adapter; merged into the weights when they are loaded."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str = "auto"
    """`auto` (CUDA where available), `cpu`, `cuda`, `cuda:0` ..."""
    dtype: str = "auto"
    """`auto` (float32 on the CPU, the checkpoint's type elsewhere), `float32`, `bfloat16`, `float16`."""
    quantization: Quantization | None = None
    """`4bit` or `8bit` (bitsandbytes), or None."""
    generation: dict[str, Any] = Field(default_factory=dict)
    """See `GenerationSettings`; greedy by default."""
    prompt_format: str | None = None
    """Plain format such as `"Q: {text}\\nA:"` in place of the chat template; fields: text, system, history."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end an answer and are not part of it."""
    reasoning: tuple[str, str] | None = THINK_TAGS
    """Marks of a thought, which is taken out of the answer; None if the model does not think. A thought
    whose opening is neither written by the model nor by its template is only recognised at its end, when a
    stream has shown it already."""
    template_settings: dict[str, Any] = Field(default_factory=dict)
    """Passed on to the chat template, such as `{"enable_thinking": False}`."""
    logprobs: bool = True
    """Report the mean log-probability of the answer's tokens?"""
    max_batch_size: int = Field(default=32, ge=1)
    """Most prompts in one `generate` call."""

    _weights: Weights | None = PrivateAttr(default=None)
    _loaded: LoadedModel | None = PrivateAttr(default=None)
    _tokenizer: Any = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    def model_post_init(self, context: Any, /) -> None:
        """Check everything that can be checked without loading."""
        super().model_post_init(context)
        self._settings(None, {})
        if self.prompt_format is not None:
            check_fields(self.prompt_format, FORMAT_FIELDS, "prompt_format")
        if self.pipeline is not None:
            self.pipeline = getattr(self.pipeline, "pipeline", self.pipeline)  # langchain-huggingface's wrapper
            if getattr(self.pipeline, "tokenizer", None) is None or not hasattr(self.pipeline, "model"):
                raise PoolError("pipeline: a text-generation pipeline with model and tokenizer is needed")
            self.model = self.model or getattr(self.pipeline.model, "name_or_path", "") or "pipeline"
            self._loaded = LoadedModel(self.pipeline)
            return
        self._weights = find_weights(self.model, self.revision)
        if self.adapter is not None and not (Path(self.adapter) / "adapter_config.json").is_file():
            raise PoolError(f"adapter '{self.adapter}': there is no such folder with an adapter_config.json")

    @classmethod
    def from_pipeline(cls, pipeline: Any, **settings: Any) -> HuggingFaceChat:
        """Use a pipeline that is in memory: transformers' own, or a `HuggingFacePipeline` around one."""
        return cls(pipeline=pipeline, **settings)

    def load(self) -> LoadedModel:
        """Load the model unless that was done; safe to call from several threads.

        Raises:
            ExpertError: If the weights cannot be had or read.
            PoolError: If device, dtype or quantization cannot be used here.
        """
        with self._lock:
            if self._loaded is None:
                assert self._weights is not None
                self._loaded = load(
                    LoadSpec(self._weights, self.adapter, self.device, self.dtype, self.quantization)
                )
            return self._loaded

    @property
    def weights(self) -> Weights | None:
        """Where the weights come from; None for a pipeline that was given."""
        return self._weights

    @property
    def parameters_b(self) -> float | None:
        """Billions of parameters; None if that cannot be known without loading or downloading."""
        if self._loaded is not None:
            return self._loaded.parameters_b
        return None if self._weights is None else parameters_b(self._weights)

    @property
    def fingerprint(self) -> str:
        """Changes with everything that a greedy answer depends on."""
        parts: dict[str, Any] = dict(self._identifying_params)
        parts["weights"] = self._weights.fingerprint if self._weights else f"pipeline:{self.model}"
        parts["adapter"] = path_digest(Path(self.adapter)) if self.adapter else None
        return repr(sorted(parts.items()))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without special ones. Loads the tokenizer, not the model."""
        return len(self.get_token_ids(text))

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special ones."""
        with self._lock:
            if self._tokenizer is None:
                if self._loaded is not None or self._weights is None:
                    self._tokenizer = self.load().tokenizer
                else:
                    self._tokenizer = load_tokenizer(self._weights)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    # What LangChain calls ---------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "der-huggingface"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        names = ("model", "revision", "dtype", "quantization", "generation", "prompt_format", "stop")
        names += ("reasoning", "template_settings", "adapter")
        return {name: getattr(self, name) for name in names}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        settings = self._settings(stop, kwargs)
        return LangSmithParams(
            ls_provider="huggingface",
            ls_model_name=self.model,
            ls_model_type="chat",
            ls_temperature=(1.0 if settings.temperature is None else settings.temperature) * settings.sampling,
            ls_max_tokens=settings.max_new_tokens,
            ls_stop=list(settings.stop) or None,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = Request(messages, self._settings(stop, kwargs))
        seat = seat_for(self)
        if seat is not None:
            future, last = seat.arrive(request)
            if last:
                seat.gathering.answer()
            return future.result()
        return _unwrap(self.answer_all([request], None)[0])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = Request(messages, self._settings(stop, kwargs))
        seat = seat_for(self)
        if seat is None:
            cancel = threading.Event()
            future: Future[Any] = in_thread(lambda: _unwrap(self.answer_all([request], cancel)[0]))
        else:
            cancel = seat.gathering.cancel
            future, last = seat.arrive(request)
            if last:
                in_thread(seat.gathering.answer)
        try:
            result: ChatResult = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancel.set()
            raise
        return result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if seat_for(self) is not None:  # one of a batch, with a listener for tokens: it gets all in one
            yield _whole(self._generate(messages, stop, run_manager, **kwargs))
            return
        pieces: queue.SimpleQueue[str | Future[Row]] = queue.SimpleQueue()
        cancel = threading.Event()
        request = Request(messages, self._settings(stop, kwargs))
        in_thread(lambda: self._answer_one(request, cancel, pieces.put)).add_done_callback(pieces.put)
        try:
            while isinstance(piece := pieces.get(), str):
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield self._last_chunk(piece.result())  # raises what the generating thread raised
        finally:
            cancel.set()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if seat_for(self) is not None:
            yield _whole(await self._agenerate(messages, stop, run_manager, **kwargs))
            return
        pieces: asyncio.Queue[str | Future[Row]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        cancel = threading.Event()
        request = Request(messages, self._settings(stop, kwargs))

        def put(piece: str | Future[Row]) -> None:
            if not cancel.is_set():  # else nobody listens, and the loop may be closed
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        in_thread(lambda: self._answer_one(request, cancel, put)).add_done_callback(put)
        try:
            while isinstance(piece := await pieces.get(), str):
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield self._last_chunk(piece.result())
        finally:
            cancel.set()

    # Answering --------------------------------------------------------------------------------------------

    def answer_all(
        self, requests: Sequence[Request], cancel: threading.Event | None
    ) -> list[ChatResult | Exception]:
        """Answer several prompts in as few `generate` calls as possible; one that fails does not harm the rest."""
        loaded = self.load()
        results: list[ChatResult | Exception] = [ExpertError("not answered")] * len(requests)
        groups: dict[tuple[GenerationSettings, int], list[tuple[int, Row]]] = {}
        for index, request in enumerate(requests):
            try:
                row, room = self._open_row(loaded, request)
            except ExpertError as error:
                results[index] = error
            else:
                # A prompt near the end of the context has less room; the others must not be cut with it.
                groups.setdefault((request.settings, room), []).append((index, row))
        for (settings, room), members in groups.items():
            for start in range(0, len(members), self.max_batch_size):
                part = members[start : start + self.max_batch_size]
                for (index, _), result in zip(
                    part, self._answer_group(loaded, [row for _, row in part], settings, room, cancel), strict=True
                ):
                    results[index] = result
        return results

    def _answer_group(
        self,
        loaded: LoadedModel,
        rows: list[Row],
        settings: GenerationSettings,
        room: int,
        cancel: threading.Event | None,
    ) -> list[ChatResult | Exception]:
        torch = require("torch", extra="huggingface", why="experts that run with transformers")
        try:
            generate_rows(
                loaded, rows, settings, max_new_tokens=room, logprobs=self.logprobs, cancel=cancel
            )
        except torch.OutOfMemoryError as error:
            if loaded.model.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(rows) > 1:  # half as many at a time need half the room
                half = len(rows) // 2
                again = [new_row(loaded, row.prompt, settings, self.reasoning) for row in rows]
                return [
                    result
                    for part in (again[:half], again[half:])
                    for result in self._answer_group(loaded, part, settings, room, cancel)
                ]
            size = len(rows[0].prompt.ids)
            return [
                ExpertError(
                    f"{self.model} ran out of memory on {loaded.model.device} at a prompt of {size} tokens; "
                    f"use a smaller max_new_tokens, quantization or another device ({error})"
                )
            ]
        except Exception as error:
            return [error for _ in rows]
        return [ChatResult(generations=[ChatGeneration(message=self._message(row))]) for row in rows]

    def _answer_one(self, request: Request, cancel: threading.Event, show: Callable[[str], None]) -> Row:
        """Answer one prompt piece by piece."""
        loaded = self.load()
        row, room = self._open_row(loaded, request)
        generate_rows(
            loaded,
            [row],
            request.settings,
            max_new_tokens=room,
            logprobs=self.logprobs,
            cancel=cancel,
            show=show,
        )
        return row

    def _open_row(self, loaded: LoadedModel, request: Request) -> tuple[Row, int]:
        """The row of a request, and how many tokens its answer may have."""
        writer = self._writer(loaded)
        settings = request.settings
        if writer.plain is not None and self.prompt_format is None and not settings.stop:
            settings = settings.updated({"stop": DEFAULT_STOP}, "stop")
        prompt = writer(request.messages)
        row = new_row(loaded, prompt, settings, self.reasoning)
        return row, self._room(loaded, prompt, settings)

    def _room(self, loaded: LoadedModel, prompt: Prompt, settings: GenerationSettings) -> int:
        limit, size = loaded.context_length, len(prompt.ids)
        if limit is None:
            return settings.max_new_tokens
        if size >= limit:
            raise ExpertError(
                f"the prompt has {size} tokens, and {self.model} reads at most {limit}, answer included; "
                "shorten the question or the conversation"
            )
        return min(settings.max_new_tokens, limit - size)

    def _writer(self, loaded: LoadedModel) -> PromptWriter:
        with self._lock:
            writer: PromptWriter | None = self.__dict__.get("_prompt_writer")
            if writer is None or writer.tokenizer is not loaded.tokenizer:
                writer = PromptWriter(
                    loaded.tokenizer, self.prompt_format, self.reasoning, self.template_settings
                )
                self.__dict__["_prompt_writer"] = writer
            return writer

    def _settings(self, stop: Sequence[str] | None, given: Mapping[str, Any]) -> GenerationSettings:
        where = f"model '{self.model}'"
        own = GenerationSettings().updated(self.generation, f"{where}: generation")
        if self.stop:
            own = own.updated({"stop": self.stop}, where)
        changes = {name: value for name, value in given.items() if name not in _NOT_FOR_US}
        return own.updated({**changes, "stop": stop}, where)

    def _message(self, row: Row) -> AIMessage:
        thought = {"reasoning_content": row.reader.thought} if row.reader.thought else {}
        return AIMessage(
            content=row.reader.answer,
            additional_kwargs=thought,
            usage_metadata=_usage(row),
            response_metadata=self._metadata(row),
        )

    def _last_chunk(self, row: Row) -> ChatGenerationChunk:
        thought = {"reasoning_content": row.reader.thought} if row.reader.thought else {}
        message = AIMessageChunk(
            content="",
            additional_kwargs=thought,
            usage_metadata=_usage(row),
            response_metadata=self._metadata(row),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    def _metadata(self, row: Row) -> dict[str, Any]:
        metadata: dict[str, Any] = {"model_name": self.model, "finish_reason": row.finish}
        if self.logprobs and row.count:
            metadata["mean_logprob"] = row.logprob / row.count
        return metadata


def _usage(row: Row) -> UsageMetadata:
    tokens_in = len(row.prompt.ids)
    return UsageMetadata(
        input_tokens=tokens_in, output_tokens=row.count, total_tokens=tokens_in + row.count
    )


def _whole(result: ChatResult) -> ChatGenerationChunk:
    """A finished answer as one chunk."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=message.content,
            additional_kwargs=message.additional_kwargs,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
    )


def _unwrap(result: ChatResult | Exception) -> ChatResult:
    if isinstance(result, Exception):
        raise result
    return result
