"""What goes wrong in a request, as the error objects that OpenAI's clients know.

    {"error": {"message": "...", "type": "invalid_request_error", "param": "model", "code": "..."}}

A caller's mistake is told in full. What goes wrong inside is logged, and the caller learns no more than the
request's id: messages of libraries may hold paths, addresses or keys.
"""

from __future__ import annotations

import re
from typing import Any

from der_graph.errors import (
    AllExpertsFailedError,
    BudgetError,
    PoolError,
    QuestionError,
)

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
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.close = close

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the error."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
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
    if isinstance(error, QuestionError):
        return RequestError(400, str(error), param="messages", code="invalid_question")
    if isinstance(error, AllExpertsFailedError):
        if _TOO_LONG.search(str(error)):
            message = (
                "the conversation is longer than the experts that may be asked can read; shorten it"
            )
            return RequestError(400, message, param="messages", code="context_length_exceeded")
        message = f"no expert could answer; the server's log says why, request {request_id}"
        return RequestError(502, message, code="experts_failed")
    if isinstance(error, PoolError):  # a name in the request that the pool does not have
        return RequestError(400, str(error), param="der", code="invalid_value")
    return RequestError(
        500, f"internal error; the server's log says more, request {request_id}", code="internal"
    )


def is_mistake(error: Exception) -> bool:
    """Is it the caller's doing, so that nobody has to look into it?"""
    known = isinstance(error, (RequestError, BudgetError, QuestionError, PoolError))
    return known and not isinstance(error, AllExpertsFailedError)


_KIND = re.compile(r"[A-Za-z][\w ]{0,59}")


def kind_of(error: str) -> str:
    """The kind of an expert's error as a label: an exception's name or a few words; `other` for the rest."""
    kind = error.split(":", 1)[0].strip()
    return kind if _KIND.fullmatch(kind) else "other"


def expert_error(text: str | None) -> str | None:
    """The kind of an expert's error, for callers: the rest of the line may name what is none of theirs."""
    return None if text is None else text.split(":", 1)[0][:80]
