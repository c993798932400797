"""The pool: which experts there are, in a fixed order. Pool file in, experts out.

    "demo" | pool.yaml ──load_pool──> Pool ──create_der_graph──> one node per expert

Models are described here and loaded when they are first asked, or by `preload`. Of agents it knows that
one may have an encoder to load.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableLambda

from der_graph.errors import AgentError, DERError, PoolError, UnknownExpertError
from der_graph.nodes.decision import agent_for_pool
from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.vllm import VLLMChat
from der_graph.nodes.ktp import TEMPLATES, KTPTemplate, ktp_template
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.reliability import Hedge, bare, check_hedge, describe_error
from der_graph.nodes.reliability.charge import token_prices
from der_graph.nodes.rules import RouteRules
from der_graph.pool.backends import CostUnit, Surroundings, data_files, expert_of, template_of
from der_graph.pool.memory import check_memory, share_memory
from der_graph.pool.pool_file import read_pool_file
from der_graph.pool.recorded import experts_of_answers, is_data_file
from der_graph.state import MAX_STEPS, Situation


@dataclass(frozen=True)
class PoolSettings:
    """What holds for a whole pool.

    Attributes:
        max_steps: Longest route, in calls.
        cost_unit: What costs count: `parameters_b`, `usd`, `seconds` or `calls`.
        ktp: The Knowledge Transfer Prompt of experts without one of their own; None for the default.
        repeat_experts: May an expert be asked twice on one route?
        agent: Who decides where nobody says: `planner`, `demo`, an agent's folder or Hub id; None for the
            planner.
        profile: File of `der probe`, for the planner; None for none.
        parallel: How many experts the first step of a route asks at once.
        hedge: When an expert takes its time, so that the next best is asked too: seconds, or a percentile of
            its own times such as `p95`; None for never.
    """

    max_steps: int = MAX_STEPS
    cost_unit: CostUnit = "parameters_b"
    ktp: KTPTemplate | None = None
    repeat_experts: bool = False
    agent: str | None = None
    profile: str | None = None
    parallel: int = 1
    hedge: Hedge | None = None


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
        if self.settings.hedge is not None:
            check_hedge(self.settings.hedge)

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

    @cached_property
    def rules(self) -> RouteRules:
        """What is allowed on a route over this pool."""
        return RouteRules.of(
            self.experts,
            max_steps=self.settings.max_steps,
            repeat_experts=self.settings.repeat_experts,
            cost_unit=self.settings.cost_unit,
        )

    @property
    def fingerprint(self) -> str:
        """Changes when an answer of the pool may change."""
        digest = hashlib.sha256()
        for expert in self.experts:
            ktp = (expert.ktp or self.settings.ktp or TEMPLATES["default"]).fingerprint
            parts = (expert.name, expert.identity, expert.system or "", ktp)
            digest.update("\x00".join(parts).encode() + b"\x01")
        return digest.hexdigest()[:16]

    def preload(self, progress: Callable[[str], None] | None = None) -> None:
        """Load all models now instead of when they are first asked.

        Args:
            progress: Gets a line before each expert is loaded.

        Raises:
            DERError: If a model cannot be loaded; names the expert.
        """
        # First make all weights ready, then load: converting takes memory that loading wants as well.
        for step in ("prepare", "load"):
            for number, expert in enumerate(self.experts, 1):
                act = getattr(expert.model, step, None)
                if act is None:
                    continue
                if progress is not None and step == "load":
                    progress(f"loading {expert.name} ({number} of {len(self.experts)})")
                try:
                    act()
                except DERError as error:
                    raise type(error)(f"expert '{expert.name}': {error}") from error


def preload(agent: Any, pool: Pool, progress: Callable[[str], None] = lambda line: None) -> None:
    """Load what agent and experts load when they are first used. Takes its time: not for an event loop.

    Args:
        agent: The agent; its sentence encoder is loaded, if it has one.
        pool: The experts.
        progress: Gets a line before each part.

    Raises:
        DERError: If something cannot be loaded, an expert's error names it; or if the agent cannot decide.
    """
    load_encoder(agent, progress)
    try_agent(agent, pool)
    progress("making the experts' weights ready")
    pool.preload(progress)


def load_encoder(agent: Any, progress: Callable[[str], None]) -> None:
    """Load the text encoder of an agent that has one, which takes some seconds; see `preload`."""
    encoder = getattr(getattr(agent, "observer", agent), "encoder", None)
    if encoder is not None:
        progress("loading the agent's text encoder")
        encoder.encode(["warm up"])


def try_agent(agent: Any, pool: Pool) -> None:
    """Let a trained agent decide once, so that one that cannot is found before anybody asks.

    Raises:
        AgentError: If it fails, or gives no numbers.
    """
    if not hasattr(agent, "save_pretrained"):
        return  # the user's own: what it does when asked is not ours to try
    mask = [*(True for _ in pool), False]
    trial = Situation("What is 2 + 3?", [], mask, max_steps=pool.settings.max_steps)
    try:
        choice = agent_for_pool(agent, pool.rules).decide([trial])[0]
    except DERError:
        raise
    except Exception as error:
        raise AgentError(
            f"the agent cannot decide: {describe_error(error)}; is its folder, or its text encoder, damaged?"
        ) from error
    if not all(map(math.isfinite, choice.probabilities)):
        raise AgentError(
            "the agent's probabilities are no numbers; is its folder, or its text encoder, damaged?"
        )


def pool_from(experts: Sequence[Expert], **settings: Any) -> Pool:
    """Make a pool of experts; settings are those of `PoolSettings`."""
    if "ktp" in settings:
        settings["ktp"] = ktp_template(settings["ktp"])
    return Pool(tuple(experts), PoolSettings(**settings))


def load_pool(
    pool: str | Path = "demo",
    *,
    recorded: Sequence[str | Path] = (),
    allow_python: bool = False,
) -> Pool:
    """Load a pool. Models are loaded when they are first asked.

    Args:
        pool: `demo` for the pool that is shipped, or the path of a pool file; or of a data file with
            `candidates`, whose models are the experts and replay what they answered there.
        recorded: More data files whose `candidates` those experts replay that name no data of their own.
        allow_python: Run the Python code that experts of `backend: python` name; a pool file may then do
            whatever you may. The environment variable `DER_ALLOW_PYTHON=1` allows it too.

    Raises:
        PoolError: If the file, or an expert in it, cannot be used.
    """
    path = pool_path(pool)
    if is_data_file(path):
        return pool_of_answers(path, recorded)
    content = read_pool_file(path, recorded=bool(recorded))
    try:
        files = [str(file) for file in (*data_files(content.data, path.parent), *recorded)]
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from None
    experts = []
    around = Surroundings(
        path.parent,
        content.settings.cost_unit,
        content.settings.second_price,
        files,
        allow_python,
    )
    for section in content.experts:
        try:
            experts.append(expert_of(section, around))
        except DERError as error:
            raise _placed(error, path, section.name) from error
    share_memory(experts)
    try:
        settings = content.settings
        return Pool(
            tuple(experts),
            PoolSettings(
                settings.max_steps,
                settings.cost_unit,
                template_of(settings.ktp, "pool"),
                settings.repeat_experts,
                _agent_path(settings.agent, path.parent),
                None
                if settings.profile is None
                else str((path.parent / os.path.expanduser(settings.profile)).resolve()),
                settings.parallel,
                settings.hedge,
            ),
        )
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from error


def pool_of_answers(data: Path, more: Sequence[str | Path] = ()) -> Pool:
    """The pool of the models that answered in a data file; see `der_graph.pool.recorded`."""
    experts, unit = experts_of_answers(data, more)
    return Pool(tuple(experts), PoolSettings(cost_unit=unit))


def _agent_path(agent: str | None, folder: Path) -> str | None:
    """A folder relative to the pool file, where that is what is meant; else the name as it is."""
    if agent is None or agent in ("planner", "demo"):
        return agent
    found = folder / os.path.expanduser(agent)
    return str(found.resolve()) if found.exists() or agent.startswith((".", "~", "/")) else agent


def pool_path(pool: str | Path) -> Path:
    """The pool file that is meant."""
    if pool == "demo":
        return Path(str(files("der_graph") / "demo" / "pool.yaml"))
    path = Path(os.path.expanduser(pool))
    return path / "pool.yaml" if path.is_dir() else path


def check_pool(
    pool: str | Path,
    *,
    device: str | None = None,
    memory_gb: float | None = None,
    allow_python: bool = False,
) -> list[str]:
    """Check a pool file; gives one line an expert: name, backend, where the model is, size, cost.

    Args:
        pool: `demo`, or the path of a pool file.
        device: Plan the memory of this GPU as well, such as `cuda`.
        memory_gb: GB of that GPU, where it is not in this machine.
        allow_python: As in `load_pool`.

    Raises:
        PoolError: If the file, or an expert in it, cannot be used.
    """
    loaded = load_pool(pool, allow_python=allow_python)
    unit = {"parameters_b": "B parameters", "usd": "US dollars", "seconds": "s", "calls": "calls"}[
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
    if loaded.settings.cost_unit == "usd":
        lines += [line for expert in loaded for line in _cheap_tokens(expert)]
    lines += _copies(loaded)
    if device is not None:
        lines += ["", *check_memory(loaded.experts, device, memory_gb)]
    return lines


_CHEAPEST = 0.005
"""Dollars for a million output tokens, below which no provider sells them."""


def _cheap_tokens(expert: Expert) -> list[str]:
    """A warning where prices of tokens look like those of a thousand, or of one."""
    prices = token_prices(expert.token_prices)
    if prices is None or not 0 < prices.output < _CHEAPEST:
        return []
    return [
        f"warning: {expert.name}: token_prices are dollars per million tokens, and {prices.output:g} is less "
        "than anyone asks for: it may be the price of a thousand tokens, or of one"
    ]


def _copies(pool: Pool) -> list[str]:
    """A warning for each model that is there several times: the same one, set and told the same."""
    alike: dict[tuple[str, str], list[str]] = {}
    for expert in pool:
        if expert.fingerprint:
            alike.setdefault((expert.fingerprint, expert.system or ""), []).append(expert.name)
    return [
        f"warning: {' and '.join(names)} are the same model with the same settings: copies agree with each "
        "other, which is no evidence, and routes get worse; keep one of them"
        for names in alike.values()
        if len(names) > 1
    ]


def _described(model: Any) -> tuple[str, str, str]:
    if isinstance(model, HuggingFaceChat):
        where = f"{model.model} ({model.weights.where})" if model.weights else model.model
        adapter = f" + adapter {model.adapter}" if model.adapter else ""
        size = model.parameters_b
        backend = "vllm" if isinstance(model, VLLMChat) else "huggingface"
        return backend, where + adapter, f", {size:.3g} B parameters" if size else ""
    if isinstance(model, RecordedChat):
        model.load()
        return "recorded", f"{model.model} in {model.where}", ""
    inner = bare(model)
    if isinstance(inner, RunnableLambda):
        return "python", f"function {inner.get_name()}", ""
    return "langchain", type(inner).__name__, ""


def _placed(error: DERError, path: Path, name: str) -> DERError:
    kind = type(error) if isinstance(error, DERError) else PoolError
    return kind(f"{path}: expert '{name}': {error}")
