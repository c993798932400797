"""A first pool file: models are asked once, and what is known of them is looked up.

    model strings, or an OpenAI-compatible server's list ──look──> Found ──pool_text──> commented YAML

Prices come from genai-prices, context length and features from LangChain's model profiles; both are kept by
others and may lag behind. Keys stay in the environment: the file names variables. Knows nothing of agents.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import HumanMessage

from der_graph.errors import DERError, PoolError, did_you_mean
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability import bare
from der_graph.policies.planning.probing.sizes import size_in_name

QUESTION = "What is 2 + 3? Answer with the number alone."
"""What each model is asked."""
INPUT_TOKENS, OUTPUT_TOKENS = 4_000, 1_000
"""The largest call that `cost` pays for, where models are paid by the token."""
MOST = 20
"""Models of a server that are taken without being named."""
_PATIENCE = 30.0  # seconds for a server's list
_NO_LIST = (404, 405, 501)  # what servers say that answer chats and list nothing


@dataclass
class Found:
    """What was found out about one model.

    Attributes:
        name: The expert's name.
        model: For `init_chat_model`.
        settings: For `init_chat_model`; secrets as `${VARIABLE}`.
        seconds: Of one call; None where none was made.
        prices: Dollars per million input and output tokens; None where nobody knows.
        size: Billions of parameters, by its name; None where it does not say.
        about: Context length and features, in words; empty where nobody knows.
        error: Why it cannot be used; empty if it can.
    """

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    prices: tuple[float, float] | None = None
    size: float | None = None
    about: str = ""
    error: str = ""


def models_of(base_url: str, key: str | None = None) -> list[str]:
    """The models that an OpenAI-compatible server lists; none where it answers, but has no such list.

    Args:
        base_url: Such as `http://127.0.0.1:8000/v1`.
        key: Sent as bearer token; None for none.

    Raises:
        PoolError: If the address is none, or the server does not answer, or refuses.
    """
    parts = urllib.parse.urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PoolError(
            f"--base-url {base_url!r}: give an address such as http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password:
        raise PoolError(
            "--base-url: no password in the address; name a variable with --api-key-env"
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{base_url.rstrip('/')}/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            reply = json.load(answer)
        listed = reply if isinstance(reply, list) else reply["data"]  # some servers: the bare list
        names = list(dict.fromkeys(str(each["id"]) for each in listed))
    except urllib.error.HTTPError as error:
        if error.code in _NO_LIST:
            return []
        hint = (
            "; name the variable of its key with --api-key-env" if error.code in (401, 403) else ""
        )
        raise PoolError(
            f"{base_url}: the list of models was refused ({error.code}){hint}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise PoolError(
            f"{base_url}: no list of models ({reason}); is it the address of an OpenAI-compatible server, "
            "with its /v1?"
        ) from None
    return names


def chosen(listed: Sequence[str], wanted: Sequence[str], base_url: str) -> list[str]:
    """The models of a server that are meant.

    Raises:
        PoolError: If one is not there, or there are too many, or none, to take without being named.
    """
    if not listed and not wanted:
        raise PoolError(
            f"{base_url} lists no models; is it the address of an OpenAI-compatible server, with its /v1? If "
            f"so, name those that you want, such as: der init llama-3.1-8b --base-url {base_url}"
        )
    if not listed:
        # Whether it has them shows when they are asked.
        return [name.removeprefix("openai:") for name in wanted]
    names = [name if name in listed else name.removeprefix("openai:") for name in wanted]
    missing = [name for name in names if name not in listed]
    if missing:
        raise PoolError(
            f"{base_url} has no model {missing[0]!r}; {did_you_mean(missing[0], listed)}it has "
            f"{', '.join(listed[:MOST])}"
            + (f" and {len(listed) - MOST} more" if len(listed) > MOST else "")
        )
    if wanted or len(listed) <= MOST:
        return names or list(listed)
    raise PoolError(
        f"{base_url} lists {len(listed)} models; name those that you want, such as: der init {listed[0]} "
        f"{listed[1]} --base-url {base_url}"
    )


def look(
    model: str,
    name: str,
    settings: dict[str, Any] | None = None,
    *,
    secrets: dict[str, Any] | None = None,
    ask: bool = True,
) -> Found:
    """Find out about a model; what is wrong with it is in `error`.

    Args:
        model: For `init_chat_model`.
        name: The expert's name.
        settings: For the file.
        secrets: Settings in place of those with variables.
        ask: Ask it a question, and take the time.
    """
    found = Found(name, model, dict(settings or {}), size=size_in_name(model))
    try:
        expert = as_expert(
            model, name=name, cost=1.0, settings={**found.settings, **(secrets or {})}
        )
    except (DERError, ImportError) as error:
        found.error = _line(error)
        return found
    if not found.settings.get("base_url"):  # a server of one's own has prices of its own
        found.prices = _prices(model)
    found.about = _about(expert)
    if ask:
        start = time.perf_counter()
        (answer,) = expert.ask([[HumanMessage(QUESTION)]])
        found.seconds = round(time.perf_counter() - start, 3)
        found.error = answer["error"] or ""
    return found


def names_of(models: Sequence[str]) -> list[str]:
    """Experts' names for models, each of its own.

    Args:
        models: Each `provider:model`, or a repository's id.
    """
    names: list[str] = []
    for model in models:
        own = re.sub(r"^\w+:", "", model).split("/")[-1]  # without provider and owner
        stem = re.sub(r"[^\w.-]+", "-", own).strip("-.") or "expert"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def pool_text(found: Sequence[Found]) -> str:
    """The pool file of the models that can be used.

    Raises:
        PoolError: If none can.
    """
    usable = [each for each in found if not each.error]
    if not usable:
        raise PoolError(f"no model can be used; {found[0].model}: {found[0].error}")
    unit = _unit(usable)
    lines = [
        "# Written by der init. Each expert is one model; prices decide who is asked first.",
        '# Next: der ask "..." --pool FILE; then der probe --pool FILE --out profile.json.',
        "experts:",
    ]
    for each in usable:
        lines += [f"  - name: {json.dumps(each.name)}", "    backend: langchain"]
        lines.append(f"    model: {json.dumps(each.model)}")
        if each.settings:
            lines.append(f"    settings: {json.dumps(each.settings)}")
        lines += _cost_lines(each, unit)
        if each.seconds:
            lines.append(f"    seconds: {each.seconds:g} # of one short call, measured")
        if each.about:
            lines.append(f"    description: {json.dumps(each.about)}")
        lines.append(
            "    # skill: 0.7 # how often it is right, if you know; or {maths: 0.8, code: 0.5}"
        )
    for each in found:
        if each.error:
            said = "".join(c if c.isprintable() else " " for c in each.error)
            lines.append(f"  # left out: {json.dumps(each.model)}: {said}")
    lines += [
        "settings:",
        f"  cost_unit: {unit}",
        "  max_steps: 4 # calls for one question, at most",
        "  # profile: profile.json # of der probe",
    ]
    return "\n".join(lines) + "\n"


def _unit(found: Sequence[Found]) -> str:
    if all(each.prices for each in found):
        return "usd"
    return "parameters_b" if all(each.size for each in found) else "calls"


def _cost_lines(each: Found, unit: str) -> list[str]:
    if unit == "parameters_b":
        return [f"    cost: {each.size:g} # billions of parameters, by its name"]
    if unit == "usd" and each.prices is not None:
        given, taken = each.prices
        most = (INPUT_TOKENS * given + OUTPUT_TOKENS * taken) / 1e6
        return [
            f"    token_prices: {{input: {given:g}, output: {taken:g}}} # dollars per million",
            f"    cost: {most:.6g} # the most for a call: {INPUT_TOKENS} tokens in, {OUTPUT_TOKENS} out",
        ]
    known = f" (${each.prices[0]:g} in, ${each.prices[1]:g} out per million)" if each.prices else ""
    return [f"    cost: 1 # no price of every model is known{known}: all calls count alike"]


def _prices(model: str) -> tuple[float, float] | None:
    """Dollars per million tokens in and out."""
    try:
        import genai_prices
    except ImportError:
        return None
    provider, _, name = model.rpartition(":")
    used = genai_prices.Usage(input_tokens=1000, output_tokens=1000)
    try:
        price = genai_prices.calc_price(used, model_ref=name, provider_id=provider or None)
    except LookupError:
        return None
    return float(price.input_price) * 1000, float(price.output_price) * 1000


def _about(expert: Expert) -> str:
    """What LangChain's profile of a model says, in words."""
    profile: Any = getattr(bare(expert.model), "profile", None) or {}
    said = []
    if profile.get("max_input_tokens"):
        said.append(f"{profile['max_input_tokens']} tokens of context")
    features = {
        "tool_calling": "tools",
        "structured_output": "structured output",
        "image_inputs": "images",
        "reasoning_output": "reasoning",
    }
    said += [words for key, words in features.items() if profile.get(key)]
    return ", ".join(said)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
