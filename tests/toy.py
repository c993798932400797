"""A pool small enough to know the best routes of, and real enough to need them.

Sums need two experts and the transfer between them (`writer` -> `counter`), facts need one (`facts`), and
`parrot` is never right. The best agent is right on every question, at 1.1 for a sum and 2 for a fact.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, SharedHead
from der_graph.policies.answers import AnswerSource
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.encoder import Vectors
from der_graph.policies.observation.features import PROFILE_FEATURES
from der_graph.policies.quality import get_metric

COLOURS = ["red", "blue", "green", "white", "black", "grey"]


class WordEncoder:
    """Words hashed to signs: a text encoder that needs no model."""

    name = "word-hash"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), 24), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"[a-z]+", text.lower()):
                row[zlib.crc32(word.encode()) % 24] += 1.0
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: Vectors = (rows / np.maximum(norms, 1e-9)).astype(np.float32)
        return unit


class CountingExpert:
    """A function over the prompt that counts how often, and in what batches, it was asked."""

    def __init__(self, answer: object) -> None:
        self._answer = answer
        self.calls = 0

    def __call__(self, messages: list[BaseMessage]) -> AIMessage:
        self.calls += 1
        return AIMessage(self._answer(messages[-1].text))  # type: ignore[operator]


def toy_experts() -> list[Expert]:
    """The four experts, in order: writer, counter, facts, parrot."""

    def write(text: str) -> str:
        numbers = re.findall(r"\d+", text)
        return (
            f"{numbers[0]} + {numbers[1]}" if "pebbles" in text and len(numbers) > 1 else "no idea"
        )

    def count(text: str) -> str:
        found = re.fullmatch(r"(\d+) \+ (\d+)", text)
        return str(int(found[1]) + int(found[2])) if found else "?"

    def tell(text: str) -> str:
        found = re.search(r"colour of thing (\d+)", text)
        return COLOURS[int(found[1]) % len(COLOURS)] if found else "not sure"

    def make(name: str, function: object, cost: float, ktp: KTPTemplate | None = None) -> Expert:
        model = RunnableLambda(CountingExpert(function), name=f"model-{name}")
        return Expert(name, model, cost=cost, ktp=ktp, fingerprint=name)

    return [
        make("writer", write, 1.0, KTPTemplate("question", "{question}")),
        make("counter", count, 0.1, KTPTemplate("last", "{answer}")),
        make("facts", tell, 2.0),
        make("parrot", lambda text: "squawk", 0.5),
    ]


def toy_examples(count: int, *, seed: int = 0) -> list[Example]:
    """Half sums, half facts."""
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        a, b = rng.integers(1, 50, 2).tolist()
        if i % 2:
            question = f"I have {a} pebbles and find {b} pebbles. How many pebbles?"
            examples.append(Example(f"sum/{seed}/{i}", question, str(a + b), "sum"))
        else:
            thing = a * 50 + b
            question = f"What is the colour of thing {thing}?"
            examples.append(
                Example(f"fact/{seed}/{i}", question, COLOURS[thing % len(COLOURS)], "fact")
            )
    return examples


def toy_rules(experts: Sequence[Expert], max_steps: int = 3) -> RouteRules:
    """Rules of the toy pool."""
    return RouteRules.of(experts, max_steps=max_steps)


def toy_source(count: int = 40, *, seed: int = 0) -> AnswerSource:
    """Live answers of the toy pool."""
    return AnswerSource(toy_experts(), toy_examples(count, seed=seed), get_metric("match"))


def toy_observer(source: AnswerSource, config: ObservationConfig | None = None) -> Observer:
    """An observer fitted on a source's questions."""
    first = source.first_answers()
    return Observer.fit(
        config or ObservationConfig(question_dims=4, answer_dims=3, fixed_pool=True),
        [e.name for e in source.experts],
        [e.cost for e in source.experts],
        WordEncoder(),
        questions=[e.question for e in source.examples],
        answers=[o.answer["text"] for row in first for o in row],
        qualities=np.array([[o.quality for o in row] for row in first], dtype=np.float32),
        lengths=np.array(
            [[len(o.answer["text"].split()) for o in row] for row in first], dtype=np.float32
        ),
    )


def profile_observer() -> Observer:
    """What agents that know experts by their results see, over the toy pool at prices 1, 0.1, 2 and 0.5."""
    source = toy_source(20)
    first = source.first_answers()
    return Observer.fit(
        ObservationConfig(2, 0),
        [expert.name for expert in source.experts],
        [1.0, 0.1, 2.0, 0.5],
        WordEncoder(),
        questions=source.questions,
        answers=[],
        qualities=np.array([[o.quality for o in row] for row in first], dtype=np.float32),
        values=[[o.answer["value"] for o in row] for row in first],
        features=PROFILE_FEATURES,
    )


def toy_agent(source: AnswerSource, *, seed: int = 0, scale: float = 3.0) -> DERAgent:
    """An untrained agent with opinions: random weights, large enough that its choices differ."""
    import torch

    torch.manual_seed(seed)
    observer = toy_observer(source)
    network = SharedHead(Shape(4, observer.context_size, observer.expert_size, 16))
    with torch.no_grad():
        for layer in (network.score_expert, network.score_end):
            layer.weight.normal_(0.0, scale)
        network.score_end.bias.fill_(-2.0)  # not all routes of one step
    return DERAgent(observer, network, cost_weight=0.2, cost_weight_range=(0.02, 2.0))
