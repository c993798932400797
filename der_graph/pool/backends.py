"""What a pool file's entries can be: one class per backend, with its fields and the model that it makes.

    HuggingFaceSection | VLLMSection | LangChainSection | any other Backend ──expert_of──> Expert

A new backend is a subclass of `Backend`: here, or in another package (see `der_graph.plugins`). Paths are
read as relative to the pool file, and `${VARIABLE}` is replaced. Models are described, not loaded.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from der_graph.data import load_examples
from der_graph.errors import PoolError
from der_graph.nodes.expert import MAX_ANSWER_CHARS, Expert, check_name
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.vllm import VLLMChat
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, ktp_template
from der_graph.nodes.langchain import as_chat_runnable, bounded, marks_of, without_retries
from der_graph.nodes.providers import THINK_TAGS, THOUGHT_MARKS
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.plugins import import_object

ALLOW_PYTHON = "DER_ALLOW_PYTHON"
"""Environment variable: 1 lets pool files name Python code that is run (`backend: python`)."""

CostUnit = Literal["parameters_b", "usd", "seconds", "calls"]
"""What costs count: billions of parameters run, US dollars, seconds, or calls."""


@dataclass(frozen=True)
class Surroundings:
    """What an entry is read with.

    Attributes:
        folder: The pool file's folder.
        unit: What costs count.
        second_price: Price of a second of a call, in that unit.
        recorded: Data files for recorded experts that name none.
        allow_python: May the pool file name Python code that is run?
    """

    folder: Path
    unit: CostUnit
    second_price: float = 0.0
    recorded: Sequence[str] = ()
    allow_python: bool = False


class Section(BaseModel):
    """A mapping of a pool file; a field that is none of its own is an error."""

    model_config = ConfigDict(extra="forbid", strict=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _normalized(cls, given: Any) -> Any:
        """A field without a value is left out, and no switch is a number.

        The first is `settings:` with all below it commented out. Pydantic takes `true` for 1, and a price of
        `yes` is a mistake; it refuses the word "True".
        """
        if not isinstance(given, Mapping):
            return given
        return {
            name: _words(value) if cls._counts(name) else value
            for name, value in given.items()
            if value is not None or cls._may_be_none(name)
        }

    @classmethod
    def _may_be_none(cls, name: str) -> bool:
        """May a field hold nothing? What is no field is kept too, so that it is refused."""
        if name not in cls.model_fields:
            return True
        kind = cls.model_fields[name].annotation
        return kind is Any or type(None) in (kind, *get_args(kind))

    @classmethod
    def _counts(cls, name: str) -> bool:
        """Is it a field that holds a number?"""
        kind = cls.model_fields[name].annotation if name in cls.model_fields else None
        types = {kind, *get_args(kind)}
        types |= {each for part in types for each in get_args(part)}  # of a mapping's values
        return bool not in types and not {int, float}.isdisjoint(types)


def _words(value: Any) -> Any:
    """Switches as words, in a mapping too."""
    if isinstance(value, Mapping):
        return {name: _words(each) for name, each in value.items()}
    return str(value) if isinstance(value, bool) else value


class KTPSection(Section):
    """A Knowledge Transfer Prompt of one's own; see `der_graph.nodes.ktp`."""

    transfer: str
    """Text once there is an earlier answer; fields: question, answer, answers."""
    first: str = "{question}"
    """Text while there is none; field: question."""
    max_answer_tokens: int = Field(default=512, ge=1)
    """Longest share of the prompt that earlier answers may take."""


class TokenPricesSection(Section):
    """Prices per million tokens, in the pool's cost unit."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of input tokens that the provider had in its cache; no discount where left out."""
    minimum: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The least that a call costs."""


class Backend(Section):
    """One entry of `experts:`, with the fields that all backends have.

    A backend of another package (see `der_graph.plugins`) is a subclass with `backend: Literal["its name"]`,
    fields of its own, and `make_model`.
    """

    backend: str

    name: str
    """Unique; also the node's name: no '|', ':' or white space."""
    cost: float | None = Field(default=None, ge=0)
    """Price of one call in the pool's unit; read from the model's size where left out."""
    description: str = ""
    """What it is good at, in a few words."""
    system: str | None = None
    """A system prompt of its own."""
    ktp: str | KTPSection | None = None
    """How it receives earlier answers: a template's name or one's own; the pool's where left out."""
    token_prices: TokenPricesSection | None = None
    """Charge by token; `cost` is then the most that one call may cost."""
    max_answer_chars: int | None = Field(default=None, ge=1)
    """Longest answer, in characters; what goes on is cut off there (100,000 where left out)."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Usual time of one call: who would not be done before a request's deadline is not asked."""
    timeout: float | None = Field(default=None, gt=0)
    """Longest time of one call in seconds, `.inf` for no limit; 120 where left out, and no limit for models
    that run in this process."""
    skill: float | dict[str, float] | None = None
    """How often it is right, from 0 to 1, or that for each kind of question; the planner begins with it."""
    context_length: int | None = Field(default=None, ge=1)
    """Most tokens that it reads, where the model does not say: it is not asked what it cannot read."""

    def make_model(self, folder: Path) -> Any:
        """Make what answers: a chat model, a Runnable, or a function of the question.

        Args:
            folder: The pool file's, for paths that are relative to it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no make_model")

    def _build(self, around: Surroundings) -> tuple[Any, str]:
        """Make the model, and what tells it from others: a fingerprint that no secret is part of."""
        own = self.model_dump(mode="json", exclude=set(Backend.model_fields))
        fingerprint = fingerprint_of(self.backend, own)  # of `${VARIABLE}`, not of the secret
        filled = {name: expand_variables(value, name) for name, value in own.items()}
        whole = type(self).model_validate({**self.model_dump(), **filled})
        return as_chat_runnable(whole.make_model(around.folder)), fingerprint


class HuggingFaceSection(Backend):
    """A local model run by transformers; see `der_graph.nodes.huggingface.chat.HuggingFaceChat`."""

    backend: Literal["huggingface"]
    model: str
    """Hub id, folder or .gguf file; paths are relative to the pool file."""
    adapter: str | None = None
    """Folder of a LoRA adapter, relative to the pool file."""
    revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["4bit", "8bit", "int8", "int4", "float8"] | None = None
    """`4bit`, `8bit`: bitsandbytes; `int8`, `int4`, `float8`: torchao."""
    generation: dict[str, Any] = Field(default_factory=dict)
    prompt_format: str | None = None
    stop: list[str] = Field(default_factory=list)
    reasoning: tuple[str, str] | Literal[False] | None = None
    """Marks of a thought, `["<think>", "</think>"]` where left out; false for none."""
    template_settings: dict[str, Any] = Field(default_factory=dict)
    max_batch_size: int = Field(default=32, ge=1)
    batching: Literal["auto", "continuous", "static"] = "auto"
    """How calls that meet share the model; `auto`: continuous on CUDA, static on the CPU."""
    kv_cache_gb: float | None = Field(default=None, gt=0)
    """GB of keys and values for continuous batching; planned where left out (`der pool check --device`)."""
    offload: bool = False
    """Wait in the machine's memory while other experts that do so need the GPU."""

    def _build(self, around: Surroundings) -> tuple[Any, str]:
        """See `Backend`."""
        model = HuggingFaceChat(
            device=expand_variables(self.device, "device"),
            quantization=self.quantization,
            max_batch_size=self.max_batch_size,
            batching=self.batching,
            kv_cache_gb=self.kv_cache_gb,
            offload=self.offload,
            **_local(self, around.folder),
        )
        return model, model.fingerprint


class VLLMSection(Backend):
    """A local model run by vLLM; see `der_graph.nodes.huggingface.vllm.VLLMChat`."""

    backend: Literal["vllm"]
    model: str
    """Hub id or folder; paths are relative to the pool file."""
    adapter: str | None = None
    """Folder of a LoRA adapter, relative to the pool file; experts of one model share its weights."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    engine: dict[str, Any] = Field(default_factory=dict)
    """Settings of vLLM's `AsyncEngineArgs`, such as `{gpu_memory_utilization: 0.4}`."""
    generation: dict[str, Any] = Field(default_factory=dict)
    prompt_format: str | None = None
    stop: list[str] = Field(default_factory=list)
    reasoning: tuple[str, str] | Literal[False] | None = None
    """Marks of a thought, `["<think>", "</think>"]` where left out; false for none."""
    template_settings: dict[str, Any] = Field(default_factory=dict)

    def _build(self, around: Surroundings) -> tuple[Any, str]:
        """See `Backend`."""
        model = VLLMChat(engine=self.engine, **_local(self, around.folder))
        return model, model.fingerprint


class LangChainSection(Backend):
    """A provider's model through LangChain's `init_chat_model`."""

    backend: Literal["langchain"]
    model: str
    """Such as `openai:gpt-4o-mini`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Passed on; write secrets as `${VARIABLE}`."""
    max_concurrency: int = Field(default=8, ge=1)
    """Most calls in flight at this model, over everything that asks it."""
    inputs: list[Literal["image", "audio", "video", "pdf"]] = Field(default_factory=list)
    """What it reads beside text, where LangChain's profile of the model does not say."""
    reasoning: tuple[str, str] | Literal[False] | None = None
    """Marks of a thought in its text; those of the known models where left out; false for none."""

    def _build(self, around: Surroundings) -> tuple[Any, str]:
        """See `Backend`."""
        settings = expand_variables(self.settings, "settings")
        chat = as_chat_runnable(expand_variables(self.model, "model"), **settings)
        model = bounded(without_retries(chat, self.timeout), self.max_concurrency)
        return model, fingerprint_of(self.model, settings)


class RecordedSection(Backend):
    """Replays recorded answers; see `der_graph.nodes.recorded.RecordedChat`."""

    backend: Literal["recorded"] = "recorded"
    data: str | list[str] | None = None
    """Data file with candidates, or several, relative to the pool file; the pool's `data` where left out."""
    model: str | None = None
    """Name of the model in the data file; the expert's name where left out."""

    def _build(self, around: Surroundings) -> tuple[Any, str]:
        """See `Backend`."""
        found = [str(path) for path in data_files(self.data, around.folder)]
        found = found or list(around.recorded)
        if not found:
            raise PoolError(
                "it replays recorded answers, and there are none: name the file under 'data:', here or for "
                "the whole pool, or give a data file with candidates as --data"
            )
        data = found[0] if len(found) == 1 else found
        model = RecordedChat(data=data, model=self.model or self.name)
        return model, model.fingerprint


class PythonSection(Backend):
    """A function, chat model or Runnable in a Python module; runs only where the user allows it."""

    backend: Literal["python"]
    model: str
    """`module:name`; the module is installed, or lies beside the pool file."""

    def _build(self, around: Surroundings) -> tuple[Any, str]:
        """See `Backend`."""
        found = _python(self.model, around)
        return as_chat_runnable(found), fingerprint_of(found, {})


ExpertSection = (
    HuggingFaceSection | VLLMSection | LangChainSection | RecordedSection | PythonSection
)

BACKENDS = ("huggingface", "vllm", "langchain", "recorded", "python")
"""Their names."""


def expert_of(section: Backend, around: Surroundings) -> Expert:
    """Make an expert of its entry.

    Args:
        section: The entry.
        around: What it is read with.

    Raises:
        DERError: If it cannot be an expert.
    """
    unit = around.unit
    check_name(section.name)  # before anything is looked for
    model, fingerprint = section._build(around)
    prices = section.token_prices
    recorded_only = isinstance(section, RecordedSection)
    remote = section if isinstance(section, LangChainSection) else None
    said: list[float] = []
    if recorded_only and section.cost is None and unit == "usd":
        said = costs_in(model.files).get(model.model, [])
    cost = sum(said) / len(said) if said else _cost(section.cost, model, unit)
    seconds = section.seconds
    if seconds is None and unit == "seconds":
        seconds = cost or None  # the price is the time
    if seconds is not None and isinstance(model, HuggingFaceChat):
        seconds += model.seconds_to_come  # it may be another's turn
    return Expert(
        name=section.name,
        model=model,
        cost=cost,
        seconds=seconds,
        timeout=section.timeout,
        description=section.description,
        # Recorded answers were given without knowledge of others, to the bare question.
        ktp=template_of(section.ktp, section.name)
        or (TEMPLATES["none"] if recorded_only else None),
        system=section.system,
        token_prices=None if prices is None else TokenPrices(**prices.model_dump()),
        second_price=around.second_price,
        skill=section.skill,
        fingerprint=fingerprint,
        max_answer_chars=section.max_answer_chars or MAX_ANSWER_CHARS,
        context_length=section.context_length,
        inputs=frozenset(remote.inputs) if remote else frozenset(),
        thought_marks=marks_of(remote.reasoning) if remote else THOUGHT_MARKS,
    )


def data_files(given: str | list[str] | None, folder: Path) -> list[Path]:
    """The data files that a pool file names.

    Raises:
        PoolError: If there is no such file.
    """
    names = [] if given is None else [given] if isinstance(given, str) else given
    found = []
    for name in names:
        path = (folder / os.path.expanduser(expand_variables(name, "data"))).resolve()
        if not path.is_file():
            raise PoolError(f"data '{name}': there is no such file ({path})")
        found.append(path)
    return found


def costs_in(files: Sequence[str]) -> dict[str, list[float]]:
    """What the answers of each model cost, in order of appearance; none for answers that do not say.

    Raises:
        DataError: If a file cannot be read.
    """
    costs: dict[str, list[float]] = {}
    for example in (each for file in files for each in load_examples(file)):
        for model, candidate in example.candidates.items():
            known = costs.setdefault(model, [])
            if candidate.cost is not None:
                known.append(candidate.cost)
    return costs


def _python(name: str, around: Surroundings) -> Any:
    """What `module:name` names, if code may be run.

    Raises:
        PoolError: If it may not.
        PluginError: If it cannot be imported.
    """
    if not (
        around.allow_python or os.environ.get(ALLOW_PYTHON, "").lower() in ("1", "true", "yes")
    ):
        raise PoolError(
            f"backend 'python' would run the code of '{name}', which is off unless you allow it: if you "
            f"trust this pool file, give --allow-python, {ALLOW_PYTHON}=1 in the environment, or "
            "load_pool(..., allow_python=True)"
        )
    beside = str(around.folder.resolve())
    if beside not in sys.path:
        sys.path.append(beside)  # last: a file beside a pool file takes no installed module's place
    return import_object(name)


def _local(section: HuggingFaceSection | VLLMSection, folder: Path) -> dict[str, Any]:
    """What local models of all engines have."""
    adapter = expand_variables(section.adapter, "adapter")
    return {
        "model": _model_path(expand_variables(section.model, "model"), folder),
        "adapter": None
        if adapter is None
        else str((folder / os.path.expanduser(adapter)).resolve()),
        "revision": section.revision,
        "dtype": section.dtype,
        "generation": section.generation,
        "prompt_format": section.prompt_format,
        "stop": section.stop,
        "reasoning": THINK_TAGS if section.reasoning is None else section.reasoning or None,
        "template_settings": section.template_settings,
    }


def _model_path(model: str, folder: Path) -> str:
    """A path relative to the pool file, where that is what is meant; else the hub id as it is."""
    path = folder / os.path.expanduser(model)
    if path.exists() or model.endswith(".gguf") or model.startswith((".", "~", "/")):
        return str(path.resolve())
    # 'experts/solver' may be a hub id or a folder; a folder 'experts' beside the file decides.
    if "/" in model and (folder / model.split("/")[0]).is_dir():
        raise PoolError(f"model '{model}': there is no such folder ({path})")
    return model


def template_of(given: str | KTPSection | None, name: str) -> KTPTemplate | None:
    """The Knowledge Transfer Prompt that an entry means; None where it leaves that open.

    Args:
        given: A template's name, or its texts.
        name: For a template of one's own.

    Raises:
        PoolError: If there is no such template, or its texts cannot be used.
    """
    if isinstance(given, KTPSection):
        return KTPTemplate(name, given.transfer, given.first, given.max_answer_tokens)
    return None if given is None else ktp_template(given)


def _cost(given: float | None, model: Any, unit: CostUnit) -> float:
    if given is not None:
        return given
    size = (
        model.parameters_b
        if isinstance(model, HuggingFaceChat) and unit == "parameters_b"
        else None
    )
    if size is None:
        why = (
            "it can be left out only if the weights are on this machine"
            if isinstance(model, HuggingFaceChat) and unit == "parameters_b"
            else "it can be left out only for local models where cost_unit is parameters_b"
        )
        raise PoolError(f"cost is missing; {why}")
    return float(f"{size:.4g}")


def expand_variables(value: Any, where: str) -> Any:
    """Replace `${NAME}` by the environment variable, in texts at any depth.

    `${NAME:-text}` stands for the text where the variable is empty or not set.

    Raises:
        PoolError: If a variable is not set.
    """
    if isinstance(value, str):

        def look_up(match: re.Match[str]) -> str:
            found = os.environ.get(match.group(1))
            if not found and match.group(2) is not None:
                found = match.group(2)
            if found is None:
                raise PoolError(f"{where}: environment variable {match.group(1)} is not set")
            return found

        return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", look_up, value)
    if isinstance(value, Mapping):
        return {key: expand_variables(each, where) for key, each in value.items()}
    if isinstance(value, list):
        return [expand_variables(each, where) for each in value]
    return value
