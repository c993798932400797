"""Experts of what is at hand: chat models, model strings, graphs and functions get a name and a price.

    [chat model, "openai:gpt-4o-mini", function, Expert] ──as_pool──> Pool

The name is the model's own. The price is its size where every name says one ("llama-3.1-8b"); otherwise
every call costs 1. Whoever knows better makes the experts with `as_expert`, or writes a pool file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from der_graph.errors import PoolError
from der_graph.nodes.expert import RESERVED_NAMES, Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import bare
from der_graph.policies.planning.probing.sizes import sizes_of
from der_graph.pool.pool import Pool, pool_from


def as_pool(experts: Pool | Sequence[Any]) -> Pool:
    """The pool that is meant.

    Args:
        experts: A pool, or experts, chat models, model strings, runnables and functions in any mixture.

    Raises:
        PoolError: If one of them can be no expert; or some have prices and others none.
    """
    if isinstance(experts, Pool):
        return experts
    if isinstance(experts, (str, bytes)) or not isinstance(experts, Sequence):
        raise PoolError(
            f"experts is {experts!r}; give a list of chat models, functions or experts, or a pool: "
            "load_pool(FILE)"
        )
    given = list(experts)
    if all(isinstance(each, Expert) for each in given):
        return pool_from(given)
    named = _named(given)
    unknown = [
        expert.name
        for expert, each in zip(named, given, strict=True)
        if not isinstance(each, Expert)
    ]
    if len(unknown) < len(given):
        raise PoolError(
            f"'{unknown[0]}' has no price, and other experts have one; give it one too: "
            f"as_expert(model, name={unknown[0]!r}, cost=...) of der_graph.nodes.langchain"
        )
    sizes = sizes_of(named)
    if all(sizes):
        return pool_from(
            [replace(e, cost=float(s or 0)) for e, s in zip(named, sizes, strict=True)]
        )
    return pool_from(named, cost_unit="calls")


def _named(given: Sequence[Any]) -> list[Expert]:
    """Experts at a price of 1, each with a name of its own."""
    taken = {each.name for each in given if isinstance(each, Expert)}
    made = []
    for each in given:
        if isinstance(each, Expert):
            made.append(each)
            continue
        stem = _name_of(each)
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        made.append(as_expert(each, name=name, cost=1.0))
    return made


def _name_of(model: Any) -> str:
    """What a model is called, as a node's name."""
    inner = bare(model)
    found: list[Any] = [model] if isinstance(model, str) else []
    found += [
        getattr(inner, field, None)
        for field in ("model_name", "model", "model_id", "deployment_name", "name", "__name__")
    ]
    text = next((each for each in found if isinstance(each, str) and each), type(inner).__name__)
    name = re.sub(r"[^\w.-]+", "-", text.split("/")[-1].split(":", 1)[-1]).strip("-_.<>")
    return name if name and name not in RESERVED_NAMES else "expert"
