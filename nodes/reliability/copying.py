"""What a copy shares with its original, and what it begins anew.

    original ──copied deeply, or pickled──> its settings; locks, memories and loaded models of its own

Locks cannot be copied, what is remembered may be large or somebody's question, and other threads may write to
it meanwhile. So none of these goes along.
"""

from __future__ import annotations

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


def remade(model: Kind, **instead: Any) -> tuple[partial[Kind], tuple[()]]:
    """What `__reduce__` returns for a model that is made anew from the settings that it was given.

    Args:
        model: The model.
        instead: Settings to make it from in place of its own.
    """
    given = {name: getattr(model, name) for name in model.model_fields_set}
    return partial(type(model), **{**given, **instead}), ()
