"""What a long run shows on a terminal: bars with the time left, and a table that grows under them.

Off a terminal nothing is drawn: lines go to `say`, one at the beginning and then one a minute. Bars are
tqdm's, which transformers brings along.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

_TABLE = (
    ("step", "time/steps", ">10,.0f"),
    ("quality", "rollout/quality", ">8.3f"),
    ("cost", "rollout/cost", ">11.4g"),
    ("calls", "rollout/calls", ">6.2f"),
    ("reward", "rollout/reward", ">8.3f"),
    ("dev quality", "dev/quality", ">12.3f"),
    ("dev cost", "dev/cost", ">11.4g"),
    ("dev utility", "dev/utility", ">12.3f"),
)
"""Columns of the table: title, key of `progress.csv`, format."""


SECONDS_A_ROW = 60.0
"""How often a line of figures is said where no bar is drawn."""


class Pace:
    """Says when a line is due where no bar is drawn: after a minute, and once a minute from then on."""

    def __init__(self) -> None:
        self._last = self.started = time.monotonic()

    def due(self) -> bool:
        """Is it time for a line? If so the next one is due a minute from now."""
        now = time.monotonic()
        if now - self._last < SECONDS_A_ROW:
            return False
        self._last = now
        return True


class AnswerBar:
    """A progress bar over answers to be generated; cached ones do not show.

    Args:
        label: What is being done.
        total: How many answers there will be; None if nobody knows.
        show: Draw it, if this is a terminal.
        unit: What is counted.
        say: Gets a line a minute where nothing is drawn, unless `show` is False.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        *,
        show: bool,
        unit: str = "answer",
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._label, self._total, self._unit, self._done = label, total, unit, 0
        self._pace = Pace()
        self._bar = tqdm(
            total=total,
            desc=label,
            unit=unit,
            disable=not (show and sys.stderr.isatty()),
            leave=False,
        )
        self._say = say if show and self._bar.disable else None

    def advance(self, count: int) -> None:
        """Some answers were generated."""
        self._bar.update(count)
        self._done += count
        if self._say is not None and self._pace.due():
            self._say(self._row(time.monotonic() - self._pace.started))

    def _row(self, seconds: float) -> str:
        many = "" if self._done == 1 else "s"
        if self._total is None:
            return f"{self._label}: {self._done:,} {self._unit}{many} in {seconds:.0f} s"
        more = self._done - self._total
        if more > 0:  # asked for after these, on routes
            further = f"{more:,} further {self._unit}s"
            return f"{self._label}: all {self._total:,}, and {further}, in {seconds:.0f} s"
        left = seconds / self._done * max(0, self._total - self._done)
        return (
            f"{self._label}: {self._done:,} of {self._total:,} {self._unit}s in {seconds:.0f} s, at most "
            f"{left:.0f} s left"
        )

    def __enter__(self) -> AnswerBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class TrainingBar:
    """A bar over the steps of a training run, and a row of figures per evaluation above it.

    Args:
        total: Steps of the whole run.
        done: Steps done before, by the run that this one resumes.
        show: Draw it, if this is a terminal.
        say: Receives lines where nothing is drawn.
    """

    def __init__(self, total: int, done: int, *, show: bool, say: Callable[[str], None]) -> None:
        self._say = say
        self._show = show
        self._pace = Pace()
        self._headed = False
        self._bar = tqdm(
            total=total,
            initial=done,
            desc="training",
            unit="step",
            unit_scale=True,
            disable=not (show and sys.stderr.isatty()),
        )

    def advance(self, steps: int) -> None:
        """Some steps were taken."""
        self._bar.update(steps)

    def figures(self, row: Mapping[str, Any]) -> None:
        """Show the latest figures beside the bar, or in a row of the table once a minute."""
        if self._bar.disable and self._show and self._pace.due():
            self.table_row(row, best=False)
        if "rollout/quality" in row:
            self._bar.set_postfix_str(
                f"quality {row['rollout/quality']:.3f}, cost {row['rollout/cost']:.3g}, "
                f"{row['rollout/calls']:.2f} calls"
            )

    def table_row(self, row: Mapping[str, Any], *, best: bool) -> None:
        """Add a row to the table, with a mark if this agent is the best so far."""
        if not self._headed:
            self.line("".join(f"{title:>{_width(form)}}" for title, _, form in _TABLE))
            self._headed = True
        if best or "dev/utility" in row:
            self._pace = Pace()  # a row was said just now
        cells = (
            f"{row[key]:{form}}" if key in row else " " * _width(form) for _, key, form in _TABLE
        )
        self.line("".join(cells) + ("  best" if best else ""))

    def line(self, text: str) -> None:
        """Say something without tearing the bar."""
        if self._bar.disable:
            self._say(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def _width(form: str) -> int:
    return int("".join(c for c in form.split(".")[0] if c.isdigit()))
