"""How fast experience is made: lockstep routes against the authors' loop, and steps on a warm cache.

    python benchmarks/training_throughput.py [--questions 12] [--routes 8] [--data recorded_pool]

Cold: a random policy over a live pool without any cache. The authors' loop is rebuilt from what is published
of it: one environment per question, one question in each call of an expert, the knowledge transferred by the
`paper` prompt, rewards of the preset `paper` in batches of one, nothing remembered. Ours runs the same number
of episodes on the same questions with all routes in lockstep, asking for each distinct answer once. Several
episodes are of one question, as in training (8 in the authors' settings). Both have the same experts, loaded.

Warm: with `--data`, a folder with train.jsonl.gz of recorded answers, environment steps per second after one
pass over everything, for the environment alone (a random policy) and with PPO learning.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from der_graph import load_pool
from der_graph.data import Example, load_examples
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import ObservationConfig, Observer, SentenceEncoder
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.training import preset
from der_graph.policies.training.env import Episodes, RequestConfig, RoutingVecEnv
from der_graph.policies.training.ppo import features_learner
from der_graph.policies.training.reward import PRESETS, step_reward
from der_graph.state import Answer

DEMO = Path(__file__).parent.parent / "der_graph" / "demo" / "questions"


def authors_loop(
    experts: Sequence[Expert],
    examples: Sequence[Example],
    metric: QualityMetric,
    *,
    max_steps: int,
    good_enough: float,
    rng: np.random.Generator,
) -> int:
    """One question after the other, one call at a time; gives the number of calls.

    The route ends at a good answer, which their stop rule reads off the reference, or at the longest length.
    """
    ktp = TEMPLATES["paper"]
    reward = PRESETS["paper"].for_pool([expert.cost for expert in experts])
    calls = 0
    for example in examples:
        answers: list[Answer] = []
        before = 0.0
        for step in range(max_steps):
            expert = experts[int(rng.integers(len(experts)))]
            answer = expert.ask([expert.prompt([], example.question, answers, ktp)])[0]
            quality = metric.score([answer], [example])[0]
            step_reward(
                reward,
                quality=[quality],
                previous_quality=[before],
                cost=[answer["cost"]],
                is_first=[step == 0],
                ends=[False],
                reached_max_steps=[step == max_steps - 1],
            )
            calls += 1
            answers.append(answer)
            before = quality
            if quality >= good_enough:
                break
    return calls


def lockstep(env: RoutingVecEnv, episodes: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random policy until so many episodes have ended; gives episodes and steps."""
    env.reset()
    ended = steps = 0
    while ended < episodes:
        actions = [int(rng.choice(np.flatnonzero(mask))) for mask in env.masks()]
        env.step_async(np.array(actions))
        _, _, dones, _ = env.step_wait()
        ended += int(dones.sum())
        steps += env.num_envs
    return ended, steps


def cold(pool_name: str, data: Path, questions: int, routes: int) -> None:
    pool = load_pool(pool_name)
    pool.preload()
    examples = load_examples(data, limit=questions)
    episodes = [example for _ in range(routes) for example in examples]
    metric = get_metric("match")
    encoder = SentenceEncoder()
    encoder.load()
    for expert in pool:  # warms up
        expert.ask([expert.prompt([], "What is 2 + 3?", [], TEMPLATES["default"])])

    clock = Clock()
    calls = authors_loop(
        list(pool),
        episodes,
        metric,
        max_steps=pool.settings.max_steps,
        good_enough=0.73,
        rng=np.random.default_rng(0),
    )
    theirs = clock.seconds()
    print(
        f"authors' loop: {_told(theirs, len(episodes))} ({len(episodes)} episodes, {calls} calls)"
    )

    # The observer's fit is no part of it; it is made of other questions' texts and no answers.
    names, costs = pool.names, [expert.cost for expert in pool]
    observer = Observer.fit(
        ObservationConfig(),
        names,
        costs,
        encoder,
        questions=[f"Question number {i}?" for i in range(32)],
        answers=[str(i) for i in range(32)],
        qualities=np.zeros((32, len(names)), dtype=np.float32),
    )
    source = AnswerSource(list(pool), examples, metric, ktp=pool.settings.ktp)
    requests = RequestConfig(0.2, (0.02, 2.0), budget_share=0.0, short_share=0.0)
    env = RoutingVecEnv(
        source, pool.rules, observer, PRESETS["default"],
        Episodes(len(examples), requests, costs, 0, pool.rules.max_steps), len(episodes),
    )  # fmt: skip
    clock = Clock()
    # As many episodes begin; those that begin after them are not counted.
    ended, _ = lockstep(env, len(episodes), np.random.default_rng(0))
    ours = clock.seconds()
    print(f"lockstep:      {_told(ours, ended)} ({ended} episodes, {source.generated} calls)")
    wall, cpu = (ended / o / (len(episodes) / t) for o, t in zip(ours, theirs, strict=True))
    print(f"ratio:         {wall:.1f} by the clock, {cpu:.1f} by CPU time")


def warm(folder: Path, steps: int, envs: int, limit: int | None) -> None:
    file = folder / "train.jsonl.gz"
    examples = load_examples(file, limit=limit)
    models = list(examples[0].candidates)
    experts = [
        Expert(name, RecordedChat(data=str(file), model=name), cost=1.0 + i, ktp=TEMPLATES["none"])
        for i, name in enumerate(models)
    ]
    rules = RouteRules(tuple(models), tuple(expert.cost for expert in experts), 5)
    source = AnswerSource(experts, examples, get_metric("recorded:accuracy"), ktp="none")
    first = source.first_answers()
    config = preset(
        "default",
        steps=steps,
        envs=envs,
        observation=ObservationConfig(question_dims=3, answer_dims=0),
    )
    learner = features_learner(config, source, rules, first, SentenceEncoder(), {})
    env, rng = learner.env, np.random.default_rng(0)
    lockstep(env, len(examples), rng)  # every text was seen
    clock = Clock()
    taken = 0
    while taken < steps:
        taken += lockstep(env, envs, rng)[1]
    print(f"warm, environment alone: {clock.rate(taken)}")
    clock = Clock()
    learner.model.learn(steps)
    print(f"warm, with PPO learning: {clock.rate(learner.model.num_timesteps)}")


class Clock:
    """Wall time, and the CPU time of this process, which a busy machine does not stretch as much."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Since it was made: wall, CPU."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu

    def rate(self, steps: int) -> str:
        """Steps a second by both."""
        wall, cpu = self.seconds()
        return f"{steps / wall:,.0f} steps a second ({steps / cpu:,.0f} a second of CPU time)"


def _told(seconds: tuple[float, float], episodes: int) -> str:
    wall, cpu = seconds
    return f"{episodes / wall:.2f} episodes a second, {episodes / cpu:.2f} a second of CPU time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--file", type=Path, default=DEMO / "train.jsonl", help="live questions")
    parser.add_argument("--questions", type=int, default=12, help="0 leaves the cold part out")
    parser.add_argument("--routes", type=int, default=8, help="episodes of each question (8)")
    parser.add_argument("--data", type=Path, help="folder of the recorded pool")
    parser.add_argument("--steps", type=int, default=40_000, help="on the recorded pool")
    parser.add_argument("--limit", type=int, help="only so many questions of it")
    args = parser.parse_args()
    if args.questions:
        cold(args.pool, args.file, args.questions, args.routes)
    if args.data:
        warm(args.data, args.steps, 256, args.limit)


if __name__ == "__main__":
    main()
