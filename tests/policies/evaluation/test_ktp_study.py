"""What transfer is worth on the toy pool, where it is known: everything for sums, nothing for facts."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import COSTS, NAMES, BestAgent
from toy import toy_examples, toy_experts, toy_rules

from der_graph.nodes.ktp import TEMPLATES
from der_graph.policies.evaluation.ktp_study import PAPER_ALL, KTPStudy, compare_transfer
from der_graph.policies.quality import get_metric


def study(count: int = 20) -> KTPStudy:
    experts = toy_experts()
    return KTPStudy(experts, toy_rules(experts), toy_examples(count), get_metric("match"))


def test_without_transfer_the_same_routes_lose_the_sums() -> None:
    found = study().routes(BestAgent(NAMES, COSTS), {"paper": TEMPLATES["paper"]})
    whole, paper, longer, _ = found
    assert whole.name == "as in the pool"
    assert (whole.without, whole.with_it) == (0.5, 1.0)
    assert whole.relative == 1.0
    assert (whole.helped, whole.harmed) == (10, 0)
    assert whole.p == pytest.approx(2 / 2**10)
    # Writer and counter have templates of their own, which no variant touches.
    assert paper.with_it == 1.0
    assert (longer.questions, longer.without, longer.with_it) == (10, 0.0, 1.0)
    assert longer.relative is None


def test_pairs_tell_when_an_answer_helps() -> None:
    pairs = study().pairs({"pool": None, "paper": TEMPLATES["paper"]})
    named = {(p.template, p.first, p.then): p for p in pairs}
    # The writer reads the question alone: nothing comes after anything there.
    assert {p.then for p in pairs} == {"counter", "facts", "parrot"}
    # Only those without a template of their own take the paper's.
    assert {p.then for p in pairs if p.template == "paper"} == {"facts", "parrot"}
    helped = named["pool", "writer", "counter"]
    assert (helped.overall.helped, helped.overall.harmed) == (10, 0)
    assert helped.after_right is None  # an expression is not the answer
    assert helped.after_wrong is not None
    assert helped.after_wrong.with_it == 0.5
    idle = named["pool", "parrot", "facts"]
    assert idle.overall.difference.estimate == 0.0
    assert idle.overall.p == 1.0


def test_qualities_between_right_and_wrong_take_the_permutation_test() -> None:
    found = compare_transfer("x", np.array([0.2, 0.4]), np.array([0.3, 0.3]))
    assert (found.helped, found.harmed) == (1, 1)
    assert found.p == 1.0
    assert found.relative == pytest.approx(0.0)


def test_the_papers_wording_for_all_answers_shows_all() -> None:
    assert "{answers}" in PAPER_ALL.transfer
    assert "{answer}" not in PAPER_ALL.transfer
    assert "those answers as additional advice" in PAPER_ALL.transfer
