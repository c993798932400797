"""One entry of a pool file becomes an expert: model, price, prompt.

    HuggingFaceSection | VLLMSection | LangChainSection | any other Backend ──expert_of──> Expert

Paths are read as relative to the pool file, and `${VARIABLE}` is replaced. Models are described, not loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from der_graph.errors import PoolError
from der_graph.nodes.expert import MAX_ANSWER_CHARS, Expert, check_name
from der_graph.nodes.fingerprint import fingerprint_of
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.vllm import VLLMChat
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, ktp_template
from der_graph.nodes.langchain import as_chat_runnable, bounded, marks_of, without_retries
from der_graph.nodes.providers import THINK_TAGS, THOUGHT_MARKS
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.plugins import import_object
from der_graph.pool.file import (
    Backend,
    CostUnit,
    HuggingFaceSection,
    KTPSection,
    LangChainSection,
    PythonSection,
    RecordedSection,
    VLLMSection,
    expand_variables,
)
from der_graph.pool.recorded import costs_in

ALLOW_PYTHON = "DER_ALLOW_PYTHON"
"""Environment variable: 1 lets pool files name Python code that is run (`backend: python`)."""


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


def expert_of(section: Backend, around: Surroundings) -> Expert:
    """Make an expert of its entry.

    Args:
        section: The entry.
        around: What it is read with.

    Raises:
        DERError: If it cannot be an expert.
    """
    folder, unit = around.folder, around.unit
    check_name(section.name)  # before anything is looked for
    if isinstance(section, HuggingFaceSection):
        model: Any = _huggingface(section, folder)
        fingerprint = model.fingerprint
    elif isinstance(section, VLLMSection):
        model = VLLMChat(engine=section.engine, **_local(section, folder))
        fingerprint = model.fingerprint
    elif isinstance(section, LangChainSection):
        settings = expand_variables(section.settings, "settings")
        model = bounded(
            without_retries(
                as_chat_runnable(expand_variables(section.model, "model"), **settings),
                section.timeout,
            ),
            section.max_concurrency,
        )
        fingerprint = fingerprint_of(section.model, settings)
    elif isinstance(section, RecordedSection):
        found = [str(path) for path in data_files(section.data, folder)] or list(around.recorded)
        if not found:
            raise PoolError(
                "it replays recorded answers, and there are none: name the file under 'data:', here or for "
                "the whole pool, or give a data file with candidates as --data"
            )
        data = found[0] if len(found) == 1 else found
        model = RecordedChat(data=data, model=section.model or section.name)
        fingerprint = model.fingerprint
    elif isinstance(section, PythonSection):
        found_object = _python(section.model, around)
        fingerprint = fingerprint_of(found_object, {})
        model = as_chat_runnable(found_object)
    else:
        own = section.model_dump(mode="json", exclude=set(Backend.model_fields))
        fingerprint = fingerprint_of(section.backend, own)  # of `${VARIABLE}`, not of the secret
        filled = {name: expand_variables(value, name) for name, value in own.items()}
        filled_in = type(section).model_validate({**section.model_dump(), **filled})
        model = as_chat_runnable(filled_in.make_model(folder))
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
        path = (folder / Path(expand_variables(name, "data")).expanduser()).resolve()
        if not path.is_file():
            raise PoolError(f"data '{name}': there is no such file ({path})")
        found.append(path)
    return found


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


def _huggingface(section: HuggingFaceSection, folder: Path) -> HuggingFaceChat:
    return HuggingFaceChat(
        device=expand_variables(section.device, "device"),
        quantization=section.quantization,
        max_batch_size=section.max_batch_size,
        batching=section.batching,
        kv_cache_gb=section.kv_cache_gb,
        offload=section.offload,
        **_local(section, folder),
    )


def _local(section: HuggingFaceSection | VLLMSection, folder: Path) -> dict[str, Any]:
    """What local models of all engines have."""
    adapter = expand_variables(section.adapter, "adapter")
    return {
        "model": _model_path(expand_variables(section.model, "model"), folder),
        "adapter": None
        if adapter is None
        else str((folder / Path(adapter).expanduser()).resolve()),
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
    path = folder / Path(model).expanduser()
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
