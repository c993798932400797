"""What all subjects share: times, spreads, the verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file, interleaved


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long something took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class Spread(NamedTuple):
    """Median, 95th percentile and worst of some numbers."""

    median: float
    p95: float
    worst: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of any numbers; zeros if there are none."""
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0)
        median, p95, worst = np.round(
            [np.median(values), np.quantile(values, 0.95), max(values)], 3
        )
        return cls(float(median), float(p95), float(worst), len(values))


def show(rows: dict[str, Spread], unit: str = "ms") -> None:
    """Print a table of spreads."""
    print(f"{unit:<48}{'median':>9}{'p95':>9}{'worst':>9}{'n':>6}")
    for name, row in rows.items():
        print(f"{name:<48}{row.median:>9.3f}{row.p95:>9.3f}{row.worst:>9.3f}{row.n:>6}")
    print(load_of_machine())


def load_of_machine() -> str:
    """What else it does, in words."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"load of the machine: {load:.1f} on {os.cpu_count()} cores"


def verdict(target: str, met: bool) -> int:
    """Print whether a target is met; 1 if not."""
    print(f"target: {target}: {'met' if met else 'missed'}")
    return 0 if met else 1


def demo_questions(count: int) -> list[str]:
    """Held-out questions of the demo, kinds mixed."""
    examples = interleaved(load_examples(demo_file("heldout.jsonl")))
    return [example.question for example in examples[:count]]
