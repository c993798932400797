"""What can be asked of `ChatDER`, when it is made and with every call; and what becomes of it.

    ChatDER(max_cost=1.0), .bind(max_steps=2), .invoke(..., temperature=0)
        ──request_of──> DERContext for route and experts

A setting that is not known is an error: a budget with a misspelt name would be no budget.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from der_graph.errors import ChatModelError, did_you_mean
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.model_settings import LANGCHAINS_OWN, SAMPLING, SETTINGS
from der_graph.state import DERContext

CONTEXT_FIELDS = tuple(name for name in DERContext.__dataclass_fields__ if name != "model_settings")
"""Settings of a route. Of `stream_tokens` only `live` makes a difference: drafts are never streamed here."""

MODEL_FIELDS = tuple(name for name in SAMPLING if name not in ("logprobs", "top_logprobs"))
"""Settings of the experts' models that a `ChatDER` can be made with."""

_OTHERS = frozenset({"stop", "timeout", "max_completion_tokens"})


def request_of(
    defaults: Mapping[str, Any], given: Mapping[str, Any], stop: Sequence[str] | None
) -> DERContext:
    """Read the settings of one call.

    Args:
        defaults: Settings of the model; None counts as left out.
        given: Settings of the call, which come before them.
        stop: LangChain's own argument, which comes before both.

    Raises:
        ChatModelError: If a setting is unknown.
        BudgetError: If a setting of the route has a value that it cannot have.
    """
    known = {*CONTEXT_FIELDS, *SETTINGS, *_OTHERS}
    check_names([name for name in given if name not in LANGCHAINS_OWN], known)
    merged = {name: value for name, value in defaults.items() if value is not None}
    merged.update({name: value for name, value in given.items() if name in known})
    if stop is not None:
        merged["stop"] = stop
    if merged.get("max_completion_tokens") is not None:
        merged["max_tokens"] = merged["max_completion_tokens"]
    context = {name: merged[name] for name in CONTEXT_FIELDS if merged.get(name) is not None}
    if merged.get("timeout") is not None:
        context.setdefault("deadline", merged["timeout"])
    if context.get("stream_tokens") == "all":
        raise ChatModelError(
            "stream_tokens is 'all'; a chat model streams its answer and no drafts: allowed: 'final', 'live'"
        )
    for name in ("allowed_experts", "forbidden_experts"):
        if isinstance(context.get(name), (set, frozenset, tuple)):
            context[name] = sorted(context[name])
    texts = merged.get("stop") or ()
    ends = (texts,) if isinstance(texts, str) else tuple(texts)
    asked = {name: merged[name] for name in SETTINGS if merged.get(name) is not None}
    asked.pop("stop", None)
    if ends:
        asked["stop"] = list(ends)
    return DERContext(**context, model_settings=asked or None)


def check_names(names: Sequence[str], known: set[str]) -> None:
    """Check that settings exist.

    Raises:
        ChatModelError: If one does not; names the nearest that does.
    """
    for name in names:
        if name not in known:
            allowed = sorted(known)
            raise ChatModelError(
                f"ChatDER has no setting '{name}'; {did_you_mean(name, allowed)}"
                f"allowed: {', '.join(allowed)}"
            )


def agent_fingerprint(agent: Any) -> str:
    """Identifies an agent's decisions: by its weights where it has some, else by what it is made of."""
    own = getattr(agent, "fingerprint", None)
    if isinstance(own, str):
        return own
    parts: list[Any] = [getattr(agent, name, None) for name in ("network", "encoder", "head")]
    modules = [part for part in parts if hasattr(part, "state_dict")]
    if not modules:
        return fingerprint_of(agent, {}) or f"{type(agent).__qualname__} {id(agent)}"
    names = ("cost_weight", "prices", "takeovers")
    planner = getattr(getattr(agent, "planner", None), "fingerprint", "")
    plain = [getattr(agent, name, "") for name in names]
    digest = hashlib.sha256(repr([*plain, planner]).encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
