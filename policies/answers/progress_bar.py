"""What a long run shows on a terminal: bars with the time left, and a table that grows under them.

Off a terminal nothing is drawn, and lines go to `say`. Bars are tqdm's, which transformers brings along.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

_TABLE = (
    ("step", "time/steps", ">10,.0f"),
    ("quality", "rollout/quality", ">8.3f"),
    ("cost", "rollout/cost", ">9.4g"),
    ("calls", "rollout/calls", ">6.2f"),
    ("reward", "rollout/reward", ">8.3f"),
    ("dev quality", "dev/quality", ">12.3f"),
    ("dev cost", "dev/cost", ">9.4g"),
    ("dev utility", "dev/utility", ">12.3f"),
)
"""Columns of the table: title, key of `progress.csv`, format."""


class AnswerBar:
    """A progress bar over answers to be generated; cached ones do not show.

    Args:
        label: What is being done.
        total: How many answers there will be; None if nobody knows.
        show: Draw it, if this is a terminal.
        unit: What is counted.
    """

    def __init__(self, label: str, total: int | None, *, show: bool, unit: str = "answer") -> None:
        self._bar = tqdm(
            total=total,
            desc=label,
            unit=unit,
            disable=not (show and sys.stderr.isatty()),
            leave=False,
        )

    def advance(self, count: int) -> None:
        """Some answers were generated."""
        self._bar.update(count)

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
        """Show the latest figures beside the bar."""
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
