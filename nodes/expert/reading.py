"""What a model gave, or raised, as an `Answer`.

    message ──> text without its thought, the value that counts, tool calls, tokens, price
    exception ──> kind of failure, a line without secrets, price

Knows nothing of prompts and calls.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from der_graph.nodes.model_settings import FORMAT_ERROR, cut_at_stop, schema_of
from der_graph.nodes.providers import (
    ThoughtMarks,
    finish_reason_of,
    is_broken_off,
    split_thought,
    with_ids,
)
from der_graph.nodes.providers.characters import writable
from der_graph.nodes.providers.client_errors import has_begun
from der_graph.nodes.providers.finish import BROKEN_OFF
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.nodes.reliability import Failure, FailureKind, failure_of, is_free
from der_graph.nodes.reliability.call_limits import TooLongError
from der_graph.nodes.reliability.charge import CallSize, Charge, are_counts
from der_graph.nodes.reliability.deadline import TimeLimitError
from der_graph.nodes.tools import calls_of, value_of_calls
from der_graph.nodes.values import extract_value, is_refusal, json_spelling, one_spelling
from der_graph.nodes.values.json_form import read_json, unfenced
from der_graph.state import Answer, blank_answer

log = logging.getLogger("der_graph.reliability")

_UNCLOSED = "thought to the end and gave no answer; allow it more tokens"
_BAD_CALL = "called a tool with arguments that are no JSON object"


@dataclass(frozen=True)
class Reader:
    """Reads what comes of one expert's calls.

    Attributes:
        expert: Its name.
        charge: How its calls are charged.
        thought_marks: What opens and closes a thought in its text; empty where there is none.
        max_chars: Longest answer; what goes on is cut off there.
        is_local: Does it run in this process? Then a call that failed is charged.
    """

    expert: str
    charge: Charge
    thought_marks: tuple[ThoughtMarks, ...]
    max_chars: int
    is_local: bool

    def answer(
        self,
        result: Any,
        seconds: float,
        *,
        spoken: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Turn a model's result, or the exception that it raised, into an `Answer`.

        Args:
            result: What the model gave or raised.
            seconds: How long it took.
            spoken: Had a first token come? Of what `ProviderChat` raises this is known without.
            settings: What was asked of the model.
        """
        if isinstance(result, TooLongError):
            result = AIMessage(result.text)
        if isinstance(result, BaseException):
            spoken = spoken or has_begun(result)
            failure = failure_of(result)
            if isinstance(result, TimeLimitError):
                failure = failure._replace(text=str(result))
            return self._failed(failure, seconds, spoken=spoken)
        if result is None:  # a user's own function that forgot to return
            return self._failed(Failure("empty", "returned nothing"), seconds)
        message = result if isinstance(result, BaseMessage) else AIMessage(str(result))
        if is_broken_off(message):
            return self._failed(Failure("unavailable", BROKEN_OFF), seconds, spoken=spoken)
        return self._read(message, seconds, settings or {})

    def _read(self, message: BaseMessage, seconds: float, settings: Mapping[str, Any]) -> Answer:
        text, fault = self._text_of(message)
        calls, finish = with_ids(calls_of(message)), finish_reason_of(message)
        whole, text = text, cut_at_stop(text, settings.get("stop") or ())
        if text != whole:
            finish = "stop"
        refusal = "" if text or calls else refusal_of(message)
        if refusal:
            fault, finish = f"refused to answer: {refusal[:300]}", "content_filter"
        error = None if text or calls else fault or "returned an empty answer"
        schema = schema_of(settings)
        if schema is not None and not calls:
            text = unfenced(text)
        if error is None and schema is not None and not calls and finish != "length":
            text, wrong = read_json(text, schema)
            error = None if wrong is None else f"{FORMAT_ERROR} ({wrong})"
        usage = getattr(message, "usage_metadata", None) or {}
        read, written, cached, thought = self._counts(usage)
        answer = blank_answer(
            self.expert,
            text=text,
            value=value_of_calls(calls)
            if calls
            else _value_of(message, text, is_json=schema is not None),
            input_tokens=read,
            output_tokens=written,
            seconds=seconds,
            logprob=mean_logprob(message),
            error=error,
        )
        if calls:
            answer["tool_calls"] = calls
        if finish is not None:
            answer["finish_reason"] = finish
        if error is not None:
            answer["failure"] = "format" if text else _why_empty(finish, settings)
        if settings.get("logprobs") and message.response_metadata.get("logprobs"):
            answer["logprobs"] = message.response_metadata["logprobs"]
        if cached:
            answer["cached_tokens"] = cached
        if thought:
            answer["reasoning_tokens"] = thought
        version = model_version(message)
        if version:
            answer["version"] = version
        answer["cost"] = price_of(answer, self.charge)
        return answer

    def _counts(self, usage: Mapping[str, Any]) -> tuple[int, int, int, int]:
        """Tokens read, written, from a cache, of a thought; none where one cannot be true."""
        inside, outside = (usage.get(f"{way}_token_details") or {} for way in ("input", "output"))
        given = (usage.get("input_tokens"), usage.get("output_tokens"), inside.get("cache_read"))
        read, written, cached = (max(0, int(each or 0)) for each in given)  # some count from -1
        thought, total = (
            each if isinstance(each, int) and each > 0 else 0
            for each in (outside.get("reasoning"), usage.get("total_tokens"))
        )
        if 0 < thought == total - read - written:
            written += thought  # counted beside the answer, as xAI does, and charged all the same
        cached, thought = min(cached, read), min(thought, written)
        if are_counts(read, written, cached, thought):
            return read, written, cached, thought
        _say_absurd(self.expert)  # checkpointers cannot keep it, nor anybody add it up
        return 0, 0, 0, 0

    def _text_of(self, message: BaseMessage) -> tuple[str, str | None]:
        """What a message says without its thought; and why it says nothing, where the thought took all."""
        text, thought = message.text.strip(), ""
        if self.thought_marks:
            thought, text, _ = split_thought(text, self.thought_marks)
        thought = thought or str(message.additional_kwargs.get("reasoning_content") or "")
        text = writable(text)[: self.max_chars].strip()
        if getattr(message, "invalid_tool_calls", None) and not calls_of(message):
            return "", _BAD_CALL  # what it says beside a call is no answer
        return text, _UNCLOSED if thought and not text else None

    def _failed(self, failure: Failure, seconds: float, *, spoken: bool = False) -> Answer:
        # Charged in full where the machine ran, or may have.
        free = is_free(failure.kind, spoken=spoken, ran=self.is_local)
        answer = blank_answer(
            self.expert,
            cost=0.0 if free else self.charge.most,
            seconds=seconds,
            error=writable(mask_secrets(failure.text)),  # providers repeat keys in their errors
        )
        answer["failure"] = failure.kind
        if failure.retry_after is not None:
            answer["retry_after"] = failure.retry_after
        return answer


def refusal_of(message: BaseMessage) -> str:
    """Why a model will not answer, where it says so beside its text as OpenAI's do; else empty."""
    said: list[Any] = [message.additional_kwargs.get("refusal")]
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, Mapping):
            inner = block.get("value")  # LangChain's standard content
            said += [each.get("refusal") for each in (block, inner) if isinstance(each, Mapping)]
    return " ".join(each.strip() for each in said if isinstance(each, str) and each.strip())


def counted_size(answer: Answer, charge: Charge) -> CallSize | None:
    """What a call used; None if it failed, or is charged by tokens that nobody counted."""
    size = _size_of(answer)
    unknown = charge.tokens is not None and not (size.input or size.output)
    return None if answer["error"] is not None or unknown else size


def _size_of(answer: Answer) -> CallSize:
    return CallSize(
        answer["input_tokens"],
        answer.get("cached_tokens", 0),
        answer["output_tokens"],
        answer["seconds"],
    )


def price_of(answer: Answer, charge: Charge) -> float:
    """What the call of an answer costs; without a count the most that it may."""
    size = _size_of(answer)
    return (charge if size.input or size.output else charge._replace(tokens=None)).of(size)


@functools.lru_cache(maxsize=1024)  # once for each expert
def _say_absurd(expert: str) -> None:
    log.warning(
        "expert '%s': its server counts more tokens than a call can have; charged its cost", expert
    )


def model_version(message: BaseMessage) -> str:
    """What a provider says of the model that answered: its dated name and its system's fingerprint."""
    said = (
        message.response_metadata.get(key) for key in ("model_name", "model", "system_fingerprint")
    )
    return " ".join(dict.fromkeys(str(part) for part in said if part))


def mean_logprob(message: BaseMessage) -> float | None:
    """Mean log-probability of the generated tokens, where the backend reports it.

    Reads this package's own `mean_logprob`, or the token list of OpenAI-compatible servers (`logprobs=True`).
    """
    metadata = message.response_metadata
    own = metadata.get("mean_logprob")
    if own is not None:
        return float(own)
    given = metadata.get("logprobs")
    tokens = (given.get("content") or []) if isinstance(given, Mapping) else []
    values = [float(token["logprob"]) for token in tokens if token.get("logprob") is not None]
    return sum(values) / len(values) if values else None


def _why_empty(finish: str | None, settings: Mapping[str, Any]) -> FailureKind:
    """What kind of failure it is to say nothing."""
    if finish == "content_filter":
        return "content_filter"
    # What the request bounds says nothing about the expert.
    bounded = finish == "length" and settings.get("max_tokens")
    return "cut" if bounded or settings.get("stop") else "empty"


def _value_of(message: BaseMessage, text: str, *, is_json: bool) -> str | None:
    """The part that counts, of JSON all of it; "I do not know" agrees with nobody."""
    known = message.response_metadata.get("der_value")  # recorded experts know what counts
    if known is not None:
        return one_spelling(str(known)) or None
    if is_json:
        try:
            return json_spelling(json.loads(text))
        except (ValueError, RecursionError):
            return None
    return None if is_refusal(text) else extract_value(text)
