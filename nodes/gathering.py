"""Where calls that are made one by one meet, to be answered together.

    arrive(a) ─┐
    arrive(b) ─┼─ Gathering: the last to arrive answers for all
    leave()   ─┘  one that never gets here: the others do not wait for it

Each call has a `Seat` in its context, so it finds its gathering through any code in between. Knows nothing
of models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from der_graph.nodes.threads import settle

Item = TypeVar("Item")
Result = TypeVar("Result")

AnswerAll = Callable[[Sequence[Any], threading.Event], Sequence[Any]]
"""Answers all items in one go; a result that is an exception belongs to its item alone."""


@dataclass
class Gathering(Generic[Item, Result]):
    """A table for a known number of calls.

    Attributes:
        owner: The model that the calls are for; calls of another model made meanwhile are not mixed in.
        seats: How many calls are awaited.
        answer_all: Answers the items of all who came.
        cancel: Set it to stop the answering within one token.
    """

    owner: object
    seats: int
    answer_all: AnswerAll
    cancel: threading.Event = field(default_factory=threading.Event)
    _items: list[Any] = field(default_factory=list)
    _futures: list[Future[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, item: Item) -> tuple[Future[Result], bool]:
        """Take a seat. Gives the future result, and whether this is the last, who must call `answer`."""
        with self._lock:
            future: Future[Result] = Future()
            future.set_running_or_notify_cancel()  # from here on a caller that gives up does not disturb it
            self._items.append(item)
            self._futures.append(future)
            return future, len(self._items) == self.seats

    def leave(self) -> bool:
        """Give a seat up. Gives whether all others have arrived, so that the caller must call `answer`."""
        with self._lock:
            self.seats -= 1
            return self.seats > 0 and len(self._items) == self.seats

    def answer(self) -> None:
        """Answer all who came. Never raises: errors go to those who wait."""
        settle(self._futures, lambda: self.answer_all(self._items, self.cancel))


@dataclass
class Seat:
    """One call's place at a gathering; the first call of the model in this context takes it."""

    gathering: Gathering[Any, Any]
    taken: bool = False

    def free_for(self, owner: object) -> bool:
        """Can a call of this model sit down here?"""
        return not self.taken and self.gathering.owner is owner

    def arrive(self, item: Any) -> tuple[Future[Any], bool]:
        """Sit down; see `Gathering.arrive`."""
        self.taken = True
        return self.gathering.arrive(item)

    def leave(self) -> bool:
        """The call is over; gives whether `answer` must be called, as it never arrived."""
        if self.taken:
            return False
        self.taken = True
        return self.gathering.leave()


SEAT: ContextVar[Seat | None] = ContextVar("der_graph_seat", default=None)
"""The seat of the call that runs in this context."""


def seat_for(owner: object) -> Seat | None:
    """The free seat of this context, if it is for this model."""
    seat = SEAT.get()
    return seat if seat is not None and seat.free_for(owner) else None
