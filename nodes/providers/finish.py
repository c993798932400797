"""Why an answer ended, in one vocabulary: `stop`, `length`, `content_filter`, `tool_calls`.

    response_metadata of any provider ──finish_reason_of──> the word of OpenAI's protocol, or None

Knows nothing of errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from langchain_core.messages import BaseMessage

BROKEN_OFF = "its provider says that the answer broke off with an error"
"""What is said of such an answer."""

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]

# Where providers say it: OpenAI and Gemini, Anthropic, Bedrock, Ollama.
_KEYS = ("finish_reason", "stop_reason", "stopReason", "done_reason")

_WORDS: dict[str, FinishReason] = {
    **dict.fromkeys(
        "length max_tokens max_output_tokens model_length model_context_window_exceeded "
        "error_max_tokens max_length token_limit".split(),
        "length",
    ),
    **dict.fromkeys(
        "content_filter content_filtered guardrail_intervened refusal safety recitation blocklist "
        "prohibited_content spii image_safety language error_toxic".split(),
        "content_filter",
    ),
    **dict.fromkeys(
        "tool_calls tool_call tool_use function_call tool_code_call".split(), "tool_calls"
    ),
    **dict.fromkeys(
        "stop end_turn stop_sequence complete completed eos eos_token".split(),
        "stop",
    ),
    "error_limit": "length",  # Cohere's
}

_LONGEST = 60  # characters of a word

# Of words that are not known, the part that tells; the first that is found.
_PARTS: tuple[tuple[re.Pattern[str], FinishReason | Literal["broken"]], ...] = (
    (
        re.compile(
            "error|malformed|unexpected|abort|cancel|fail|time_?out|time_limit|network|disconnect|"
            "interrupt|insufficient|overload|unload|unavailable|not_finished"
        ),
        "broken",
    ),
    (re.compile("filter|safety|sensitive|moderation|armor|risk|prohibit|refus"), "content_filter"),
    (re.compile("tool|function"), "tool_calls"),
    (re.compile("length|limit|context|max_|max$"), "length"),
)
_DENIED = re.compile("(?:^|_)(?:no|without)_")


def is_broken_off(message: BaseMessage) -> bool:
    """Does a provider say that it did not get to the end of an answer? What there is of it is no answer."""
    given = message.response_metadata
    return "broken" in (_meaning(_first(given)), _meaning(given.get("status")))


def finish_reason_of(message: BaseMessage) -> FinishReason | None:
    """Why a message ended; None where its provider does not say.

    Of a word that is not known a part may tell, as of `max_output`; else it counts as `stop`: the answer is
    whole as far as anybody says.

    Examples:
        >>> from langchain_core.messages import AIMessage
        >>> finish_reason_of(AIMessage("Once", response_metadata={"stop_reason": "max_tokens"}))
        'length'
    """
    given = message.response_metadata
    details = given.get("incomplete_details")  # OpenAI's responses
    if isinstance(details, Mapping) and details.get("reason"):
        return _WORDS.get(_plain(details["reason"]), "length")
    if (first := _first(given)) is not None:
        meaning = _meaning(first)
        return "stop" if meaning is None or meaning == "broken" else meaning
    if given.get("status") in ("completed", "incomplete"):
        return "stop" if given["status"] == "completed" else "length"
    return None


def _first(given: Mapping[str, Any]) -> Any:
    """What is said of the end; a second key may hold the text at which an answer stopped."""
    return next((given[key] for key in _KEYS if given.get(key)), None)


def _meaning(word: Any) -> FinishReason | Literal["broken"] | None:
    plain = _plain(word)
    if plain in _WORDS:
        return _WORDS[plain]
    is_word = isinstance(getattr(word, "name", word), str) and len(plain) <= _LONGEST
    if not is_word or _DENIED.search(plain):
        return None
    return next((meaning for part, meaning in _PARTS if part.search(plain)), None)


def _plain(word: Any) -> str:
    """`FinishReason.MAX_TOKENS`, `finishReason_MAX_TOKENS`, `maxTokens` and `max_tokens` are one word."""
    last = str(getattr(word, "name", word)).rsplit(".", 1)[-1]
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", "_", last).lower().strip("_")
    return parts.removeprefix("finish_reason_")
