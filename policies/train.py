"""Training of the DER-Agent with PPO.

    pool, questions ──first answers──> Observer ──> RoutingVecEnv ──MaskablePPO──> agent folder

Written to the output folder: the agent (best on the dev questions), `progress.csv`, and `checkpoint.pt` from
which `resume=True` goes on with the same numbers that an uninterrupted run would have had. Answers of the
experts are generated once and kept in the answer cache, so a second run costs no generation.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import der_graph
from der_graph.data import Example
from der_graph.errors import DataError, require
from der_graph.nodes.expert import Expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.cache import AnswerCache
from der_graph.policies.encoder import SentenceEncoder, TextEncoder
from der_graph.policies.observation import Observer
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.train_config import TrainConfig

Say = Callable[[str], None]


def train_agent(
    experts: Sequence[Expert],
    examples: Sequence[Example],
    dev: Sequence[Example],
    out: str | os.PathLike[str],
    config: TrainConfig | None = None,
    *,
    rules: RouteRules | None = None,
    ktp: Any = None,
    metric: str | QualityMetric = "match",
    cache: AnswerCache | None = None,
    encoder: TextEncoder | None = None,
    resume: bool = False,
    progress: bool = True,
    say: Say | None = None,
) -> DERAgent:
    """Train an agent for a pool.

    Args:
        experts: The pool's experts, in order.
        examples: Training questions with references.
        dev: Questions for choosing the best agent; never trained on.
        out: Folder for the agent, its curve and its checkpoint.
        config: Settings.
        rules: What is allowed on a route; four calls, no repeats, where left out.
        ktp: The graph's template; must be the one that serves later.
        metric: What a good answer is: a metric, or its name.
        cache: Durable store of answers.
        encoder: The frozen sentence encoder; MiniLM where left out.
        resume: Go on from the checkpoint in `out`.
        progress: Show progress bars on a terminal.
        say: Receives one-line messages; nothing is printed where left out.

    Returns:
        The best agent, already saved in `out`.

    Raises:
        DataError: If there are no questions.
        AgentError: If there is nothing to resume, or it was made with other settings.
        MissingDependencyError: If stable-baselines3 is not installed.
    """
    require("stable_baselines3", extra="train", why="training an agent")
    require("sb3_contrib", extra="train", why="training an agent")
    from der_graph.policies.checkpoint import CHECKPOINT_FILE, CURVE_FILE, read_checkpoint
    from der_graph.policies.env import RoutingVecEnv
    from der_graph.policies.episodes import Episodes, RequestConfig
    from der_graph.policies.progress import AnswerBar, TrainingProgress

    config = config or TrainConfig()
    say = say or (lambda line: None)
    for name, given in (("training", examples), ("dev", dev)):
        if not given:
            raise DataError(f"there are no {name} questions; give a file with at least one row")
    members = list(experts)
    rules = rules or RouteRules(tuple(e.name for e in members), tuple(e.cost for e in members))
    scorer = get_metric(metric) if isinstance(metric, str) else metric
    encoder = encoder or SentenceEncoder()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _seed_everything(config.seed)

    with AnswerBar(
        "first answers", (len(examples) + len(dev)) * len(members), show=progress
    ) as bar:
        source = AnswerSource(members, examples, scorer, ktp=ktp, cache=cache, on_asked=bar.advance)
        dev_source = AnswerSource(members, dev, scorer, ktp=ktp, cache=cache, on_asked=bar.advance)
        first = source.first_answers()
        dev_first = dev_source.first_answers()
    for line in _first_report(members, first, dev_first):
        say(line)
    quality = np.array([[o.quality for o in row] for row in first], dtype=np.float32)
    observer = Observer.fit(
        config.observation,
        rules.names,
        rules.costs,
        encoder,
        questions=[example.question for example in examples],
        answers=[o.answer["text"] for row in first for o in row if o.answer["text"]][:20_000],
        qualities=quality,
    )
    requests = RequestConfig(config.cost_weight, config.cost_weight_range, config.budget_share)
    episodes = Episodes(len(examples), requests, rules.costs, config.seed)
    env = RoutingVecEnv(source, rules, observer, config.reward, episodes, config.envs)
    model = _make_model(env, config)

    def agent_now() -> DERAgent:
        return DERAgent(
            observer,
            model.policy.network,
            cost_weight=config.cost_weight,
            cost_weight_range=config.cost_weight_range,
            metadata={
                "training": {**config.plain(), "metric": scorer.name, "versions": versions()}
            },
        )

    watcher = TrainingProgress(
        folder, config, env, agent_now, dev_source=dev_source, rules=rules, show=progress, say=say
    )
    if resume:
        watcher.restore(read_checkpoint(folder / CHECKPOINT_FILE), model)
    else:
        # What an earlier run left would be taken for this run's: its curve, and what --resume reads.
        for name in (CURVE_FILE, CHECKPOINT_FILE):
            (folder / name).unlink(missing_ok=True)
    say(
        f"training: {config.steps:,} steps on {len(examples)} questions, {len(members)} experts, "
        f"{config.envs} routes at once, seed {config.seed}"
    )
    remaining = config.steps - model.num_timesteps
    if remaining > 0:
        with watcher:
            model.learn(remaining, callback=watcher, reset_num_timesteps=not resume)
    return watcher.finish(agent_now())


def split_dev(
    examples: Sequence[Example], *, share: float = 0.1, most: int = 400, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Set some questions aside for choosing the best agent.

    Args:
        examples: All questions.
        share: Share to set aside.
        most: Most questions to set aside.
        seed: Of the draw.

    Returns:
        Training questions and dev questions, in the order given.
    """
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    aside = set(order[: min(most, int(len(examples) * share))])
    return (
        [example for i, example in enumerate(examples) if i not in aside],
        [example for i, example in enumerate(examples) if i in aside],
    )


def versions() -> dict[str, str]:
    """What a run depends on."""
    import stable_baselines3
    import torch
    import transformers

    return {
        "der_graph": der_graph.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "numpy": np.__version__,
    }


def _make_model(env: Any, config: TrainConfig) -> Any:
    import torch
    from sb3_contrib import MaskablePPO

    from der_graph.policies.network import Shape
    from der_graph.policies.sb3_policy import NetworkExtractor, RoutingPolicy

    observer: Observer = env.observer
    shape = Shape(len(observer.names), observer.context_size, observer.expert_size, config.hidden)
    size = config.envs * config.rollout
    return MaskablePPO(
        RoutingPolicy,
        env,
        learning_rate=_Linear(config.learning_rate),
        n_steps=config.rollout,
        batch_size=_batch_size(size, config.batch or size // 4),
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy,
        seed=config.seed,
        device="cpu",  # a small MLP is faster there, and the experts may fill the GPU
        policy_kwargs={
            "features_extractor_class": NetworkExtractor,
            "features_extractor_kwargs": {"shape": shape},
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": config.weight_decay, "eps": 1e-5},
        },
    )


def _batch_size(size: int, wanted: int) -> int:
    """The largest divisor of an update up to what is wanted: SB3 warns of a truncated last minibatch."""
    return next(b for b in range(max(1, min(wanted, size)), 0, -1) if size % b == 0)


class _Linear:
    """A learning rate that falls linearly from `start` to zero."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, remaining: float) -> float:
        return self.start * remaining


def _seed_everything(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed)  # SB3 shuffles its minibatches with the global generator
    torch.manual_seed(seed)


def _first_report(
    experts: Sequence[Expert], first: Sequence[Sequence[Any]], dev_first: Sequence[Sequence[Any]]
) -> list[str]:
    lines = []
    for i, expert in enumerate(experts):
        mine = [row[i] for row in first]
        train_q = float(np.mean([o.quality for o in mine]))
        dev_q = float(np.mean([row[i].quality for row in dev_first]))
        failed = sum(o.answer["error"] is not None for o in mine)
        note = f", {failed} failed calls" if failed else ""
        lines.append(
            f"  {expert.name}: quality alone {train_q:.3f} (train), {dev_q:.3f} (dev){note}"
        )
    with contextlib.suppress(IndexError):
        best = float(np.mean([max(o.quality for o in row) for row in first]))
        lines.append(f"  best first answer per question: {best:.3f}")
    return lines
