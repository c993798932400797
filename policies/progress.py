"""What a training run tells while it runs, and what it leaves behind.

A row of `progress.csv` per update, a dev evaluation now and then, the best agent so far on disk, a checkpoint
that can be resumed bit for bit, and a warning when something looks wrong. The keys are explained in
docs/training.md.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.checkpoint import (
    CURVE_FILE,
    apply_checkpoint,
    drop_later_rows,
    write_checkpoint,
)
from der_graph.policies.env import RoutingVecEnv
from der_graph.policies.rollout import run_routes
from der_graph.policies.train_config import TrainConfig
from der_graph.state import DERContext

_WINDOW = 1000  # finished routes that the rollout figures look back on
_UPDATE = ("entropy_loss", "approx_kl", "clip_fraction", "value_loss", "explained_variance")


class AnswerBar:
    """A progress bar over answers to be generated; cached ones do not show."""

    def __init__(self, label: str, total: int, *, show: bool) -> None:
        self._bar = tqdm(
            total=total,
            desc=label,
            unit="answer",
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


class TrainingProgress(BaseCallback):
    """Watches a training run: curve, dev evaluation, best agent, checkpoint, warnings.

    Args:
        folder: Where everything is written.
        config: The run's settings.
        env: The training environment.
        agent_now: Makes an agent of the present weights.
        dev_source: Dev questions and answers.
        rules: What is allowed on a route.
        show: Show a progress bar on a terminal.
        say: Receives one-line messages.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        env: RoutingVecEnv,
        agent_now: Callable[[], DERAgent],
        *,
        dev_source: AnswerSource,
        rules: RouteRules,
        show: bool,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._config = config
        self._env = env
        self._agent_now = agent_now
        self._dev = dev_source
        self._rules = rules
        self._show = show
        self._say = say
        self._recent: deque[dict[str, Any]] = deque(maxlen=_WINDOW)
        self._bar: Any = None
        self._started = time.perf_counter()
        self._before = 0.0  # seconds of the runs that this one resumes
        self._evaluated = 0
        self._resumed_at = 0
        self._warned: set[str] = set()
        self.best: dict[str, Any] | None = None

    def _on_step(self) -> bool:
        self._recent.extend(info for info in self.locals["infos"] if "experts" in info)
        if self._bar is not None:
            self._bar.update(self._env.num_envs)
        return True

    def _on_rollout_start(self) -> None:
        # Between an update and the next rollout: everything that the future depends on is at rest here.
        if self.model.num_timesteps in (0, self._resumed_at):
            return
        row = self._row()
        due = (self.model.num_timesteps * self._config.evaluations) // self._config.steps
        if due > self._evaluated:
            self._evaluated = due
            row.update(self._evaluate())
            self._write_row(row)
            self.save_checkpoint()  # after the row, so that a resumed run never lacks it
        else:
            self._write_row(row)
        self._warn(row)

    def _evaluate(self) -> dict[str, float]:
        agent = self._agent_now()
        figures = evaluate_utility(agent, self._dev, self._rules, self._config)
        agent.network.train()
        if self.best is None or figures["dev/utility"] > self.best["dev/utility"]:
            self.best = {**figures, "step": self.model.num_timesteps}
            agent.metadata["results"] = {"dev": self.best}
            agent.save_pretrained(self._folder)
        if self._bar is not None:
            quality, cost = figures["dev/quality"], figures["dev/cost"]
            self._bar.set_postfix_str(f"dev quality {quality:.3f}, cost {cost:.3g}")
        return figures

    def finish(self, last: DERAgent) -> DERAgent:
        """Evaluate the last weights too, and return the best agent, which is on disk."""
        figures = evaluate_utility(last, self._dev, self._rules, self._config)
        self._write_row({**self._row(), **figures})  # no rollout follows the last update
        if self.best is None or figures["dev/utility"] >= self.best["dev/utility"]:
            self.best = {**figures, "step": self.model.num_timesteps}
            last.metadata["results"] = {"dev": self.best}
            last.save_pretrained(self._folder)
        best = self.best
        self._say(
            f"best on dev at step {best['step']:,}: quality {best['dev/quality']:.3f}, cost "
            f"{best['dev/cost']:.4g}, {best['dev/calls']:.2f} calls a question; saved in {self._folder}"
        )
        return DERAgent.from_pretrained(self._folder, encoder=last.observer.encoder)

    def _row(self) -> dict[str, Any]:
        seconds = self._before + time.perf_counter() - self._started
        row: dict[str, Any] = {
            "time/steps": self.model.num_timesteps,
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
        values = self.model.logger.name_to_value
        for key in _UPDATE:
            if f"train/{key}" in values:
                row[f"train/{key}"] = float(values[f"train/{key}"])
        return row

    def _write_row(self, row: dict[str, Any]) -> None:
        path = self._folder / CURVE_FILE
        columns = [
            "time/steps",
            "time/seconds",
            *(f"rollout/{key}" for key in ("quality", "cost", "calls", "reward")),
            *(f"dev/{key}" for key in ("quality", "cost", "calls", "utility")),
            *(f"route/share_{name}" for name in self._rules.names),
            *(f"train/{key}" for key in _UPDATE),
        ]
        new = not path.exists() or path.stat().st_size == 0
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _warn(self, row: dict[str, Any]) -> None:
        recent = list(self._recent)
        if len(recent) < _WINDOW or self.model.num_timesteps < 0.2 * self._config.steps:
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
            self._say(text)

    def save_checkpoint(self) -> None:
        """Write everything that the rest of the run depends on."""
        own = {
            "best": self.best,
            "evaluated": self._evaluated,
            "recent": list(self._recent),
            "seconds": self._before + time.perf_counter() - self._started,
        }
        write_checkpoint(self._folder, self._config, self._rules.names, self.model, self._env, own)

    def restore(self, checkpoint: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint.

        Raises:
            AgentError: If it was made with other settings or for another pool.
        """
        own = apply_checkpoint(checkpoint, self._config, self._rules.names, model, self._env)
        self.best = own["best"]
        self._evaluated = own["evaluated"]
        self._before = own["seconds"]
        self._recent.extend(own["recent"])
        self._resumed_at = checkpoint["steps"]
        drop_later_rows(self._folder / CURVE_FILE, checkpoint["steps"])

    def __enter__(self) -> TrainingProgress:
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=self._config.steps,
            initial=self._resumed_at,
            desc="training",
            unit="step",
            unit_scale=True,
            disable=not (self._show and sys.stderr.isatty()),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if kind is KeyboardInterrupt:
            self._say(f"stopped at step {self.model.num_timesteps:,}; go on with --resume")


def evaluate_utility(
    agent: DERAgent, source: AnswerSource, rules: RouteRules, config: TrainConfig
) -> dict[str, float]:
    """Quality, cost and calls at the default price; utility averaged over the range of prices.

    Utility is quality minus price times cost, with the cost of asking everyone as the unit.
    """
    total = max(sum(rules.costs), 1e-12)
    low, high = config.cost_weight_range
    prices = sorted({config.cost_weight, low, float(np.sqrt(low * high)), high})
    utilities = []
    at_default = (0.0, 0.0, 0.0)
    for price in prices:
        episodes = run_routes(agent, source, rules, context=DERContext(cost_weight=price))
        quality = float(np.mean([e.quality for e in episodes]))
        cost = float(np.mean([e.cost for e in episodes]))
        utilities.append(quality - price * cost / total)
        if price == config.cost_weight:
            at_default = (quality, cost, float(np.mean([e.calls for e in episodes])))
    quality, cost, calls = at_default
    return {
        "dev/quality": quality,
        "dev/cost": cost,
        "dev/calls": calls,
        "dev/utility": float(np.mean(utilities)),
    }
