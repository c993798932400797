"""Routers that learn: one look at the question, one expert, done.

    question ──frozen sentence encoder──> vector ──predictor──> quality of each expert ──> argmax

The usual alternative to DER, on the same encoder: predict the quality of every expert, and take the best
after the price of its cost. A router never sees an answer, so it can neither check nor correct one.
Predictors are nearest neighbours, logistic regression, a small network and clusters, all by scikit-learn,
and matrix factorisation, the design of RouteLLM (Ong et al. 2024, arXiv 2406.18665).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from der_graph.errors import DataError, require
from der_graph.nodes.decision import Choice
from der_graph.policies.baselines.simple import Baseline, certain
from der_graph.policies.observation import TextEncoder
from der_graph.state import Situation, good_answers

Array = NDArray[np.float64]


class Predictor(Protocol):
    """Predicts the quality of every expert from the vector of a question."""

    def fit(self, vectors: Array, qualities: Array) -> None:
        """Learn from (n, dimensions) vectors and (n, experts) qualities in [0, 1]."""

    def predict(self, vectors: Array) -> Array:
        """Predict for (m, dimensions) vectors: (m, experts) qualities."""


class Neighbours:
    """Mean quality of the most similar training questions, by cosine.

    Args:
        k: How many.
    """

    def __init__(self, k: int = 20) -> None:
        self._k = k

    def fit(self, vectors: Array, qualities: Array) -> None:
        """Remember the questions."""
        package = scikit_learn("sklearn.neighbors")
        k = min(self._k, len(vectors))
        self._model: Any = package.KNeighborsRegressor(n_neighbors=k, metric="cosine")
        self._model.fit(vectors, qualities)

    def predict(self, vectors: Array) -> Array:
        """Average over the neighbours."""
        return np.asarray(self._model.predict(vectors), dtype=np.float64)


class Logistic:
    """One logistic regression per expert; a quality between 0 and 1 counts as that much of a success.

    Args:
        c: Inverse strength of the L2 penalty.
    """

    def __init__(self, c: float = 1.0) -> None:
        self._c = c

    def fit(self, vectors: Array, qualities: Array) -> None:
        """Fit every expert's regression."""
        package = scikit_learn("sklearn.linear_model")
        twice = np.concatenate([vectors, vectors])
        labels = np.repeat([1, 0], len(vectors))
        self._models: list[Any] = []
        for quality in qualities.T:
            weights = np.concatenate([quality, 1 - quality])
            if quality.min() == quality.max() and quality[0] in (0.0, 1.0):
                self._models.append(float(quality[0]))  # always right, or never: nothing to fit
                continue
            model = package.LogisticRegression(C=self._c, max_iter=1000)
            self._models.append(model.fit(twice, labels, sample_weight=weights))

    def predict(self, vectors: Array) -> Array:
        """Probability of success, by expert."""
        columns = [
            np.full(len(vectors), model)
            if isinstance(model, float)
            else model.predict_proba(vectors)[:, 1]
            for model in self._models
        ]
        return np.stack(columns, axis=1).astype(np.float64)


class Network:
    """A network with one hidden layer, for all experts together.

    Args:
        hidden: Its width.
        penalty: Strength of the L2 penalty.
        seed: Of the first weights and the batches.
    """

    def __init__(self, hidden: int = 64, penalty: float = 1e-3, seed: int = 0) -> None:
        self._hidden, self._penalty, self._seed = hidden, penalty, seed

    def fit(self, vectors: Array, qualities: Array) -> None:
        """Fit, with early stopping on a tenth of the questions where there are enough of them."""
        package = scikit_learn("sklearn.neural_network")
        self._model: Any = package.MLPRegressor(
            hidden_layer_sizes=(self._hidden,),
            alpha=self._penalty,
            early_stopping=len(vectors) >= 50,
            max_iter=500,
            tol=1e-5,
            random_state=self._seed,
        )
        self._model.fit(vectors, qualities)
        self._experts = qualities.shape[1]

    def predict(self, vectors: Array) -> Array:
        """Predict, with one column per expert."""
        return np.asarray(self._model.predict(vectors)).reshape(len(vectors), self._experts)


class Clusters:
    """Questions in groups by k-means; the mean quality in the group of the question.

    Args:
        k: Number of groups.
        seed: Of the first centres.
    """

    def __init__(self, k: int = 20, seed: int = 0) -> None:
        self._k, self._seed = k, seed

    def fit(self, vectors: Array, qualities: Array) -> None:
        """Find the groups."""
        package = scikit_learn("sklearn.cluster")
        different = len(np.unique(vectors, axis=0))  # no more groups than that exist
        self._model: Any = package.KMeans(
            min(self._k, different), n_init=4, random_state=self._seed
        ).fit(vectors)
        labels = self._model.labels_
        groups = range(labels.max() + 1)
        self._means = np.stack([qualities[labels == group].mean(axis=0) for group in groups])

    def predict(self, vectors: Array) -> Array:
        """Look the group's means up."""
        means: Array = self._means[self._model.predict(vectors)]
        return means


class Factorization:
    """Matrix factorisation: question and expert each become a short vector; their product counts.

    quality = sigmoid((x W) . v_expert + b_expert), fitted by cross-entropy.

    Args:
        rank: Length of the short vectors.
        penalty: Strength of the L2 penalty.
        steps: Most steps of L-BFGS.
        seed: Of the first vectors.
    """

    def __init__(
        self, rank: int = 16, penalty: float = 1e-4, steps: int = 200, seed: int = 0
    ) -> None:
        self._rank, self._penalty, self._steps, self._seed = rank, penalty, steps, seed

    def fit(self, vectors: Array, qualities: Array) -> None:
        """Fit both factors together."""
        optimize = require("scipy.optimize", extra="baselines", why="routers that learn")
        rng = np.random.default_rng(self._seed)
        size, experts = vectors.shape[1], qualities.shape[1]
        start = np.concatenate(
            [
                rng.normal(0, size**-0.5, size * self._rank),
                rng.normal(0, self._rank**-0.5, self._rank * experts),
                np.zeros(experts),
            ]
        )
        cuts = [size * self._rank, (size + experts) * self._rank]

        def parts(flat: Array) -> tuple[Array, Array, Array]:
            first, second, bias = np.split(flat, cuts)
            return first.reshape(size, self._rank), second.reshape(self._rank, experts), bias

        def loss(flat: Array) -> tuple[float, Array]:
            to_short, to_experts, bias = parts(flat)
            short = vectors @ to_short
            logits = short @ to_experts + bias
            entropy = np.mean(np.logaddexp(0, logits) - qualities * logits)
            error = (_sigmoid(logits) - qualities) / logits.size
            slope = np.concatenate(
                [
                    (vectors.T @ (error @ to_experts.T) + 2 * self._penalty * to_short).ravel(),
                    (short.T @ error + 2 * self._penalty * to_experts).ravel(),
                    error.sum(axis=0),
                ]
            )
            return float(entropy + self._penalty * np.sum(flat[: cuts[1]] ** 2)), slope

        options = {"maxiter": self._steps}
        found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        self._parts = parts(found.x)

    def predict(self, vectors: Array) -> Array:
        """Multiply the factors."""
        to_short, to_experts, bias = self._parts
        return _sigmoid(vectors @ to_short @ to_experts + bias)


def _sigmoid(logits: Array) -> Array:
    quality: Array = 0.5 * (1 + np.tanh(0.5 * logits))  # does not overflow
    return quality


def scikit_learn(module: str, why: str = "routers that learn") -> Any:
    """A module of scikit-learn.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    return require(module, extra="baselines", why=why)


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
