"""What the agent sees: a situation becomes one row of numbers.

    question, answers, costs, budget  ──>  [ context (C) | expert 1 (F) | ... | expert N (F) ]

The context is the question and the last answer (sentence embeddings, projected to a few dimensions), how far
the route is, what it cost, and the evidence in the answers: whether they agree, what the last one looks like,
how sure it was, how long it is for its expert. Each expert has its price, what it has done on this route,
whether it agrees with the last answer, and its profile: the index, for a fixed pool, and its results on probe
questions. Few question dimensions are enough, and with few training questions more of them only overfit; the
value is in the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.errors import AgentError, PluginError
from der_graph.nodes.reliability.charge import Charge
from der_graph.policies.observation.belief import believe
from der_graph.policies.observation.call_costs import CostScale, expected_costs
from der_graph.policies.observation.encoder import TextEncoder, Vectors
from der_graph.policies.observation.evidence import gather
from der_graph.policies.observation.expert_features import Profiles, best_gain, expert_features
from der_graph.policies.observation.features import (
    EXPERT_FEATURES,
    STATE_FEATURES,
    Feature,
    FeatureNames,
    feature_named,
)
from der_graph.policies.observation.profiles import (
    chosen_experts,
    fit_profiles,
    mean_skill,
    with_results,
)
from der_graph.policies.observation.projection import Projected, ProjectedTexts
from der_graph.policies.observation.route_features import state_features
from der_graph.state import Situation

_STATE = {name: i for i, name in enumerate(STATE_FEATURES)}
_EXPERT = {name: i for i, name in enumerate(EXPERT_FEATURES)}


@dataclass(frozen=True)
class ObservationConfig:
    """What goes into an observation.

    Attributes:
        question_dims: Dimensions of the projected question.
        answer_dims: Dimensions of the projected last answer; 0 leaves answers unencoded, which is faster
            and enough where their values (agreement) say what matters.
        fixed_pool: Give each expert its index among its features, for a network that scores all experts by
            the same weights. It cannot take new experts then.
        neighbours: Use the probe questions near to the question for `skill_here`.
    """

    question_dims: int = 16
    answer_dims: int = 8
    fixed_pool: bool = False
    neighbours: bool = True


class Observer:
    """Turns situations into observations for one pool.

    Args:
        config: What goes in.
        names: The experts, in the pool's order.
        costs: Price of one call of each.
        encoder: The frozen sentence encoder.
        arrays: Projections and profiles: `question_mean`, `question_axes`, `answer_mean`, `answer_axes`, and
            those of `der_graph.policies.observation.profiles`.
        features: Which features, for agents that were trained with fewer.
        identity: (experts, K) what tells each expert from the others; one-hot by position where left out, or
            nothing if the pool is not fixed.
        scale: What prices of cost count in; the cost of asking everyone once where left out, whoever that is.
    """

    def __init__(
        self,
        config: ObservationConfig,
        names: Sequence[str],
        costs: Sequence[float],
        encoder: TextEncoder,
        arrays: dict[str, npt.NDArray[np.float32]],
        features: FeatureNames | None = None,
        identity: npt.NDArray[np.float32] | None = None,
        scale: CostScale | None = None,
    ) -> None:
        self.config = config
        self.names = list(names)
        self.costs = np.asarray(costs, dtype=np.float32)
        self.encoder = encoder
        self.arrays = arrays
        self.features = features or FeatureNames()
        if identity is None:
            identity = np.eye(
                len(self.names), len(self.names) * config.fixed_pool, dtype=np.float32
            )
        self.identity = identity
        self.scale = scale
        self._position = {name: i for i, name in enumerate(self.names)}
        own = [name for name in self.features.state if name in _STATE]
        self._state_columns = [_STATE[name] for name in own]
        self._added = {name: _added(name) for name in self.features.state[len(own) :]}
        self._expert_columns = [_EXPERT[name] for name in self.features.expert]
        self._skill = mean_skill(arrays["probe_quality"])
        self._texts = ProjectedTexts(encoder, arrays, self._skill, neighbours=config.neighbours)

    @classmethod
    def fit(
        cls,
        config: ObservationConfig,
        names: Sequence[str],
        costs: Sequence[float],
        encoder: TextEncoder,
        *,
        questions: Sequence[str],
        answers: Sequence[str],
        qualities: npt.NDArray[np.float32],
        lengths: npt.NDArray[np.float32] | None = None,
        values: Sequence[Sequence[str | None]] | None = None,
        descriptions: Sequence[str] | None = None,
        features: FeatureNames | None = None,
        call_costs: dict[str, Vectors] | None = None,
        scale: CostScale | None = None,
    ) -> Observer:
        """Fit projections and profiles on training questions.

        Args, besides those of the class:
            questions: Training questions.
            answers: Some answers to them, for the projection of answers.
            qualities: (questions, experts): quality of each expert's own first answer; NaN where unknown.
            lengths: (questions, experts): tokens of that answer; NaN where unknown.
            values: [question][expert]: what that answer comes to; None for nothing.
            descriptions: What each expert is good at, in words; empty for unknown.
            features: Which features.
            call_costs: What `fit_call_costs` gave; `costs` are then the expected ones.
            scale: What prices of cost count in.
        """
        arrays = fit_profiles(
            encoder,
            questions,
            answers if config.answer_dims else [],
            (config.question_dims, config.answer_dims),
            qualities=qualities,
            lengths=lengths,
            values=values,
            descriptions=descriptions,
        )
        arrays |= call_costs or {}
        return cls(config, names, costs, encoder, arrays, features, scale=scale)

    def with_encoder(self, encoder: TextEncoder) -> Observer:
        """The same observer over another instance of its encoder, with no text remembered."""
        return self._with(encoder=encoder)

    def for_pool(self, names: Sequence[str], costs: Sequence[float]) -> Observer:
        """The same observer over some of its experts, in any order and at other prices.

        Args:
            names: The experts.
            costs: Expected cost of one call of each; see `expected_costs`.

        Raises:
            ValueError: If it does not know one of them.
        """
        at = [self.names.index(name) for name in names]
        return self._with(
            names=list(names),
            costs=list(costs),
            arrays=chosen_experts(self.arrays, at),
            identity=self.identity[at],
        )

    def remember(self, questions: Sequence[str], features: Vectors, expected: Vectors) -> None:
        """Show some questions by features that were fitted without them; see `ProjectedTexts.remember`."""
        self._texts.remember(questions, features, expected)

    def some(self, outputs: int) -> Observer:
        """The same observer over the experts that a network has outputs for: all but those that joined."""
        whole = outputs >= len(self.names)
        return self if whole else self.for_pool(self.names[:outputs], self.costs[:outputs].tolist())

    def expected_costs(
        self, names: Sequence[str], costs: Sequence[float], charges: Sequence[Charge]
    ) -> list[float]:
        """Expected cost of one call of each expert of a pool; see `call_costs`."""
        sizes = self.arrays.get("call_size")
        at = [self.names.index(name) for name in names]
        return expected_costs(costs, charges, None if sizes is None else sizes[:, at])

    def with_arrays(self, arrays: dict[str, Vectors]) -> Observer:
        """The same observer with other projections and profiles."""
        return self._with(arrays=arrays)

    def with_scale(self, scale: CostScale | None) -> Observer:
        """The same observer with other units of the price of cost."""
        return self._with(scale=scale)

    def with_name(self, old: str, new: str) -> Observer:
        """The same observer, which knows an expert under another name."""
        return self._with(names=[new if name == old else name for name in self.names])

    def _with(self, **changes: Any) -> Observer:
        mine = {
            "config": self.config,
            "names": self.names,
            "costs": self.costs.tolist(),
            "encoder": self.encoder,
            "arrays": self.arrays,
            "features": self.features,
            "identity": self.identity,
            "scale": self.scale,
        }
        return Observer(**{**mine, **changes})

    def with_results(
        self, questions: Sequence[str], experts: Sequence[int], qualities: Sequence[float]
    ) -> Observer:
        """The same observer knowing more results, each of one expert on one question."""
        return self._with(
            arrays=with_results(self.arrays, self.encoder, questions, experts, qualities)
        )

    @property
    def total(self) -> float:
        """Cost that is worth one unit of quality at a price of 1, in the pool's unit."""
        return float(self.costs.sum()) if self.scale is None else self.scale.total

    @property
    def skill(self) -> Vectors:
        """(experts,) mean quality of each on the probe questions, estimated where it was not asked."""
        return self._skill

    @property
    def context_size(self) -> int:
        """Number of context features C."""
        return len(self.features.state) + self.config.question_dims + self.config.answer_dims

    @property
    def expert_size(self) -> int:
        """Number of features of one expert F."""
        index_size: int = self.identity.shape[1]
        return len(self.features.expert) + index_size

    @property
    def size(self) -> int:
        """Length of an observation: C + N * F."""
        return self.context_size + len(self.names) * self.expert_size

    @property
    def indices(self) -> list[int | None]:
        """The index that each expert had in training; None where the pool is not fixed."""
        rows: list[list[float]] = self.identity.tolist()
        return [row.index(1.0) if 1.0 in row else None for row in rows]

    def observe(self, situations: Sequence[Situation], cost_weights: Sequence[float]) -> Vectors:
        """Observe situations; their texts are encoded in one batch.

        Args:
            situations: Any number of them, with masks of this pool's length + 1.
            cost_weights: The price of cost of each, >= 0.

        Returns:
            float32, (n, size); all features finite, most of them within [-3, 3].
        """
        n, dims = len(situations), self.config
        seen = gather(situations, self._position)
        answers = [
            s.answers[slot] if slot >= 0 else None
            for s, slot in zip(situations, seen.last.tolist(), strict=True)
        ]
        texts = [a["text"] for a in answers if a is not None] if dims.answer_dims else []
        questions, last = self._texts.look_up([s.question for s in situations], texts)
        asked = [questions[s.question] for s in situations]
        weights = np.asarray(cost_weights, dtype=np.float32)
        profiles, chance = self._profiles(asked), self._chance(asked)
        belief = believe(seen, profiles.expected, chance)
        profiles = profiles._replace(expected=belief.expected)
        verbosity = seen.verbosity(self.arrays.get("length_profile"))

        out = np.zeros((n, self.size), dtype=np.float32)
        state = state_features(
            situations,
            seen,
            weights,
            total=profiles.total,
            verbosity=verbosity,
            skill=profiles.skill,
            skill_here=profiles.skill_here,
            right_now=belief.right_now,
            chance=chance,
            question_length=self.arrays.get("question_length"),
        )
        start = len(self.features.state)
        out[:, start : start + dims.question_dims] = [q.projected for q in asked]
        if dims.answer_dims:
            start += dims.question_dims
            for row, numbers, question, answer in zip(out, state, asked, answers, strict=True):
                if answer is not None:
                    near = last[answer["text"]]
                    row[start : start + dims.answer_dims] = near.projected
                    numbers[_STATE["similarity"]] = question.vector @ near.vector
        masks = np.array([s.mask[: len(self.names)] for s in situations], dtype=np.bool_)
        block = expert_features(
            profiles,
            masks.reshape(n, len(self.names)),
            weights,
            seen,
            verbosity=verbosity,
            right_now=belief.right_now,
            affinity=self._affinity(asked),
        )
        state[:, _STATE["best_gain"]] = best_gain(block, masks)
        own = len(self._state_columns)
        out[:, :own] = state[:, self._state_columns]
        for column, (name, feature) in enumerate(self._added.items(), own):
            values = np.asarray(feature.values(situations), dtype=np.float32)
            if values.shape != (n,) or not np.isfinite(values).all():
                raise PluginError(
                    f"feature '{name}' gave {values!r} for {n} situations; it must give a finite number for "
                    "each"
                )
            out[:, column] = values
        experts = out[:, self.context_size :].reshape(n, len(self.names), self.expert_size)
        known = len(self.features.expert)
        experts[:, :, :known] = block[:, :, self._expert_columns]
        experts[:, :, known:] = self.identity
        return out

    def believe(
        self, situations: Sequence[Situation], cost_weights: Sequence[float]
    ) -> tuple[Vectors, Vectors]:
        """What the answers of situations say at their prices of cost, without any network.

        Returns:
            (n,) probability that the last answer is right; (n, experts) probability of each expert being
            right if it is asked next, less its charge.
        """
        seen = gather(situations, self._position)
        questions, _ = self._texts.look_up([s.question for s in situations], [])
        asked = [questions[s.question] for s in situations]
        profiles = self._profiles(asked)
        belief = believe(seen, profiles.expected, self._chance(asked))
        weights = np.asarray(cost_weights, dtype=np.float32)
        charge = weights[:, None] * profiles.costs_here / profiles.total
        return belief.right_now, (belief.expected - charge).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """All but the arrays, for the agent's config file."""
        return {**asdict(self.config), "encoder": self.encoder.name}

    def _affinity(self, asked: Sequence[Projected]) -> Vectors | None:
        known = self.arrays.get("description_vectors")
        return None if known is None else np.array([q.vector for q in asked]) @ known.T

    def _chance(self, asked: Sequence[Projected]) -> Vectors | None:
        if "wrong_pairs" not in self.arrays:
            return None
        return np.array([q.chance for q in asked], dtype=np.float32)

    def _profiles(self, asked: Sequence[Projected]) -> Profiles:
        """Prices, and the experts' results in general and near the questions."""
        shape = (len(asked), len(self.names))
        here = np.array([q.skill for q in asked], dtype=np.float32).reshape(shape)
        expected = np.array([q.expected for q in asked], dtype=np.float32).reshape(shape)
        ratios = np.array([q.cost_ratio for q in asked], dtype=np.float32).reshape(shape)
        return Profiles(self.costs, self._skill, here, expected, self.costs * ratios, self.scale)


def _added(name: str) -> Feature:
    """A feature of another package."""
    feature = feature_named(name)
    if feature is None:
        raise AgentError(
            f"the feature '{name}' is brought by no installed package (der plugins lists those that are)"
        )
    return feature
