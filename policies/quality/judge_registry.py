"""Judges by a chat model or by its name: such that give marks, and such that compare two answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable

from der_graph.errors import MetricError, PoolError
from der_graph.nodes.expert.fingerprint import fingerprint_of
from der_graph.nodes.langchain import as_chat_runnable, bounded
from der_graph.policies.quality.judge import Judge
from der_graph.policies.quality.pairwise import PairwiseJudge
from der_graph.policies.quality.replies import Replies

_AT_ONCE = 8
_SETTINGS = ("fallback", "max_answer_tokens", "rubric")


def make_judge(
    model: Runnable[Any, Any],
    *,
    pairwise: bool = False,
    against: Runnable[Any, Any] | str | None = None,
    **settings: Any,
) -> Judge:
    """A judge of a chat model.

    Args:
        model: The model.
        pairwise: Compare every answer with another one, in place of giving it a mark.
        against: Whose answers they are compared with: a chat model, or a string for `init_chat_model`; the
            reference where left out.
        settings: Those of `Judge`.

    Raises:
        MetricError: If a setting is none of a judge's, or cannot be used.
    """
    known = (*_SETTINGS, "name", "identity")
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise MetricError(
            f"judge: the setting '{unknown[0]}' is unknown; its settings are: model, pairwise, against, "
            f"{', '.join(_SETTINGS)}"
        )
    if not isinstance(pairwise, bool):
        raise MetricError(f"judge: pairwise is {pairwise!r}; it must be true or false")
    if not pairwise:
        if against is not None:
            raise MetricError("judge: against= is for comparisons; add pairwise=true")
        return Judge(model, **settings)
    return PairwiseJudge(model, against=None if against is None else _rival(against), **settings)


def judge_by(model: str, **settings: Any) -> Judge:
    """A judge of a model string such as `openai:gpt-4o-mini`, greedy, at most eight calls at a time.

    Args:
        model: For `init_chat_model`.
        settings: Those of `make_judge`, and of the model.

    Raises:
        MetricError: If there is no such model, its key is missing, or a setting cannot be used.
    """
    mine = {
        key: settings.pop(key) for key in (*_SETTINGS, "pairwise", "against") if key in settings
    }
    try:
        made = as_chat_runnable(model, **{"temperature": 0, **settings})
    except PoolError as error:
        raise MetricError(f"judge: {error}{_how_to_pass_a_key(str(error), settings)}") from None
    return make_judge(
        bounded(made, _AT_ONCE),
        name=f"judge:{model}",
        identity=fingerprint_of(model, settings),
        **mine,
    )


def _how_to_pass_a_key(error: str, settings: Mapping[str, Any]) -> str:
    if not re.search(r"api_?key", error, re.IGNORECASE) or "api_key" in settings:
        return ""
    local = "; any text will do for a server that asks for none" if "base_url" in settings else ""
    return f" The key can be a setting too: --metric-setting 'api_key=${{MY_KEY}}'{local}"


def _rival(given: Runnable[Any, Any] | str) -> Replies:
    if isinstance(given, str):
        made = as_chat_runnable(given, temperature=0)
        return Replies(bounded(made, _AT_ONCE), f"against:{given}", fingerprint_of(given, {}))
    if not isinstance(given, Runnable):
        raise MetricError(f"judge: against is {given!r}; give a chat model or its name")
    return Replies(given, "against", fingerprint_of(given, {}))
