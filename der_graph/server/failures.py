"""What goes wrong in a request, as the error objects that OpenAI's clients know.

    {"error": {"message": "...", "type": "invalid_request_error", "param": "model", "code": "..."}}

A caller's mistake is told in full. What goes wrong inside is logged, and the caller learns no more than the
request's id: messages of libraries may hold paths, addresses or keys.
"""

from __future__ import annotations

import math
import re
from typing import Any

from der_graph.errors import (
    AllExpertsFailedError,
    BudgetError,
    ContextLengthError,
    PoolError,
    QuestionError,
    ToolsNotSupportedError,
)
from der_graph.state import Answer

_TOO_LONG = re.compile(r"the prompt has \d+ tokens")  # what the experts say about such prompts


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: For the caller.
        param: The part of the request that is meant, such as `messages[0].content`.
        code: A word for programs.
        retry_after: Seconds after which another try makes sense.
        close: Close the connection: the rest of the request may still come.
        final: Should clients not try again? They do so by themselves after statuses from 500 on.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
        final: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.close = close
        self.final = final

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the error."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.final:
            headers["x-should-retry"] = "false"  # OpenAI's clients read it
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.close:
            headers["Connection"] = "close"
        return headers

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, _type(self.status)),
                "param": self.param,
                "code": self.code,
            }
        }


_TYPES = {401: "authentication_error", 429: "rate_limit_error", 503: "service_unavailable_error"}


def _type(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"


def failure_of(error: Exception, request_id: str) -> RequestError:
    """What a caller learns about an exception.

    Args:
        error: What was raised.
        request_id: Names the request in the log.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BudgetError):
        return RequestError(400, str(error), param="der", code="budget_too_small")
    if isinstance(error, ContextLengthError):
        return _too_long()
    if isinstance(error, QuestionError):
        return RequestError(400, str(error), param="messages", code="invalid_question")
    if isinstance(error, ToolsNotSupportedError):
        return RequestError(400, str(error), param="tools", code="unsupported_parameter")
    if isinstance(error, AllExpertsFailedError):
        return _nobody_answered(error, request_id)
    if isinstance(error, PoolError):  # a name in the request that the pool does not have
        return RequestError(400, str(error), param="der", code="invalid_value")
    return RequestError(
        500, f"internal error; the server's log says more, request {request_id}", code="internal"
    )


def _too_long() -> RequestError:
    message = (
        "the conversation is longer than the experts that may be asked can read, with the tokens that they "
        "are asked to write, or than the cost of a call pays for; shorten it, or lower 'max_tokens'"
    )
    return RequestError(400, message, param="messages", code="context_length_exceeded")


def _nobody_answered(error: AllExpertsFailedError, request_id: str) -> RequestError:
    """What it means that all failed: told by the failure that leaves the most hope."""
    kinds = {_cause(answer) for answer in error.answers}
    if (_TOO_LONG.search(str(error)) and not kinds) or kinds == {"context_length"}:
        return _too_long()
    if kinds == {"content_filter"}:
        message = "the experts' providers refused the conversation for its content"
        return RequestError(400, message, param="messages", code="content_filter")
    if "rate_limit" in kinds and kinds <= {"rate_limit", *_FINAL}:
        waits = [answer["retry_after"] for answer in error.answers if "retry_after" in answer]
        wait = max(1, math.ceil(min(waits))) if waits else None
        message = f"the experts' providers take no more calls now; request {request_id}"
        return RequestError(429, message, code="rate_limit_exceeded", retry_after=wait)
    if "format" in kinds:
        message = "no expert gave an answer of the form that 'response_format' asks for"
        return RequestError(502, message, code="invalid_output", final=True)
    if kinds and kinds <= {"request", "context_length", "content_filter"}:
        message = (
            "the experts' providers refused the request as it is, with its parameters; "
            f"the server's log says why, request {request_id}"
        )
        return RequestError(400, message, code="refused_by_experts")
    # The experts' own clients have tried again where that made sense.
    message = f"no expert could answer; the server's log says why, request {request_id}"
    return RequestError(502, message, code="experts_failed", final=True)


def _cause(answer: Answer) -> str:
    """The kind of a failure; of one that was not asked, as its provider takes no more calls, that."""
    kind = answer.get("failure", "error")
    return "rate_limit" if kind == "open" and "retry_after" in answer else kind


_FINAL = frozenset({"auth", "content_filter", "context_length", "request"})


def is_mistake(error: Exception) -> bool:
    """Is it the caller's doing, so that nobody has to look into it?"""
    mistakes = (RequestError, BudgetError, QuestionError, PoolError, ToolsNotSupportedError)
    known = isinstance(error, mistakes)
    return known and not isinstance(error, AllExpertsFailedError)


_KIND = re.compile(r"[A-Za-z][\w ]{0,59}")


def kind_of(error: str) -> str:
    """The kind of an expert's error as a label: an exception's name or a few words; `other` for the rest."""
    kind = error.split(":", 1)[0].strip()
    return kind if _KIND.fullmatch(kind) else "other"


def expert_error(text: str | None) -> str | None:
    """The kind of an expert's error, for callers: the rest of the line may name what is none of theirs."""
    return None if text is None else text.split(":", 1)[0][:80]
