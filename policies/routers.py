"""Routers that learn: one look at the question, one expert, done.

    question ──frozen sentence encoder──> vector ──predictor──> quality of each expert ──> argmax

The usual alternative to DER, on the same encoder: predict every expert's quality (`predictors.py`),
take the best after the price of its cost. A router never sees an answer, so it can neither check nor
correct one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from der_graph.errors import DataError
from der_graph.nodes.hub import Choice
from der_graph.policies.baselines import Baseline, certain
from der_graph.policies.encoder import TextEncoder
from der_graph.policies.predictors import (
    Array,
    Clusters,
    Factorization,
    Logistic,
    Neighbours,
    Network,
    Predictor,
)
from der_graph.state import Situation, good_answers


class OneShotRouter(Baseline):
    """Asks the expert with the best predicted quality minus the price of its cost, and ends.

    Args:
        names: The pool's experts.
        costs: Their costs.
        encoder: Turns questions into vectors.
        predictor: What learns; see `PREDICTORS`.
        price: Quality given up for the cost of asking everyone once, where a request names no
            `cost_weight`. The same unit as the agent's.
    """

    def __init__(
        self,
        names: Sequence[str],
        costs: Sequence[float],
        encoder: TextEncoder,
        predictor: Predictor,
        price: float = 0.0,
    ) -> None:
        super().__init__(names, costs)
        self.encoder = encoder
        self.predictor = predictor
        self.price = price
        self._shares = np.asarray(self.costs) / (sum(self.costs) or 1.0)

    def fit(self, questions: Sequence[str], qualities: ArrayLike) -> OneShotRouter:
        """Learn from questions and the quality of every expert's own answer.

        Args:
            questions: (n,) questions.
            qualities: (n, experts) qualities, in [0, 1].

        Returns:
            The router itself.

        Raises:
            DataError: If there are no questions, the shapes do not fit, or a quality is not finite.
        """
        table = np.asarray(qualities, dtype=np.float64)
        if not len(questions) or table.shape != (len(questions), len(self.names)):
            raise DataError(
                f"qualities of shape {table.shape} for {len(questions)} questions and "
                f"{len(self.names)} experts; a router needs one for each, and one question at least"
            )
        if not np.isfinite(table).all():
            row, column = np.argwhere(~np.isfinite(table))[0]
            raise DataError(
                f"question {row}, expert '{self.names[column]}': the quality is {table[row, column]}"
            )
        self.predictor.fit(self._encode(questions), table)
        return self

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """Choose for each situation; the open questions are encoded as one batch."""
        fresh = [seen for seen in situations if not good_answers(seen.answers)]
        questions = list(dict.fromkeys(seen.question for seen in fresh))
        predicted: dict[str, Array] = {}
        if questions:
            table = self.predictor.predict(self._encode(questions))
            predicted = dict(zip(questions, table, strict=True))
        return [self._choice(seen, predicted) for seen in situations]

    def _choice(self, seen: Situation, predicted: dict[str, Array]) -> Choice:
        price = self.price if seen.cost_weight is None else seen.cost_weight
        wanted = len(self.names)
        if not good_answers(seen.answers):
            worth = predicted[seen.question] - price * self._shares
            wanted = int(np.argmax(np.where(seen.mask[:-1], worth, -np.inf)))
        return certain(self.allowed(wanted, seen), seen, price)

    def _encode(self, questions: Sequence[str]) -> Array:
        return np.asarray(self.encoder.encode(list(questions)), dtype=np.float64)


PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "knn": Neighbours,
    "logistic": Logistic,
    "mlp": Network,
    "kmeans": Clusters,
    "matrix": Factorization,
}
"""The predictors by the name that reports use, with their usual settings."""
