"""What a server sends, held to what an answer can be, before any client reads it.

    response ──watched──> the same, without a byte-order mark, up to `LARGEST_BODY`
    redirection to another server ──> an error: keys and questions go nowhere else
    body that is packed twice, or by what was not asked for ──> an error: 1 KB of it may hold 1 GB

Clients are shared: LangChain gives one to all models of a URL. So the requests that are made within
`watching` are watched, and no others of the same client.

HTTPX drops the header `Authorization` where a server sends it on to another; `api-key` and `x-api-key`, which
some providers use, go along, and so does the question. Knows nothing of experts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from der_graph.errors import ExpertError

LARGEST_BODY = 64_000_000
"""Bytes of one reply, unpacked: a small one may unpack to gigabytes."""

_T = TypeVar("_T")
_WATCHING: ContextVar[bool] = ContextVar("der_watching", default=False)
# HTTPX unpacks a piece of the network whole before anybody can count: these grow a thousandfold at the most.
_PACKINGS = ("gzip", "deflate")
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
    """Have the HTTPX clients of a chat model, where it has some, watch what is asked within `watching`.

    An `http_client` or `http_async_client` that the user gave is left alone. Other clients that the user may
    have made look like those of LangChain; whatever else they ask stays as it is.

    Args:
        chat: A chat model.
    """
    # LangChain makes one for a proxy, and takes none beside it.
    given = () if getattr(chat, "openai_proxy", None) else getattr(chat, "model_fields_set", ())
    for name in _CLIENTS:
        own = "http_async_client" if "async" in name else "http_client"
        if own not in given and (client := _http_client(chat, name)) is not None:
            later = hasattr(client, "aclose")
            hooks = client.event_hooks
            added = {
                "request": _ask_later if later else _ask,
                "response": _alater if later else _now,
            }
            if added["response"] not in hooks["response"]:
                client.event_hooks = {
                    kind: [*hooks.get(kind, ()), hook] for kind, hook in added.items()
                }


@contextmanager
def watching() -> Iterator[None]:
    """Watch the replies to requests that are made here."""
    before = _WATCHING.get()
    _WATCHING.set(True)
    try:
        yield
    finally:
        _WATCHING.set(before)


def watched(pieces: Iterator[_T]) -> Iterator[_T]:
    """The same, watched while a piece is awaited, and not where it is read."""
    while True:
        try:
            with watching():
                piece = next(pieces)
        except StopIteration:
            return
        yield piece


async def awatched(pieces: AsyncIterator[_T]) -> AsyncIterator[_T]:
    """As `watched`."""
    while True:
        try:
            with watching():
                piece = await pieces.__anext__()
        except StopAsyncIteration:
            return
        yield piece


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


def _ask(request: Any) -> None:
    if _WATCHING.get() and request.headers.get("accept-encoding") != "identity":
        request.headers["accept-encoding"] = ", ".join(_PACKINGS)


async def _ask_later(request: Any) -> None:
    _ask(request)


def _now(response: Any) -> None:
    if not _WATCHING.get():
        return
    _stay_here(response)
    _simply_packed(response)
    read = response.iter_bytes
    response.iter_bytes = lambda chunk_size=None: _bounded(read(chunk_size))


async def _alater(response: Any) -> None:
    if not _WATCHING.get():
        return
    _stay_here(response)
    _simply_packed(response)
    read = response.aiter_bytes
    response.aiter_bytes = lambda chunk_size=None: _abounded(read(chunk_size))


class _Bound:
    """Lets pieces of one body through."""

    def __init__(self) -> None:
        self._seen = 0
        self._begun: bytes | None = b""  # held back while it may be a part of a byte-order mark

    def let(self, piece: bytes) -> bytes:
        """The piece, without a byte-order mark at the beginning.

        Raises:
            ExpertError: If the body is too large.
        """
        self._seen += len(piece)
        if self._seen > LARGEST_BODY:
            raise _unavailable(f"its server's reply is larger than {LARGEST_BODY // 1_000_000} MB")
        if self._begun is None:
            return piece
        begun = self._begun + piece
        if len(begun) < len(_BOM) and _BOM.startswith(begun):
            self._begun = begun
            return b""
        self._begun = None
        return begun.removeprefix(_BOM)

    def rest(self) -> bytes:
        """What was held back to the end."""
        return self._begun or b""


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    bound = _Bound()
    for piece in pieces:
        if let := bound.let(piece):
            yield let
    if rest := bound.rest():
        yield rest


async def _abounded(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    bound = _Bound()
    async for piece in pieces:
        if let := bound.let(piece):
            yield let
    if rest := bound.rest():
        yield rest


def _simply_packed(response: Any) -> None:
    """Refuse a body that is packed in another way than was asked for."""
    named = response.headers.get("content-encoding", "").lower().split(",")
    packings = [each for each in map(str.strip, named) if each not in ("", "identity")]
    if len(packings) > 1 or not set(packings).issubset(_PACKINGS):
        raise _unavailable(
            f"its server packs its reply by {', '.join(packings)[:100]!r}; "
            f"only {' or '.join(_PACKINGS)} is read"
        )


def _stay_here(response: Any) -> None:
    """Refuse a redirection to another server; one to `https` of the same is followed."""
    if not response.has_redirect_location:
        return
    asked = response.request.url
    sent = asked.join(response.headers["location"])
    same = (sent.host, sent.port) == (asked.host, asked.port)  # no port is the scheme's own
    # Another port may be another program, of somebody else.
    safe = same and (
        sent.scheme == asked.scheme or (asked.scheme, sent.scheme) == ("http", "https")
    )
    if not safe:
        there = f"{sent.scheme}://{sent.netloc.decode('ascii', 'replace')}"
        raise _unavailable(
            f"its server sends calls on to {there}, and keys and questions stay here; "
            "if that is right, give it as base_url"
        )


def _unavailable(text: str) -> ExpertError:
    error = ExpertError(text)
    error.failure_kind = "unavailable"
    return error
