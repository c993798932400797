"""Keeping secrets out of errors and fingerprints.

    settings ──secrets_in──> texts to hide ──Guarded──> a model whose errors show *** instead
             ──public──────> settings without them, for fingerprints

What a setting's name says decides: `api_key`, `password`, `headers` and the like.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableBinding, RunnableConfig

from der_graph.errors import ExpertError
from der_graph.nodes.providers.client_errors import has_begun, mark_begun
from der_graph.nodes.reliability.failures import describe_error, failure_of

_SECRET = re.compile(r"key|token(?!s)|secret|passw|auth|credential|header|cookie", re.IGNORECASE)
_SHORTEST_SECRET = 6  # characters; masking shorter texts would blank out ordinary words


def public(settings: Any) -> Any:
    """Settings without what looks like a secret."""
    if isinstance(settings, Mapping):
        return {
            key: public(value) for key, value in settings.items() if not _SECRET.search(str(key))
        }
    if isinstance(settings, (list, tuple)):
        return [public(value) for value in settings]
    return settings


def secrets_in(settings: Any, *, secret: bool = False) -> list[str]:
    """The texts in settings that look like secrets, longest first."""
    found: list[str] = []
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            found += secrets_in(value, secret=secret or bool(_SECRET.search(str(key))))
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            found += secrets_in(value, secret=secret)
    elif secret:
        # Quacks like pydantic's SecretStr, which many providers take.
        text = settings.get_secret_value() if hasattr(settings, "get_secret_value") else settings
        if isinstance(text, str) and len(text) >= _SHORTEST_SECRET:
            found.append(text)
    return sorted(found, key=len, reverse=True)


class Guarded(RunnableBinding[Any, Any]):
    """A model whose errors do not show its secrets."""

    secrets: tuple[str, ...] = ()

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [("bound", type(self.bound).__name__)]

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            masked = self._masked(error)
            if masked is error:
                raise
            raise masked from None

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.invoke`, with errors masked."""
        with self._guard():
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `Runnable.ainvoke`, with errors masked."""
        with self._guard():
            return await super().ainvoke(input, config, **kwargs)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `Runnable.batch`, with errors masked."""
        with self._guard():
            return [self._masked(result) for result in super().batch(inputs, config, **kwargs)]

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `Runnable.abatch`, with errors masked."""
        with self._guard():
            return [
                self._masked(result) for result in await super().abatch(inputs, config, **kwargs)
            ]

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As `Runnable.stream`, with errors masked."""
        with self._guard():
            yield from super().stream(input, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As `Runnable.astream`, with errors masked."""
        with self._guard():
            async for piece in super().astream(input, config, **kwargs):
                yield piece

    def _masked(self, result: Any) -> Any:
        if not isinstance(result, Exception):
            return result
        for text in (str(result), describe_error(result)):  # which may say what is behind it
            if (masked := mask(text, self.secrets)) != text:
                return _masked_error(result, masked)
        return result


_LOOKS_SECRET = re.compile(
    r"\b(?:sk|pk|rk|hf|gsk|xai|ghp|gho|glpat|key|api|tok)[-_][A-Za-z0-9_\-]{8,}"  # as providers make them
    r"|\bAIza[\w\-]{20,}|\beyJ[\w\-]{8,}\.[\w\-.]+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|(?<=://)[^/\s@:]+:[^/\s@]+(?=@)"  # the password of an address
    r"|(?i:(?<=bearer )|(?<=basic ))[\w\-.=+/~]{6,}"
    r"|(?i:(?:api[_-]?key|token|secret|passw(?:or)?d|authorization)\s*[=:]\s*['\"]?)[^\s'\"&,;]{6,}"
)


def mask_secrets(text: str) -> str:
    """Mask what looks like a secret, and what secret environment variables hold, for logs.

    Examples:
        >>> mask_secrets("Incorrect API key provided: sk-proj-0123456789")
        'Incorrect API key provided: ***'
    """
    held = [
        value
        for name, value in os.environ.items()
        if len(value) >= 8 and value in text and _SECRET.search(name)
    ]
    return _LOOKS_SECRET.sub("***", mask(text, sorted(held, key=len, reverse=True)))


def _masked_error(error: Exception, text: str) -> ExpertError:
    """An error with another text, of the same kind of failure."""
    failure = failure_of(error)
    masked: Any = ExpertError(f"{type(error).__name__}: {text}")
    masked.failure_kind, masked.retry_after = failure.kind, failure.retry_after
    if has_begun(error):
        mark_begun(masked)
    return masked  # type: ignore[no-any-return]


def mask(text: str, secrets: Sequence[str]) -> str:
    """Replace secrets in a text."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
