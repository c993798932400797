"""What a server sends, held to what an answer can be, before any client reads it.

    response ──watched──> the same, without a byte-order mark, up to `LARGEST_BODY`
    redirection to another server ──> an error: keys and questions go nowhere else

HTTPX drops the header `Authorization` where a server sends it on to another; `api-key` and `x-api-key`, which
some providers use, go along, and so does the question. Knows nothing of experts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from der_graph.errors import ExpertError

LARGEST_BODY = 64_000_000
"""Bytes of one reply, unpacked: a small one may unpack to gigabytes."""

_BOM = b"\xef\xbb\xbf"
_CLIENTS = (
    "client",
    "async_client",
    "root_client",
    "root_async_client",
    "_client",
    "_async_client",
)
_DEEPEST = 4  # a resource of an SDK, its client, and the HTTP client in that


def watch_replies(chat: Any) -> None:
    """Watch the HTTPX clients of a chat model, where it has some; a client that its user made is left alone.

    Args:
        chat: A chat model.
    """
    given = getattr(chat, "model_fields_set", ())
    for name in _CLIENTS:
        own = "http_async_client" if "async" in name else "http_client"
        if own not in given and (client := _http_client(chat, name)) is not None:
            hooks = client.event_hooks
            hook = _alater if hasattr(client, "aclose") else _now
            if hook not in hooks["response"]:
                client.event_hooks = {**hooks, "response": [*hooks["response"], hook]}


def _http_client(chat: Any, name: str) -> Any:
    try:
        each = getattr(chat, name, None)
        for _ in range(_DEEPEST):
            if each is None or isinstance(getattr(each, "event_hooks", None), dict):
                return each
            each = getattr(each, "_client", None)
    except Exception:  # a client that is made when it is first wanted, and cannot be
        pass
    return None


def _now(response: Any) -> None:
    _stay_here(response)
    read = response.iter_bytes
    response.iter_bytes = lambda *size: _bounded(read(*size))


async def _alater(response: Any) -> None:
    _stay_here(response)
    read = response.aiter_bytes
    response.aiter_bytes = lambda *size: _abounded(read(*size))


class _Bound:
    """Lets pieces of one body through."""

    def __init__(self) -> None:
        self._seen = 0

    def let(self, piece: bytes) -> bytes:
        """The piece, without a byte-order mark at the beginning.

        Raises:
            ExpertError: If the body is too large.
        """
        self._seen += len(piece)
        if self._seen > LARGEST_BODY:
            raise _unavailable(f"its server's reply is larger than {LARGEST_BODY // 1_000_000} MB")
        if self._seen == len(piece):  # the first
            return piece.removeprefix(_BOM)
        return piece


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    bound = _Bound()
    yield from map(bound.let, pieces)


async def _abounded(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    bound = _Bound()
    async for piece in pieces:
        yield bound.let(piece)


def _stay_here(response: Any) -> None:
    """Refuse a redirection to another server; one to `https` of the same is followed."""
    if not response.has_redirect_location:
        return
    asked = response.request.url
    sent = asked.join(response.headers["location"])
    same = (sent.scheme, sent.host, sent.port) == (asked.scheme, asked.host, asked.port)
    safer = (asked.scheme, sent.scheme) == ("http", "https") and sent.host == asked.host
    if not (same or safer):
        raise _unavailable(
            f"its server sends calls on to {sent.scheme}://{sent.host}, and keys and questions stay here; "
            "if that is right, give it as base_url"
        )


def _unavailable(text: str) -> ExpertError:
    error = ExpertError(text)
    error.failure_kind = "unavailable"
    return error
