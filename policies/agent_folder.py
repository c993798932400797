"""The agent's folder: where it is, and what its config says.

    agent.safetensors   weights and profiles
    config.json         everything else; written last, so a folder with it is whole

A folder on disk, or a repository on the Hugging Face Hub. Nothing in it is unpickled.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from der_graph.errors import AgentError
from der_graph.policies.features import EXPERT_FEATURES, STATE_FEATURES

FORMAT = 1
"""Version of the agent folder; raised when older code could not read it."""
WEIGHTS_FILE = "agent.safetensors"
CONFIG_FILE = "config.json"


def agent_kind(folder: Path) -> str | None:
    """What `kind` in the config says; None where it says nothing, or cannot be read."""
    try:
        kind: str | None = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get(
            "kind"
        )
    except (OSError, ValueError, AttributeError):
        return None  # what is wrong with it is said by who reads it
    return kind


def find_agent_folder(given: str | os.PathLike[str]) -> Path:
    """The folder of an agent; one on the Hub is fetched.

    Raises:
        AgentError: If there is none.
    """
    path = Path(given)
    if path.is_dir():
        return path
    if str(given).count("/") == 1 and not str(given).startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    str(given), allow_patterns=[WEIGHTS_FILE, CONFIG_FILE, "encoder/*"]
                )
            )
        except Exception as error:
            raise AgentError(
                f"agent '{given}' is neither a folder here nor could it be fetched from the Hub: {error}"
            ) from error
    raise AgentError(
        f"agent '{given}': no such folder. Give 'demo', a folder written by der train, or a Hub id."
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read and check the config of an agent folder.

    Raises:
        AgentError: If it is not one, or needs a newer version.
    """
    file = path / CONFIG_FILE
    for wanted in (file, path / WEIGHTS_FILE):
        if not wanted.is_file():
            raise AgentError(
                f"{path} is not an agent folder: it has no {wanted.name}. "
                f"der train writes one: {CONFIG_FILE} and {WEIGHTS_FILE}."
            )
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = int(config["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise AgentError(f"{file} is not an agent's config: {error}") from error
    if version > FORMAT:
        raise AgentError(
            f"{file} has format {version}; this version reads up to {FORMAT}. Upgrade der-graph."
        )
    features = config.get("features") or {}
    for part, known in (("state", STATE_FEATURES), ("expert", EXPERT_FEATURES)):
        unknown = [name for name in features.get(part, ["(none named)"]) if name not in known]
        if unknown:
            raise AgentError(
                f"{file}: the agent was trained with the {part} feature '{unknown[0]}', which this version "
                f"does not compute (written by der-graph {config.get('der_graph_version')}); "
                "upgrade der-graph, or train the agent anew"
            )
    return config


def trained_metric(agent: object) -> str:
    """Name of the metric that an agent was trained with; `match` where it does not say."""
    metadata: dict[str, Any] = getattr(agent, "metadata", {})
    return str(metadata.get("training", {}).get("metric") or "match")
