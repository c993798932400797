"""A training run at rest, on disk: everything that its future depends on, as tensors and plain data.

Weights, optimizer, random generators, the order of the questions and the routes in progress. A run that goes
on from here has the same numbers as one that was never stopped. Read with torch's `weights_only`, so loading
a checkpoint cannot run code.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from der_graph.errors import AgentError
from der_graph.policies.env import RoutingVecEnv
from der_graph.policies.train_config import TrainConfig

CHECKPOINT_FILE = "checkpoint.pt"
CURVE_FILE = "progress.csv"
CHECKPOINT_FORMAT = 1


def write_checkpoint(
    folder: Path,
    config: TrainConfig,
    names: Sequence[str],
    model: Any,
    env: RoutingVecEnv,
    own: dict[str, Any],
) -> None:
    """Write a checkpoint; whole or not at all.

    Args:
        folder: Of the run.
        config: The run's settings.
        names: The experts, in order.
        model: SB3's model, between an update and the next rollout.
        env: Its environment.
        own: What else to keep, as plain data.
    """
    checkpoint = {
        "format": CHECKPOINT_FORMAT,
        "config": json.dumps(config.plain(), sort_keys=True),
        "experts": list(names),
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "env": json.dumps(env.state()),
        "numpy": json.dumps(_numpy_state()),
        "torch": torch.get_rng_state(),
        "starts": torch.as_tensor(np.asarray(model._last_episode_starts)),
        "own": json.dumps(own),
    }
    part = folder / f"{CHECKPOINT_FILE}.part"
    torch.save(checkpoint, part)
    os.replace(part, folder / CHECKPOINT_FILE)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        AgentError: If there is none, or it is damaged.
    """
    if not path.is_file():
        raise AgentError(f"nothing to resume: {path} does not exist; run without --resume")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise AgentError(
            f"{path} is damaged ({type(error).__name__}); delete it and train again. "
            "Answers already generated are in the answer cache and are not asked again."
        ) from error
    if checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise AgentError(f"{path} has format {checkpoint.get('format')}; train anew")
    return checkpoint


def apply_checkpoint(
    checkpoint: dict[str, Any],
    config: TrainConfig,
    names: Sequence[str],
    model: Any,
    env: RoutingVecEnv,
) -> dict[str, Any]:
    """Put model, environment and random generators where the checkpoint left them.

    Returns:
        What `write_checkpoint` was given as `own`.

    Raises:
        AgentError: If it was made with other settings or for another pool.
    """
    now, then = json.loads(json.dumps(config.plain())), json.loads(checkpoint["config"])
    changed = [
        f"{key} was {then[key]!r}, is {now.get(key)!r}" for key in then if now.get(key) != then[key]
    ]
    if checkpoint["experts"] != list(names):
        changed.append(f"the pool was {', '.join(checkpoint['experts'])}, is {', '.join(names)}")
    if changed:
        raise AgentError(
            f"the checkpoint was made with other settings ({'; '.join(changed)}); resume with the same ones"
        )
    model.policy.load_state_dict(checkpoint["policy"])
    model.policy.optimizer.load_state_dict(checkpoint["optimizer"])
    model.num_timesteps = checkpoint["steps"]
    model._n_updates = checkpoint["updates"]
    model._last_obs = env.restore(json.loads(checkpoint["env"]))
    model._last_episode_starts = checkpoint["starts"].numpy()
    _restore_numpy(json.loads(checkpoint["numpy"]))
    torch.set_rng_state(checkpoint["torch"])
    own: dict[str, Any] = json.loads(checkpoint["own"])
    return own


def drop_later_rows(path: Path, steps: int) -> None:
    """Drop the rows of a curve that were written after a checkpoint; the resumed run writes them again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if int(row["time/steps"]) <= steps]
        columns = list(reader.fieldnames or [])
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def _numpy_state() -> list[Any]:
    # SB3 shuffles its minibatches with NumPy's global generator.
    name, keys, position, has_gauss, cached = np.random.get_state()
    return [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]


def _restore_numpy(state: list[Any]) -> None:
    name, keys, position, has_gauss, cached = state
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
