"""Writing the responses of the chat completions protocol.

    Outcome ──completion──> one object         events ──chunk──> one object a piece, `data: ...` each

Beyond the protocol, responses have a field `der`: the route and its cost; in a stream, chunks with an empty
`delta` carry the decisions, drafts and answers, which other clients pass over.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_core.messages.ai import UsageMetadata

from der_graph.nodes.answer import summed_usage
from der_graph.nodes.providers.characters import writable
from der_graph.server.failures import expert_error, kind_of
from der_graph.state import RouteStep, answers_of

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Outcome:
    """What came of a route.

    Attributes:
        answer: The final answer.
        route: The route.
        cost: What it cost, in the pool's unit.
        seconds: Wall clock of the whole.
        finish: `stop`; `length` for an answer that was cut, `content_filter`, or `tool_calls`.
        tool_calls: The tools that the answer wants called, in LangChain's form.
        logprobs: Of its tokens, where they were asked for and the expert has them.
    """

    answer: str
    route: list[RouteStep]
    cost: float
    seconds: float
    finish: str = "stop"
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: Mapping[str, Any] | None = None

    @property
    def experts(self) -> list[str]:
        """Who was asked, in order."""
        return [answer["expert"] for answer in answers_of(self.route)]

    @property
    def failed(self) -> dict[str, str]:
        """Whose calls failed, and with what kind of error."""
        answers = answers_of(self.route)
        return {each["expert"]: kind_of(each["error"]) for each in answers if each["error"]}

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens of all experts together."""
        tokens, (cached, thought) = self.tokens, self.token_details
        return {
            "prompt_tokens": tokens["input_tokens"],
            "completion_tokens": tokens["output_tokens"],
            "total_tokens": tokens["total_tokens"],
            **({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}),
            **({"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}),
        }

    @cached_property
    def tokens(self) -> UsageMetadata:
        """The same as LangChain counts them."""
        none = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
        return summed_usage(answers_of(self.route)) or none

    @property
    def token_details(self) -> tuple[int, int]:
        """How many of these came from a provider's cache, and how many were a thought."""
        read = self.tokens.get("input_token_details", {})
        written = self.tokens.get("output_token_details", {})
        return read.get("cache_read", 0), written.get("reasoning", 0)


@dataclass(frozen=True)
class Reply:
    """What all parts of one response have in common.

    Attributes:
        model: The model that was asked.
        fingerprint: Changes when an answer of the pool may change.
        cost_unit: What costs count.
        ignored: Parameters of the request without effect.
        include_usage: End a stream with the tokens used?
        id: Of the response.
        created: Seconds since 1970.
    """

    model: str
    fingerprint: str
    cost_unit: str
    ignored: tuple[str, ...] = ()
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, outcome: Outcome) -> dict[str, Any]:
        """The whole response."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": outcome.answer,
            "refusal": None,
        }
        if outcome.tool_calls:
            message["content"] = outcome.answer or None
            message["tool_calls"] = public_calls(outcome)
        choice = {
            "index": 0,
            "message": message,
            "logprobs": outcome.logprobs,
            "finish_reason": outcome.finish,
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": outcome.usage,
            "der": self.summary(outcome),
        }

    def chunk(
        self,
        delta: Mapping[str, Any],
        *,
        finish: str | None = None,
        der: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A piece of a streamed response."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return chunk if der is None else {**chunk, "der": der}

    def usage_chunk(self, outcome: Outcome) -> dict[str, Any]:
        """The piece that ends a stream if the caller asked for the tokens used."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": outcome.usage}

    # The parts of a stream ---------------------------------------------------------------------------------

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The response in one piece."""
        return self.completion(outcome)

    def begin(self) -> list[bytes]:
        """What opens a stream."""
        return [self._sent(self.chunk({"role": "assistant", "content": ""}))]

    def text(self, piece: str) -> list[bytes]:
        """A piece of the answer."""
        return [self._sent(self.chunk({"content": piece}))]

    def event(self, event: Mapping[str, Any]) -> list[bytes]:
        """An event of the route."""
        return [self._sent(self.chunk({}, der=public_event(event)))]

    def close(self, outcome: Outcome, said: bool) -> list[bytes]:
        """What ends a stream.

        Args:
            outcome: What came of the route.
            said: Was there any text before?
        """
        chunks = []
        if not said and outcome.answer:
            chunks += self.text(outcome.answer)
        if outcome.tool_calls:
            calls = [{"index": i, **call} for i, call in enumerate(public_calls(outcome))]
            chunks.append(self._sent(self.chunk({"tool_calls": calls})))
        summary = {"type": "der.route", **self.summary(outcome)}
        last = self.chunk({}, finish=outcome.finish, der=summary)
        last["choices"][0]["logprobs"] = outcome.logprobs
        chunks.append(self._sent(last))
        if self.include_usage:
            chunks.append(server_sent(self.usage_chunk(outcome)))
        return [*chunks, DONE]

    def failed(self, error: Mapping[str, Any]) -> list[bytes]:
        """An error in the middle of a stream."""
        return [server_sent(error)]

    def _sent(self, chunk: dict[str, Any]) -> bytes:
        # By the protocol every chunk has the field once the last one is to carry it.
        return server_sent({**chunk, "usage": None} if self.include_usage else chunk)

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        """The route, for the field `der`."""
        return summary_of(outcome, self.cost_unit, self.ignored)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def summary_of(outcome: Outcome, cost_unit: str, ignored: Sequence[str]) -> dict[str, Any]:
    """The route, for the field `der`."""
    return {
        "route": [public_step(step) for step in outcome.route],
        "experts": outcome.experts,
        "cost": outcome.cost,
        "cost_unit": cost_unit,
        "seconds": outcome.seconds,
        "ignored": list(ignored),
    }


def public_calls(outcome: Outcome) -> list[dict[str, Any]]:
    """Calls of tools in the protocol's form."""
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["args"])},
        }
        for call in outcome.tool_calls
    ]


def public_step(step: RouteStep) -> dict[str, Any]:
    """A step of a route, as callers see it."""
    answer = step["answer"]
    return {**step, "answer": None if answer is None else public_answer(answer)}


def public_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer, or the event of one, as callers see it: of an error its kind alone."""
    return {**answer, "error": expert_error(answer["error"])}


def public_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of a route, as callers see it."""
    return public_answer(event) if event["type"] == "der.answer" else dict(event)


def server_sent(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {to_json(content)}\n\n".encode()


def to_json(content: Any) -> str:
    """JSON as the protocol wants it, that can be sent.

    Numbers that JSON does not know (NaN, infinity) become null, and halves of surrogate pairs the sign for
    a character that cannot be shown.
    """
    try:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"))
    return writable(text)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if isinstance(content, float) and (content != content or abs(content) == float("inf")):
        return None
    return content


def model_card(name: str, created: int, der: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "der-graph", "der": der}
