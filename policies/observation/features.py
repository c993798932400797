"""The features of an observation by name, in order: what an agent's numbers mean.

An agent folder names the features that the agent was trained with, and gets those: new ones are added at the
end, and agents from before are served as they were. A name that this version does not compute is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from numpy.typing import ArrayLike

from der_graph.errors import PluginError
from der_graph.plugins import find_plugin
from der_graph.state import Situation

STATE_FEATURES = (
    "step",  # answers so far / longest route
    "steps_left",  # 1 when one answer is left
    "spent",  # cost so far / cost of asking everyone once
    "budget_left",  # what is left of max_cost / cost of asking everyone once, at most 1; 1 without a budget
    "log_price",  # log10 of the price of cost
    "answered",  # is there an answer?
    "agreeing",  # share of the answers whose value equals the last one's, itself excluded
    "backed",  # does at least one other answer agree with the last?
    "distinct",  # distinct values / answers
    "weight_of_evidence",  # log-odds for the last value less those for the best other one, by skill and by
    # how rarely wrong answers agree; / 3
    "has_value",  # is there something short that counts in the last answer?
    "is_number",
    "is_expression",  # arithmetic that was left uncomputed
    "length",  # log of the last answer's length in characters, / 5
    "hedges",  # says that it does not know, or nothing to say
    "logprob",  # mean token log-probability of the last answer, at least -3
    "knows_logprob",
    "failures",  # failed calls so far
    "similarity",  # cosine of question and last answer
    "evidence_here",  # the weight of evidence by `skill_here` in place of `skill`
    "verbosity",  # log of the last answer's tokens, standardised for its expert
    "mean_verbosity",  # the same, mean of the answers so far
    "question_length",  # log of the question's characters, standardised over the training questions
    "right_now",  # probability that the last answer is right (`belief.py`)
    "best_gain",  # the largest `gain` of an expert that may be asked; 0 if there is none
    "calls_left",  # how many more the route may have, / 5, at most 1
)
"""All that are known; the projected question and last answer follow them."""

EXPERT_FEATURES = (
    "cost",  # price / mean price of the experts, halved
    "log_cost",  # log10 of price / mean price, at least -3
    "allowed",
    "asked",
    "failed",
    "is_last",
    "agrees_with_last",
    "disagrees_with_last",
    "skill",  # mean quality on the probe questions
    "skill_here",  # mean quality on the probe questions nearest to this one
    "skill_per_cost_rank",  # rank of the price, 0 cheapest
    "charge",  # price / cost of asking everyone once, times the price of cost: what the call is charged
    "verbosity",  # how long its answer on this route is for it; 0 if it has none
    "affinity",  # cosine of the question and the expert's description; 0 without one
    "expected",  # probability of being right on this question, after the answers so far (`belief.py`)
    "net",  # `expected` less `charge`
    "lead",  # `net` less the best one of the others that may be asked, / 0.2
    "gain",  # what asking it next and then ending brings: `net` less `right_now`, / 0.2
    "was_before_last",  # did it give the answer before the last one?
    "said_value",  # is there something short that counts in its answer?
    "said_number",
    "said_expression",
    "said_length",  # log of its answer's length in characters, / 5
    "hedged",
)
"""All that are known of every expert; the one-hot index follows where the pool is fixed."""

UNIT = 0.2
"""The unit of `lead`, `gain` and `best_gain`: differences that matter are small ones."""


_FIXED_STATE = tuple(name for name in STATE_FEATURES if name != "best_gain")


class FeatureNames(NamedTuple):
    """Which features an observation has, in order; those of an agent for a fixed pool where left out.

    Attributes:
        state: Some of `STATE_FEATURES`.
        expert: Some of `EXPERT_FEATURES`.
    """

    state: tuple[str, ...] = _FIXED_STATE
    expert: tuple[str, ...] = EXPERT_FEATURES[: EXPERT_FEATURES.index("expected")]

    def plus(self, names: Sequence[str]) -> FeatureNames:
        """The same, and features of other packages at the end of `state`."""
        return FeatureNames((*self.state, *names), self.expert)


PROFILE_FEATURES = FeatureNames(
    STATE_FEATURES,
    # Without what holds for the experts of training alone (ranks), or is too noisy a guess (local means).
    tuple(
        n
        for n in EXPERT_FEATURES[: EXPERT_FEATURES.index("was_before_last")]
        if n not in ("skill_here", "skill_per_cost_rank")
    ),
)
"""Those of an agent that takes any pool: what asking an expert is worth, so that it need not learn who is."""

ROUTE_FEATURES = FeatureNames(
    _FIXED_STATE,
    (
        "charge", "allowed", "asked", "failed", "is_last", "was_before_last", "agrees_with_last",
        "disagrees_with_last", "verbosity", "expected", "said_value", "said_number", "said_expression",
        "said_length", "hedged",
    ),
)  # fmt: skip
"""Those of an agent with an output for every expert: what happened on the route, and what it told."""


@runtime_checkable
class Feature(Protocol):
    """A number that an agent sees besides those above, brought by another package (`der_graph.plugins`).

    Made without arguments when an agent that was trained with it is loaded.
    """

    def values(self, situations: Sequence[Situation]) -> ArrayLike:
        """The number for each situation: (n,), finite, best between -3 and 3.

        Args:
            situations: What is known before each decision.
        """


def feature_named(name: str) -> Feature | None:
    """A feature of another package; None if no package brings one of this name.

    Raises:
        PluginError: If it cannot be used.
    """
    made = find_plugin("features", name)
    if made is None:
        return None
    feature = made()
    if not isinstance(feature, Feature):
        raise PluginError(f"features '{name}' is {feature!r}; it needs a method `values`")
    return feature
