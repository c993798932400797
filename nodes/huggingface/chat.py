"""A transformers text-generation pipeline as a chat model.

    messages ──PromptWriter──> ids ──generate_rows──> Row ──> AIMessage (usage, finish_reason, mean_logprob)

Greedy batches in float32 give the answers that single calls give. `HuggingFaceChat.from_pipeline` takes a
pipeline that is in memory, also one of langchain-huggingface.

Why not `ChatHuggingFace(llm=HuggingFacePipeline(...))` of langchain-huggingface 1.2 as it is, with a
pipeline: the answer begins with the prompt, settings of a call (`max_new_tokens`, `temperature`, `stop`)
are ignored, `ainvoke` and `astream` raise, `batch` calls the model once per input, there is no token usage
and no model name in traces, a template's start token is doubled, and an error in the generating thread
shows as `queue.Empty` after 60 seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.batching import BatchedChatModel, slot_for
from der_graph.nodes.huggingface.continuous import (
    CONTINUOUS_REQUESTS,
    Batching,
    Engine,
    engine_of,
    is_continuous,
)
from der_graph.nodes.huggingface.generation import (
    Answered,
    Answerer,
    Request,
    message_of,
    piece_chunk,
    whole_chunk,
)
from der_graph.nodes.huggingface.loading import (
    LoadedModel,
    LoadSpec,
    Quantization,
    has_flash_attention,
    load,
    load_tokenizer,
    longest_of,
    share_pipeline,
)
from der_graph.nodes.huggingface.memory import GB, Footprint, footprint
from der_graph.nodes.huggingface.prompts import FORMAT_FIELDS, PromptWriter
from der_graph.nodes.huggingface.settings import GenerationSettings
from der_graph.nodes.huggingface.turns import TRANSFER
from der_graph.nodes.huggingface.weights import (
    Weights,
    find_weights,
    local_folder,
    parameters_b,
    path_digest,
    weights_folder,
)
from der_graph.nodes.ktp import check_fields
from der_graph.nodes.model_settings import LANGCHAINS_OWN
from der_graph.nodes.providers.thoughts import THINK_TAGS
from der_graph.nodes.reliability import alisten, listen, resolve_futures
from der_graph.nodes.reliability.copying import remade


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

    keeps_max_time: ClassVar[bool] = True
    """Stops at the next token once a call's `max_time` is over (see `nodes/reliability/deadline.py`)."""
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
    """`auto` (float32 on the CPU, 16 bits elsewhere), `float32`, `bfloat16`, `float16`."""
    quantization: Quantization | None = None
    """`4bit` or `8bit` (bitsandbytes), `int8`, `int4` or `float8` (torchao), or None."""
    offload: bool = False
    """On a GPU: wait in the machine's memory while other models that do so are asked; static batches."""
    generation: dict[str, Any] = Field(default_factory=dict)
    """See `GenerationSettings`; greedy by default."""
    prompt_format: str | None = None
    """Plain format in place of the chat template, such as `"Q: {text}\\nA:"`; see `FORMAT_FIELDS`."""
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
    """Most prompts in one `generate` call; of continuous batches, most in one step if it is above 32."""
    batching: Batching = "auto"
    """`continuous`: a request joins the others at the next token. `static`: it waits for the batch that is
    running. `auto`: continuous on CUDA, static on the CPU, where that is faster."""
    kv_cache_gb: float | None = Field(default=None, gt=0)
    """GB of keys and values for continuous batches; None: the share that the pool's plan gives, or what the
    device has to spare."""

    _weights: Weights | None = PrivateAttr(default=None)
    _loaded: LoadedModel | None = PrivateAttr(default=None)
    _answering: Answerer | None = PrivateAttr(default=None)
    _tokenizer: Any = PrivateAttr(default=None)
    _context: tuple[int | None] | None = PrivateAttr(default=None)
    _planned: Callable[[str], int | None] | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    def __init__(self, **settings: Any) -> None:
        """Check everything that can be checked without loading.

        Raises:
            PoolError: If a setting, a folder or a pipeline cannot be used.
        """
        super().__init__(**settings)
        # Here and not in a validator: pydantic would wrap the errors in its own.
        self._settings(None, {})
        if self.offload and (self.quantization is not None or self.batching == "continuous"):
            raise PoolError(
                "offload: models that take turns on a GPU are not quantised, and their batches are static"
            )
        if self.prompt_format is not None:
            check_fields(self.prompt_format, FORMAT_FIELDS, "prompt_format")
        if self.pipeline is not None:
            self.pipeline = bare_pipeline(self.pipeline)
            name = getattr(self.pipeline.model, "name_or_path", "")
            self.model = self.model or name or "pipeline"
            self._loaded = share_pipeline(self.pipeline)
            self.generation = {**generation_of(self.pipeline), **self.generation}
            return
        self._weights = find_weights(self.model, self.revision)
        if self.adapter is not None and not (Path(self.adapter) / "adapter_config.json").is_file():
            raise PoolError(
                f"adapter '{self.adapter}': there is no such folder with an adapter_config.json"
            )

    @classmethod
    def from_pipeline(cls, pipeline: Any, **settings: Any) -> HuggingFaceChat:
        """Use a pipeline that is in memory: transformers' own, or a `HuggingFacePipeline` around one."""
        return cls(pipeline=pipeline, **settings)

    def prepare(self) -> None:
        """Download or convert the weights where needed, without loading them; errors as `load`."""
        if self._loaded is None and self._weights is not None:
            weights_folder(self._weights)

    def load(self) -> LoadedModel:
        """Load the model unless that was done; safe to call from several threads.

        Raises:
            ExpertError: If the weights cannot be had or read.
            PoolError: If device, dtype or quantization cannot be used here.
        """
        with self._lock:
            if self._loaded is None:
                assert self._weights is not None
                how = (self.adapter, self.device, self.dtype, self.quantization, self.offload)
                self._loaded = load(LoadSpec(self._weights, *how))
            return self._loaded

    @property
    def weights(self) -> Weights | None:
        """Where the weights come from; None for a pipeline that was given."""
        return self._weights

    @property
    def shown_name(self) -> str:
        """The model's name for others to see: of a folder or file its own name, and not where it lies."""
        path = self._weights is not None and self._weights.kind in ("folder", "gguf")
        return Path(self.model).name if path or Path(self.model).is_absolute() else self.model

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> HuggingFaceChat:
        """A copy of the settings, which shares the weights in memory."""
        return self.model_copy()

    def __reduce__(self) -> Any:
        return remade(self)  # the weights stay: whoever opens it reads them when they are wanted

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
        # What is in the folders counts, and not where they lie on this machine.
        del parts["model"]
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
                    self._tokenizer = load_tokenizer(self._weights, self.adapter)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def context_length(self) -> int | None:
        """Most tokens of prompt and answer together; None if that cannot be known without a download."""
        if self._loaded is not None:
            return self._loaded.context_length
        with self._lock:
            if self._context is None and self._weights is not None:
                folder = local_folder(self._weights)
                if folder is None or not (folder / "config.json").is_file():
                    return None  # not now: it may be there later
                self._context = (longest_of(folder),)
        return None if self._context is None else self._context[0]

    def count_prompt(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of a conversation as the model reads it, template included; 0 if it cannot be written.

        Loads the tokenizer, not the model.
        """
        self.get_token_ids("")
        writer = PromptWriter(
            self._tokenizer, self.prompt_format, self.reasoning, self.template_settings
        )
        try:
            return len(writer(messages).ids)
        except ExpertError:
            return 0  # the model says so itself when it is asked

    # What LangChain calls ---------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "der-huggingface"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        # All that the text of an answer depends on: LangChain's caches read this.
        names = "model revision adapter dtype quantization generation prompt_format stop reasoning"
        return {name: getattr(self, name) for name in [*names.split(), "template_settings"]}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        settings = self._settings(stop, kwargs)
        return LangSmithParams(
            ls_provider="huggingface",
            ls_model_name=self.shown_name,
            ls_model_type="chat",
            ls_temperature=(1.0 if settings.temperature is None else settings.temperature)
            * settings.sampling,
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
        return self.answer(self._request(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self.aanswer(self._request(messages, stop, kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        if slot_for(self) is not None:
            # One of a batch, with a listener for tokens: it gets the answer in one piece.
            yield whole_chunk(self.answer(request))
            return
        with contextlib.closing(listen(partial(self._answer_one, request))) as pieces:
            for piece in pieces:
                yield piece_chunk(piece)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        if slot_for(self) is not None:
            yield whole_chunk(await self.aanswer(request))
            return
        async with contextlib.aclosing(alisten(partial(self._answer_one, request))) as pieces:
            async for piece in pieces:
                yield piece_chunk(piece)

    def _request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, given: Mapping[str, Any]
    ) -> Request:
        return Request(messages, self._settings(stop, given), threading.Event())

    def _settings(self, stop: Sequence[str] | None, given: Mapping[str, Any]) -> GenerationSettings:
        where = f"model '{self.model}'"
        own = GenerationSettings().updated(self.generation, f"{where}: generation")
        if self.stop:
            own = own.updated({"stop": self.stop}, where)
        changes = {name: value for name, value in given.items() if name not in LANGCHAINS_OWN}
        return own.updated({**changes, "stop": stop}, where)

    def _answerer(self) -> Answerer:
        loaded = self.load()
        with self._lock:
            if self._answering is None or self._answering.loaded is not loaded:
                writer = PromptWriter(
                    loaded.tokenizer, self.prompt_format, self.reasoning, self.template_settings
                )
                self._answering = Answerer(
                    self.shown_name,
                    loaded,
                    writer,
                    self.reasoning,
                    self.logprobs,
                    self.max_batch_size,
                    self._engine(loaded),
                )
            return self._answering

    def footprint(self, name: str) -> Footprint | None:
        """What this model needs of a GPU; None where its files are not on this machine."""
        if self._weights is None:
            return None
        return footprint(
            name,
            self._weights,
            dtype=self.dtype,
            quantization=self.quantization,
            adapter=self.adapter,
            max_requests=max(self.max_batch_size, CONTINUOUS_REQUESTS),
            cache=self._cache_bytes(),
            flash=has_flash_attention(),
            offload=self.offload,
        )

    @property
    def seconds_to_come(self) -> float:
        """About how long it takes to come to the GPU, where it takes turns there; else 0."""
        if not self.offload or self.device == "cpu":
            return 0.0
        import torch

        if not torch.cuda.is_available():
            return 0.0
        measured = None if self._loaded is None else self._loaded.turns
        if measured is not None and measured.seconds is not None:
            return measured.seconds
        needs = self.footprint(self.model)
        return 0.0 if needs is None else needs.weights / TRANSFER

    def plan_cache(self, planned: Callable[[str], int | None]) -> None:
        """Ask this, with the name of a device, for the bytes of keys and values, once there is a GPU."""
        self._planned = planned

    def _cache_bytes(self) -> int | None:
        return None if self.kv_cache_gb is None else round(self.kv_cache_gb * GB)

    @property
    def requests_at_once(self) -> int:
        """Most requests in continuous batches; 0 for static ones, and before the model is loaded."""
        answering = self._answering
        if answering is None or answering.engine is None:
            return 0
        return max(self.max_batch_size, CONTINUOUS_REQUESTS)

    def _engine(self, loaded: LoadedModel) -> Engine | None:
        if self.offload or not is_continuous(loaded, self.batching):
            return None
        size = self._cache_bytes()
        if size is None and self._planned is not None and loaded.model.device.type == "cuda":
            size = self._planned(str(loaded.model.device))
        return engine_of(loaded, size, max(self.max_batch_size, CONTINUOUS_REQUESTS))

    def answer_all(
        self, requests: Sequence[Request], cancel: threading.Event | None
    ) -> Sequence[ChatResult | Exception | Future[ChatResult]]:
        """Answer several prompts in as few calls of the model as possible; see `BatchedChatModel`."""
        return [_chat_result(each) for each in self._answerer().begin_all(requests, cancel)]

    def _answer_one(
        self, request: Request, show: Callable[[str], None], cancel: threading.Event
    ) -> AIMessage:
        result = self.answer(request._replace(cancel=cancel, show=show))
        message = result.generations[0].message
        assert isinstance(message, AIMessage)
        return message


def _chat_result(
    result: Answered | Exception | Future[Answered],
) -> ChatResult | Exception | Future[ChatResult]:
    if isinstance(result, Exception):
        return result
    if isinstance(result, Answered):
        return ChatResult(generations=[ChatGeneration(message=message_of(result))])
    future: Future[ChatResult] = Future()
    result.add_done_callback(
        lambda done: resolve_futures([future], lambda: [_chat_result(done.result())])
    )
    return future


# Settings of a pipeline that say nothing about the answer.
_PIPELINE_ONLY = frozenset(
    {"return_full_text", "batch_size", "truncation", "padding", "return_tensors"}
)


def bare_pipeline(given: Any) -> Any:
    """Take a pipeline out of langchain-huggingface's wrapper, where it is in one.

    Raises:
        PoolError: If it is no text-generation pipeline with a model and a tokenizer.
    """
    pipeline = getattr(given, "pipeline", given)
    if getattr(pipeline, "tokenizer", None) is None or not hasattr(pipeline, "model"):
        raise PoolError("pipeline: a text-generation pipeline with model and tokenizer is needed")
    return pipeline


def generation_of(pipeline: Any) -> dict[str, Any]:
    """The generation settings that a pipeline was made with: `pipeline(..., max_new_tokens=20)`."""
    known = {field.name for field in dataclasses.fields(GenerationSettings)}
    given = getattr(pipeline, "_generate_kwargs", {})
    return {name: value for name, value in given.items() if name in known}


def wrapped_pipeline(model: Any) -> dict[str, Any] | None:
    """Unwrap `HuggingFacePipeline`, and `ChatHuggingFace` around one.

    Returns:
        Settings for a `HuggingFaceChat` that answers as the model did; None for anything else.
    """
    llm = model.llm if _is_a(model, "ChatHuggingFace") else model
    if not _is_a(llm, "HuggingFacePipeline"):
        return None
    given = {k: v for k, v in (llm.pipeline_kwargs or {}).items() if k not in _PIPELINE_ONLY}
    if llm is not model:
        for field in ("max_tokens", "temperature", "top_p", "stop", "seed"):
            value = getattr(model, field, None)
            if value is not None:
                given[field] = value
    plain = llm is model and not getattr(llm.pipeline.tokenizer, "chat_template", None)
    return {
        "pipeline": llm.pipeline,
        "generation": given,
        "prompt_format": "{text}" if plain else None,
    }


def _is_a(model: Any, name: str) -> bool:
    return name in {base.__name__ for base in type(model).__mro__}
