"""What a copy shares with its original, and what it begins anew.

    original ──copied deeply, or pickled──> its settings; locks, memories and loaded models of its own
    process ──forked──> everything but its threads: whoever had some begins without them

Locks cannot be copied, what is remembered may be large or somebody's question, and other threads may write to
it meanwhile. So none of these goes along. Servers that fork their workers (gunicorn with `--preload`, Celery)
copy the whole process, but for its threads; work that was handed to them would never be done.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel

Kind = TypeVar("Kind", bound=BaseModel)


class BeginsAnew:
    """Base of objects whose copies leave locks, memories and loaded models behind."""

    def _begin(self) -> None:
        """Make those; called by `__init__`, and in each copy."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        fresh = object.__new__(type(self))
        fresh._begin()
        return {name: value for name, value in vars(self).items() if name not in vars(fresh)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()


_renewals: weakref.WeakKeyDictionary[object, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def renew_in_children(renew: Callable[[], None]) -> None:
    """Have a method called in every process that is forked off this one, as long as its object lives.

    Args:
        renew: A bound method, one for each object, which makes its threads, and their locks, anew.
    """
    method: Any = renew
    _renewals[method.__self__] = method.__func__


def _renew_all() -> None:
    for owner, renew in list(_renewals.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_all)


def remade(model: Kind, **instead: Any) -> tuple[partial[Kind], tuple[()]]:
    """What `__reduce__` returns for a model that is made anew from the settings that it was given.

    Args:
        model: The model.
        instead: Settings to make it from in place of its own.
    """
    given = {name: getattr(model, name) for name in model.model_fields_set}
    return partial(type(model), **{**given, **instead}), ()
