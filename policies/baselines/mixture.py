"""Mixture of agents: everyone proposes, one expert reads all proposals and writes the answer.

    aggregator, expert 2 .. N (none reads another) ──all proposals, `default_all`──> aggregator

The design of Wang et al. 2024 (arXiv 2406.04692) with one layer. The aggregator proposes first and is asked
again last, so no second copy of a model is needed, but the route is N + 1 calls long and asks one expert
twice:

    members = mixture_experts(pool.experts, "gemma")
    agent = MixtureOfAgents(pool.names, costs, "gemma")
    der = create_der_graph(members, agent=agent, max_steps=len(members) + 1, repeat_experts=True)

`without_transfer` and `with_template` give the same experts with another way of receiving knowledge. Votes
need the former, because only independent answers may be counted; the KTP study compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import DEFAULT_ALL_TRANSFER, KTPTemplate, ktp_template
from der_graph.policies.baselines.simple import FixedOrder
from der_graph.state import Situation


class MixtureOfAgents(FixedOrder):
    """Asks the aggregator, all others, and the aggregator again. Needs experts from `mixture_experts`.

    Where the aggregator's proposal failed, or the budget ends before its second turn, the last answer counts.

    Args:
        names: The pool's experts.
        costs: Their costs.
        aggregator: Who reads all proposals.
    """

    def __init__(self, names: Sequence[str], costs: Sequence[float], aggregator: str) -> None:
        super().__init__(
            names, costs, [aggregator, *(name for name in names if name != aggregator)]
        )
        self.aggregator = self.index(aggregator)

    def choose(self, situation: Situation) -> int:
        """The next proposer, then the aggregator once more, then END."""
        proposer = super().choose(situation)
        if proposer != len(self.names):
            return proposer
        turns = sum(a["expert"] == self.names[self.aggregator] for a in situation.answers)
        return self.aggregator if turns < 2 else len(self.names)


def mixture_experts(
    experts: Sequence[Expert], aggregator: str, ktp: str | KTPTemplate | None = None
) -> list[Expert]:
    """The experts as a mixture needs them: proposers read no one, the aggregator reads everyone.

    Args:
        experts: The pool's experts.
        aggregator: Name of the one that aggregates.
        ktp: The graph's template; the wording of first questions and the budget of tokens are taken from it.
    """
    members = []
    for expert, alone in zip(experts, without_transfer(experts, ktp), strict=True):
        if expert.name == aggregator:
            own = expert.ktp or ktp_template(ktp)
            # Each proposal gets the room that one answer has otherwise.
            room = own.max_answer_tokens * len(experts)
            reads_all = replace(
                own, name="mixture", transfer=DEFAULT_ALL_TRANSFER, max_answer_tokens=room
            )
            members.append(replace(expert, ktp=reads_all))
        else:
            members.append(alone)
    return members


def without_transfer(
    experts: Sequence[Expert], ktp: str | KTPTemplate | None = None
) -> list[Expert]:
    """Experts that get the question as they would get it first, and never an earlier answer.

    Args:
        experts: The experts.
        ktp: The graph's template, used where an expert has none of its own.
    """
    template = ktp_template(ktp)
    return [expert.alone(template) for expert in experts]


def with_template(experts: Sequence[Expert], ktp: str | KTPTemplate) -> list[Expert]:
    """Experts that receive earlier answers by a template, or its name, unless they have one of their own.

    An expert's own template is how it must be spoken to (a calculator reads expressions only).
    """
    template = ktp_template(ktp)
    return [replace(e, ktp=template) if e.ktp is None else e for e in experts]


def transfers(expert: Expert, ktp: str | KTPTemplate | None = None) -> bool:
    """Does the expert see anything of the answers before it?"""
    return (expert.ktp or ktp_template(ktp)).shows is not None
