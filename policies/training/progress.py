"""What a training run tells while it runs, and what it leaves behind.

Each update adds a row of figures to `progress.csv`, and to TensorBoard if wanted; both have the same keys,
explained in docs/training.md. Now and then the agent is evaluated on the dev questions: the best one so far
is kept on disk, training may stop early, and a warning says when something looks wrong. Beside it is a
checkpoint that can be resumed bit for bit, written with the first update after two minutes at the latest. A
resumed run drops the rows that were written after its checkpoint and writes them again.
"""

from __future__ import annotations

import csv
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback

from der_graph.errors import require
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import TrainedAgent
from der_graph.policies.agent.folder import WEIGHTS_FILE
from der_graph.policies.answers import AnswerSource
from der_graph.policies.training.checkpoint import (
    CHECKPOINT_FILE,
    apply_checkpoint,
    planned_steps,
    read_checkpoint,
    saving,
    write_checkpoint,
)
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.ppo import PPOLearner
from der_graph.policies.training.selection import clearly_better, evaluate_utility
from der_graph.progress_bar import TrainingBar

SECONDS_A_CHECKPOINT = 120.0
"""Age of a checkpoint from which on the next update writes a new one."""

_WINDOW = 1000  # finished routes that the rollout figures look back on


class _Enough(Exception):
    """Raised inside the algorithm to leave it."""


class TrainingProgress(BaseCallback):
    """Watches a training run: curve, dev evaluation, best agent, checkpoint, early stop, warnings.

    Args:
        folder: Where everything is written.
        config: The run's settings.
        learner: What is trained.
        dev_source: Dev questions and answers.
        rules: What is allowed on a route.
        digests: What the run depends on beside its settings; see `run_digests`.
        tensorboard: Folder for TensorBoard's event files, or None.
        show: Show a progress bar and a table on a terminal.
        say: Receives one-line messages.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        learner: PPOLearner,
        *,
        dev_source: AnswerSource,
        rules: RouteRules,
        digests: Mapping[str, str],
        tensorboard: Path | None,
        show: bool,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._config = config
        self._learner = learner
        self._dev = dev_source
        self._rules = rules
        self._digests = digests
        self._show = show
        self._say = say
        self._curve = Curve(folder, rules.names, tensorboard=tensorboard)
        self._recent: deque[dict[str, Any]] = deque(maxlen=_WINDOW)
        self._bar: TrainingBar | None = None
        self._started = time.perf_counter()
        self._before = 0.0  # seconds of the runs that this one resumes
        self._evaluated = 0
        self._unimproved = 0  # evaluations since the best one
        self._resumed_at: int | None = None
        self._saved_at: int | None = None  # step of the checkpoint on disk
        self._saved = time.monotonic()  # when it was written
        self._warned: set[str] = set()
        self._measured: npt.NDArray[np.float64] | None = None  # utilities of the last evaluation
        self._to_beat: npt.NDArray[np.float64] | None = (
            None  # those of the agent to beat beyond chance
        )
        self.best: dict[str, Any] | None = None

    @property
    def enough(self) -> bool:
        """Have there been as many evaluations without a better agent as the settings allow?"""
        return self._config.patience is not None and self._unimproved >= self._config.patience

    def begin(self, *, resume: bool) -> None:
        """Start the run anew, or go on from its checkpoint.

        Raises:
            AgentError: If there is nothing to resume, or it was made with other settings.
        """
        if not resume:
            # What an earlier run left would be taken for this run's: its curve, and what --resume reads.
            with saving(self._folder / CHECKPOINT_FILE):
                (self._folder / CHECKPOINT_FILE).unlink(missing_ok=True)
                self._curve.begin()
            return
        checkpoint = read_checkpoint(self._folder / CHECKPOINT_FILE)
        learner = self._learner
        own = apply_checkpoint(
            checkpoint, self._config, self._rules.names, self._digests, learner.model, learner.env
        )
        self.best = own["best"]
        self._evaluated = self._due(checkpoint["steps"])
        extended = self._config.steps > planned_steps(checkpoint)
        self._unimproved = 0 if extended else own["unimproved"]  # more steps are new patience
        self._before = own["seconds"]
        self._to_beat = None if own.get("to_beat") is None else np.array(own["to_beat"])
        self._recent.extend(own["recent"])
        self._resumed_at = self._saved_at = checkpoint["steps"]
        self._curve.begin(self._resumed_at)

    def _on_step(self) -> bool:
        self._recent.extend(info for info in self.locals["infos"] if "experts" in info)
        if self._bar is not None:
            self._bar.advance(self._learner.env.num_envs)
        return True

    def _on_rollout_start(self) -> None:
        # Between an update and the next rollout: everything that the future depends on is at rest here.
        done = self._learner.model.num_timesteps / self._config.steps
        self._learner.model.ent_coef = self._config.entropy * (1 - 0.9 * min(1.0, done))
        if self._learner.model.num_timesteps in (0, self._resumed_at):
            if self._resumed_at is None and self._config.warm_start != "none":
                self._save_checkpoint()  # what it begins with need not be learnt again
            return
        row = self._row()
        due = self._due(self._learner.model.num_timesteps)
        if due > self._evaluated:
            self._evaluated = due
            row.update(self._evaluate(self._learner.agent_now()))
            self._curve.write(row)
            self._save_checkpoint()  # after the row, so that a resumed run never lacks it
            if self._bar is not None:
                self._bar.table_row(row, best=self._unimproved == 0)
        else:
            self._curve.write(row)
            if time.monotonic() - self._saved >= SECONDS_A_CHECKPOINT:
                self._save_checkpoint()
        if self._bar is not None:
            self._bar.figures(row)
        self._warn(row)
        if self.enough:
            raise _Enough

    def _due(self, steps: int) -> int:
        """How many evaluations there should be after so many steps."""
        return steps * self._config.evaluations // self._config.steps

    def _evaluate(self, agent: TrainedAgent) -> dict[str, float]:
        measured = evaluate_utility(agent, self._dev, self._rules, self._config)
        figures, self._measured = measured
        self._unimproved += 1
        if self._to_beat is not None:  # a good beginning is kept unless it is beaten beyond doubt
            better = clearly_better(measured.utility, self._to_beat)
        else:
            better = self.best is None or figures["dev/utility"] > self.best["dev/utility"]
        if better and self._to_beat is not None:
            self._to_beat = measured.utility
        if better or self._config.keep == "last":
            self._unimproved = 0 if better else self._unimproved
            self.best = {**figures, "step": self._learner.model.num_timesteps}
            agent.metadata["results"] = {"dev": self.best}
            with saving(self._folder / WEIGHTS_FILE):
                agent.save_pretrained(self._folder)
        return figures

    def start_from(self, agent: TrainedAgent) -> None:
        """Take an agent that is good already as the best so far: only what clearly beats it replaces it."""
        self._evaluate(agent)
        self._to_beat = self._measured

    def finish(self) -> TrainedAgent:
        """Evaluate the last weights too, and return the best agent, which is on disk."""
        if self._curve.last_step != self._learner.model.num_timesteps and not self.enough:
            row = self._row()  # no rollout follows the last update
            row.update(self._evaluate(self._learner.agent_now()))
            self._curve.write(row)
            self._save_checkpoint()  # more steps go on from here
        self._curve.close()
        best = self.best
        assert best is not None  # the last weights are evaluated if none were
        self._say(
            f"{self._config.keep} on dev at step {best['step']:,}: quality {best['dev/quality']:.3f}, cost "
            f"{best['dev/cost']:.4g}, {best['dev/calls']:.2f} calls a question; saved in {self._folder}"
        )
        return self._learner.reload(self._folder)

    def _row(self) -> dict[str, Any]:
        seconds = self._before + time.perf_counter() - self._started
        row: dict[str, Any] = {
            "time/steps": self._learner.model.num_timesteps,
            "time/seconds": round(seconds, 3),
        }
        recent = list(self._recent)
        if recent:
            row["rollout/quality"] = float(np.mean([info["quality"] for info in recent]))
            row["rollout/cost"] = float(np.mean([info["cost"] for info in recent]))
            row["rollout/calls"] = float(np.mean([len(info["experts"]) for info in recent]))
            row["rollout/reward"] = float(np.mean([info["episode"]["r"] for info in recent]))
            asked = Counter(i for info in recent for i in info["experts"])
            calls = max(1, sum(asked.values()))
            for i, name in enumerate(self._rules.names):
                row[f"route/share_{name}"] = asked[i] / calls
        values = self._learner.model.logger.name_to_value
        for key in UPDATE_KEYS:
            if f"train/{key}" in values:
                row[f"train/{key}"] = float(values[f"train/{key}"])
        return row

    def _warn(self, row: dict[str, Any]) -> None:
        recent = list(self._recent)
        if len(recent) < _WINDOW or self._learner.model.num_timesteps < 0.2 * self._config.steps:
            return
        routes = Counter(tuple(info["experts"]) for info in recent)
        route, count = routes.most_common(1)[0]
        if count > 0.98 * len(recent):
            names = " -> ".join(self._rules.names[i] for i in route)
            self._warn_once(
                "one_route",
                f"warning: {count / len(recent):.0%} of the routes are the same ({names}). If the experts "
                "complement each other, raise the entropy weight or lower the price of cost.",
            )
        if abs(row.get("train/entropy_loss", 1.0)) < 0.01:
            self._warn_once(
                "entropy", "warning: the policy hardly explores any more (entropy below 0.01 nats)."
            )

    def _warn_once(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            (self._say if self._bar is None else self._bar.line)(text)

    def _save_checkpoint(self) -> None:
        """Write everything that the rest of the run depends on."""
        own = {
            "best": self.best,
            "unimproved": self._unimproved,
            "to_beat": None if self._to_beat is None else self._to_beat.tolist(),
            "recent": list(self._recent),
            "seconds": self._before + time.perf_counter() - self._started,
        }
        model, env = self._learner.model, self._learner.env
        write_checkpoint(
            self._folder, self._config, self._rules.names, self._digests, model, env, own
        )
        self._saved_at = self._learner.model.num_timesteps
        self._saved = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._started = time.perf_counter()
        self._bar = TrainingBar(
            self._config.steps, self._resumed_at or 0, show=self._show, say=self._say
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        step = f"step {self._learner.model.num_timesteps:,}"
        if kind is _Enough:
            self._say(f"stopped at {step}: no better agent in {self._unimproved} evaluations")
        elif kind is not None:
            self._curve.close()
            if kind is KeyboardInterrupt:
                self._say(f"stopped at {step}; {self._way_on()}")
        return kind is _Enough

    def _way_on(self) -> str:
        if self._saved_at is None:
            return (
                "there is no checkpoint yet, so the run begins anew, without --resume; answers already "
                "generated are in the answer cache"
            )
        return f"--resume goes on from step {self._saved_at:,}"


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
            self.last_step = resumed_at
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
