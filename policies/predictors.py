"""What the routers that learn have inside: from a question's vector to every expert's quality.

Nearest neighbours, logistic regression, a small network, clusters (all by scikit-learn), and matrix
factorisation, the design of RouteLLM (Ong et al. 2024, arXiv 2406.18665). Knows nothing of costs.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from der_graph.errors import require

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
