"""How fast experience is made: lockstep routes against the authors' loop, and steps on a warm cache.

    python benchmarks/training_throughput.py [--questions 12] [--routes 8] [--data recorded_pool] [--stubs 6]

Cold: a random policy over a live pool without any cache. The authors' loop is rebuilt from what is published
of it: one environment per question, one question in each call of an expert, the knowledge transferred by the
`paper` prompt, rewards of the preset `paper` in batches of one, nothing remembered. Ours runs the same number
of episodes on the same questions with all routes in lockstep, asking for each distinct answer once. Several
episodes are of one question, as in training (8 in the authors' settings). Both have the same experts, loaded.

Warm: with `--data`, a folder with train.jsonl.gz of recorded answers, environment steps per second after one
pass over everything, for the environment alone (a random policy) and with PPO learning.

Stubs: with `--stubs N`, the training of N remote experts that take their time (`--seconds` a call on average,
`--concurrency` calls at once each), against what their bounds allow: the time that the busiest of them would
need if it never had a free place. Asking is the time in which at least one call is in flight.
"""

from __future__ import annotations

import argparse
import re
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from der_graph import load_pool
from der_graph.data import Example, load_examples
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.langchain import bounded
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import ObservationConfig, Observer, SentenceEncoder
from der_graph.policies.quality import QualityMetric, get_metric
from der_graph.policies.training import preset, split_dev, train_agent
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


class Stub(BaseChatModel):
    """A remote model that takes its time, and is right on some questions.

    Attributes:
        name_: Of the stub.
        skill: Share of the questions that it knows; with an answer before it, one in ten more.
        seconds: Of a call, on average; some take three times as long as others.
    """

    name_: str
    skill: float
    seconds: float
    _calls: list[tuple[float, float]] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> list[tuple[float, float]]:
        """When each call began and ended."""
        return self._calls

    @property
    def _llm_type(self) -> str:
        return "stub"

    @property
    def fingerprint(self) -> str:
        """Its name: it always says the same."""
        return self.name_

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        began = time.perf_counter()
        text = messages[-1].text
        draw = np.random.default_rng(zlib.crc32(f"{self.name_} {text}".encode()))
        time.sleep(self.seconds * float(draw.uniform(0.5, 1.5)))
        self._calls.append((began, time.perf_counter()))
        number = int(re.findall(r"case (\d+)", text)[0])
        right = draw.random() < self.skill + 0.1 * ("answer" in text)
        said = f"It is {number * 7 if right else int(draw.integers(10**6))}."
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said))])


def live(stubs: int, questions: int, seconds: float, concurrency: int) -> None:
    models = [Stub(name_=f"{i}", skill=0.3 + 0.1 * i, seconds=seconds) for i in range(stubs)]
    experts = [
        Expert(f"stub-{i}", bounded(model, concurrency), cost=2.0**i)
        for i, model in enumerate(models)
    ]
    kinds = ("a sum", "a law", "a dose", "a river")
    examples = [
        Example(str(i), f"What is {kinds[i % 4]} in case {i}?", str(i * 7))
        for i in range(questions)
    ]
    train, dev = split_dev(examples)
    SentenceEncoder().encode(["warms up"])
    clock = Clock()

    def say(line: str) -> None:
        print(
            f"  {clock.seconds()[0]:6.1f} s  {sum(len(m.calls) for m in models):6,} calls  {line}",
            flush=True,
        )

    with TemporaryDirectory() as folder:
        train_agent(experts, train, dev, folder, say=say)
    whole, cpu = clock.seconds()
    allowed = max(sum(end - began for began, end in model.calls) for model in models) / concurrency
    asking = _in_flight([call for model in models for call in model.calls])
    print(
        f"stubs: {sum(len(m.calls) for m in models):,} calls of {stubs} experts of {seconds:g} s, "
        f"{concurrency} at once each, {questions} questions: "
        f"{asking:.0f} s of asking, {asking / allowed:.2f} of the {allowed:.0f} s that their bounds allow; "
        f"training took {whole:.0f} s, {whole / allowed:.2f} of it ({cpu:.0f} s of CPU time); "
        f"no call was in flight in {1 - asking / whole:.0%} of that"
    )


def _in_flight(calls: Sequence[tuple[float, float]]) -> float:
    """Time in which at least one call was."""
    total = until = 0.0
    for began, ended in sorted(calls):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


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
    parser.add_argument("--stubs", type=int, default=0, help="remote stubs to train with (0: none)")
    parser.add_argument("--stub-questions", type=int, default=300, help="for these (300)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a stub's call (1)")
    parser.add_argument("--concurrency", type=int, default=8, help="of each stub (8)")
    args = parser.parse_args()
    if args.questions:
        cold(args.pool, args.file, args.questions, args.routes)
    if args.data:
        warm(args.data, args.steps, 256, args.limit)
    if args.stubs:
        live(args.stubs, args.stub_questions, args.seconds, args.concurrency)


if __name__ == "__main__":
    main()
