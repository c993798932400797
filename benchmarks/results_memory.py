"""How much memory a process and all that it started hold at most: read from /proc twice a second.

Sums resident memory over processes, so what they share counts more than once: a bound from above. Where there
is no /proc, the largest single process is all that can be told.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(root: int, proc: Path = PROC) -> int:
    """Bytes that a process and its descendants hold.

    Args:
        root: Its id.
        proc: Where the system tells of its processes.
    """
    children: dict[int, list[int]] = {}
    size: dict[int, int] = {}
    for file in proc.glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything; after it come state, parent ... and pages.
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(file.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        size[pid] = int(fields[21]) * _PAGE
    total, left = 0, [root]
    while left:
        pid = left.pop()
        total += size.get(pid, 0)
        left += children.get(pid, [])
    return total


class PeakMemory:
    """Watches this process's descendants while a block runs; `gigabytes` is the most that was seen."""

    def __init__(self, every: float = 0.5) -> None:
        self._every, self._stop, self._most = every, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def gigabytes(self) -> float:
        """The peak, in units of 1e9 bytes."""
        return round(self._most / 1e9, 2)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not PROC.is_dir():
            unit = 1 if sys.platform == "darwin" else 1024
            self._most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._most = max(self._most, resident(os.getpid()) if PROC.is_dir() else 0)
            self._stop.wait(self._every)
