"""Everything that can go wrong by a user's doing, as one small family.

    DERError
    ├── PoolError                 a pool file or a list of experts that cannot be used
    │   └── UnknownExpertError    a name that is not in the pool
    ├── AgentError                an agent folder that cannot be used
    │   └── AgentPoolMismatchError   an agent trained for other experts
    ├── DataError                 a data file of another layout, or without rows
    ├── MetricError               a quality metric or reward that is unknown, or cannot give a number
    ├── CacheError                an answer cache that cannot be read or written
    ├── QuestionError             an empty question, or one that no expert can read
    │   └── ContextLengthError    a conversation that is too long for every expert
    ├── BudgetError               a budget that not even the cheapest expert fits
    ├── ExpertError               one expert failed; the graph goes on with another
    │   └── AllExpertsFailedError    every expert that could be asked failed
    ├── ChatModelError            a setting that ChatDER does not have
    ├── ToolsNotSupportedError    tools for experts that cannot call them
    ├── ServerError               a server that cannot start with what it was given
    ├── ConfigError               a file of options that cannot be used
    ├── PluginError               an extension of another package that cannot be used
    └── MissingDependencyError    an optional package is needed; says the exact command

A message says what was given, what is allowed and what to do. The command line prints the message alone,
without a traceback.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from types import ModuleType
from typing import Any


class DERError(Exception):
    """Base of all errors that this package raises on purpose."""


class PoolError(DERError, ValueError):
    """A pool file, or a list of experts, that cannot be used."""


class UnknownExpertError(PoolError):
    """An expert was named that is not in the pool."""


class AgentError(DERError, ValueError):
    """An agent folder that cannot be read, or does not hold an agent."""


class AgentPoolMismatchError(AgentError):
    """The agent was trained for other experts than those of the pool."""


class DataError(DERError, ValueError):
    """A data file of another layout, with missing values, or without rows."""


class MetricError(DERError, ValueError):
    """A quality metric or reward that is unknown, has wrong settings, or cannot give a number."""


class CacheError(DERError, RuntimeError):
    """An answer cache that cannot be read or written."""


class QuestionError(DERError, ValueError):
    """A question that cannot be answered: empty, or too long for every expert."""


class ContextLengthError(QuestionError):
    """A conversation that is longer than any expert that may be asked can read."""


class BudgetError(DERError, ValueError):
    """A budget below the price of the cheapest expert."""


class ExpertError(DERError, RuntimeError):
    """An expert could not answer.

    Attributes:
        failure_kind: What kind of failure it was, where that is known; see `der_graph.nodes.providers`.
        retry_after: Seconds after which the provider wants to be asked again, or None.
    """

    failure_kind: Any = None
    retry_after: float | None = None


class AllExpertsFailedError(ExpertError):
    """Every expert that could be asked failed, so there is no answer to give.

    Attributes:
        answers: The failed answers, which say why (`der_graph.state.Answer`).
    """

    answers: Sequence[Any] = ()


class ChatModelError(DERError, ValueError):
    """A setting that `ChatDER` does not have, or that cannot be used."""


class ToolsNotSupportedError(DERError, NotImplementedError):
    """Tools were given to a pool with experts that cannot call them."""


class ServerError(DERError, RuntimeError):
    """A server that cannot start: the address is taken, or a key is missing."""


class ConfigError(DERError, ValueError):
    """A file of options that cannot be read, or holds what is no option."""


class PluginError(DERError, ImportError):
    """An extension of another package that cannot be imported, or is not what it should be."""


class MissingDependencyError(DERError, ImportError):
    """An optional package is not installed."""


def did_you_mean(given: Any, allowed: Iterable[str]) -> str:
    """A hint for a misspelt name, with a space at its end; empty if no name is near.

    Examples:
        >>> did_you_mean("max_step", ["max_cost", "max_steps"])
        "did you mean 'max_steps'? "
    """
    near = difflib.get_close_matches(str(given), list(allowed), 1)
    return f"did you mean '{near[0]}'? " if near else ""


def is_number(value: Any) -> bool:
    """Is it a number that costs can be compared and multiplied with? True, False and decimals are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def plain(number: Any) -> Any:
    """A number as Python's own, whatever library it is of; checkpoints take no others. What is none stays."""
    if not is_number(number) or type(number) in (int, float):
        return number
    return int(number) if isinstance(number, Integral) else float(number)


def cut(text: str, most: int = 80) -> str:
    """A text for a message, cut off where it is longer than this."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Import an optional module, or say how to install it.

    Args:
        module: Import name, such as `stable_baselines3`.
        extra: The extra of this package that brings it.
        why: What the module is needed for, to finish the sentence "… is needed for".

    Raises:
        MissingDependencyError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is there; something that it imports is not
        raise MissingDependencyError(
            f"'{module}' is needed for {why} and is not installed. "
            f"Install it with: pip install 'der-graph[{extra}]'"
        ) from error
