"""Agents can be copied and pickled; locks, memories and models stay behind."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_tokenizer
from toy import WordEncoder, toy_agent, toy_source

from der_graph.nodes.batching import RequestQueue
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.reliability import Slots
from der_graph.nodes.reliability.drift import DriftWatch
from der_graph.policies.agent.bandit import BanditAgent
from der_graph.policies.agent.batched import BatchedAgent
from der_graph.policies.agent.text_agent import TextObserver
from der_graph.policies.baselines import Random, Single
from der_graph.policies.baselines.rankers import RewardRanker
from der_graph.policies.observation import SentenceEncoder
from der_graph.policies.observation.encoder import EmbeddingsEncoder
from der_graph.policies.observation.vectors import CachedEncoder
from der_graph.policies.planning.learning.learner import Learner
from der_graph.policies.planning.planner import Planner
from der_graph.state import Situation

NAMES, COSTS = ("a", "b", "c", "d"), (1.0, 2.0, 4.0, 8.0)


def trained() -> RoutingAgent:
    return toy_agent(toy_source(8))


def bandit() -> BanditAgent:
    arrays = {
        "mean": np.zeros(8, dtype=np.float32),
        "axes": np.eye(8, 1, dtype=np.float32),
        "success": np.linspace(0.1, 0.9, 8, dtype=np.float32).reshape(4, 2),
        "cost": np.ones((4, 2), dtype=np.float32),
    }
    experts = list(zip(NAMES, COSTS, strict=True))
    return BanditAgent(experts, WordEncoder(), arrays, cost_scale=1.0, cost_weight=0.1)


def planner() -> Planner:
    return Planner.from_prior(NAMES, COSTS, sizes=COSTS)


AGENTS: list[Callable[[], RoutingAgent]] = [
    trained,
    lambda: BatchedAgent(trained()),
    planner,
    lambda: Single(NAMES, COSTS, "b"),
    lambda: Random(NAMES, COSTS, 1),
]


def choose(agent: Any, question: str = "how many?") -> Any:
    names = list(agent.names)
    mask = [*(True for _ in names), False]
    return agent.decide([Situation(question, [], mask, max_steps=3)])


@pytest.mark.parametrize("make", AGENTS)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_of_an_agent_chooses_alike(
    make: Callable[[], RoutingAgent], again: Callable[[Any], Any]
) -> None:
    agent = make()
    if not isinstance(agent, Random):
        choose(agent, "warm")  # what it remembers is not to be in its way
    other = again(agent)
    assert choose(other) == choose(agent)


def test_a_copy_of_a_bandit_chooses_alike() -> None:
    agent = bandit()
    assert [e for e, _ in copy.deepcopy(agent).experts] == list(NAMES)
    assert pickle.loads(pickle.dumps(agent)).names == list(NAMES)


def test_questions_do_not_go_along() -> None:
    for agent in (trained(), planner()):
        choose(agent, "a secret of mine")
        assert b"a secret of mine" not in pickle.dumps(agent)


def test_a_copy_of_a_learner_is_itself_and_a_pickle_opens_its_file(tmp_path: Path) -> None:
    pytest.importorskip("langgraph.store.sqlite")
    learner = Learner(planner(), tmp_path / "learnt.sqlite", explore=0.1)
    learner.flush()
    assert copy.deepcopy(learner) is learner
    other = pickle.loads(pickle.dumps(learner))
    assert (other.names, other.explore) == (learner.names, 0.1)
    other.flush()
    for each in (learner, other):
        store: Any = each.memory.store
        store.conn.close()


class Client:
    """Embeddings whose client cannot be copied."""

    def __init__(self) -> None:
        self.lock = RequestQueue()._lock

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One number a text."""
        return [[float(len(text))] for text in texts]


def test_a_deep_copy_of_an_encoder_is_the_encoder(tmp_path: Path) -> None:
    client: Any = Client()
    remote = EmbeddingsEncoder(client, "client")
    for encoder in (SentenceEncoder("x"), remote, CachedEncoder(remote, tmp_path / "v.sqlite")):
        assert copy.deepcopy(encoder) is encoder
    sentences = pickle.loads(pickle.dumps(SentenceEncoder("x", batch_size=3)))
    assert (sentences.name, sentences.batch_size) == ("x", 3)
    kept = CachedEncoder(WordEncoder(), tmp_path / "w.sqlite")
    first = kept.encode(["one two"])
    assert (pickle.loads(pickle.dumps(kept)).encode(["one two"]) == first).all()


def test_what_is_guarded_begins_anew() -> None:
    reader = TextObserver(tiny_tokenizer(bos=True), 16)
    seen = [Situation("ab", [], [True, False], max_steps=2)]
    rows = reader.observe(seen, ())
    ways: list[Any] = [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
    for again in ways:
        assert (again(reader).observe(seen, ()) == rows).all()
        assert again(RewardRanker("x")).model_id == "x"
        watch = again(DriftWatch(["a", "b"]))
        assert watch.set_aside() == frozenset()
    slots = Slots(1)
    slots.grow(1)
    assert copy.deepcopy(slots) is slots
    with pickle.loads(pickle.dumps(slots)).one(), slots.one():
        pass
