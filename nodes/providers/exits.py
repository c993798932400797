"""A model's own code that ends the program, or tries to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ExpertExitError(RuntimeError):
    """The expert's own code ended the program, or tried to."""

    failure_kind = "exit"


@contextmanager
def no_exit() -> Iterator[None]:
    """Turn what would end the event loop itself, raised in one of its tasks, into a failure of the call."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise ExpertExitError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
