"""Training of the DER-Agent with PPO.

    pool, questions ──first answers──> Observer ──> RoutingVecEnv ──MaskablePPO──> agent folder

Written to the output folder: the agent (best on the dev questions), `progress.csv`, and `checkpoint.pt` from
which `resume=True` goes on with the same numbers that an uninterrupted run would have had. Answers of the
experts are generated once and kept in the answer cache, so a second run costs no generation.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.embeddings import Embeddings

import der_graph
from der_graph.data import Example
from der_graph.data.leaks import digests_of, same_question
from der_graph.data.saving import check_folder
from der_graph.errors import AgentError, DataError, require
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import ktp_template
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import TrainedAgent
from der_graph.policies.answers import AnswerCache, AnswerSource, check_recorded
from der_graph.policies.answers.cache import MEMORY
from der_graph.policies.observation import CachedEncoder, TextEncoder, as_encoder
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.training.config import TrainConfig
from der_graph.policies.training.preflight import (
    ask_a_few,
    check_first_answers,
    failed_on_routes,
    first_report,
    leak_warnings,
    near_duplicates,
    usable,
    with_prices_for,
)

if TYPE_CHECKING:
    from der_graph.policies.training.ppo import PPOLearner
    from der_graph.policies.training.progress import TrainingProgress
    from der_graph.policies.training.routes.lesson import RouteLesson, Unseen

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
    encoder: TextEncoder | Embeddings | str | None = None,
    resume: bool = False,
    fresh: int = 0,
    tensorboard: str | os.PathLike[str] | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> TrainedAgent:
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
        encoder: The frozen sentence encoder, its name, or LangChain embeddings; MiniLM where left out.
            Not used with a text encoder. Vectors are kept in a file beside `cache`.
        resume: Go on from the checkpoint in `out`, of PPO or of what learns from routes before it; more steps
            in `config` than the run had extend it.
        fresh: Cached first answers of each remote expert to ask again, to see whether it still is the same.
        tensorboard: Folder for TensorBoard's event files; none are written where left out.
        progress: Show progress bars and a table on a terminal.
        say: Receives one-line messages; nothing is printed where left out.

    Returns:
        The best agent, already saved in `out`: a `DERAgent`, or a `TextAgent` where the settings name a
        text encoder.

    Raises:
        DataError: If there are no questions, or none with a reference; an expert that replays answers lacks
            one; every call of an expert failed; or nothing tells the experts apart.
        MetricError: If the metric gives something that is no quality.
        AgentError: If there is nothing to resume, it was made with other settings, or a file cannot be
            written.
        MissingDependencyError: If stable-baselines3 is not installed.
    """
    require("stable_baselines3", extra="train", why="training an agent")
    require("sb3_contrib", extra="train", why="training an agent")
    from stable_baselines3.common.logger import Logger

    from der_graph.policies.training.checkpoint import (
        ROUTES_FILE,
        asked_alone_in,
        check_same_run,
        newest_checkpoint,
        prices_of,
        run_digests,
        write_routes,
    )
    from der_graph.policies.training.ppo import features_learner
    from der_graph.policies.training.progress import TrainingProgress
    from der_graph.progress_bar import AnswerBar

    config = config or TrainConfig()
    say = say or (lambda line: None)
    for name, given in (("training", examples), ("dev", dev)):
        if not given:
            raise DataError(f"there are no {name} questions; give a file with at least one row")
    members = list(experts)
    rules = rules or RouteRules.of(members)
    scorer = get_metric(metric) if isinstance(metric, str) else metric
    examples, verdicts, notes = usable(examples, scorer, rules.names, "training")
    dev, _, more = usable(dev, scorer, rules.names, "dev")
    for questions in (examples, dev):
        check_recorded(members, questions)
    for line in (*notes, *more, *leak_warnings(examples, dev)):
        say(line)
    folder = check_folder(out, AgentError, make=True)
    stopped = newest_checkpoint(folder) if resume else None  # before anybody is asked
    _seed_everything(config.seed)

    total = (len(examples) + len(dev)) * len(members)
    say(f"first answers: {len(examples) + len(dev):,} questions, {len(members)} experts")
    source = AnswerSource(members, examples, scorer, ktp=ktp, cache=cache)
    dev_source = AnswerSource(members, dev, scorer, ktp=ktp, cache=cache)
    reader = as_encoder(encoder)
    if config.text_encoder is None:
        reader = _read_questions(reader, source, dev_source, cache, progress, say)
        for line in near_duplicates(examples, dev, reader):
            say(line)
    with AnswerBar("first answers", total, show=progress, say=say) as bar:
        source.on_asked = dev_source.on_asked = bar.advance
        ask_a_few(source)
        first = source.first_answers()
        dev_first = dev_source.first_answers()
    for line in first_report(members, first, dev_first):
        say(line)
    for line in check_first_answers(source, first, pairs=config.route_calls > 0):
        say(line)
    for repeated in source.ask_again(fresh, config.seed):
        say(repeated.line())
    before = None if stopped is None else prices_of(stopped)
    config = with_prices_for(config, members, first, before)
    metadata = {
        "training": {**config.plain(), "metric": scorer.name, "versions": versions()},
        "seen": {"train": digests_of(examples), "dev": digests_of(dev)},
    }
    source.on_asked = dev_source.on_asked = None
    if config.text_encoder is None:
        alone = None if stopped is None else asked_alone_in(stopped)
        with AnswerBar("routes", None, show=progress, say=say) as bar:
            source.on_asked = bar.advance
            learner = features_learner(
                config, source, rules, first, reader, metadata, verdicts, alone, say
            )
            source.on_asked = None
            asked, source = source, learner.env.lockstep.source  # where some may be asked alone
        dev_source = dev_source.asking_alone(learner.alone)
        for line in failed_on_routes(asked):
            say(line)
    else:
        from der_graph.policies.training.text_training import text_learner

        learner = text_learner(config, source, rules, metadata)
    digests = run_digests(
        members,
        examples,
        dev,
        metric=scorer.name,
        ktp=ktp_template(ktp),
        rules=rules,
        alone=learner.alone,
    )
    learnt: list[dict[str, Any]] = []
    if not resume:  # of an earlier run
        (folder / ROUTES_FILE).unlink(missing_ok=True)
    if stopped is not None and "networks" in stopped:
        check_same_run(stopped, config, rules.names, digests)
        learnt, resume = stopped["networks"], False  # PPO had not begun
        say(f"going on after {len(learnt)} of {config.ensemble} networks that learnt from routes")
    watcher = TrainingProgress(
        folder,
        config,
        learner,
        dev_source=dev_source,
        rules=rules,
        digests=digests,
        tensorboard=None if tensorboard is None else Path(tensorboard),
        show=progress,
        say=say,
    )
    watcher.begin(resume=resume)
    say(
        f"training: {config.steps:,} steps on {len(examples)} questions, {len(members)} experts, "
        f"{config.envs} routes at once, seed {config.seed}"
    )
    if config.warm_start == "cascades" and not resume:
        _imitate_cascades(learner, members, config, rules, reader, source.questions, first, say)
    unseen: Sequence[Unseen] = ()
    if learner.lesson is not None and not resume:
        unseen = _learn_routes(
            learner,
            learner.lesson,
            config,
            source,
            rules,
            watcher,
            say,
            before=learnt,
            keep=lambda all_: write_routes(folder, config, rules.names, digests, all_),
        )
    model = learner.model
    remaining = config.steps - model.num_timesteps
    if resume:
        say(_where(model.num_timesteps, done=remaining <= 0 or watcher.enough))
    if remaining > 0 and not watcher.enough:
        # Without a logger SB3 leaves an empty folder among the temporary files; the curve is the watcher's.
        model.set_logger(Logger(folder=None, output_formats=[]))
        with watcher:
            model.learn(remaining, callback=watcher, reset_num_timesteps=not resume)
    agent = watcher.finish()
    (folder / ROUTES_FILE).unlink(missing_ok=True)
    if learner.lesson is not None:
        with AnswerBar("other policies", None, show=progress, say=say) as bar:
            source.on_asked = dev_source.on_asked = bar.advance
            if watcher.best is None or watcher.best["step"] > 0:
                unseen = ()  # of another agent
            _compare(
                agent, learner.lesson, source, dev_source, rules, folder, say, config.seed, unseen
            )
            source.on_asked = dev_source.on_asked = None
    return agent


def _where(step: int, *, done: bool) -> str:
    """Where a resumed run stands."""
    if done:
        return f"the run had ended at step {step:,}; more --steps extend it"
    return f"going on from step {step:,}"


def _read_questions(
    encoder: TextEncoder,
    source: AnswerSource,
    dev_source: AnswerSource,
    cache: AnswerCache | None,
    progress: bool,
    say: Say,
) -> TextEncoder:
    """Encode all questions, showing how far it is; vectors are kept beside the answer cache."""
    from der_graph.progress_bar import AnswerBar

    texts = [*source.questions, *dev_source.questions]
    if cache is None or cache.path == MEMORY:
        encoder.encode(texts)
        return encoder
    count = len(set(texts))
    with AnswerBar("reading questions", count, show=progress, unit="question", say=say) as bar:
        kept = CachedEncoder(encoder, Path(cache.path).with_name("vectors.sqlite"), bar.advance)
        kept.encode(texts)
        kept.on_encoded = None
    return kept


def _learn_routes(
    learner: PPOLearner,
    lesson: RouteLesson,
    config: TrainConfig,
    source: AnswerSource,
    rules: RouteRules,
    watcher: TrainingProgress,
    say: Say,
    before: Sequence[dict[str, Any]],
    keep: Callable[[list[Any]], None],
) -> list[Unseen]:
    from der_graph.policies.training.routes.lesson import learn_routes

    started = time.perf_counter()
    names = [rules.names[i] for i in sorted({e for route in lesson.tree.routes for e in route})]
    say(
        f"routes: {len(lesson.tree.routes) - 1:,} of up to {lesson.tree.longest} calls to "
        f"{', '.join(names)}, on {len(source.examples):,} questions"
    )
    network = learner.model.policy.network

    def after_each(networks: list[Any]) -> None:
        keep(networks)
        seconds = time.perf_counter() - started
        say(f"network {len(networks)} of {config.ensemble} has learnt, after {seconds:.0f} s")

    learnt = learn_routes(
        network, lesson, source, rules, config, before=before, after_each=after_each
    )
    prices = learnt.worth.prices
    price = float(prices[len(prices) // 2])
    taught = float(learnt.worth.utility[:, len(prices) // 2].mean())
    utility, new = learnt.utility(price)
    where = "training questions that a network had left out" if new else "the training questions"
    say(
        f"learnt in {time.perf_counter() - started:.0f} s: at price {price:.2g} a utility of "
        f"{utility:.3f} on {where}; the choices that they were shown bring {taught:.3f}, each predicted from "
        "other questions"
    )
    watcher.start_from(learner.agent_now())
    return learnt.unseen


def _compare(
    agent: Any,
    lesson: RouteLesson,
    source: AnswerSource,
    dev: AnswerSource,
    rules: RouteRules,
    folder: Path,
    say: Say,
    seed: int = 0,
    unseen: Sequence[Unseen] = (),
) -> None:
    """Let other policies take over where they were better."""
    from der_graph.policies.training.checkpoint import saving
    from der_graph.policies.training.routes.takeovers import compare_with_others

    if not _sees_alike(agent, lesson):
        say(
            "answers to the training questions have changed since the agent learnt from them, so it is not "
            "compared with other policies; train anew without --resume to learn from what they say now"
        )
        return
    before, agent.takeovers = agent.takeovers, ()  # a resumed run may find its agent with some
    compared = compare_with_others(agent, lesson, source, dev, rules, seed=seed, unseen=unseen)
    for line in compared.lines:
        say(line)
    if compared.takeovers or before:
        agent.take_over(compared.takeovers, compared.planner)
        with saving(folder):
            agent.save_pretrained(folder)


def _sees_alike(agent: Any, lesson: RouteLesson) -> bool:
    """Are questions shown to the agent as they are in the lesson? Else it is a stranger there."""
    own, new = agent.observer.arrays, lesson.observer.arrays
    return own.keys() == new.keys() and all(
        own[name].shape == new[name].shape
        and np.allclose(own[name], new[name], atol=1e-4, equal_nan=True)
        for name in own
    )


def _imitate_cascades(
    learner: Any,
    experts: Sequence[Expert],
    config: TrainConfig,
    rules: RouteRules,
    encoder: TextEncoder,
    questions: Sequence[str],
    first: Sequence[Sequence[Any]],
    say: Say,
) -> None:
    from der_graph.policies.baselines import BestCascades
    from der_graph.policies.training.ppo import learnt_costs
    from der_graph.policies.training.warm_start import imitate

    costs, _ = learnt_costs(experts, first)
    cascades = BestCascades(rules.names, costs, encoder, price=config.cost_weight).fit(
        questions,
        [[outcome.quality for outcome in row] for row in first],
        [[outcome.answer["value"] for outcome in row] for row in first],
    )
    share = imitate(learner.model.policy, learner.env, cascades, gamma=config.gamma)
    say(f"warm start: {share:.0%} of the choices are those of the best cascades")


def split_dev(
    examples: Sequence[Example], *, share: float = 0.1, most: int = 400, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Set some questions aside for choosing the best agent; one that comes twice is on one side alone.

    Where some questions have a reference and others have none, it is those that have one.

    Args:
        examples: All questions.
        share: Share to set aside.
        most: Most questions to set aside.
        seed: Of the draw.

    Returns:
        Training questions and dev questions, in the order given.
    """
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    alike: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        alike.setdefault(same_question(example), []).append(i)
    known = [i for i in order if examples[i].reference.strip()]
    order = known or order
    room, aside = min(most, int(len(order) * share)), set[int]()
    for i in order:
        together = alike[same_question(examples[i])]
        if i not in aside and len(aside) + len(together) <= room:
            aside.update(together)
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


def _seed_everything(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed)  # SB3 shuffles its minibatches with the global generator
    torch.manual_seed(seed)
