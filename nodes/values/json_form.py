"""Is an answer the JSON that was asked for?

    text, schema ──read_json──> the JSON alone, and what is wrong with it

Schemas come from whoever sends a request. So nothing that they name is fetched, and what takes too long to
check is not checked: a small schema can ask for more steps than anybody waits for, and one regular expression
too. Knows nothing of models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SECONDS = 0.5
"""How long a schema may take to check."""

FENCE = "```json"
"""What opens a code fence of JSON; models also leave out the word."""

_MARK = "```"
# The first names another set of rules, the others are searched for without a bound on their time.
_NOT_CHECKED = ("$schema", "patternProperties")
_BESIDE_PATTERNS = ("additionalProperties", "unevaluatedProperties")

_Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def read_json(text: str, schema: Mapping[str, Any]) -> tuple[str, str | None]:
    """Read an answer that should be JSON of a schema.

    Args:
        text: The answer, perhaps in a code fence.
        schema: What it must fit; what cannot be checked of it counts as fitting.

    Returns:
        The JSON alone, and what is wrong with it, or None.
    """
    found = unfenced(text)
    try:
        value = json.loads(found)
    except ValueError as error:
        return found, f"it is not JSON: {error}"
    except RecursionError:
        return found, "it is nested too deeply"
    return found, _fault(value, schema)


def unfenced(text: str) -> str:
    r"""A text without the code fence around it.

    Examples:
        >>> unfenced('```json\n{"a": 1}\n```')
        '{"a": 1}'
    """
    text = text.strip()
    return opened(text).removesuffix(_MARK).rstrip() if text.startswith(_MARK) else text


def opened(text: str) -> str:
    """A text without the opening of a code fence that it begins with."""
    if not text.startswith(_MARK):
        return text
    inside = text[len(FENCE) :] if text[: len(FENCE)].lower() == FENCE else text[len(_MARK) :]
    return inside.lstrip()


def _fault(value: Any, schema: Mapping[str, Any]) -> str | None:
    import jsonschema

    try:
        _validator(schema).validate(value)
    except jsonschema.ValidationError as error:
        where = "".join(f"[{each!r}]" for each in error.absolute_path)
        return f"{where or 'it'}: {error.message[:300]}"
    except Exception:  # the caller's schema says nothing that can be checked
        return None
    return None


def _validator(schema: Mapping[str, Any]) -> Any:
    """Checks values, without a look at other places and for a bounded time.

    The schema is not checked: that takes time with the square of its size, and is the caller's affair.
    """
    from jsonschema import validators
    from referencing import Registry

    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    end = time.monotonic() + SECONDS

    def timed(check: _Keyword) -> _Keyword:
        def checked(validator: Any, wanted: Any, value: Any, whole: Any) -> Iterator[Any] | None:
            if time.monotonic() > end:
                raise TimeoutError("the schema takes too long to check")
            return check(validator, wanted, value, whole)

        return checked

    keywords: dict[str, Any] = {**kind.VALIDATORS, "pattern": _pattern}
    bounded = validators.extend(kind, {name: timed(check) for name, check in keywords.items()})
    return bounded(_checkable(schema), registry=Registry())


def _checkable(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_checkable(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    dropped: tuple[str, ...] = _NOT_CHECKED
    if isinstance(schema.get("patternProperties"), Mapping):
        dropped += _BESIDE_PATTERNS
    return {key: _checkable(each) for key, each in schema.items() if key not in dropped}


def _pattern(validator: Any, wanted: str, value: Any, whole: Any) -> Iterator[Any]:
    import regex  # transformers brings it; Python's own has no bound on its time
    from jsonschema import ValidationError

    if validator.is_type(value, "string") and not regex.search(wanted, value, timeout=SECONDS):
        yield ValidationError(f"{value!r} does not match {wanted!r}")
