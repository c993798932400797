"""Keeping secrets out of errors, traces and fingerprints.

    settings ──secrets_in──> texts to hide ──mask──> a text that shows *** instead
             ──public──────> settings without them, for fingerprints
             ──shown───────> settings with *** in their place, for traces
    exception ──masked_error──> the same, of the same class, which quotes no key

What a setting's name says decides: `api_key`, `password`, `headers` and the like. Of a text it is how it
looks, and what secret environment variables hold.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from der_graph.errors import ExpertError
from der_graph.nodes.providers.client_errors import failure_of, has_begun, mark_begun

_SECRET = re.compile(r"key|token(?!s)|secret|passw|auth|credential|header|cookie", re.IGNORECASE)
_SHORTEST_SECRET = 6  # characters; masking shorter texts would blank out ordinary words
_MASK = "***"


def public(settings: Any) -> Any:
    """Settings without what looks like a secret."""
    if isinstance(settings, Mapping):
        return {
            key: public(value) for key, value in settings.items() if not _SECRET.search(str(key))
        }
    if isinstance(settings, (list, tuple)):
        return [public(value) for value in settings]
    return settings


def shown(settings: Any, secrets: Sequence[str] = (), *, secret: bool = False) -> Any:
    """Settings with a mask in place of what looks like a secret.

    Args:
        settings: What JSON can hold; anything else is left as it is.
        secrets: Further texts to hide.
        secret: Is it a secret by its name?
    """
    return _shown(settings, (*secrets, *held_secrets()), secret)


def _shown(settings: Any, secrets: Sequence[str], secret: bool) -> Any:
    if isinstance(settings, Mapping):
        if settings.get("lc") and settings.get("type") == "secret":
            return settings  # LangChain's own mask: the name of a variable
        return {
            key: _shown(value, secrets, secret or bool(_SECRET.search(str(key))))
            for key, value in settings.items()
        }
    if isinstance(settings, (list, tuple)):
        each = [_shown(value, secrets, secret) for value in settings]
        return tuple(each) if isinstance(settings, tuple) else each
    if not isinstance(settings, str):
        return settings
    if secret and len(settings) >= _SHORTEST_SECRET:
        return _MASK
    text = mask_secrets(settings, secrets)
    return _QUERY.sub(_MASK, text) if "://" in text else text


_QUERY = re.compile(r"(?<=\?)[^\s'\"]+")


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


def secrets_of(model: Any) -> tuple[str, ...]:
    """The keys of a chat model, and what else it sends of which nobody should hear."""
    held = {
        name: value
        for name, value in vars(model).items()
        # Names alone would take `tiktoken_model_name` for a key.
        if hasattr(value, "get_secret_value") or isinstance(value, Mapping)
    }
    # Shorter ones are none, but words such as `ollama` for servers that want no key.
    return tuple(each for each in secrets_in(held) if len(each) >= 8)


_LOOKS_SECRET = re.compile(
    r"\b(?:sk|pk|rk|hf|gsk|xai|ghp|gho|glpat|key|api|tok)[-_][A-Za-z0-9_\-]{8,}"  # as providers make them
    r"|\bAIza[\w\-]{20,}|\beyJ[\w\-]{8,}\.[\w\-.]+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|(?<=://)[^/\s@'\"]+(?=@)"  # the user of an address, and the password
    r"|(?<=[?&])(?i:key|sig|signature|code)=[^\s'\"&]{6,}"
    r"|(?i:(?<=bearer )|(?<=basic ))[\w\-.=+/~]{6,}"
    # Also as JSON and Python write them: "api_key": "..."
    r"|(?i:(?:api[_-]?key|token|secret|passw(?:or)?d|authorization)['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;]{6,}"
)


def held_secrets() -> list[str]:
    """What secret environment variables hold, longest first."""
    held = {v for name, v in os.environ.items() if len(v) >= 8 and _SECRET.search(name)}
    return sorted(held, key=len, reverse=True)


def mask_secrets(text: str, secrets: Sequence[str] | None = None) -> str:
    """Mask what looks like a secret, and what secret environment variables hold, for logs.

    Args:
        text: Any.
        secrets: Texts to hide, in place of what those variables hold; whoever masks many texts reads them
            once.

    Examples:
        >>> mask_secrets("Incorrect API key provided: sk-proj-0123456789")
        'Incorrect API key provided: ***'
    """
    return _LOOKS_SECRET.sub(_MASK, mask(text, held_secrets() if secrets is None else secrets))


def mask(text: str, secrets: Sequence[str]) -> str:
    """Replace secrets in a text."""
    for secret in secrets:
        text = text.replace(secret, _MASK)
    return text


# Errors ----------------------------------------------------------------------------------------------------


@contextmanager
def quiet(secrets: Sequence[str] = ()) -> Iterator[None]:
    """Let no error out that quotes a secret: whoever traces a call is told of its error as it is.

    Args:
        secrets: Texts to hide, beside what looks like a secret.
    """
    try:
        yield
    except Exception as error:
        masked = masked_error(error, secrets)
        if masked is error:
            raise
        context = masked.__context__
        try:
            raise masked
        finally:
            masked.__context__ = context  # and not the error that quotes it


def masked_error(error: Exception, secrets: Sequence[str] = ()) -> Exception:
    """An error that shows no secret, in its text, its body, its response, or the errors behind it.

    Args:
        error: What was raised.
        secrets: Texts to hide, beside what looks like a secret.

    Returns:
        The error itself where there is nothing to hide; else one of the same class, so that retries and
        fallbacks that look at it do as before, and of the same kind of failure. An `ExpertError` where its
        class cannot be made.
    """
    hide = functools.partial(shown, secrets=tuple(secrets))
    masked: Any = _Masking(hide).error(error)
    if masked is not error:
        meaning = failure_of(error)  # what is masked may be what told it
        with contextlib.suppress(AttributeError):  # an exception with slots
            if meaning.kind != "error":
                masked.failure_kind = meaning.kind
            if meaning.retry_after is not None:
                masked.retry_after = meaning.retry_after
    return masked  # type: ignore[no-any-return]


class _Masking:
    """Copies an error, and those behind it, without secrets."""

    def __init__(self, hide: Callable[[Any], Any]) -> None:
        self._hide = hide
        self._known: dict[int, BaseException] = {}

    def error(self, error: BaseException) -> BaseException:
        known = self._known.get(id(error))
        if known is not None:
            return known
        self._known[id(error)] = error  # a chain may go round
        cause = error.__cause__ and self.error(error.__cause__)
        hidden = error.__suppress_context__ or error.__context__ is None
        context = None if hidden else self.error(error.__context__)  # type: ignore[arg-type]
        args = tuple(map(self._value, error.args))
        told = {
            name: self._hide({name: value})[name] if isinstance(value, str) else self._value(value)
            for name, value in getattr(error, "__dict__", {}).items()
        }
        same = cause is error.__cause__ and (hidden or context is error.__context__)
        same = same and args == error.args and all(told[n] is error.__dict__[n] for n in told)
        if same and self._is_clean(error):
            return error
        made = self._made(error, args, told)
        made.__cause__, made.__context__ = cause, context
        made.__suppress_context__ = error.__suppress_context__
        self._known[id(error)] = made
        return made.with_traceback(error.__traceback__)

    def _made(
        self, error: BaseException, args: tuple[Any, ...], told: dict[str, Any]
    ) -> BaseException:
        with contextlib.suppress(Exception):  # a class with a way of its own of being made
            made = type(error).__new__(type(error), *args)
            made.args = args
            made.__dict__.update(told)
            if self._is_clean(made):
                return made
        failed = ExpertError(f"{type(error).__name__}: {self._hide(str(error))}")
        if has_begun(error):
            mark_begun(failed)
        return failed

    def _is_clean(self, error: BaseException) -> bool:
        return all(self._hide(text) == text for text in (str(error), repr(error)))

    def _value(self, value: Any) -> Any:
        """A value without secrets; the same object where it has none."""
        if isinstance(value, BaseException):
            return self.error(value)
        if isinstance(value, (list, tuple)) and any(isinstance(v, BaseException) for v in value):
            return [self._value(each) for each in value]  # of a group
        if isinstance(value, (str, list, tuple, Mapping)):
            hidden = self._hide(value)
            return value if hidden == value else hidden
        if hasattr(value, "status_code") and hasattr(value, "headers"):
            return _Reply.of(value, self._hide)
        return value


class _Reply:
    """A provider's reply, as errors keep it, without secrets."""

    def __init__(self, reply: Any, hide: Callable[[Any], Any]) -> None:
        self._reply, self._hide = reply, hide
        headers = hide(dict(reply.headers))
        self.headers = type(reply.headers)(headers)

    @classmethod
    def of(cls, reply: Any, hide: Callable[[Any], Any]) -> Any:
        """The reply itself where it has no secrets."""
        try:
            made = cls(reply, hide)
            same = dict(made.headers) == dict(reply.headers) and made.text == reply.text
        except Exception:  # a stream whose text was not read, or a reply of another kind
            return reply
        return reply if same else made

    @property
    def text(self) -> str:
        return str(self._hide(self._reply.text))

    def json(self, **given: Any) -> Any:
        return self._hide(self._reply.json(**given))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)
