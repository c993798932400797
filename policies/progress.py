"""What a training run tells while it runs, and what it leaves behind.

A row of `progress.csv` per update, a dev evaluation now and then, the best agent so far on disk, a checkpoint
that can be resumed bit for bit, and a warning when something looks wrong. The keys are explained in
docs/training.md.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from der_graph.errors import AgentError
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.env import RoutingVecEnv
from der_graph.policies.rollout import run_routes
from der_graph.policies.train_config import TrainConfig
from der_graph.state import DERContext

CHECKPOINT_FORMAT = 1
_WINDOW = 1000  # finished routes that the rollout figures look back on


class AnswerBar:
    """A progress bar over answers to be generated; cached ones do not show."""

    def __init__(self, label: str, total: int, *, show: bool) -> None:
        self._bar = tqdm(
            total=total, desc=label, unit="answer", disable=not (show and sys.stderr.isatty()), leave=False
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
        self._warned: set[str] = set()
        self.best: dict[str, Any] | None = None

    # -- SB3 calls these --------------------------------------------------------------------------------

    def _on_step(self) -> bool:
        self._recent.extend(info for info in self.locals["infos"] if "experts" in info)
        if self._bar is not None:
            self._bar.update(self._env.num_envs)
        return True

    def _on_rollout_start(self) -> None:
        # Between an update and the next rollout: everything that the future depends on is at rest here.
        if self.model.num_timesteps == 0:
            return
        row = self._row()
        due = (self.model.num_timesteps * self._config.evaluations) // self._config.steps
        if due > self._evaluated:
            self._evaluated = due
            row.update(self._evaluate())
            self.save_checkpoint()
        self._write_row(row)
        self._warn(row)

    # -- evaluation ---------------------------------------------------------------------------------------

    def _evaluate(self) -> dict[str, float]:
        agent = self._agent_now()
        figures = evaluate_utility(agent, self._dev, self._rules, self._config)
        agent.network.train()
        if self.best is None or figures["dev/utility"] > self.best["dev/utility"]:
            self.best = {**figures, "step": self.model.num_timesteps}
            agent.metadata["results"] = {"dev": self.best}
            agent.save_pretrained(self._folder)
        if self._bar is not None:
            self._bar.set_postfix_str(f"dev quality {figures['dev/quality']:.3f}, cost {figures['dev/cost']:.3g}")
        return figures

    def finish(self, last: DERAgent) -> DERAgent:
        """Evaluate the last weights too, and return the best agent, which is on disk."""
        figures = evaluate_utility(last, self._dev, self._rules, self._config)
        if self.best is None or figures["dev/utility"] >= self.best["dev/utility"]:
            self.best = {**figures, "step": self._config.steps}
            last.metadata["results"] = {"dev": self.best}
            last.save_pretrained(self._folder)
        best = self.best
        self._say(
            f"best on dev at step {best['step']:,}: quality {best['dev/quality']:.3f}, cost "
            f"{best['dev/cost']:.4g}, {best['dev/calls']:.2f} calls a question; saved in {self._folder}"
        )
        return DERAgent.from_pretrained(self._folder, encoder=last.observer.encoder)

    # -- curve and warnings -------------------------------------------------------------------------------

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
        for key in ("entropy_loss", "approx_kl", "clip_fraction", "value_loss", "explained_variance"):
            if f"train/{key}" in values:
                row[f"train/{key}"] = float(values[f"train/{key}"])
        return row

    def _write_row(self, row: dict[str, Any]) -> None:
        path = self._folder / "progress.csv"
        columns = [
            "time/steps",
            "time/seconds",
            *(f"rollout/{key}" for key in ("quality", "cost", "calls", "reward")),
            *(f"dev/{key}" for key in ("quality", "cost", "calls", "utility")),
            *(f"route/share_{name}" for name in self._rules.names),
            *(
                f"train/{key}"
                for key in ("entropy_loss", "approx_kl", "clip_fraction", "value_loss", "explained_variance")
            ),
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

    # -- checkpoint ---------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Write everything that the rest of the run depends on; whole or not at all."""
        checkpoint = {
            "format": CHECKPOINT_FORMAT,
            "config": json.dumps(self._config.plain(), sort_keys=True),
            "experts": list(self._rules.names),
            "policy": self.model.policy.state_dict(),
            "optimizer": self.model.policy.optimizer.state_dict(),
            "steps": self.model.num_timesteps,
            "updates": self.model._n_updates,
            "env": json.dumps(self._env.state()),
            "numpy": json.dumps(_numpy_state()),
            "torch": torch.get_rng_state(),
            "best": json.dumps(self.best),
            "evaluated": self._evaluated,
            "seconds": self._before + time.perf_counter() - self._started,
            "starts": torch.as_tensor(np.asarray(self.model._last_episode_starts)),
        }
        part = self._folder / "checkpoint.pt.part"
        torch.save(checkpoint, part)
        os.replace(part, self._folder / "checkpoint.pt")

    def restore(self, checkpoint: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint.

        Raises:
            AgentError: If it was made with other settings or for another pool.
        """
        if checkpoint.get("format") != CHECKPOINT_FORMAT:
            raise AgentError(f"the checkpoint has format {checkpoint.get('format')}; train anew")
        now, then = self._config.plain(), json.loads(checkpoint["config"])
        changed = [key for key in then if json.loads(json.dumps(now.get(key))) != then[key]]
        if changed or checkpoint["experts"] != list(self._rules.names):
            what = ", ".join(f"{k} was {then[k]!r}, is {now.get(k)!r}" for k in changed) or "the pool changed"
            raise AgentError(f"the checkpoint was made with other settings ({what}); resume with the same ones")
        model.policy.load_state_dict(checkpoint["policy"])
        model.policy.optimizer.load_state_dict(checkpoint["optimizer"])
        model.num_timesteps = checkpoint["steps"]
        model._n_updates = checkpoint["updates"]
        self.best = json.loads(checkpoint["best"])
        self._evaluated = checkpoint["evaluated"]
        self._before = checkpoint["seconds"]
        model._last_obs = self._env.restore(json.loads(checkpoint["env"]))
        model._last_episode_starts = checkpoint["starts"].numpy()
        _restore_numpy(json.loads(checkpoint["numpy"]))
        torch.set_rng_state(checkpoint["torch"])
        _truncate_csv(self._folder / "progress.csv", checkpoint["steps"])

    def __enter__(self) -> TrainingProgress:
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=self._config.steps,
            initial=self.num_timesteps,
            desc="training",
            unit="step",
            unit_scale=True,
            disable=not (self._show and sys.stderr.isatty()),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
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


def _numpy_state() -> list[Any]:
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]


def _restore_numpy(state: list[Any]) -> None:
    name, keys, position, has_gauss, cached = state
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002


def _truncate_csv(path: Path, steps: int) -> None:
    """Drop the rows written after the checkpoint; the resumed run writes them again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if int(row["time/steps"]) < steps]
        columns = list(reader.fieldnames or [])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
