"""Training on chat models: what is asked, how often, and that nothing hangs on chance."""

from __future__ import annotations

import os
import re
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FunctionChat
from toy import WordEncoder
from training import SMALL, train

pytest.importorskip("stable_baselines3")

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.langchain import as_expert, bounded
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerCache, AnswerSource, Request
from der_graph.policies.quality import get_metric
from der_graph.policies.training import preset
from der_graph.policies.training.ppo import PPOLearner, features_learner
from der_graph.policies.training.routes.exploration import Explorer
from der_graph.policies.training.routes.imputation import ImputedSource
from der_graph.policies.training.routes.learner import Stopped, TreeLearner
from der_graph.policies.training.routes.lesson import learn_routes
from der_graph.policies.training.routes.observations import TreeObservations

Says = Callable[[int, str | None], str]
"""What an expert answers, by the question's number and the answer that it is shown."""


def reading(says: Says) -> Callable[[str], str]:
    """The same by the prompt."""

    def answer(prompt: str) -> str:
        found = re.search(r"<earlier_answer>\n(.*)\n</earlier_answer>", prompt, re.DOTALL)
        return says(int(prompt.split("\n")[0].split()[-1]), found and found[1])

    return answer


def chance(*of: object) -> float:
    return zlib.crc32(repr(of).encode()) / 2**32


def own(name: str, skill: float) -> Says:
    """Reads nobody."""
    return lambda i, shown: str(i * 7) if chance(name, i) < skill else f"{name} does not get it"


def follower(name: str, skill: float) -> Says:
    """Repeats what it is shown."""
    return lambda i, shown: own(name, skill)(i, None) if shown is None else shown


def checker(i: int, shown: str | None) -> str:
    """Of no use alone; mends half of what it is shown."""
    if shown is None:
        return "nothing to check"
    return str(i * 7) if shown == str(i * 7) or chance(i, shown) < 0.5 else "cannot be mended"


def down(i: int, shown: str | None) -> str:
    raise RuntimeError("down")


def pool(**kinds: Says) -> list[Expert]:
    return [
        as_expert(FunctionChat(says=reading(says)), name=name, cost=1.0 + k, fingerprint=name)
        for k, (name, says) in enumerate(kinds.items())
    ]


HERD = {
    **{name: follower(name, 0.7) for name in ("one", "two", "three", "four")},
    "checker": checker,
}


def questions(count: int) -> list[Example]:
    places = "under the red cup", "behind a tall door", "on top of some shelf"
    return [
        Example(f"q{i}", f"Which card is {places[i % 3]} number {i}", str(i * 7))
        for i in range(count)
    ]


def source_of(experts: Sequence[Expert], count: int, **more: Any) -> AnswerSource:
    return AnswerSource(experts, questions(count), get_metric("match"), **more)


def asked(experts: Sequence[Expert]) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for expert in experts:
        chat: Any = expert.model
        counted.update((expert.name, prompt) for prompt in chat.prompts)
    return counted


def after_others(experts: Sequence[Expert]) -> int:
    return sum("<earlier_answer>" in prompt for _, prompt in asked(experts).elements())


def learner(
    source: AnswerSource,
    rules: RouteRules | None = None,
    alone: tuple[str, ...] | None = None,
    **changes: Any,
) -> PPOLearner:
    rules = rules or RouteRules.of(source.experts)
    first, config = source.first_answers(), preset("default", ensemble=1, **changes)
    return features_learner(config, source, rules, first, WordEncoder(), {}, alone=alone)


def texts(made: PPOLearner) -> list[list[str]]:
    assert made.lesson is not None
    return [[o.answer["text"] for o in outcomes] for outcomes in made.lesson.tree.outcomes]


def test_who_is_asked_alone_is_found_within_the_calls_allowed(tmp_path: Path) -> None:
    """Routes are tried twice then; and a resumed run knows the same."""
    experts = pool(**HERD)
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        made = learner(source_of(experts, 150, cache=cache), route_calls=1)
        assert made.alone
        assert 100 < after_others(experts) <= 150
        before = asked(experts)
        again = learner(source_of(experts, 150, cache=cache), alone=made.alone, route_calls=1)
    assert asked(experts) == before
    assert texts(again) == texts(made)
    assert made.lesson is not None
    assert again.lesson is not None
    np.testing.assert_array_equal(again.lesson.features, made.lesson.features)


def test_fewer_who_read_do_not_make_every_route_affordable() -> None:
    experts = pool(**{name: follower(name, 0.8) for name in ("one", "two", "three", "four")})
    made = learner(source_of(experts, 150), RouteRules.of(experts, max_steps=3), route_calls=2)
    assert made.alone
    assert after_others(experts) <= 300


def test_ctrl_c_while_routes_are_tried_does_not_wait_for_what_was_still_to_be_asked() -> None:
    """Blocks of questions are asked in threads, which know nothing of it."""

    def slow(i: int, shown: str | None) -> str:
        time.sleep(0.0 if shown is None else 0.02)
        return checker(i, shown)

    made = pool(one=own("one", 0.5), checker=slow)
    source = source_of([replace(each, model=bounded(each.model, 2)) for each in made], 400)
    source.first_answers()
    calls = source.generated
    interrupted: list[int] = []

    def on_asked(count: int) -> None:
        if not interrupted:
            interrupted.append(count)
            os.kill(os.getpid(), signal.SIGINT)

    source.on_asked = on_asked
    explorer = Explorer(source, [0, 1], 2, 4_000)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            explorer._ask([(q, (0, 1)) for q in range(400)], 400)
    finally:
        signal.signal(signal.SIGINT, before)
    assert source.generated - calls < 300


@pytest.mark.parametrize("route_calls", [2, 100])
def test_nobody_is_asked_beyond_the_routes_that_were_tried(route_calls: int) -> None:
    """Neither where an expert may be asked again on a route, which no tree has."""
    experts = pool(one=own("one", 0.5), checker=checker)
    rules = RouteRules.of(experts, max_steps=6, repeat_experts=True)
    made = learner(source_of(experts, 30), rules, route_calls=route_calls)
    before = asked(experts)
    source = made.env.lockstep.source
    first, second = source.first_answers()[3]
    route = [first.answer, second.answer]
    for expert in (0, 1, 0, 1):
        route.append(source.ask([Request(3, expert, route)])[0].answer)
    assert asked(experts) == before


def test_a_question_that_comes_twice_is_asked_once() -> None:
    experts = pool(one=own("one", 0.5), checker=checker)
    twice = [replace(e, id=f"{e.id}/{k}") for k in range(2) for e in questions(5)]
    source = AnswerSource(experts, twice, get_metric("match"))
    source.ask([Request(0, 0, [])])
    first = source.first_answers()
    source.ask([Request(q, 1, [first[q][0].answer]) for q in range(10)])
    assert set(asked(experts).values()) == {1}
    assert source.generated == 15
    assert [o.answer["text"] for o in first[1]] == [o.answer["text"] for o in first[6]]


def test_an_expert_that_read_nothing_is_not_held_for_one_that_does_not_react() -> None:
    experts = pool(down=down, checker=checker)
    source = source_of(experts, 60)
    explorer = Explorer(source, [0, 1], 4, 60)
    explorer._ask([(q, (0, 1)) for q in range(60)], 60)
    assert explorer.left == 60  # what it said alone is known
    assert not explorer._steady(1)


def test_where_no_calls_are_left_nobody_works_out_what_to_ask() -> None:
    explorer = Explorer(source_of(pool(one=own("one", 0.5), checker=checker), 12), [0, 1], 4, 0)
    explorer.broadly()
    explorer.best(lambda: pytest.fail("worked out"))


def test_donors_do_not_hang_on_the_last_bits() -> None:
    """Other numbers of threads give other last bits."""
    experts = pool(**HERD)
    source = source_of(experts, 60)
    first = source.first_answers()
    source.ask([Request(q, 4, [first[q][q % 4].answer]) for q in range(40)])
    vectors = WordEncoder().encode(source.questions)
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, vectors.shape).astype(np.float32)
    wanted = [Request(q, 4, [first[q][i].answer]) for q in range(60) for i in range(4)]
    one, two = (ImputedSource(source, v).ask(wanted) for v in (vectors, vectors + noise))
    assert one == two


def test_learning_stops_within_a_pass_over_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes long where questions are many: after Ctrl-C nobody waits for its end."""
    experts = pool(one=own("one", 0.5), checker=checker)
    made = learner(source_of(experts, 300))
    assert made.lesson is not None
    passes: list[int] = []
    observe, narrow = TreeObservations.observe, TreeLearner._narrow

    def counted(self: TreeObservations, *args: Any) -> torch.Tensor:
        passes.append(len(passes))
        return observe(self, *args)

    def interrupted(self: TreeLearner) -> None:
        passes.clear()
        self._stopped = lambda: len(passes) == 2
        narrow(self)

    monkeypatch.setattr(TreeObservations, "observe", counted)
    monkeypatch.setattr(TreeLearner, "_narrow", interrupted)
    monkeypatch.setattr(TreeLearner, "_imitate", lambda self, some, worth: _nothing(self))
    config, source = preset("default", ensemble=1), made.env.lockstep.source
    with pytest.raises(Stopped):
        learn_routes(made.model.policy.network, made.lesson, source, RouteRules.of(experts), config)
    assert len(passes) == 2  # of six


def _nothing(learner: TreeLearner) -> torch.Tensor:
    """A loss that teaches nothing, at once."""
    return sum(each.sum() for each in learner.network.parameters()) * torch.zeros(())


@pytest.mark.usefixtures("short_lessons")
def test_any_number_of_threads_gives_the_same_agent(tmp_path: Path) -> None:
    """Networks learn at the same time, as many as torch may use threads."""
    threads, trained = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            config = replace(SMALL, steps=2048, evaluations=1, ensemble=2)
            trained.append(train(tmp_path / str(count), config).network.state_dict())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for name, tensor in trained[0].items():
        assert tensor.equal(trained[1][name]), name
