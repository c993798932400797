"""Probing: the shipped questions, what is asked next, bounds, the profile and its readers."""

from __future__ import annotations

import io
import json
import math
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import scripted_expert
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from der_graph.data import Example
from der_graph.errors import BudgetError, DataError, ExpertError
from der_graph.nodes.expert import Expert
from der_graph.policies.planning import planner_for
from der_graph.policies.planning.probing.asking import EASIEST, probe, shipped_probes, summary
from der_graph.policies.planning.probing.profile import Probed, read_profile
from der_graph.policies.planning.tables import mean_skill
from der_graph.policies.quality import get_metric
from der_graph.pool import pool_from

MATCH = get_metric("match")
SHIPPED = shipped_probes()


def knower(name: str, *kinds: str, cost: float = 1.0) -> Expert:
    """Right on questions of some kinds, wrong on others."""
    right = {e.question: e.reference.split(" | ")[0] for e in SHIPPED if e.task in kinds}

    def answer(messages: list[AIMessage]) -> AIMessage:
        return AIMessage(right.get(str(messages[-1].text), "99999"))

    return Expert(name, RunnableLambda(answer), cost=cost, fingerprint=name)


ALL = tuple(dict.fromkeys(example.task for example in SHIPPED))
FEW = ALL[:2]


def test_the_shipped_questions() -> None:
    assert len(SHIPPED) >= 150
    assert len(ALL) >= 10
    assert min(sum(e.task == kind for e in SHIPPED) for kind in ALL) >= 15
    assert len({example.question for example in SHIPPED}) == len(SHIPPED)
    expert, _ = scripted_expert("a", "7")
    for example in SHIPPED:
        for spelling in example.reference.split(" | "):
            assert MATCH.score([expert.answer_from(spelling, 0.0)], [example]) == [1.0], example.id
        lost = expert.answer_from("I do not know that at all", 0.0)
        assert MATCH.score([lost], [example]) == [0.0], example.id


def test_programs_print_what_the_references_say() -> None:
    for example in SHIPPED:
        if example.task == "code_output":
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(example.question.split("```python\n")[1].split("```")[0], {})
            assert printed.getvalue().strip() == example.reference, example.id


def test_sums_are_right() -> None:
    for example in SHIPPED:
        if example.task == "arithmetic":
            sum_ = example.question.split("What is ")[1].split("?")[0]
            value = eval(sum_.replace("2 to the power of 11", "2 ** 11"))
            assert math.isclose(value, float(example.reference)), example.id


def test_every_kind_is_asked_alike_and_the_most_telling_first() -> None:
    experts = [knower("a", *FEW), knower("b", *ALL)]
    found = probe(experts, SHIPPED, MATCH, count=22)
    counts = {kind: sum(e.task == kind for e in found.examples) for kind in ALL}
    assert set(counts.values()) == {2}
    assert found.quality.shape == (22, 2)
    assert found.quality[:, 1].tolist() == [1.0] * 22
    assert found.quality[:, 0].sum() == 4.0
    # By price alone both are right on 0.57 of usual questions: one a little harder tells most.
    first = probe(experts, SHIPPED, MATCH, count=1).examples[0]
    place = [e.id for e in SHIPPED if e.task == first.task].index(first.id)
    ease = np.linspace(EASIEST, -EASIEST, 16)[place]
    assert -1.0 < ease < 0.0
    assert found.spent == 44.0


def test_the_budget_holds() -> None:
    experts = [knower("a", *ALL, cost=1.0), knower("b", *ALL, cost=3.0)]
    found = probe(experts, SHIPPED, MATCH, count=100, max_cost=50.0)
    assert found.spent == 48.0  # twelve questions at 4
    with pytest.raises(BudgetError, match=r"max_cost=3 does not pay .* costs up to 4"):
        probe(experts, SHIPPED, MATCH, count=100, max_cost=3.0)


def test_who_does_not_answer_is_left_out() -> None:
    said: list[str] = []
    bad, model = scripted_expert("bad", RuntimeError("no key"))
    found = probe([bad, knower("b", *ALL)], SHIPPED, MATCH, count=30, say=said.append)
    assert np.isnan(found.quality[:, 0]).all()
    assert (found.quality[:, 1] == 1.0).all()
    assert len(model.prompts) <= 11  # no second round
    assert "bad does not answer and is left out: RuntimeError: no key" in said
    with pytest.raises(ExpertError, match="no expert answered"):
        probe([bad], SHIPPED, MATCH, count=30)


def test_questions_without_answers_are_refused() -> None:
    with pytest.raises(DataError, match=r"'x' has no answer"):
        probe([knower("a")], [Example("x", "Why?", "")], MATCH, count=3)
    asked, model = scripted_expert("asked", "7")
    both = [Example("one", "1 + 1?", "2"), Example("x", "Capital of France?", "Paris")]
    with pytest.raises(DataError, match="'x': the metric 'numeric' needs a number"):
        probe([asked], both, get_metric("numeric"), count=1)
    assert not model.prompts


def test_the_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    experts = [knower("a", *FEW), knower("b", *ALL)]
    found = probe(experts, SHIPPED, MATCH, count=11)
    found.write(tmp_path / "new" / "profile.json")
    again = read_profile(tmp_path / "new" / "profile.json")
    assert again.quality.tolist() == found.quality.tolist()
    assert again.examples == found.examples
    assert (again.values, again.texts, again.spent) == (found.values, found.texts, found.spent)
    assert not list(tmp_path.glob("**/*.part"))


def test_the_planner_reads_the_profile(tmp_path: Path) -> None:
    experts = [knower("a", *FEW, cost=1.0), knower("b", *ALL, cost=1.0), knower("new", cost=1.0)]
    path = tmp_path / "profile.json"
    probe(experts[:2], SHIPPED, MATCH, count=30).write(path)
    planner = planner_for(pool_from(experts, profile=str(path)))
    skill = mean_skill(planner.knowledge.logit[0])
    assert skill[0] < 0.35 < skill[2] < 0.7 < skill[1]
    assert planner.knowledge.source[0] == ("probes", "probes", "prior")


def test_a_profile_of_others(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    experts = [knower("a", *ALL), knower("b", *ALL)]
    probe(experts, SHIPPED, MATCH, count=5).write(path)
    with pytest.raises(DataError, match=r"is of the experts a, b, and says nothing of c"):
        planner_for(pool_from([knower("c")], profile=str(path)))
    changed = [replace(experts[0], fingerprint="other"), experts[1]]
    with pytest.warns(UserWarning, match="a: another model than the one that was probed"):
        planner = planner_for(pool_from(changed, profile=str(path)))
    assert planner.knowledge.source[0] == ("prior", "probes")


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such profile"), ("{", "is no profile"), ("[]", "is no profile"),
     (json.dumps({"format": 9}), "format 9; this version reads 1")],
)  # fmt: skip
def test_files_that_are_no_profile(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "profile.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_profile(path)


def test_the_table_says_who_is_good_at_what() -> None:
    experts = [knower("a", *FEW), knower("b", *ALL)]
    found: Probed = probe(experts, SHIPPED, MATCH, count=22)
    rows, by_kind = summary(experts, found)
    assert [row[0] for row in rows] == ["a", "b"]
    assert rows[0][3] == "22"
    assert rows[0][5] in FEW
    assert rows[0][6] not in FEW
    assert rows[1][5:] == ["-", "-"]  # it knows all kinds
    low, high = map(float, rows[1][2].split("-"))
    assert low < float(rows[1][1]) < high
    assert [row[0] for row in by_kind] == list(ALL)
    assert by_kind[0][1:] == ["1.00", "1.00"]
    assert by_kind[-1][1:] == ["0.00", "1.00"]
