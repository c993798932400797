"""The curve of a training run: a row of figures per update, as `progress.csv` and for TensorBoard.

Both have the same keys, explained in docs/training.md. A resumed run drops the rows that were written after
its checkpoint and writes them again. Knows nothing of how figures are computed.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from der_graph.errors import require
from der_graph.policies.checkpoint import saving

CURVE_FILE = "progress.csv"
UPDATE_KEYS = ("entropy_loss", "approx_kl", "clip_fraction", "value_loss", "explained_variance")
"""Figures of an update that stable-baselines3 computes."""


class Curve:
    """Writes the rows of a run.

    Args:
        folder: Of the run.
        names: The experts, in order.
        tensorboard: Folder for TensorBoard's event files, or None for none.

    Raises:
        MissingDependencyError: If TensorBoard is wanted and not installed.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], *, tensorboard: Path | None = None
    ) -> None:
        self.path = folder / CURVE_FILE
        self.last_step = -1
        self.columns = [
            "time/steps",
            "time/seconds",
            *(f"rollout/{key}" for key in ("quality", "cost", "calls", "reward")),
            *(f"dev/{key}" for key in ("quality", "cost", "calls", "utility")),
            *(f"route/share_{name}" for name in names),
            *(f"train/{key}" for key in UPDATE_KEYS),
        ]
        self._tensorboard = tensorboard
        self._events: Any = None
        if tensorboard is not None:
            require("tensorboard", extra="train", why="--tensorboard")

    def begin(self, resumed_at: int | None = None) -> None:
        """Start anew, or go on after the rows up to a step."""
        if resumed_at is None:
            self.path.unlink(missing_ok=True)
        else:
            with saving(self.path):
                drop_later_rows(self.path, resumed_at)
        if self._tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            with saving(self._tensorboard):
                # Events of a run before, at these steps or later, no longer count.
                first = 0 if resumed_at is None else resumed_at + 1
                self._events = SummaryWriter(str(self._tensorboard), purge_step=first)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row.

        Raises:
            AgentError: If it cannot be written.
        """
        with saving(self.path):
            new = not self.path.exists() or self.path.stat().st_size == 0
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
                if new:
                    writer.writeheader()
                writer.writerow(row)
        self.last_step = int(row["time/steps"])
        if self._events is not None and self._tensorboard is not None:
            with saving(self._tensorboard):
                for key in self.columns[1:]:
                    if key in row:
                        self._events.add_scalar(key, row[key], self.last_step)
                self._events.flush()

    def close(self) -> None:
        """Close the files."""
        if self._events is not None:
            self._events.close()
            self._events = None


def drop_later_rows(path: Path, steps: int) -> None:
    """Drop the rows of a curve that were written after a checkpoint; the resumed run writes them again.

    A row that a kill or a full disk cut short is dropped as well.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if _is_whole(row, columns) and int(row[columns[0]]) <= steps]
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def _is_whole(row: Mapping[str, Any], columns: Sequence[str]) -> bool:
    complete = None not in row and all(row[column] is not None for column in columns)
    return complete and str(row[columns[0]]).isdigit()
