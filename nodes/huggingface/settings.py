"""How answers are generated: every setting, its meaning and what is allowed.

Greedy unless told otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from der_graph.errors import PoolError, did_you_mean


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated. Greedy unless a temperature above 0 or `do_sample` says otherwise."""

    max_new_tokens: int = 256
    """Longest answer, in tokens, thought included; shortened where the context has less room."""
    do_sample: bool | None = None
    """Draw tokens instead of taking the likeliest; None: yes if `temperature` is above 0."""
    temperature: float | None = None
    """Sharpness of the draw; 0 is greedy."""
    top_p: float | None = None
    """Draw from the likeliest tokens that have this share of the probability."""
    top_k: int | None = None
    """Draw from this many likeliest tokens; 0 for all."""
    min_p: float | None = None
    """Draw from tokens at least this likely, relative to the likeliest."""
    repetition_penalty: float | None = None
    """Above 1: tokens that occurred become less likely."""
    no_repeat_ngram_size: int | None = None
    """No sequence of this many tokens occurs twice; 0 for no limit."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are not part of it."""
    seed: int | None = None
    """Makes draws repeatable: every prompt draws by numbers of its own, alone and in any batch."""
    max_time: float | None = None
    """Seconds after which the answer is cut."""

    @property
    def sampling(self) -> bool:
        """Are tokens drawn?"""
        return bool(self.temperature) if self.do_sample is None else self.do_sample

    def updated(self, given: Mapping[str, Any], where: str) -> GenerationSettings:
        """Change some settings.

        Args:
            given: Settings by name; None leaves a setting as it is. `max_tokens` is LangChain's word for
                `max_new_tokens` and is understood.
            where: Named in errors.

        Raises:
            PoolError: For an unknown setting or a value that it cannot have.
        """
        values = {
            _ALIASES.get(name, name): value for name, value in given.items() if value is not None
        }
        for name, value in values.items():
            values[name] = _check(name, value, where)
        settings = dataclasses.replace(self, **values)
        if "temperature" in values and "do_sample" not in values:
            settings = dataclasses.replace(settings, do_sample=None)  # the newer word counts
        if settings.do_sample and settings.temperature == 0:
            raise PoolError(f"{where}: temperature is 0 and do_sample is on; leave one of them out")
        return settings


_ALIASES = {"max_tokens": "max_new_tokens", "stop_strings": "stop"}

# Smallest and largest value; None for no bound.
_BOUNDS: dict[str, tuple[type, float | None, float | None]] = {
    "max_new_tokens": (int, 1, None),
    "temperature": (float, 0, None),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, None),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, 0.01, None),
    "no_repeat_ngram_size": (int, 0, None),
    "seed": (int, 0, None),
    "max_time": (float, 0, None),
}


def _check(name: str, value: Any, where: str) -> Any:
    names = [each.name for each in dataclasses.fields(GenerationSettings)]
    if name not in names:
        raise PoolError(
            f"{where}: unknown generation setting '{name}'; {did_you_mean(name, names)}"
            f"allowed: {', '.join(names)}"
        )
    if name == "stop":
        texts = (value,) if isinstance(value, str) else tuple(value)
        if not all(isinstance(text, str) and text for text in texts):
            raise PoolError(
                f"{where}: stop is {value!r}; it must be a list of texts that are not empty"
            )
        return texts
    if name == "do_sample":
        if not isinstance(value, bool):
            raise PoolError(f"{where}: do_sample is {value!r}; it must be true or false")
        return value
    kind, low, high = _BOUNDS[name]
    fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if not fits or (low is not None and value < low) or (high is not None and value > high):
        bounds = f"from {low:g} to {high:g}" if high is not None else f"of at least {low:g}"
        kind_name = "a number" if kind is float else "a whole number"
        raise PoolError(f"{where}: {name} is {value!r}; it must be {kind_name} {bounds}")
    return float(value) if kind is float else value  # transformers refuses a temperature of 2
