"""Who may come in, and the line that each request leaves in the log.

    Authorization: Bearer KEY ──constant-time comparison──> in, or 401
    Host, Origin, Content-Type ──Sites──> in, or 403, 415: no web page of a stranger asks in a user's name
    POST /v1/chat/completions 200 0.834s key=DER_API_KEY model=der route=translator>calculator cost=0.1365

Keys are kept as digests and never written anywhere; neither are messages and answers, nor what stands after
the `?` of an address.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from der_graph.errors import ServerError
from der_graph.server.chat_replies import to_json
from der_graph.server.failures import RequestError

log = logging.getLogger("der_graph.server")

NOTE = "der_graph.note"
"""Where an endpoint leaves, in the ASGI scope, what the log should say about a request."""

KEY_NAME = "der_graph.key"
"""Where the ASGI scope says whose key a request came with."""

LAST_WORDS = "der_graph.last_words"
"""Where a stream leaves, in the ASGI scope, what makes events of an error object."""

NOBODY = "-"
"""The name of those who need no key."""

_OPEN = ("/healthz", "/readyz", "/metrics")
_SHOWN_PATH = 200


class Keys:
    """The keys that open the server; without any, everybody may come in.

    Args:
        keys: The keys; a mapping gives them by their names, which log and metrics show.
    """

    def __init__(self, keys: Sequence[str] | Mapping[str, str]) -> None:
        named = (
            dict(keys)
            if isinstance(keys, Mapping)
            else {f"key-{i}": key for i, key in enumerate(keys, 1)}
        )
        self._digests = {name: _digest(key.encode()) for name, key in named.items()}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Check the `Authorization` header of a request.

        Returns:
            The name of the key; `-` where none is needed.

        Raises:
            RequestError: 401 if it holds no key, or another one.
        """
        if not self._digests:
            return NOBODY
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise RequestError(
                401,
                "no API key was given: send 'Authorization: Bearer KEY'",
                code="missing_api_key",
            )
        name = self.name_of(key.strip())
        if name is None:
            raise RequestError(401, "the API key is not right", code="invalid_api_key")
        return name

    def fits(self, key: bytes) -> bool:
        """Is this one of the keys?"""
        return self.name_of(key) is not None

    def name_of(self, key: bytes) -> str | None:
        """The name of a key; None if it is none."""
        digest = _digest(key)
        # All of them, whatever the first ones say: the time tells nothing.
        fits = [name for name, each in self._digests.items() if hmac.compare_digest(digest, each)]
        return fits[0] if fits else None


class Sites:
    """Keeps web pages of strangers out: a browser sends what a page asks of it, with the user's own reach.

    A request of a page names the page (`Origin`), which must be this server's own or an allowed one. A
    page whose name was made to mean this machine (DNS rebinding) is its own origin, but shows in `Host`:
    without keys that must be an address, `localhost` or an allowed name. With keys it may be anything, as
    such a page has none.

    Args:
        origins: Pages that may call, such as `https://chat.example`.
        hosts: Names of this server.
        keyed: Does the server ask for keys?
    """

    def __init__(
        self, origins: Sequence[str] = (), hosts: Sequence[str] = (), *, keyed: bool = False
    ) -> None:
        self._origins = {each.rstrip("/").lower() for each in origins}
        self._hosts = {"localhost", *(each.lower() for each in hosts)}
        self._keyed = keyed

    def check(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Check where a request comes from, and that what it sends is JSON.

        Raises:
            RequestError: 403 for another page or host, 415 for content of another type, or packed.
        """
        given = {name: value.decode("latin-1") for name, value in headers}
        host = given.get(b"host", "")
        if not self._keyed and not self._known(host):
            raise RequestError(
                403,
                f"this server is not known as {host[:80]!r}; its operator can allow the name "
                "(--allowed-host), or set a key",
                code="host_not_allowed",
            )
        origin = given.get(b"origin", "").lower()
        own = {f"http://{host.lower()}", f"https://{host.lower()}"}
        anywhere = "*" in self._origins
        if origin and not (anywhere or origin in self._origins or origin in own):
            raise RequestError(
                403,
                f"pages of {origin[:80]!r} may not ask here; the operator can allow them (--cors-origin)",
                code="origin_not_allowed",
            )
        if method != "POST":
            return
        browser = origin or given.get(b"sec-fetch-site")
        if given.get(b"sec-fetch-site") == "cross-site" and not origin:
            raise RequestError(403, "other pages may not ask here", code="origin_not_allowed")
        content = given.get(b"content-type", "").partition(";")[0].strip().lower()
        # Without a type, as small programs send it, only where no browser is about.
        if content != "application/json" and (content or browser):
            raise RequestError(
                415,
                f"the content is {content[:80] or 'of no type'!r}; send 'Content-Type: application/json'",
                code="unsupported_media_type",
            )
        packed = given.get(b"content-encoding", "identity").strip().lower()
        if packed not in ("", "identity"):
            raise RequestError(
                415,
                f"the content is packed by {packed[:40]!r}; send it as it is, without 'Content-Encoding'",
                code="unsupported_media_type",
            )

    def _known(self, host: str) -> bool:
        name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
        if name.lower().rstrip(".") in self._hosts or not host:
            return True  # no browser leaves the header out
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return "*" in self._hosts
        return True


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_secrets(
    option: str, variables: Sequence[str], default: str, holds: str = "the key"
) -> dict[str, str]:
    """Read secrets from the environment: the list of processes and the shell's history do not have them.

    Args:
        option: The option of the command that names variables, for the error.
        variables: The variables that were named.
        default: The variable that is read if none were named; it need not be set.
        holds: What a variable is to be set to, for the error.

    Returns:
        The secrets by the names of their variables.

    Raises:
        ServerError: If a named variable is not set or empty: the server would stand open unexpectedly.
    """
    for name in variables:
        if not os.environ.get(name, "").strip():
            raise ServerError(
                f"{option} {name}: the environment variable {name} is not set; set it to {holds}, or "
                "leave the option out to serve without one"
            )
    names = variables or [name for name in (default,) if os.environ.get(name, "").strip()]
    return {name: os.environ[name].strip() for name in names}


class Access:
    """ASGI middleware: the keys before every request but those for health and metrics, the log after each.

    Args:
        app: What is behind it.
        keys: The keys.
        sites: Which pages and names are known; all where left out.
        root_path: Path below which a proxy shows the server, which requests may come with or without.
        stopping: Says whether the server stops.
    """

    def __init__(
        self,
        app: Any,
        keys: Keys,
        sites: Sites | None = None,
        root_path: str = "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app = app
        self.root_path = root_path
        self._stopping = stopping
        self.keys = keys
        self.sites = sites or Sites(["*"], ["*"])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.root_path:
            scope["root_path"] = self.root_path
        start = time.perf_counter()
        status = 0

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _path(scope) not in _OPEN:
                self.sites.check(scope["method"], scope["headers"])
                scope[KEY_NAME] = self.keys.check(scope["headers"])
            await self.app(scope, receive, sending)
        except RequestError as error:
            await send_error(error, sending)
        except asyncio.CancelledError as error:
            # The process ends, and its time for requests is over: by the second uvicorn says so where it was
            # not started by this package. Other cancellation is the business of who did it.
            if not self._stopping() and "graceful shutdown" not in str(error):
                raise
            scope.setdefault(NOTE, {})["status"] = _STOPPED.status
            if not status:
                await send_error(_STOPPED, sending)
            else:
                last = scope[LAST_WORDS](_STOPPED.body) if LAST_WORDS in scope else []
                await send({"type": "http.response.body", "body": b"".join(last)})
        finally:
            note = scope.get(NOTE, {})
            # Escaped: a path may hold line breaks.
            path = ascii(scope["path"][:_SHOWN_PATH])[1:-1]
            parts = [scope["method"], path, str(note.get("status", status))]
            parts.append(f"{time.perf_counter() - start:.3f}s")
            if self.keys and KEY_NAME in scope:
                parts.append(f"key={scope[KEY_NAME]}")
            parts += [f"{name}={value}" for name, value in note.items() if name != "status"]
            log.info(" ".join(parts))


def _path(scope: Any) -> str:
    """The path below the address where the server is mounted in another."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


_STOPPED = RequestError(
    503, "the server is stopping; try again soon", code="stopping", retry_after=2
)


async def send_error(error: RequestError, send: Any) -> None:
    """Answer with an error object."""
    body = to_json(error.body).encode()
    headers: Mapping[str, str] = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
