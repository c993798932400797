"""What can be asked of `ChatDER`, when it is made and with every call; and what becomes of it.

    ChatDER(max_cost=1.0), .bind(max_steps=2), .invoke(..., temperature=0)
        ──request_of──> Request: DERContext for the route, Equipment for the experts, stop texts

A setting that is not known is an error: a budget with a misspelt name would be no budget.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel

from der_graph.errors import ChatModelError, ToolsNotSupportedError
from der_graph.nodes.expert import Expert
from der_graph.nodes.tools import rebound, with_tools
from der_graph.pool import Pool
from der_graph.state import DERContext

CONTEXT_FIELDS = tuple(DERContext.__dataclass_fields__)
"""Settings of a route. Of `stream_tokens` only `live` makes a difference: drafts are never streamed here."""

SAMPLING = ("temperature", "max_tokens")
"""LangChain's settings that are handed on to experts that are chat models."""

TOOLS = ("tools", "tool_choice", "tool_settings")
"""What `bind_tools` binds."""

_OTHERS = frozenset({"stop", "timeout"})
# LangChain's own words among the settings of a call.
_NOT_FOR_US = frozenset({"stream", "stream_usage", "ls_structured_output_format"})


class Equipment(NamedTuple):
    """What experts are called with beyond what they were made with; as JSON, so that it can be looked up.

    Attributes:
        sampling: Settings of generation.
        tools: Tools, choice and settings.
    """

    sampling: str = "{}"
    tools: str = "{}"


class Request(NamedTuple):
    """The settings of one call, read.

    Attributes:
        context: Settings of the route.
        equipment: What the experts are called with.
        stop: Texts that end the answer and are not part of it.
    """

    context: DERContext
    equipment: Equipment
    stop: tuple[str, ...]


def request_of(
    defaults: Mapping[str, Any], given: Mapping[str, Any], stop: Sequence[str] | None
) -> Request:
    """Read the settings of one call.

    Args:
        defaults: Settings of the model; None counts as left out.
        given: Settings of the call, which come before them.
        stop: LangChain's own argument, which comes before both.

    Raises:
        ChatModelError: If a setting is unknown.
        BudgetError: If a setting of the route has a value that it cannot have.
    """
    known = {*CONTEXT_FIELDS, *SAMPLING, *TOOLS, *_OTHERS}
    check_names([name for name in given if name not in _NOT_FOR_US], known)
    merged = {name: value for name, value in defaults.items() if value is not None}
    merged.update({name: value for name, value in given.items() if name in known})
    if stop is not None:
        merged["stop"] = stop
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
    return Request(
        DERContext(**context),
        Equipment(_json(merged, SAMPLING), _json(merged, TOOLS)),
        (texts,) if isinstance(texts, str) else tuple(texts),
    )


def check_names(names: Sequence[str], known: set[str]) -> None:
    """Check that settings exist.

    Raises:
        ChatModelError: If one does not; names the nearest that does.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ChatModelError(
                f"ChatDER has no setting '{name}'; {hint}allowed: {', '.join(sorted(known))}"
            )


def equipped(pool: Pool, equipment: Equipment) -> Pool:
    """The pool with its experts' models called in a certain way.

    Raises:
        ToolsNotSupportedError: If tools are given and there are experts that cannot call them; names those.
    """
    sampling: dict[str, Any] = json.loads(equipment.sampling)
    tools: dict[str, Any] = json.loads(equipment.tools)
    experts = list(pool)
    if sampling:
        experts = [_with_sampling(expert, sampling) for expert in experts]
    if tools.get("tools"):
        experts = _with_tools(experts, tools)
    return dataclasses.replace(pool, experts=tuple(experts))


def _with_sampling(expert: Expert, sampling: Mapping[str, Any]) -> Expert:
    def change(chat: BaseChatModel) -> Any:
        return chat.bind(**sampling)

    try:
        return dataclasses.replace(expert, model=rebound(expert.model, change))
    except NotImplementedError:
        return expert  # a function or a graph, which has no such settings


def _with_tools(experts: Sequence[Expert], given: Mapping[str, Any]) -> list[Expert]:
    able, unable = [], []
    for expert in experts:
        try:
            model = with_tools(
                expert.model,
                given["tools"],
                given.get("tool_choice"),
                **(given.get("tool_settings") or {}),
            )
            able.append(dataclasses.replace(expert, model=model))
        except NotImplementedError:
            unable.append(expert.name)
    if unable:
        raise ToolsNotSupportedError(
            f"these experts cannot call tools: {', '.join(unable)}. Tools, and structured output, need a "
            "pool whose experts are all chat models with `bind_tools` (backend: langchain)"
        )
    return able


def _json(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    kept = {name: settings[name] for name in names if settings.get(name) is not None}
    return json.dumps(kept, sort_keys=True)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop texts."""
    ends = [position for position in (text.find(each) for each in stop if each) if position >= 0]
    return text[: min(ends)].rstrip() if ends else text


def agent_fingerprint(agent: Any) -> str:
    """Identifies an agent's decisions: by its weights where it has some, else by its type."""
    own = getattr(agent, "fingerprint", None)
    if isinstance(own, str):
        return own
    parts: list[Any] = [getattr(agent, name, None) for name in ("network", "encoder", "head")]
    modules = [part for part in parts if hasattr(part, "state_dict")]
    if not modules:
        return type(agent).__qualname__
    digest = hashlib.sha256(
        str((getattr(agent, "cost_weight", ""), getattr(agent, "prices", ()))).encode()
    )
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
