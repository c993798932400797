"""A local model run by vLLM inside this program: the same expert, on an engine that is made for GPUs.

    messages ──PromptWriter──> ids ──AsyncLLMEngine of vLLM──every token──> Row ──> AIMessage

Prompts, thoughts, stop strings, streams and log-probabilities are those of `HuggingFaceChat`; vLLM gets token
ids and gives token ids. LoRA adapters are switched by the request, so experts of one base model share its
weights. vLLM is imported when a model is loaded: `pip install 'der-graph[vllm]'`, on a machine with a GPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from pydantic import Field, PrivateAttr

from der_graph.errors import ExpertError, MissingDependencyError, PoolError
from der_graph.nodes.huggingface.chat import HuggingFaceChat
from der_graph.nodes.huggingface.continuous import Engine
from der_graph.nodes.huggingface.loading import LoadedModel, load_tokenizer
from der_graph.nodes.huggingface.rows import Row
from der_graph.nodes.huggingface.settings import GenerationSettings
from der_graph.nodes.huggingface.weights import weights_folder

_LOOK = 0.02  # seconds between two looks at who has given up while no token comes


class VLLMChat(HuggingFaceChat):
    """A model of vLLM as a chat model; see `HuggingFaceChat`."""

    engine: dict[str, Any] = Field(default_factory=dict)
    """Passed on to vLLM's `AsyncEngineArgs`, such as `{"gpu_memory_utilization": 0.4}`: several models on
    one GPU need shares that add up to less than 1."""
    _own: VLLMEngine | None = PrivateAttr(default=None)

    def load(self) -> LoadedModel:
        """Start the engine unless that was done, or share one with the same weights and settings.

        Raises:
            MissingDependencyError: If vLLM is not installed.
            PoolError: If a setting is one that vLLM has no word for.
            ExpertError: If the weights cannot be had, or vLLM does not start with them.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._start()
            return self._loaded

    def _start(self) -> LoadedModel:
        import transformers

        if self.offload:
            raise PoolError("offload: vllm keeps its weights on the GPU")
        if self.quantization is not None:
            raise PoolError("quantization of vllm is a setting of its engine: {quantization: ...}")
        assert self._weights is not None
        folder = str(weights_folder(self._weights))
        settings = {"model": folder, "dtype": self.dtype, **self.engine}
        if self.adapter is not None:
            settings.setdefault("enable_lora", True)
        self._own = VLLMEngine(engine_with(settings), self.adapter)
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        ends: Any = SimpleNamespace(eos_token_id=getattr(config, "eos_token_id", None))
        with contextlib.suppress(OSError):
            ends = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
        size = self.parameters_b or 0.0
        # No weights here: what is read of a model is its configuration.
        model = SimpleNamespace(
            config=config,
            generation_config=ends,
            eval=lambda: None,
            num_parameters=lambda: round(size * 1e9),
        )
        tokenizer = load_tokenizer(self._weights)
        loaded = LoadedModel(SimpleNamespace(model=model, tokenizer=tokenizer))
        self._own.ends = loaded.end_tokens
        return loaded

    @property
    def _llm_type(self) -> str:
        return "der-vllm"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {**super()._identifying_params, "engine": self.engine}

    def _engine(self, loaded: LoadedModel) -> Engine | None:
        return self._own


class VLLMEngine:
    """Answers requests by an engine of vLLM.

    Args:
        core: vLLM's engine, with the loop that it runs in.
        adapter: Folder of a LoRA adapter, or None.
    """

    def __init__(self, core: EngineCore, adapter: str | None = None) -> None:
        self._core = core
        self._lora = None if adapter is None else core.lora(adapter)
        self.ends: list[int] = []
        """Ids that end an answer."""

    def takes(self, row: Row, settings: GenerationSettings, room: int) -> bool:
        """All requests are answered here: there are no static batches."""
        return True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody else uses the model."""
        yield

    def submit(self, row: Row, settings: GenerationSettings, room: int) -> Future[None]:
        """Answer a request; see `ContinuousEngine.submit`."""
        work = self._answer(row, settings, room)
        return asyncio.run_coroutine_threadsafe(work, self._core.loop)

    async def _answer(self, row: Row, settings: GenerationSettings, room: int) -> None:
        key, start = self._core.next_key(), time.monotonic()
        given = {"lora_request": self._lora} if self._lora is not None else {}
        outputs = self._core.engine.generate(
            {"prompt_token_ids": list(row.prompt.ids)},
            self._core.sampling(settings, room, self.ends),
            request_id=key,
            **given,
        )
        pending: asyncio.Task[Any] | None = None
        try:
            while row.finish is None:
                pending = pending or asyncio.ensure_future(_next(outputs))
                await asyncio.wait({pending}, timeout=_LOOK)
                if pending.done():
                    output, pending = pending.result(), None
                    if output is None:
                        break
                    self._read(row, output)
                late = row.max_time is not None and time.monotonic() - start >= row.max_time
                if row.finish is None and (row.given_up or late):
                    row.finish = "length"
        except (ExpertError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise ExpertError(f"vLLM failed: {type(error).__name__}: {error}") from error
        finally:
            if pending is not None:
                pending.cancel()
            await self._core.engine.abort(key)  # nothing happens if it has ended
        row.close()

    def _read(self, row: Row, output: Any) -> None:
        """Read what is new of an answer: outputs repeat what came before."""
        part, ends = output.outputs[0], frozenset(self.ends)
        for index in range(row.count, len(part.token_ids)):
            token = int(part.token_ids[index])
            sure = part.logprobs[index][token].logprob if part.logprobs else 0.0
            row.take(token, float(sure), ends)
            if row.finish is not None:
                return


async def _next(outputs: Any) -> Any:
    return await anext(outputs, None)


class EngineCore:
    """vLLM's engine in an event loop of its own.

    Args:
        vllm: The package.
        settings: Of `AsyncEngineArgs`.
    """

    def __init__(self, vllm: Any, settings: Mapping[str, Any]) -> None:
        self._vllm = vllm
        self._keys = itertools.count()
        self._adapters: dict[str, Any] = {}
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name="der-graph-vllm", daemon=True).start()

        async def start() -> Any:
            return vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**settings))

        try:
            self.engine = asyncio.run_coroutine_threadsafe(start(), self.loop).result()
        except Exception as error:
            self.loop.call_soon_threadsafe(self.loop.stop)
            raise ExpertError(
                f"vLLM did not start with '{settings['model']}': {type(error).__name__}: {error}"
            ) from error

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()  # only an engine that did not start gets here

    def next_key(self) -> str:
        """A name for a request."""
        return f"der-{next(self._keys)}"

    def lora(self, adapter: str) -> Any:
        """What tells vLLM to use an adapter; the same for all experts that name the same folder."""
        if adapter not in self._adapters:
            request = import_module("vllm.lora.request").LoRARequest
            number = len(self._adapters) + 1
            self._adapters[adapter] = request(f"adapter-{number}", number, adapter)
        return self._adapters[adapter]

    def sampling(self, settings: GenerationSettings, room: int, ends: list[int]) -> Any:
        """Settings in vLLM's words.

        Raises:
            ExpertError: For one that it has no word for.
        """
        if settings.no_repeat_ngram_size:
            raise ExpertError(
                "vLLM knows no no_repeat_ngram_size; use repetition_penalty, or backend: huggingface"
            )
        drawn: dict[str, Any] = {"temperature": 0.0}
        if settings.sampling:
            drawn = {
                "temperature": 1.0 if settings.temperature is None else settings.temperature,
                "top_p": 1.0 if not settings.top_p else settings.top_p,
                "top_k": settings.top_k or -1,
                "min_p": settings.min_p or 0.0,
                "seed": settings.seed,
            }
        return self._vllm.SamplingParams(
            max_tokens=room,
            repetition_penalty=settings.repetition_penalty or 1.0,
            stop_token_ids=ends,
            logprobs=0,  # that of the token itself
            detokenize=False,
            **drawn,
        )


_CORES: dict[str, EngineCore] = {}
_CORES_LOCK = threading.Lock()


def engine_with(settings: Mapping[str, Any]) -> EngineCore:
    """Start an engine, or share the one with the same weights and settings; it stays until the program ends.

    Raises:
        MissingDependencyError: If vLLM is not installed.
        ExpertError: If it does not start.
    """
    try:
        vllm = import_module("vllm")
    except ImportError:
        raise MissingDependencyError(
            "'vllm' is needed for backend: vllm and is not installed. "
            "Install it with: pip install 'der-graph[vllm]'"
        ) from None
    key = repr(sorted(settings.items()))
    with _CORES_LOCK:
        if key not in _CORES:
            _CORES[key] = EngineCore(vllm, settings)
        return _CORES[key]
