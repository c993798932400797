"""Who may come in, and the line that each request leaves in the log.

    Authorization: Bearer KEY ──constant-time comparison──> in, or 401
    POST /v1/chat/completions 200 0.834s model=der route=translator>calculator cost=0.1365

Keys are kept as digests and never written anywhere; neither are messages and answers, nor what stands after
the `?` of an address. Knows nothing of routes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from der_graph.errors import ServerError
from der_graph.server.failures import RequestError
from der_graph.server.replies import to_json

log = logging.getLogger("der_graph.server")

NOTE = "der_graph.note"
"""Where an endpoint leaves, in the ASGI scope, what the log should say about a request."""

_OPEN = ("/healthz", "/readyz", "/metrics")
_SHOWN_PATH = 200


class Keys:
    """The keys that open the server; without any, everybody may come in."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Check the `Authorization` header of a request.

        Raises:
            RequestError: 401 if it holds no key, or another one.
        """
        if not self._digests:
            return
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise RequestError(
                401,
                "no API key was given: send 'Authorization: Bearer KEY'",
                code="missing_api_key",
            )
        if not self.fits(key.strip()):
            raise RequestError(401, "the API key is not right", code="invalid_api_key")

    def fits(self, key: bytes) -> bool:
        """Is this one of the keys?"""
        digest = _digest(key)
        # All of them, whatever the first ones say: the time tells nothing.
        return any([hmac.compare_digest(digest, each) for each in self._digests])


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_secrets(
    option: str, variables: Sequence[str], default: str, holds: str = "the key"
) -> list[str]:
    """Read secrets from the environment: the list of processes and the shell's history do not have them.

    Args:
        option: The option of the command that names variables, for the error.
        variables: The variables that were named.
        default: The variable that is read if none were named; it need not be set.
        holds: What a variable is to be set to, for the error.

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
    return [os.environ[name].strip() for name in names]


class Access:
    """ASGI middleware: the keys before every request but those for health and metrics, the log after each.

    Args:
        app: What is behind it.
        keys: The keys.
    """

    def __init__(self, app: Any, keys: Keys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _path(scope) not in _OPEN:
                self.keys.check(scope["headers"])
            await self.app(scope, receive, sending)
        except RequestError as error:
            await send_error(error, sending)
        finally:
            note = scope.get(NOTE, {})
            # Escaped: a path may hold line breaks.
            path = ascii(scope["path"][:_SHOWN_PATH])[1:-1]
            parts = [scope["method"], path, str(note.get("status", status))]
            parts.append(f"{time.perf_counter() - start:.3f}s")
            parts += [f"{name}={value}" for name, value in note.items() if name != "status"]
            log.info(" ".join(parts))


def _path(scope: Any) -> str:
    """The path below the address where the server is mounted in another."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


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
