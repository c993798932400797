"""The agent's folder: where it is, and what its config says.

    agent.safetensors   weights and profiles
    config.json         everything else; written last, so a folder with it is whole

A folder on disk, or a repository on the Hugging Face Hub (`hf://owner/name`). Nothing in it is unpickled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import der_graph
from der_graph.data import Example
from der_graph.data.leaks import seen_before
from der_graph.data.untrusted import check_regular, parse_json, read_text
from der_graph.errors import AgentError, DERError, PoolError
from der_graph.nodes.expert import check_name
from der_graph.plugins import plugins
from der_graph.policies.observation import TextEncoder, make_encoder
from der_graph.policies.observation.features import EXPERT_FEATURES, STATE_FEATURES, FeatureNames

if TYPE_CHECKING:
    import torch

FORMAT = 1
"""Version of the agent folder; raised when older code could not read it."""
WEIGHTS_FILE = "agent.safetensors"
CONFIG_FILE = "config.json"
HUB = "hf://"
"""How a repository on the Hub is written, so that no missing folder is ever asked for there."""

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def agent_kind(folder: Path) -> str | None:
    """What `kind` in the config says; None where it says nothing, or cannot be read."""
    try:
        kind: str | None = parse_json(read_text(folder / CONFIG_FILE)).get("kind")
    except (OSError, ValueError, AttributeError):
        return None  # what is wrong with it is said by who reads it
    return kind


def find_agent_folder(given: str | os.PathLike[str]) -> Path:
    """The folder of an agent; one on the Hub, `hf://owner/name`, is fetched.

    A folder's name never leads to the Hub: where it is missing, a stranger may own a repository of that
    name.

    Raises:
        AgentError: If there is none.
    """
    text = str(given)
    if text.startswith(HUB):
        return _fetched(text)
    path = Path(given)
    if path.is_dir():
        return path
    hub = f"; for a repository on the Hub write '{HUB}{text}'" if _HUB_ID.fullmatch(text) else ""
    raise AgentError(
        f"agent '{text}': no such folder. Give 'demo', or a folder written by der train{hub}."
    )


def _fetched(given: str) -> Path:
    repository, _, revision = given.removeprefix(HUB).partition("@")
    if not _HUB_ID.fullmatch(repository):
        raise AgentError(
            f"agent '{given}': a repository on the Hub is {HUB}owner/name, or {HUB}owner/name@revision"
        )
    from huggingface_hub import snapshot_download

    patterns = [WEIGHTS_FILE, CONFIG_FILE, "planner.*", "encoder/*"]
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
        )
    except Exception as error:
        raise AgentError(
            f"agent '{given}' could not be fetched from the Hub: {_cause(error)}"
        ) from error


def read_config(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read and check the config of an agent folder.

    Args:
        path: The folder.
        kind: What `kind` must say; None for the agent that needs none.

    Raises:
        AgentError: If it is not one, is of another kind, or needs a newer version.
    """
    file = path / CONFIG_FILE
    if not file.is_file():
        raise AgentError(
            f"{path} is not an agent folder: it has no {CONFIG_FILE}. "
            f"der train writes one: {CONFIG_FILE} and {WEIGHTS_FILE}."
        )
    try:
        config: dict[str, Any] = parse_json(read_text(file))
        version = int(config["format"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise AgentError(f"{file} is not an agent's config: {error}") from error
    if version > FORMAT:
        raise AgentError(
            f"{file} has format {version}; this version reads up to {FORMAT}. Upgrade der-graph."
        )
    if config.get("kind") != kind:
        raise AgentError(
            f"{file} is of another kind ({config.get('kind')!r}); load_agent reads every kind"
        )
    return config


def read_features(path: Path, config: Mapping[str, Any]) -> FeatureNames:
    """The features that the config of an agent folder names.

    Raises:
        AgentError: If this version does not compute one of them.
    """
    named = config.get("features") or {}
    added = tuple(plugins("features"))
    for part, known in (("state", (*STATE_FEATURES, *added)), ("expert", EXPERT_FEATURES)):
        unknown = [name for name in named.get(part, ["(none named)"]) if name not in known]
        if unknown:
            raise AgentError(
                f"{path / CONFIG_FILE}: the agent was trained with the {part} feature '{unknown[0]}', "
                "which this version does not compute (written by der-graph "
                f"{config.get('der_graph_version')}); upgrade der-graph, install the package that brings "
                "the feature, or train the agent anew"
            )
    return FeatureNames(tuple(named["state"]), tuple(named["expert"]))


_MAY_BE_UNKNOWN = ("probe_quality", "probe_cost", "call_size")
"""What is not known of every expert and question, and is NaN there."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an agent folder, on the CPU.

    Raises:
        AgentError: If they cannot be read.
    """
    from safetensors.torch import load_file

    try:
        check_regular(path / WEIGHTS_FILE)
        tensors = load_file(path / WEIGHTS_FILE)
    except Exception as error:  # safetensors has an exception type of its own
        raise AgentError(_damaged(path, f"{WEIGHTS_FILE}: {_cause(error)}")) from error
    for name, tensor in tensors.items():
        known = ~tensor.isinf() if name.endswith(_MAY_BE_UNKNOWN) else tensor.isfinite()
        if tensor.is_floating_point() and not bool(known.all()):
            raise AgentError(_damaged(path, f"{WEIGHTS_FILE}: '{name}' holds NaN or infinity"))
    return tensors


def same_encoder(given: TextEncoder | None, name: str, folder: Path) -> TextEncoder:
    """The encoder that an agent was trained with, which no other can replace.

    Args:
        given: A caller's; None makes it by its name.
        name: In the agent's config.
        folder: For messages.

    Raises:
        AgentError: If the given one is another.
    """
    if given is None:
        return make_encoder(name)
    if given.name != name:
        raise AgentError(
            f"{folder}: the agent was trained with the encoder '{name}', not with '{given.name}'; its "
            "numbers mean nothing with another one. Leave `encoder` out, or train an agent with yours"
        )
    return given


def check_experts(path: Path, config: Mapping[str, Any]) -> None:
    """Check the experts and prices that a config names.

    Raises:
        AgentError: If a name is used twice or cannot be one, or a number is none or out of range; says which.
    """
    experts = config.get("experts")
    if not isinstance(experts, list) or not experts or not all(map(_is_dict, experts)):
        raise AgentError(_damaged(path, "experts is not a list of experts"))
    names = [each.get("name") for each in experts]
    for number, (name, each) in enumerate(zip(names, experts, strict=True)):
        if not isinstance(name, str) or names.count(name) > 1:
            raise AgentError(_damaged(path, f"experts[{number}].name is {name!r}"))
        try:
            check_name(name)
        except PoolError as error:
            raise AgentError(_damaged(path, str(error))) from None
        _number(path, f"experts[{number}].cost", each.get("cost"))
        index = each.get("index", number)
        if index is None:  # an expert that is not told by its position
            continue
        if type(index) is not int or not 0 <= index < _MOST_EXPERTS:
            raise AgentError(_damaged(path, f"experts[{number}].index is {index!r}"))
    indices = [each.get("index", number) for number, each in enumerate(experts)]
    indices = [index for index in indices if index is not None]
    if len(set(indices)) < len(indices):
        raise AgentError(_damaged(path, "two experts have the same index"))
    _number(path, "cost_weight", config.get("cost_weight"))
    if "cost_weight_range" not in config:  # the paper's agent has one price
        return
    given = config["cost_weight_range"]
    if not isinstance(given, list) or len(given) != 2:
        raise AgentError(_damaged(path, f"cost_weight_range is {given!r}; it is two numbers"))
    low, high = (_number(path, "cost_weight_range", each) for each in given)
    if low > high:
        raise AgentError(_damaged(path, f"cost_weight_range is {given!r}, from high to low"))


_MOST_EXPERTS = 100_000


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _number(path: Path, field: str, value: Any) -> float:
    """A price: finite and not below 0."""
    wrong = isinstance(value, bool) or not isinstance(value, (int, float))
    if wrong or not 0 <= value < float("inf"):
        raise AgentError(_damaged(path, f"{field} is {value!r}; it must be a number >= 0"))
    return float(value)


def part_of(tensors: Mapping[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `part`, by the rest of their names."""
    return {
        name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)
    }


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while an agent is made of its folder into one error that says what to do.

    Raises:
        AgentError: If something does; errors of this project pass as they are.
    """
    try:
        yield
    except DERError:
        raise
    except Exception as error:  # torch and transformers have many ways to fail
        raise AgentError(_damaged(path, _cause(error))) from error


def known_names(config: Mapping[str, Any], field: str) -> list[str]:
    """Names of experts in a field of a config, all of them among its experts; older configs lack the field.

    Raises:
        ValueError: If it is something else.
    """
    names = config.get(field, [])
    known = [expert["name"] for expert in config["experts"]]
    if not isinstance(names, list) or any(name not in known for name in names):
        raise ValueError(f"{field} is {names!r}; it lists experts of the agent")
    return list(names)


def kept_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an agent carries from one folder to the next: how it was trained, on what, and how well."""
    return {key: config[key] for key in ("training", "results", "seen") if key in config}


def write_agent(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    config: Mapping[str, Any],
) -> None:
    """Write an agent folder: each file whole or not at all, the config last.

    Args:
        folder: Made if there is none.
        tensors: Weights and profiles by name.
        config: Everything else; format and version are added.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    part = path / f"{WEIGHTS_FILE}.part"
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, part)
    except SafetensorError as error:  # of the disk, as the arrays are plain
        raise OSError(f"{part}: {_cause(error)}") from None
    os.replace(part, path / WEIGHTS_FILE)
    (path / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    described = {"format": FORMAT, "der_graph_version": der_graph.__version__, **config}
    part = path / f"{CONFIG_FILE}.part"
    part.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path / CONFIG_FILE)


def trained_metric(agent: object) -> str:
    """Name of the metric that an agent was trained with; `match` where it does not say."""
    metadata: dict[str, Any] = getattr(agent, "metadata", {})
    return str(metadata.get("training", {}).get("metric") or "match")


def learnt_from(agent: object, examples: Sequence[Example], *, chosen_by: bool = True) -> list[int]:
    """Positions of the questions that an agent was trained on; none if it does not say.

    Args:
        agent: The agent.
        examples: The questions.
        chosen_by: With those that it was chosen by (dev)?
    """
    seen: dict[str, str] = getattr(agent, "metadata", {}).get("seen") or {}
    parts = [digests for part, digests in seen.items() if chosen_by or part != "dev"]
    return sorted({i for digests in parts for i in seen_before(examples, digests)})


def _damaged(path: Path, cause: str) -> str:
    return f"agent folder {path} is damaged: {cause}. Copy it again, or train anew."


def _cause(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
