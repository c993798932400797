"""How well the answers of a route tell who is right: log loss on test questions, with and without the model.

    python benchmarks/beliefs.py --data recorded_pool [--folds 5]

Some experts, the cheaper the more often, answer test questions, cheapest first; profiles are those of the
training questions. `independent` is what agents without `wrong_pairs` see: answers weigh by the odds of their
experts alone, and tell nothing of others. `model` is `der_graph.policies.observation.belief`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from recorded_data import Recorded, load, split

from der_graph.data import Example
from der_graph.policies.answers import Outcome
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.belief import believe
from der_graph.policies.observation.evidence import Floats, gather
from der_graph.state import Situation

DRAWS = 12
"""Sets of experts, for every number of them."""


def fitted(recorded: Recorded, questions: list[Example]) -> Observer:
    """An observer that knows the training questions."""
    rules = recorded.rules(5)
    return Observer.fit(
        ObservationConfig(question_dims=3, answer_dims=0), rules.names, rules.costs, recorded.encoder,
        questions=[example.question for example in questions], answers=[],
        qualities=recorded.first_quality(questions).astype(np.float32),
        values=recorded.first_values(questions),
    )  # fmt: skip


def log_loss(probability: Floats, right: Floats) -> float:
    """Mean of minus the log of the probability of what is the case."""
    bounded = np.clip(probability, 1e-4, 1 - 1e-4)
    return float(-np.mean(np.where(right > 0.5, np.log(bounded), np.log(1 - bounded))))


class Fold(NamedTuple):
    """Test questions of a fold, and what the training questions say of them.

    Attributes:
        questions: n of them.
        rows: [question][expert] first answers.
        quality: (n, experts) of these.
        expected: (n, experts) probability of being right, before any answer.
        chance: (n,) how often two wrong answers have one value.
        names: The experts.
        costs: (experts,).
    """

    questions: list[str]
    rows: Sequence[Sequence[Outcome]]
    quality: Floats
    expected: Floats
    chance: Floats
    names: list[str]
    costs: Floats


def prepared(recorded: Recorded, fold: int) -> Fold:
    """Everything that does not depend on who is asked."""
    learnt, test = split(recorded.examples, fold)
    observer = fitted(recorded, learnt)
    questions = [example.question for example in test]
    known, _ = observer._texts.look_up(questions, [])
    return Fold(
        questions,
        recorded.source(test).first_answers(),
        recorded.first_quality(test).astype(np.float32),
        np.array([known[question].expected for question in questions], dtype=np.float32),
        np.array([known[question].chance for question in questions], dtype=np.float32),
        observer.names,
        observer.costs,
    )


def losses(fold: Fold, asked: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """The losses of some sets of so many experts."""
    position = {name: i for i, name in enumerate(fold.names)}
    share = 1 / fold.costs.astype(np.float64)
    found = []
    for _ in range(DRAWS):
        drawn = rng.choice(len(share), asked, replace=False, p=share / share.sum())
        order = drawn[np.argsort(fold.costs[drawn], kind="stable")].tolist()
        others = [i for i in range(len(share)) if i not in order]
        situations = [
            Situation(question, [row[i].answer for i in order], [True] * (len(share) + 1))
            for question, row in zip(fold.questions, fold.rows, strict=True)
        ]
        seen = gather(situations, position)
        row = {}
        for name, told in (("independent", None), ("model", fold.chance)):
            belief = believe(seen, fold.expected, told)
            row[f"{name}, last"] = log_loss(belief.right_now, fold.quality[:, order[-1]])
            row[f"{name}, others"] = log_loss(belief.expected[:, others], fold.quality[:, others])
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded pool")
    parser.add_argument("--vectors", type=Path, default=Path("runs/recorded_vectors.npz"))
    parser.add_argument("--folds", type=int, default=5, help="run only the first K of the 5 folds")
    parser.add_argument("--seed", type=int, default=0, help="of the sets of experts")
    args = parser.parse_args()
    recorded = load(args.data, args.vectors)
    rng = np.random.default_rng(args.seed)
    print("log loss, mean over folds and sets (standard error over sets)")
    folds = [prepared(recorded, fold) for fold in range(args.folds)]
    for asked in (1, 2, 3):
        found = [row for fold in folds for row in losses(fold, asked, rng)]
        for name in found[0]:
            each = [row[name] for row in found]
            error = np.std(each) / len(each) ** 0.5
            print(f"{asked} asked  {name:<20} {np.mean(each):.3f} ({error:.3f})")


if __name__ == "__main__":
    main()
