"""The memory of a GPU, shared out among the local experts of a pool before any is loaded.

    Pool ──check_memory──> a table for people ──share_memory──> each model's room for keys and values

Knows nothing of routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.memory import GB, Footprint, Plan, device_bytes, plan, table
from der_graph.nodes.huggingface.vllm import VLLMChat


def check_memory(
    experts: Sequence[Expert], device: str, memory_gb: float | None = None
) -> list[str]:
    """Plan the memory of a GPU, without loading anything.

    Args:
        experts: The pool's.
        device: `cuda` or `cuda:1` ...
        memory_gb: GB of a device that is not in this machine.

    Returns:
        Lines for people: what each model takes, and what is left or missing.

    Raises:
        PoolError: If there is no such device, and it was not said how large it is.
    """
    if not device.startswith("cuda"):
        raise PoolError(
            f"--device is '{device}'; memory is planned for GPUs: use cuda or cuda:<number>"
        )
    total = device_bytes(device) if memory_gb is None else round(memory_gb * GB)
    if total is None:
        raise PoolError(
            f"--device {device}: this machine has no CUDA device; give its size with --memory GB"
        )
    footprints, unknown = _footprints(experts, device)
    lines = table(plan(footprints, total)) if footprints else ["no expert runs on this device"]
    return lines + [f"{name}: not on this machine yet, so its size is unknown" for name in unknown]


def share_memory(experts: Sequence[Expert]) -> None:
    """Let each local model know its room for keys and values, found once it is on a GPU."""
    for expert in experts:
        if isinstance(expert.model, HuggingFaceChat):
            expert.model.plan_cache(partial(_planned, tuple(experts), expert.name))


def _planned(experts: Sequence[Expert], name: str, device: str) -> int | None:
    total = device_bytes(device)
    footprints, _ = _footprints(experts, device)
    own = next((each for each in footprints if each.name == name), None)
    if total is None or own is None:
        return None
    made: Plan = plan(footprints, total)
    return next(share.cache for share in made.shares if share.footprint.shared == own.shared)


def _footprints(experts: Sequence[Expert], device: str) -> tuple[list[Footprint], list[str]]:
    """What is known of those that would run there, and the names of the others of them."""
    same = {"auto", device, "cuda" if device == "cuda:0" else device}
    same |= {"cuda:0"} if device == "cuda" else set()
    found: list[Footprint] = []
    unknown: list[str] = []
    for expert in experts:
        model = expert.model
        # vLLM takes a share of its own, which its settings name.
        if not isinstance(model, HuggingFaceChat) or isinstance(model, VLLMChat):
            continue
        if model.device in same:
            needs = model.footprint(expert.name)
            if needs is None:
                unknown.append(expert.name)
            else:
                found.append(needs)
    return found, unknown
