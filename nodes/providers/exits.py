"""A model's own code that ends the program, or tries to."""

from __future__ import annotations

import asyncio
import dis
import functools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from der_graph.errors import ExpertError


class ExpertExitError(RuntimeError):
    """The expert's own code ended the program, or tried to."""

    failure_kind = "exit"


@contextmanager
def no_exit() -> Iterator[None]:
    """Turn what would end the event loop itself, or its task, into a failure of the call.

    A Ctrl-C stays what it is, and so does a cancellation that somebody asked for.
    """
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and _is_signal(error):
            raise
        raise ExpertExitError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    except asyncio.CancelledError as error:
        if is_asked_for():
            raise
        failure = ExpertError(f"CancelledError: {error}".rstrip(": "))
        failure.failure_kind = "cancelled"
        raise failure from None


def is_asked_for() -> bool:
    """Has somebody cancelled the current task? Python 3.10 does not say, and then it counts as asked for."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop
        return True
    return task is None or not hasattr(task, "cancelling") or task.cancelling() > 0


def _is_signal(error: KeyboardInterrupt) -> bool:
    """Did the handler of Ctrl-C raise it, wherever the main thread was, and no `raise` of the expert's?"""
    if threading.current_thread() is not threading.main_thread():
        return False
    handler: Any = signal.getsignal(signal.SIGINT)
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)
    raised = False
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is code:
            return True
        raised = dis.opname[at.tb_frame.f_code.co_code[at.tb_lasti]] == "RAISE_VARARGS"
        at = at.tb_next
    return not raised  # Python's own handler is no Python code: another instruction was interrupted
