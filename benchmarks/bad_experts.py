"""A recorded pool with one bad expert, or with many copies of every expert.

Recorded ──spoiled──> the same, one expert answers noise or what is wrong on purpose
Recorded, agent ──cloned──> 11 experts become 110 or 1,000, each at a slightly different price
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
from recorded_data import METRIC, Recorded

from der_graph.data import Candidate, Example
from der_graph.nodes.recorded import RecordedChat
from der_graph.policies.agent import DERAgent
from der_graph.policies.observation import Observer
from der_graph.policies.observation.profiles import chosen_experts

Fault = Literal["noise", "wrong"]
"""`noise`: words without an answer. `wrong`: the wrong value that most other experts give, so that it agrees
with whoever errs; an invented one where nobody errs."""

_SCORE = METRIC.split(":")[1]
_WORDS = ("blue", "seven", "because", "of", "the", "river", "perhaps", "table", "run", "green")


def spoiled(recorded: Recorded, name: str, fault: Fault, *, seed: int = 0) -> Recorded:
    """The pool with one expert that gives bad answers to every question.

    Args:
        recorded: The pool.
        name: The expert.
        fault: What it answers instead.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    good = next(expert for expert in recorded.experts if expert.name == name)
    # The metric reads the qualities from the questions, so they are changed there as well as in the model.
    examples = [
        replace(e, candidates={**e.candidates, name: _bad_answer(e, name, fault, rng)})
        for e in recorded.examples
    ]
    chat = RecordedChat(data=f"spoiled-{fault}.jsonl", model=name)
    chat._answers = {e.question.strip(): e.candidates[name] for e in examples}
    bad = replace(good, model=chat)
    experts = [bad if expert.name == name else expert for expert in recorded.experts]
    return recorded._replace(examples=examples, experts=experts)


def _bad_answer(example: Example, name: str, fault: Fault, rng: np.random.Generator) -> Candidate:
    tokens = example.candidates[name].tokens
    if fault == "noise":
        text = " ".join(rng.choice(_WORDS, size=30).tolist())
        return Candidate(name, text, {_SCORE: 0.0}, None, tokens)
    wrong = Counter(
        other.answer
        for other in example.candidates.values()
        if other.model != name and other.answer and other.scores[_SCORE] == 0.0
    )
    value = wrong.most_common(1)[0][0] if wrong else f"{rng.integers(1000, 9999)}.5"
    return Candidate(name, f"The answer is {value}.", {_SCORE: 0.0}, value, tokens)


def cloned(
    recorded: Recorded, agent: DERAgent, experts: int, *, spread: float = 0.05, seed: int = 0
) -> tuple[Recorded, DERAgent]:
    """A pool of many experts made of few, and the agent over it without training.

    Every clone answers as its original does and has its profile; its price differs by at most `spread`.

    Args:
        recorded: The pool.
        agent: Knows its experts by profile, in the pool's order.
        experts: How many there are to be; originals come first.
        spread: Largest relative difference in price.
        seed: Of the prices.
    """
    rng = np.random.default_rng(seed)
    at = [k % len(recorded.experts) for k in range(experts)]
    members = [
        original
        if k < len(recorded.experts)
        else replace(
            original,
            name=f"{original.name}-{k}",
            cost=original.cost * float(1 + rng.uniform(-spread, spread)),
        )
        for k, original in ((k, recorded.experts[i]) for k, i in enumerate(at))
    ]
    known = agent.observer
    observer = Observer(
        known.config,
        [expert.name for expert in members],
        [expert.cost for expert in members],
        known.encoder,
        chosen_experts(known.arrays, at),
        known.features,
        np.zeros((experts, 0), dtype=np.float32),
    )
    names = list(
        zip([e.name for e in members], [recorded.experts[i].name for i in at], strict=True)
    )
    examples = [
        replace(e, candidates={new: e.candidates[old] for new, old in names})
        for e in recorded.examples
    ]
    many = agent.over(observer)
    # A price is charged per share of asking everyone, and clipped to the range of training: with more experts
    # the same price of a billion parameters is a larger number.
    scale = observer.costs.sum() / known.costs.sum()
    low, high = agent.cost_weight_range
    many.cost_weight_range = (low * scale, high * scale)
    return recorded._replace(examples=examples, experts=members), many
