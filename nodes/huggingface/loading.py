"""A model in memory: weights, tokenizer, device, and the thread that runs it.

    LoadSpec ──load──> LoadedModel (a transformers text-generation pipeline, and what we need to know of it)

Experts that name the same weights in the same way share one copy. Everything heavy is imported here and only
when a model is loaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from der_graph.errors import ExpertError, MissingDependencyError, PoolError, require
from der_graph.nodes.huggingface.turns import Turns, turns_of
from der_graph.nodes.huggingface.weights import Weights, weights_folder
from der_graph.nodes.reliability.copying import renew_in_children

Result = TypeVar("Result")

Quantization = Literal["4bit", "8bit", "int8", "int4", "float8"]
DTYPES = ("auto", "float32", "bfloat16", "float16")


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Is this an allocation that failed, on any device? CUDA's libraries have words of their own for it."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "alloc_failed" in text or "can't allocate memory" in text
    )


_NO_LIMIT = 100_000_000  # tokenizers that know no limit report 1e30


@dataclass(frozen=True)
class LoadSpec:
    """How to load a model.

    Attributes:
        weights: Where from.
        adapter: Folder of a LoRA adapter, merged into the weights, or None.
        device: `auto` (CUDA where available, else the CPU), `cpu`, `cuda`, `cuda:0` ..., `mps`.
        dtype: One of `DTYPES`; `auto` is float32 on the CPU, and 16 bits elsewhere: the checkpoint's own
            where it has them, else bfloat16.
        quantization: `4bit` or `8bit` by bitsandbytes, `int8`, `int4` or `float8` by torchao, or None.
        offload: Wait in the machine's memory while other models need the GPU.
    """

    weights: Weights
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: Quantization | None = None
    offload: bool = False


@dataclass(eq=False)
class LoadedModel:
    """A model that is ready to generate.

    Attributes:
        pipeline: The transformers text-generation pipeline; its model and tokenizer are used.
        worker: The one thread that runs the model. Models are not safe under two threads, and on the CPU
            every thread that enters one brings a team of its own along, which then fight for the cores.
        engine: Runs it in continuous batches, where it does; see `continuous.engine_of`.
        turns: Lets it take turns with others on a GPU, where it does.
    """

    pipeline: Any
    worker: ThreadPoolExecutor = field(init=False)
    engine: Any = None
    turns: Turns | None = None

    def __post_init__(self) -> None:
        self._employ()
        renew_in_children(self._employ)
        set_pad_token(self.tokenizer)
        self.model.eval()

    def _employ(self) -> None:
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="der-graph-model")

    @property
    def model(self) -> Any:
        """The causal language model."""
        return self.pipeline.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.pipeline.tokenizer

    @functools.cached_property
    def context_length(self) -> int | None:
        """Most tokens that prompt and answer may have together; None for models without a limit."""
        return context_length(self.model.config, self.tokenizer)

    @functools.cached_property
    def parameters_b(self) -> float:
        """Billions of parameters; quantised ones are counted one by one, as stored before packing."""
        return float(self.model.num_parameters()) / 1e9

    @functools.cached_property
    def end_tokens(self) -> list[int]:
        """Ids that end an answer: the checkpoint's, the tokenizer's, and the template's end of turn."""
        given = getattr(self.model.generation_config, "eos_token_id", None)
        ends = {*(given if isinstance(given, list) else [given]), self.tokenizer.eos_token_id}
        template = self.tokenizer.chat_template
        if isinstance(template, str):
            # Converted checkpoints often lose these, and then talk on in the user's name.
            vocabulary = self.tokenizer.get_vocab()
            for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"):
                if token in template and token in vocabulary:
                    ends.add(vocabulary[token])
        return sorted(int(token) for token in ends if token is not None)

    def on_device(self) -> AbstractContextManager[None]:
        """Have it on its device while it generates."""
        return nullcontext() if self.turns is None else self.turns.hold(self.model)

    def run(self, work: Callable[[], Result], cancel: threading.Event | None = None) -> Result:
        """Run something on the model, when those who came before are done.

        Args:
            work: What to run.
            cancel: Set if the caller gives up while waiting (such as by Ctrl-C), for `work` to see.
        """
        future = self.worker.submit(work)
        try:
            return future.result()
        finally:
            if cancel is not None and not future.done():
                cancel.set()
            # Its error refers to this frame; together they would keep the tensors of a failed call.
            del future


def context_length(config: Any, tokenizer: Any) -> int | None:
    """The longest sequence that a model reads, or None where neither config nor tokenizer says."""
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = [
        getattr(text_config, name, None)
        for name in ("max_position_embeddings", "n_positions", "seq_length")
    ]
    limits.append(getattr(tokenizer, "model_max_length", None))
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(known) if known else None


def longest_of(folder: Path) -> int | None:
    """The longest sequence that the model in a folder reads, from its small files alone."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    try:
        given = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        given = {}
    limit = given.get("model_max_length") if isinstance(given, dict) else None
    return context_length(config, types.SimpleNamespace(model_max_length=limit))


def set_pad_token(tokenizer: Any) -> None:
    """Give a tokenizer without padding token its end token; the attention mask hides padding anyway."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


_SHARED: weakref.WeakValueDictionary[LoadSpec, LoadedModel] = weakref.WeakValueDictionary()
_PIPELINES: weakref.WeakValueDictionary[tuple[int, int], LoadedModel] = (
    weakref.WeakValueDictionary()
)
_SHARED_LOCK = threading.Lock()


def load(spec: LoadSpec) -> LoadedModel:
    """Load a model, or share the copy that is in memory.

    Raises:
        PoolError: If device, dtype or quantization cannot be used here.
        ExpertError: If the weights cannot be had or read.
        MissingDependencyError: If an optional package is missing.
    """
    with _SHARED_LOCK:
        loaded = _SHARED.get(spec)
        if loaded is None:
            loaded = _SHARED[spec] = _load(spec)
        return loaded


def share_pipeline(pipeline: Any) -> LoadedModel:
    """Use a pipeline that is in memory; all who give the same model share the thread that runs it."""
    key = id(pipeline.model), id(pipeline.tokenizer)
    with _SHARED_LOCK:
        loaded = _PIPELINES.get(key)
        if loaded is None or loaded.model is not pipeline.model:
            loaded = _PIPELINES[key] = LoadedModel(pipeline)
        return loaded


def load_tokenizer(weights: Weights, adapter: str | None = None) -> Any:
    """Load the tokenizer alone, which is cheap, to count tokens before any model is in memory."""
    import transformers

    folder = tokenizer_folder(weights_folder(weights), adapter)
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def tokenizer_folder(base: Path, adapter: str | None) -> Path:
    """Where the tokenizer is: beside the adapter, if whoever trained it saved one there with its template."""
    if adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file():
        return Path(adapter)
    return base


def _load(spec: LoadSpec) -> LoadedModel:
    import torch
    import transformers

    device = pick_device(torch, spec.device)
    folder = weights_folder(spec.weights)
    settings = _placement(torch, transformers, spec, device, folder)
    try:
        # Everything needed is in the folder by now: no request to the hub, not even to look for updates.
        tokenizer = load_tokenizer(spec.weights, spec.adapter)
        with no_progress_bars():
            model = _model_class(transformers, folder).from_pretrained(
                str(folder), local_files_only=True, **settings
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ExpertError(
            f"model '{spec.weights.name}' could not be loaded from {folder}: {type(error).__name__}: {error}"
        ) from error
    if spec.adapter is not None:
        if tokenizer_folder(folder, spec.adapter) != folder:
            _make_room(model, len(tokenizer))
        model = _merge_adapter(model, spec.adapter)
    turns = turns_of(device) if spec.offload and device.type == "cuda" else None
    if spec.quantization is None and turns is None:
        try:
            model.to(device)
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            raise ExpertError(
                f"model '{spec.weights.name}' does not fit on {device} beside what is there ({error}); use "
                "quantization, offload: true or another device; der pool check --device plans the memory"
            ) from error
    with _silent(
        transformers.utils.logging
    ):  # of a model that also sees images it says that it is no writer
        generator = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    return LoadedModel(generator, turns=turns)


def _model_class(transformers: Any, folder: Path) -> Any:
    """What loads a model that writes text: many that see images too are not among the language models."""
    kind = type(transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True))
    if kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.AutoModelForCausalLM
    if kind in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM  # says what it cannot load


def pick_device(torch: Any, wanted: str) -> Any:
    """The torch device that a pool file means.

    Raises:
        PoolError: If there is no such device here.
    """
    cuda = torch.cuda.is_available()
    if wanted == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise PoolError(
            f"device '{wanted}' is unknown; use auto, cpu, cuda or cuda:<number>"
        ) from None
    count = torch.cuda.device_count() if cuda else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise PoolError(
            f"device '{wanted}': this machine has {count} CUDA devices; use 'auto' or 'cpu'"
        )
    return device


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """No progress bars of transformers: a model of a pool is one of several, and the pool reports."""
    from transformers.utils import logging as of_transformers

    logging: Any = of_transformers
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _silent(logging: Any) -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _placement(
    torch: Any, transformers: Any, spec: LoadSpec, device: Any, folder: Path
) -> dict[str, Any]:
    """What `from_pretrained` is told about type, place and attention."""
    if spec.dtype not in DTYPES:
        raise PoolError(f"dtype '{spec.dtype}' is unknown; use one of: {', '.join(DTYPES)}")
    dtype: Any = "auto" if spec.dtype == "auto" else getattr(torch, spec.dtype)
    if spec.dtype == "auto" and device.type == "cpu":
        dtype = (
            torch.float32
        )  # half precision is slow on CPUs, and batches then differ from single calls
    elif spec.dtype == "auto" and device.type == "cuda":
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        dtype = half_dtype(torch, getattr(config, "dtype", None))
    settings: dict[str, Any] = {"dtype": dtype}
    attention = fast_attention(device)
    if attention is not None and dtype is not torch.float32:
        settings["attn_implementation"] = attention
    if spec.quantization is None:
        return settings
    config = quantization_config(transformers, spec.quantization)
    return {**settings, "quantization_config": config, "device_map": {"": device}}


# torchao's classes, for weights alone: activations keep their 16 bits.
_TORCHAO = {
    "int8": "Int8WeightOnlyConfig",
    "int4": "Int4WeightOnlyConfig",
    "float8": "Float8WeightOnlyConfig",
}


def quantization_config(transformers: Any, quantization: Quantization) -> Any:
    """What transformers is told to pack weights.

    Raises:
        MissingDependencyError: If the package that does it is missing; has the command to install it.
    """
    package = "torchao" if quantization in _TORCHAO else "bitsandbytes"
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(
            f"'{package}' is needed for quantization: {quantization} and is not installed. "
            f"Install it with: pip install {package}"
        )
    if package == "torchao":
        torchao = importlib.import_module("torchao.quantization")
        return transformers.TorchAoConfig(getattr(torchao, _TORCHAO[quantization])())
    flag = {"4bit": "load_in_4bit", "8bit": "load_in_8bit"}[quantization]
    return transformers.BitsAndBytesConfig(**{flag: True})


def half_dtype(torch: Any, stored: Any) -> Any:
    """The type of weights on a GPU: that of the checkpoint if it has 16 bits, else the best the card has."""
    if stored in (torch.float16, torch.bfloat16):
        return stored
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def fast_attention(device: Any) -> str | None:
    """Flash attention where its package is installed and there is a GPU; None: what transformers takes."""
    return "flash_attention_2" if device.type == "cuda" and has_flash_attention() else None


def has_flash_attention() -> bool:
    """Is its package installed?"""
    return importlib.util.find_spec("flash_attn") is not None


def _make_room(model: Any, tokens: int) -> None:
    """More embeddings, where the adapter's tokenizer has tokens that the base model's has not."""
    if tokens > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(
            tokens, mean_resizing=False
        )  # the adapter brings the new ones


def _merge_adapter(model: Any, adapter: str) -> Any:
    peft = require("peft", extra="lora", why="experts with a LoRA adapter")
    try:
        with warnings.catch_warnings():
            # peft asks transformers in a way that transformers is about to drop.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            adapted = peft.PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ExpertError(
            f"adapter '{adapter}' does not fit the model or cannot be read: {type(error).__name__}: {error}"
        ) from error
    return adapted.merge_and_unload()  # as fast as the base model from here on
