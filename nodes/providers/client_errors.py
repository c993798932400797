"""What a failed call means, told from the exception that a provider's client raised.

    exception ──failure_of──> kind, seconds to wait (Retry-After)

    context_length  the prompt is longer than the model reads      refused: costs nothing
    content_filter  the provider will not answer this              refused
    request         a wrong parameter, no such model               refused
    auth            a wrong key, or an account without money       refused
    rate_limit      too many calls now; `retry_after` says when    refused, for the moment
    timeout, unavailable                                           the next try may work
    error           an exception that says nothing of itself

Knows nothing of experts.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple
from urllib.request import proxy_bypass

from langchain_core import exceptions

FailureKind = Literal[
    "auth", "content_filter", "context_length", "error", "rate_limit", "request", "timeout", "unavailable",
]  # fmt: skip


class ReplyError(ValueError):
    """A provider says with HTTP 200 that it could not answer.

    Args:
        told: The `error` of its reply: an object, or a text.
    """

    def __str__(self) -> str:
        told = self.args[0]
        said = told.get("message") if isinstance(told, Mapping) else told
        return str(said or told)


class Failure(NamedTuple):
    """What a failed call means.

    Attributes:
        kind: One of the kinds above.
        retry_after: Seconds after which the provider wants to be asked again; None where it does not say.
    """

    kind: FailureKind
    retry_after: float | None = None


# What providers and servers say about prompts that are too long; the first is ours.
_TOO_LONG = re.compile(
    r"the prompt has \d+ tokens|context_length_exceeded|context[ _](?:length|window|size)|"
    r"maximum context|exceed_context_size|(?:prompt|input|request) (?:is |was )?too (?:long|large)|"
    r"input tokens? exceed|too many (?:input )?tokens|longer than the model|"
    r"maximum (?:number of )?(?:input )?tokens|reduce the length of the (?:input )?messages|"
    r"input length .{0,40}exceed|range of input length|maximum (?:prompt|model|input) length|"
    r"(?:prompt|input|request)s? exceeds? (?:the )?max|exceed(?:s|ed)? .{0,30}token limit|"
    r"input token count.{0,20} exceed|input tokens \d+ cannot exceed|prompt \u8d85\u957f|"
    r"`inputs`.{0,40} must (?:be <=|have less than)",  # Text Generation Inference
    re.IGNORECASE,
)
# At 500: llama.cpp, LM Studio, and whoever passes their words on.
_OVER_CONTEXT = re.compile(r"context size has been exceeded|exceed_context_size", re.IGNORECASE)
_FILTERED = re.compile(
    r"content[_ ]?(?:filter|management|policy|moderation)|responsibleai|data_inspection|"
    r"flagged (?:as|by|for)|(?:was|been) flagged|safety (?:system|policy|settings)|"
    r"(?:unsafe|sensitive|inappropriate) (?:or sensitive )?content|content exists risk",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient[_ ](?:quota|balance)|exceeded your current quota|billing|out of credits|"
    r"credit balance|arrearage|good standing",
    re.I,
)
# At 400 and 422 what is wrong with the request is quoted: only how a message begins tells of key and account,
# and its word for programs.
_ACCOUNT = re.compile(
    r"(?:\d{3} )?(?:[\w.]+: )?(?:\w+ - )?"
    r"(?:(?:incorrect|invalid|missing) api key|api key (?:is )?(?:not valid|invalid)|"
    r"(?:your )?credit balance is too low|insufficient (?:quota|balance)|"
    r"you exceeded your current quota|access denied, please make sure your account is in good standing)",
    re.IGNORECASE,
)
_ACCOUNT_WORDS = frozenset(
    "api_key_invalid arrearage billing_hard_limit_reached billing_not_active insufficient_balance "
    "insufficient_quota invalid_api_key".split()
)
_TIME = (
    r"(\d+(?:\.\d+)?) ?"
    r"(ms|msecs?|milliseconds?|h(?:rs?|ours?)?|m(?:ins?|inutes?)?|s(?:ecs?|econds?)?)(?![a-z])"
)
_WAIT = re.compile(
    rf"(?:try|retry) (?:again )?(?:in|after) (?:(?P<times>{_TIME}(?:(?:,? (?:and )?)?{_TIME})*)|"
    r"(?P<seconds>\d+(?:\.\d+)?)(?!\d|\.\d| ?[a-z]))",
    re.IGNORECASE,
)
_UNIT = (("ms", 0.001), ("mil", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0))


def failure_of(error: BaseException) -> Failure:
    """Tell what a failed call means.

    Args:
        error: What was raised; errors behind it (`__cause__`) are looked at too.
    """
    for each in _chain(error):
        found = getattr(each, "failure_kind", None) or _kind(each)
        if found is not None:
            wait = _retry_after(each) if found in ("rate_limit", "unavailable") else None
            return Failure(found, wait)
    return Failure("error")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__


def mark_begun(error: BaseException) -> None:
    """Note of an error that a model had begun to answer, were it only by a thought: that is charged."""
    with contextlib.suppress(AttributeError):  # an exception with slots
        error.answer_begun = True  # type: ignore[attr-defined]


def has_begun(error: BaseException) -> bool:
    """Had a model begun to answer when this was raised?"""
    return any(getattr(each, "answer_begun", False) for each in _chain(error))


def cause_of(error: BaseException) -> str:
    """What is behind an error whose client says no more than "Connection error." or a status; or empty."""
    if _STATUS_ALONE.fullmatch(str(error).strip()):
        return " ".join(" ".join(told_in(getattr(error, "body", None))).split())
    if type(error).__name__.removeprefix("OpenAI") not in _UNTELLING:
        return ""
    behind = list(_chain(error))
    told = [each for each in behind[1:] if str(each).strip()]
    proxy = _proxy_of(behind)
    if told:
        return proxy + str(told[-1]).strip().splitlines()[0]
    return proxy + type(behind[-1]).__name__ if len(behind) > 1 else ""


def _proxy_of(behind: Sequence[BaseException]) -> str:
    """The proxy that could not be reached, where the environment names one; or empty."""
    if not {type(each).__name__ for each in behind} & _NOT_CONNECTED:
        return ""  # it was, and what came later is not its fault
    for each in behind:
        with contextlib.suppress(
            Exception
        ):  # a client without requests, or one that has forgotten it
            url = each.request.url  # type: ignore[attr-defined]
            if proxy_bypass(url.host):
                return ""
            for name in (f"{url.scheme}_proxy", "all_proxy"):
                for spelling in (name, name.upper()):
                    if address := os.environ.get(spelling):
                        return f"the proxy of {spelling}, {address.rpartition('@')[2]}: "
    return ""


_STATUS_ALONE = re.compile(r"Error code: \d+")
_NOT_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "ProxyError"})


def _kind(error: BaseException) -> FailureKind | None:
    text, status = _said(error), _status(error) or _told_status(error)
    if isinstance(error, getattr(exceptions, "ContextOverflowError", ())):
        return "context_length"
    # A provider's 429 may speak of tokens a minute, and its 5xx of anything.
    told = _TOO_LONG if status in (None, 400, 413, 422) else _OVER_CONTEXT
    if status != 429 and told.search(text):
        return "context_length"
    if status in (400, 403, 422, 451) and _FILTERED.search(text):
        return "content_filter"
    if status in (402, 403, 429) and _QUOTA.search(text):
        # A link to the page of prices stands in many a 429; whoever says when to come back wants no money.
        passes = status == 429 and "insufficient_quota" not in text
        return "rate_limit" if passes and _retry_after(error) is not None else "auth"
    if status in (400, 422) and _tells_of_account(error):
        return "auth"
    if status is not None:
        return _by_status(status)
    if isinstance(error, getattr(exceptions, "ModelRateLimitError", ())):
        return "rate_limit"
    if _NO_CHOICES.search(text):
        return "unavailable"
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name.endswith(("Timeout", "TimeoutError")):
        return "timeout"
    if isinstance(error, getattr(exceptions, "ModelError", ())):
        return "unavailable" if getattr(error, "is_retryable", False) else "request"
    if isinstance(error, ReplyError):
        return "request" if "invalid_request" in text else "unavailable"
    if isinstance(error, ConnectionError) or name in _UNREACHED:
        return "unavailable"
    return None


def _tells_of_account(error: BaseException) -> bool:
    if any(word.lower() in _ACCOUNT_WORDS for word in _words(error)):
        return True
    said = [str(error), str(getattr(error, "message", None) or "")]
    for name in ("body", "details"):  # the latter is Google's
        said += told_in(getattr(error, name, None))
    return any(map(_ACCOUNT.match, said))


def _said(error: BaseException) -> str:
    """What an exception says, with what its body tells, which its text may leave out."""
    return " ".join([str(error), *_words(error), *told_in(getattr(error, "body", None))])


def _words(error: BaseException) -> list[str]:
    """What an exception and its body say to programs."""
    words = [getattr(error, "code", None), getattr(error, "type", None)]
    for each in _bodies(error):
        words += [each.get("code"), each.get("type")]
    return [word for word in words if isinstance(word, str)]


_TELLING = ("message", "msg", "error", "errors", "detail", "details", "reason", "title")


def told_in(body: Any, depth: int = 4) -> list[str]:
    """The texts of an error's body, whatever its form; not the parts of the request that it may quote."""
    if isinstance(body, str):
        return [body[:1000]] if body.strip() else []
    if not depth or not isinstance(body, (Mapping, list)):
        return []
    parts = [body.get(name) for name in _TELLING] if isinstance(body, Mapping) else body[:5]
    return [text for part in parts for text in told_in(part, depth - 1)]


def _bodies(error: BaseException) -> Iterator[Mapping[str, Any]]:
    """The objects of an error's body, wherever its client keeps them."""
    # LangChain raises the `error` of a body that came with HTTP 200 as `ValueError(error)`.
    for given in (getattr(error, "body", None), *error.args[:1]):
        body = given[0] if isinstance(given, list) and given else given  # Gemini's is in a list
        for each in (body, body.get("error") if isinstance(body, Mapping) else None):
            if isinstance(each, Mapping):
                yield each


def _told_status(error: BaseException) -> int | None:
    """The status that an error's body tells, where gateways answer with HTTP 200 all the same."""
    for each in _bodies(error):
        code = str(each.get("code") or each.get("status") or "")
        if code.isdecimal() and 400 <= int(code) < 600:
            return int(code)
    return None


_NO_CHOICES = re.compile("(?:null value for|missing) 'choices'")  # an error of a form of its own
_UNTELLING = frozenset({"APIConnectionError", "ConnectionError", "APITimeoutError", "TimeoutError"})
_UNREACHED = frozenset(
    {"APIError", "APIConnectionError", "ConnectError", "RemoteProtocolError", "ReadError"}
)


def _by_status(status: int) -> FailureKind:
    if status in (401, 402, 403, 404, 405, 407, 410, 511):  # 407 and 511 are a proxy's
        return "auth"
    if status == 429:
        return "rate_limit"
    if status in (408, 504):
        return "timeout"
    return "unavailable" if status in (409, 425) or status >= 500 else "request"


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception carries, wherever its client keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        response = metadata if isinstance(metadata, Mapping) else {}
        found: Any = response.get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    for name in ("status_code", "http_status", "code", "status"):
        if isinstance(found, int) and not isinstance(found, bool):
            break
        found = getattr(error, name, None)
    is_status = isinstance(found, int) and not isinstance(found, bool) and 400 <= found < 600
    return int(found) if is_status else None


def _retry_after(error: BaseException) -> float | None:
    own = getattr(error, "retry_after", None)
    if isinstance(own, (int, float)):
        return float(own)
    headers = getattr(getattr(error, "response", None), "headers", None)
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds(_header(headers, name), _header(headers, "date"))
        if seconds is not None:
            return seconds * unit
    said = _WAIT.search(_said(error))
    if said is None:
        return None
    if said["seconds"]:
        return float(said["seconds"])
    parts = re.findall(_TIME, said["times"].lower())  # "7m12.5s" has two
    return sum(
        float(number) * next(each for begin, each in _UNIT if unit.startswith(begin))
        for number, unit in parts
    )


def _header(headers: Any, name: str) -> str:
    """A header's text; empty where there is none, or where a client keeps them in another form."""
    try:
        return str(headers.get(name) or "")
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""


def _seconds(given: str, sent: str) -> float | None:
    """A header's number of seconds, or the time until its date, by the clock of the server if it tells it."""
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(given).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(sent).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        now = time.time()
    return max(0.0, until - now)
