"""What a planner knows, as files: arrays in `planner.npz`, the rest in `planner.json`; never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.errors import AgentError
from der_graph.policies.planning.kinds import Kinds
from der_graph.policies.planning.knowledge import Knowledge
from der_graph.policies.planning.transfer import (
    Contexts,
    Transfer,
)

FORMAT = 1


def save_knowledge(knowledge: Knowledge, folder: str | os.PathLike[str]) -> None:
    """Write `planner.npz` (arrays alone) and `planner.json` into a folder."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    moved = knowledge.transfer
    arrays: dict[str, Any] = {
        "logit": knowledge.logit, "precision": knowledge.precision,
        "chance": knowledge.chance, "never": knowledge.never,
        "right_shift": moved.right_shift, "wrong_shift": moved.wrong_shift,
        "repeats": moved.repeats, "steps": moved.steps,
    }  # fmt: skip
    if knowledge.copies is not None:
        arrays["copies"] = knowledge.copies
    if knowledge.kinds is not None:
        arrays |= {f"kinds.{name}": array for name, array in knowledge.kinds.arrays.items()}
    part = path / "planner.npz.part"
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(part, path / "planner.npz")
    settings = {
        "format": FORMAT,
        "experts": list(knowledge.names),
        "source": [list(row) for row in knowledge.source],
        "chains": [[list(step) for step in key] for key in sorted(moved.contexts.keys)],
        "claims": moved.contexts.count > 1,
        "comparable": knowledge.comparable,
        "spread": knowledge.spread,
        "kind_names": list(knowledge.kind_names),
    }
    part = path / "planner.json.part"
    part.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path / "planner.json")


def forget_knowledge(folder: str | os.PathLike[str]) -> None:
    """Remove what `save_knowledge` wrote into a folder, if anything."""
    for name in ("planner.npz", "planner.json"):
        for file in (name, f"{name}.part"):
            (Path(folder) / file).unlink(missing_ok=True)


def load_knowledge(folder: str | os.PathLike[str]) -> Knowledge:
    """Read what `save_knowledge` wrote; runs no code from the files.

    Raises:
        AgentError: If it is not there, or of a newer version.
    """
    path = Path(folder)
    try:
        settings = json.loads((path / "planner.json").read_text(encoding="utf-8"))
        if settings["format"] != FORMAT:
            raise AgentError(f"{path}: format {settings['format']}; this version reads {FORMAT}")
        with np.load(path / "planner.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        names = tuple(settings["experts"])
        chains = [tuple((int(e), int(f)) for e, f in key) for key in settings["chains"]]
        contexts = Contexts.of(len(names), chains, claims=settings["claims"])
        found = ("mean", "axes", "surface", "weights", "centres")
        _check(arrays, len(settings["source"]), contexts)
        return Knowledge(
            names=names,
            logit=arrays["logit"],
            precision=arrays["precision"],
            source=tuple(tuple(row) for row in settings["source"]),
            chance=arrays["chance"],
            never=arrays["never"],
            transfer=Transfer(
                contexts,
                *(arrays[a] for a in ("right_shift", "wrong_shift", "repeats", "steps")),
            ),
            copies=arrays.get("copies"),
            comparable=settings["comparable"],
            kinds=Kinds(*(arrays[f"kinds.{name}"] for name in found))
            if "kinds.mean" in arrays
            else None,
            kind_names=tuple(settings["kind_names"]),
            spread=float(settings["spread"]),
        )
    except (OSError, KeyError, ValueError) as error:
        raise AgentError(
            f"{path} holds no planner that can be read: {error}. Train or probe again"
        ) from error


def _check(arrays: Mapping[str, npt.NDArray[Any]], kinds: int, contexts: Contexts) -> None:
    """Raise ValueError where an array has another shape than a pool of these contexts has, or NaN."""
    count, experts, forms = contexts.step.shape
    per_context = (kinds, count, experts)
    shapes: dict[str, tuple[int, ...]] = {
        "logit": (kinds, experts), "precision": (kinds, experts), "chance": (kinds,),
        "never": (kinds, experts, forms), "right_shift": per_context, "wrong_shift": per_context,
        "repeats": per_context, "steps": (*per_context, forms), "copies": (experts, experts),
    }  # fmt: skip
    for name, shape in shapes.items():
        if name == "copies" and name not in arrays:
            continue
        array = arrays[name]
        if array.shape != shape or not array.size:
            raise ValueError(f"'{name}' has the shape {array.shape}, not {shape}")
        if name != "repeats" and not np.isfinite(array).all():  # NaN there: not known
            raise ValueError(f"'{name}' holds NaN or infinity")
