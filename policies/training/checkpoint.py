"""A training run at rest, on disk: everything that its future depends on, as tensors and plain data.

Weights, optimizer, random generators, the order of the questions and the routes in progress. A run that goes
on from here has the same numbers as one that was never stopped. Read with torch's `weights_only`, so loading
a checkpoint cannot run code. A run may be given more steps when it goes on, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from der_graph.data import Example
from der_graph.errors import AgentError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.rules import RouteRules
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.env import RoutingVecEnv

CHECKPOINT_FILE = "checkpoint.pt"
CHECKPOINT_FORMAT = 2
_ALONE = "the experts that are asked alone"
ROUTES_FILE = "routes.pt"
"""The networks that have learnt from routes so far, until PPO begins and has a checkpoint of its own."""


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into one error that says what to do.

    Raises:
        AgentError: If it cannot be written: a full disk, a folder that is read-only.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's writer raises RuntimeError
        with suppress(OSError):
            path.with_name(f"{path.name}.part").unlink()  # gives its space back
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AgentError(
            f"{path} cannot be written ({cause}). What was saved before is whole: make room or choose "
            "another --out; if there is a checkpoint, --resume goes on from it"
        ) from error


def run_digests(
    experts: Sequence[Expert],
    examples: Sequence[Example],
    dev: Sequence[Example],
    *,
    metric: str,
    ktp: KTPTemplate,
    rules: RouteRules,
    alone: Sequence[str] = (),
) -> dict[str, str]:
    """Digests of everything that a run depends on beside its settings, by what people call it."""
    return {
        "the experts": _digest(
            [
                (
                    e.name,
                    e.fingerprint,
                    e.charge,
                    e.system,
                    e.ktp and e.ktp.fingerprint,
                )
                for e in experts
            ]
        ),
        "the training questions": _digest([asdict(example) for example in examples]),
        "the dev questions": _digest([asdict(example) for example in dev]),
        "the metric": metric,
        "the Knowledge Transfer Prompt": _digest(ktp.fingerprint),
        "the rules of a route": _digest(asdict(rules)),
        _ALONE: json.dumps(list(alone)),
    }


def asked_alone_in(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """The experts that a run shows no earlier answer."""
    return tuple(json.loads(checkpoint["digests"].get(_ALONE, "[]")))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_checkpoint(
    folder: Path,
    config: TrainConfig,
    names: Sequence[str],
    digests: Mapping[str, str],
    model: Any,
    env: RoutingVecEnv,
    own: dict[str, Any],
) -> None:
    """Write a checkpoint; whole or not at all.

    Args:
        folder: Of the run.
        config: The run's settings.
        names: The experts, in order.
        digests: See `run_digests`.
        model: SB3's model, between an update and the next rollout.
        env: Its environment.
        own: What else to keep, as plain data.

    Raises:
        AgentError: If it cannot be written; the checkpoint before is still there.
    """
    kept = {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "env": json.dumps(env.state()),
        "numpy": json.dumps(_numpy_state()),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "starts": torch.as_tensor(np.asarray(model._last_episode_starts)),
        "own": json.dumps(own),
    }
    _write(folder / CHECKPOINT_FILE, config, names, digests, kept)


def write_routes(
    folder: Path,
    config: TrainConfig,
    names: Sequence[str],
    digests: Mapping[str, str],
    networks: Sequence[Mapping[str, torch.Tensor]],
) -> None:
    """Write the networks that have learnt from routes; whole or not at all.

    Args:
        folder: Of the run.
        config: The run's settings.
        names: The experts, in order.
        digests: See `run_digests`.
        networks: Their weights, in order.

    Raises:
        AgentError: If they cannot be written.
    """
    kept = {"networks": [dict(each) for each in networks]}
    _write(folder / ROUTES_FILE, config, names, digests, kept)


def _write(
    path: Path,
    config: TrainConfig,
    names: Sequence[str],
    digests: Mapping[str, str],
    kept: Mapping[str, Any],
) -> None:
    """Write what is kept and which run it is of; whole or not at all."""
    of_run = {
        "format": CHECKPOINT_FORMAT,
        "config": json.dumps(config.plain(), sort_keys=True),
        "experts": list(names),
        "digests": dict(digests),
    }
    part = path.with_name(f"{path.name}.part")
    with saving(path):
        torch.save({**of_run, **kept}, part)
        os.replace(part, path)


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    """What a run in a folder goes on from: PPO's checkpoint, or the networks that have learnt from routes.

    Raises:
        AgentError: If there is neither, or it is damaged.
    """
    routes = folder / ROUTES_FILE
    begun = routes.is_file() and not (folder / CHECKPOINT_FILE).is_file()
    return read_checkpoint(routes if begun else folder / CHECKPOINT_FILE)


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
            f"{path} is damaged ({type(error).__name__}); delete it and train again, without --resume. "
            "Answers already generated are in the answer cache and are not asked again."
        ) from error
    if checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise AgentError(
            f"{path} has format {checkpoint.get('format')}, this version reads {CHECKPOINT_FORMAT}; "
            "train anew, without --resume"
        )
    return checkpoint


def planned_steps(checkpoint: Mapping[str, Any]) -> int:
    """How many steps the run that wrote a checkpoint was to take."""
    return int(json.loads(checkpoint["config"])["steps"])


def prices_of(checkpoint: Mapping[str, Any]) -> tuple[float, float]:
    """The range of prices that the run that wrote a checkpoint learns."""
    low, high = json.loads(checkpoint["config"])["cost_weight_range"]
    return low, high


def apply_checkpoint(
    checkpoint: dict[str, Any],
    config: TrainConfig,
    names: Sequence[str],
    digests: Mapping[str, str],
    model: Any,
    env: RoutingVecEnv,
) -> dict[str, Any]:
    """Put model, environment and random generators where the checkpoint left them.

    Returns:
        What `write_checkpoint` was given as `own`.

    Raises:
        AgentError: If it was made with other settings or more steps, for another pool, or on other
            questions.
    """
    check_same_run(checkpoint, config, names, digests)
    model.policy.load_state_dict(checkpoint["policy"])
    model.policy.optimizer.load_state_dict(checkpoint["optimizer"])
    model.num_timesteps = checkpoint["steps"]
    model._n_updates = checkpoint["updates"]
    model._last_obs = env.restore(json.loads(checkpoint["env"]))
    model._last_episode_starts = checkpoint["starts"].numpy()
    _restore_numpy(json.loads(checkpoint["numpy"]))
    torch.set_rng_state(checkpoint["torch"])
    if torch.cuda.is_available() and checkpoint["cuda"]:
        torch.cuda.set_rng_state_all(checkpoint["cuda"])
    own: dict[str, Any] = json.loads(checkpoint["own"])
    return own


def check_same_run(
    checkpoint: Mapping[str, Any],
    config: TrainConfig,
    names: Sequence[str],
    digests: Mapping[str, str],
) -> None:
    """Check that a checkpoint was made with these settings, for this pool, on these questions.

    Raises:
        AgentError: If it was not; names what differs.
    """
    now, then = json.loads(json.dumps(config.plain())), json.loads(checkpoint["config"])
    changed = [
        f"{key} was {then.get(key)!r}, is {now.get(key)!r}"
        for key in dict.fromkeys([*then, *now])
        if now.get(key) != then.get(key) and not (key == "steps" and config.steps > then[key])
    ]
    if checkpoint["experts"] != list(names):
        changed.append(f"the pool was {', '.join(checkpoint['experts'])}, is {', '.join(names)}")
    else:
        then_digests = checkpoint["digests"]
        changed += [
            f"{what} changed" for what in digests if digests[what] != then_digests.get(what)
        ]
    if changed:
        raise AgentError(
            f"the checkpoint was made with other settings ({'; '.join(changed)}); resume with the same "
            "ones (steps may be more), or train anew without --resume"
        )


def _numpy_state() -> list[Any]:
    # SB3 shuffles its minibatches with NumPy's global generator.
    name, keys, position, has_gauss, cached = np.random.get_state()
    return [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]


def _restore_numpy(state: list[Any]) -> None:
    name, keys, position, has_gauss, cached = state
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
