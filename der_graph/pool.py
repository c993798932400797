"""The pool: which experts there are, in a fixed order. Pool file in, experts out.

    "demo" | pool.yaml ──load_pool──> Pool ──create_der_graph──> one node per expert

Models are described here and loaded when they are first asked, or by `preload`. Knows nothing of agents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from der_graph.errors import DERError, PoolError, UnknownExpertError
from der_graph.nodes.expert import Expert, check_name
from der_graph.nodes.huggingface import THINK_TAGS, HuggingFaceChat
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, ktp_template
from der_graph.nodes.langchain import as_chat_runnable, fingerprint_of
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.pool_file import (
    CostUnit,
    HuggingFaceSection,
    KTPSection,
    LangChainSection,
    PoolFile,
    RecordedSection,
    expand_variables,
    read_pool_file,
)


@dataclass(frozen=True)
class PoolSettings:
    """What holds for a whole pool.

    Attributes:
        max_steps: Longest route, in calls.
        cost_unit: What costs count: `parameters_b`, `usd` or `seconds`.
        ktp: The Knowledge Transfer Prompt of experts without one of their own; None for the default.
        repeat_experts: May an expert be asked twice on one route?
    """

    max_steps: int = 4
    cost_unit: CostUnit = "parameters_b"
    ktp: KTPTemplate | None = None
    repeat_experts: bool = False


@dataclass(frozen=True)
class Pool:
    """Experts in a fixed order, which is the order that agents know.

    Attributes:
        experts: The experts.
        settings: What holds for all of them.

    Raises:
        PoolError: If there is none, or a name is used twice.
    """

    experts: tuple[Expert, ...]
    settings: PoolSettings = field(default_factory=PoolSettings)

    def __post_init__(self) -> None:
        if not self.experts:
            raise PoolError("the pool has no experts; add at least one")
        names = [expert.name for expert in self.experts]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise PoolError(f"two experts are named '{doubled[0]}'; names must be unique")

    def __iter__(self) -> Iterator[Expert]:
        return iter(self.experts)

    def __len__(self) -> int:
        return len(self.experts)

    def __getitem__(self, name: str) -> Expert:
        """The expert of a name.

        Raises:
            UnknownExpertError: If there is none; lists those there are.
        """
        for expert in self.experts:
            if expert.name == name:
                return expert
        raise UnknownExpertError(
            f"there is no expert '{name}'; the pool has: {', '.join(self.names)}"
        )

    def __contains__(self, name: object) -> bool:
        return name in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts, in order."""
        return tuple(expert.name for expert in self.experts)

    @property
    def rules(self) -> RouteRules:
        """What is allowed on a route over this pool."""
        return RouteRules(
            self.names,
            tuple(expert.cost for expert in self.experts),
            self.settings.max_steps,
            self.settings.repeat_experts,
        )

    @property
    def fingerprint(self) -> str:
        """Changes when an answer of the pool may change."""
        digest = hashlib.sha256()
        for expert in self.experts:
            ktp = (expert.ktp or self.settings.ktp or TEMPLATES["default"]).fingerprint
            parts = (expert.name, expert.fingerprint, expert.system or "", ktp)
            digest.update("\x00".join(parts).encode() + b"\x01")
        return digest.hexdigest()[:16]

    def preload(self, progress: Callable[[str], None] | None = None) -> None:
        """Load all models now instead of when they are first asked.

        Args:
            progress: Gets a line before each expert is loaded.

        Raises:
            DERError: If a model cannot be loaded; names the expert.
        """
        for number, expert in enumerate(self.experts, 1):
            load = getattr(expert.model, "load", None)
            if load is None:
                continue
            if progress is not None:
                progress(f"loading {expert.name} ({number} of {len(self.experts)})")
            try:
                load()
            except DERError as error:
                raise type(error)(f"expert '{expert.name}': {error}") from error


def pool_from(experts: Sequence[Expert], **settings: Any) -> Pool:
    """Make a pool of experts; settings are those of `PoolSettings`."""
    if "ktp" in settings:
        settings["ktp"] = ktp_template(settings["ktp"])
    return Pool(tuple(experts), PoolSettings(**settings))


def load_pool(pool: str | Path = "demo") -> Pool:
    """Load a pool. Models are loaded when they are first asked.

    Args:
        pool: `demo` for the pool that is shipped, or the path of a pool file.

    Raises:
        PoolError: If the file, or an expert in it, cannot be used.
    """
    path = pool_path(pool)
    content = read_pool_file(path)
    experts = []
    for section in content.experts:
        try:
            experts.append(_expert(section, content, path.parent))
        except DERError as error:
            raise _placed(error, path, section.name) from error
    try:
        settings = content.settings
        return Pool(
            tuple(experts),
            PoolSettings(
                settings.max_steps,
                settings.cost_unit,
                _template(settings.ktp, "pool"),
                settings.repeat_experts,
            ),
        )
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from error


def pool_path(pool: str | Path) -> Path:
    """The pool file that is meant."""
    if pool == "demo":
        return Path(str(files("der_graph") / "demo" / "pool.yaml"))
    path = Path(pool).expanduser()
    return path / "pool.yaml" if path.is_dir() else path


def check_pool(pool: str | Path) -> list[str]:
    """Check a pool file; gives one line an expert: name, backend, where the model is, size, cost.

    Raises:
        PoolError: If the file, or an expert in it, cannot be used.
    """
    loaded = load_pool(pool)
    unit = {"parameters_b": "B parameters", "usd": "US dollars", "seconds": "s"}[
        loaded.settings.cost_unit
    ]
    width = max(map(len, loaded.names))
    lines = []
    for expert in loaded:
        backend, where, size = _described(expert.model)
        prices = expert.token_prices
        charge = f"at most {expert.cost:g}" if prices else f"{expert.cost:g}"
        lines.append(
            f"{expert.name:<{width}}  {backend:<11}  {where}{size}, cost {charge} {unit} a call"
        )
    return lines


def _described(model: Any) -> tuple[str, str, str]:
    if isinstance(model, HuggingFaceChat):
        where = f"{model.model} ({model.weights.where})" if model.weights else model.model
        adapter = f" + adapter {model.adapter}" if model.adapter else ""
        size = model.parameters_b
        return "huggingface", where + adapter, f", {size:.3g} B parameters" if size else ""
    if isinstance(model, RecordedChat):
        model.load()
        return "recorded", f"{model.model} in {model.data}", ""
    return "langchain", type(getattr(model, "bound", model)).__name__, ""


def _expert(
    section: HuggingFaceSection | LangChainSection | RecordedSection,
    content: PoolFile,
    folder: Path,
) -> Expert:
    check_name(section.name)  # before anything is looked for
    if isinstance(section, HuggingFaceSection):
        model: Any = _huggingface(section, folder)
        fingerprint = model.fingerprint
    elif isinstance(section, LangChainSection):
        settings = expand_variables(section.settings, "settings")
        model = as_chat_runnable(expand_variables(section.model, "model"), **settings)
        fingerprint = fingerprint_of(section.model, settings)
    else:
        data = (folder / Path(expand_variables(section.data, "data")).expanduser()).resolve()
        if not data.is_file():
            raise PoolError(f"data '{section.data}': there is no such file ({data})")
        model = RecordedChat(data=str(data), model=section.model or section.name)
        fingerprint = model.fingerprint
    prices = section.token_prices
    recorded = isinstance(section, RecordedSection)
    return Expert(
        name=section.name,
        model=model,
        cost=_cost(section.cost, model, content.settings.cost_unit),
        description=section.description,
        # Recorded answers were given without knowledge of others, to the bare question.
        ktp=_template(section.ktp, section.name) or (TEMPLATES["none"] if recorded else None),
        system=section.system,
        token_prices=None if prices is None else (prices.input, prices.output),
        fingerprint=fingerprint,
    )


def _huggingface(section: HuggingFaceSection, folder: Path) -> HuggingFaceChat:
    adapter = expand_variables(section.adapter, "adapter")
    return HuggingFaceChat(
        model=_model_path(expand_variables(section.model, "model"), folder),
        adapter=None if adapter is None else str((folder / Path(adapter).expanduser()).resolve()),
        revision=section.revision,
        device=expand_variables(section.device, "device"),
        dtype=section.dtype,
        quantization=section.quantization,
        generation=section.generation,
        prompt_format=section.prompt_format,
        stop=section.stop,
        reasoning=THINK_TAGS if section.reasoning is None else section.reasoning or None,
        template_settings=section.template_settings,
        max_batch_size=section.max_batch_size,
    )


def _model_path(model: str, folder: Path) -> str:
    """A path relative to the pool file, where that is what is meant; else the hub id as it is."""
    path = folder / Path(model).expanduser()
    if path.exists() or model.endswith(".gguf") or model.startswith((".", "~", "/")):
        return str(path.resolve())
    # 'experts/solver' may be a hub id or a folder; a folder 'experts' beside the file decides.
    if "/" in model and (folder / model.split("/")[0]).is_dir():
        raise PoolError(f"model '{model}': there is no such folder ({path})")
    return model


def _template(given: str | KTPSection | None, name: str) -> KTPTemplate | None:
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


def _placed(error: DERError, path: Path, name: str) -> DERError:
    kind = type(error) if isinstance(error, DERError) else PoolError
    return kind(f"{path}: expert '{name}': {error}")
