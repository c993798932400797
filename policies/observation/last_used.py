"""A memory of bounded size: what was used longest ago is forgotten, so no server grows without end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class LastUsed(OrderedDict[Key, Value]):
    """Values by key, of the keys that were used last. Threads that share one need a lock around it.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def known(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """What is remembered of some keys; they count as used now."""
        found = {key: self[key] for key in keys if key in self}
        for key in found:
            self.move_to_end(key)
        return found

    def remember(self, new: Mapping[Key, Value]) -> None:
        """Add some values, and forget what no longer fits."""
        self.update(new)
        while len(self) > self.most:
            self.popitem(last=False)
