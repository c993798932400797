"""The planner as an agent: bounds that hold, explanations, learning, large pools, files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import an_answer, said
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import WordEncoder

from der_graph import create_der_graph
from der_graph.errors import AgentError, AgentPoolMismatchError, AllExpertsFailedError, DataError
from der_graph.nodes.decision import Choice, RoutingAgent
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.planning.candidates import MOST
from der_graph.policies.planning.fitting import fit_knowledge
from der_graph.policies.planning.forms import (
    Route,
    form_of,
)
from der_graph.policies.planning.planner import Planner
from der_graph.policies.planning.storage import load_knowledge, save_knowledge
from der_graph.policies.planning.tables import HARDNESS_WEIGHT, Floats, mean_skill, sigmoid
from der_graph.state import Answer, DERContext, Situation

NAMES = ("small", "middle", "large", "huge")
COSTS = (1.0, 3.0, 10.0, 70.0)


def prior(**settings: Any) -> Planner:
    return Planner.from_prior(NAMES, COSTS, sizes=COSTS, **settings)


def open_answers() -> Planner:
    """Of experts who answer in prose; the small one does not know every second time."""
    rng = np.random.default_rng(0)
    questions = [f"Tell me of {i}." for i in range(80)]
    texts = [
        ["I do not know." if i % 2 else f"Something of {i}.", *(f"{n} of {i}." for n in NAMES[1:])]
        for i in range(80)
    ]
    quality = rng.uniform(0.3, 0.9, (80, 4)) * [[1.0 - i % 2, 1.0, 1.0, 1.0] for i in range(80)]
    values = [[None] * 4] * 80
    return Planner.fit(NAMES, COSTS, questions, quality, values, texts=texts, seconds=[1, 2, 3, 4])


def at(*answers: Answer, mask: list[bool] | None = None, **settings: Any) -> Situation:
    asked = {answer["expert"] for answer in answers}
    free = [name not in asked for name in NAMES] + [any(a["error"] is None for a in answers)]
    return Situation("Why?", list(answers), mask or free, **settings)


def decide(planner: Planner, *answers: Answer, **settings: Any) -> Any:
    """The `Choice`, which has an explanation."""
    choice = planner.decide([at(*answers, **settings)])[0]
    assert choice.explanation
    return choice


def test_it_is_an_agent() -> None:
    planner = prior()
    assert isinstance(planner, RoutingAgent)
    planner.check_pool(NAMES)
    with pytest.raises(AgentPoolMismatchError, match="small, middle"):
        planner.check_pool(["small"])
    choice = decide(planner)
    assert isinstance(choice, Choice)
    assert sum(choice.probabilities) == pytest.approx(1.0)
    assert max(choice.probabilities) == choice.probabilities[choice.index]
    assert choice.probabilities[-1] == 0.0  # END, before any answer


def test_cheap_first_and_on_where_answers_differ() -> None:
    planner = prior()
    first = decide(planner)
    assert first.index < 3
    agree = decide(planner, said("small", "7"), said("middle", "7"), said("large", "7"))
    differ = decide(planner, said("small", "7"), said("middle", "8"), said("large", "9"))
    assert agree.index == 4
    assert differ.index == 3
    assert agree.explanation["right_now"] > 0.7 > differ.explanation["right_now"]


def test_it_plans_for_prose_among_which_are_refusals() -> None:
    planner = open_answers()
    assert not planner.knowledge.comparable
    assert planner.knowledge.tables(0).steps[0, 0, 0] > 0.2
    refused, told = an_answer("small", "I do not know."), an_answer("middle", "Something.")
    assert decide(planner, cost_weight=0.1).index < 4
    assert decide(planner, refused, cost_weight=0.1).index in (1, 2)
    assert decide(planner, refused, told, cost_weight=1.0).index == 4


def test_a_dear_call_is_not_made_at_a_high_price() -> None:
    planner = prior()
    apart = said("small", "7"), said("middle", "8")
    assert decide(planner, *apart, cost_weight=0.0).index in (2, 3)
    assert decide(planner, *apart, cost_weight=50.0).index == 4
    assert decide(planner, cost_weight=50.0).index == 0


def test_refusals_and_failures_are_no_answers() -> None:
    planner = prior()
    assert decide(planner, said("small", None, error="down")).index != 4
    refused = said("small", "I cannot tell.")
    choice = decide(planner, refused)
    assert choice.index != 4
    assert choice.explanation["right_now"] == 0.0


def test_a_decision_explains_itself() -> None:
    choice = decide(prior())
    told = choice.explanation
    assert told["source"] == "prior"
    assert told["expected_gain"] > 0
    assert set(told["worth"]) == set(NAMES)
    assert max(told["worth"].values()) == pytest.approx(choice.value, abs=1e-3)
    hinted = Planner.from_prior(NAMES, COSTS, sizes=COSTS, hints=[None, 0.99, None, None])
    choice = decide(hinted)
    assert (choice.index, choice.explanation["source"]) == (1, "hint")


def test_hints_by_kind_of_question() -> None:
    hints = [{"sums": 0.95, "facts": 0.1}, {"sums": 0.1, "facts": 0.95}, None, None]
    planner = Planner.from_prior(NAMES, (1.0, 1.0, 1.0, 1.0), hints=hints, encoder=WordEncoder())
    sums, facts = planner.decide(
        [Situation(text, [], [True] * 4 + [False]) for text in ("sums sums", "facts facts")]
    )
    assert (sums.index, facts.index) == (0, 1)
    with pytest.raises(DataError, match="a probability"):
        Planner.from_prior(NAMES, COSTS, hints=[1.5, None, None, None])


def test_hints_by_kind_still_count_beside_a_few_results() -> None:
    """The results say how good experts are, the hints on what they are better."""
    hints = [{"sums": 0.9, "facts": 0.2}, {"sums": 0.2, "facts": 0.9}, None, None]
    questions = ["sums sums", "facts facts"] * 10
    results = [[1, 0, 0, 1], [0, 1, 0, 0]] * 10
    values = [["1" if right else "2" for right in row] for row in results]
    costs = (1.0, 1.0, 1.0, 1.0)
    made: Any = {"hints": hints, "encoder": WordEncoder()}
    planner = Planner.fit(NAMES, costs, questions, results, values, **made)
    assert planner.knowledge.kind_names == ("sums", "facts")
    sums, facts = planner.decide(
        [Situation(text, [], [True] * 4 + [False]) for text in ("sums sums", "facts facts")]
    )
    assert (sums.index, facts.index) == (0, 1)
    never = Planner.fit(NAMES, costs, questions, [[0, 1, 0, 1]] * 20, values, **made)
    (sums,) = never.decide([Situation("sums sums", [], [True] * 4 + [False])])
    assert sums.index != 0  # as good as the hint says on sums, it never was
    learnt = Planner.fit(NAMES, costs, questions * 10, results * 10, values * 10, **made)
    assert not learnt.knowledge.kind_names


@settings(max_examples=60, deadline=None)
@given(
    budget=st.floats(1.0, 100.0),
    steps=st.integers(1, 5),
    price=st.floats(0.0, 2.0),
    forbidden=st.sets(st.sampled_from(NAMES), max_size=3),
    values=st.lists(st.sampled_from(["1", "2", None, "error"]), min_size=5, max_size=5),
    deadline=st.one_of(st.none(), st.floats(5.0, 100.0)),
    in_prose=st.booleans(),
)
def test_bounds_hold(
    budget: float,
    steps: int,
    price: float,
    forbidden: set[str],
    values: list[str | None],
    deadline: float | None,
    in_prose: bool,
) -> None:
    cheapest = min(cost for name, cost in zip(NAMES, COSTS, strict=True) if name not in forbidden)
    budget = max(budget, cheapest)
    rules = RouteRules(NAMES, COSTS, 5, seconds=(1.0, 2.0, 3.0, 4.0))
    context = DERContext(max_cost=budget, max_steps=steps, forbidden_experts=sorted(forbidden))
    planner = open_answers() if in_prose else prior(seconds=[1.0, 2.0, 3.0, 4.0])
    answers: list[Answer] = []
    spent = 0.0
    for value in values:
        try:
            mask, _ = rules.mask(answers, context, spent=spent)
        except AllExpertsFailedError:
            assert not any(answer["error"] is None for answer in answers)
            return
        seen = Situation("Why?", answers, mask, spent, steps, budget, price, deadline)
        choice = planner.decide([seen])[0]
        assert mask[choice.index]
        assert all(p == 0.0 for p, free in zip(choice.probabilities, mask, strict=True) if not free)
        assert planner.decide([seen])[0] == choice  # the same again
        if choice.index == 4:
            break
        name = NAMES[choice.index]
        if value == "error":  # it costs nothing, and is no step
            answers = [*answers, said(name, None, error="down")]
            continue
        spent += COSTS[choice.index]
        answers = [*answers, said(name, value)]
        assert spent <= budget * (1 + 1e-6)
    assert sum(answer["error"] is None for answer in answers) <= steps


def test_the_plan_knows_the_budget_and_the_time() -> None:
    """An expert that only prepares is not asked where nothing is left for the one that it prepares for."""
    planner = chain(seconds=[1.0, 1.0, 1.0])
    free = Situation("sum", [], [True, True, True, False], cost_weight=0.01)
    assert planner.decide([free])[0].index == 0  # writer, then counter
    for bound in ({"max_cost": 1.5}, {"max_steps": 1}, {"deadline_left": 1.5}):
        short = Situation("sum", [], [True, True, True, False], cost_weight=0.01, **bound)
        assert planner.decide([short])[0].index == 2


def chain(**settings: Any) -> Planner:
    """A writer of expressions, a counter that works them out, and one that is right half the time."""
    count = 60
    texts = [["3 + 4", "I cannot tell.", "7" if q % 2 else "9"] for q in range(count)]
    values: list[list[str | None]] = [["3+4", "i cannot tell", row[2]] for row in texts]
    quality = np.array([[0.0, 0.0, float(q % 2)] for q in range(count)])
    forms = form_of("3 + 4", "3+4"), form_of("7", "7")
    routes = [Route(q, (0, 1), forms, ("3+4", "7"), (0.0, 1.0)) for q in range(count)]
    return Planner.fit(
        ("writer", "counter", "guess"), (1.0, 1.0, 1.0), [f"sum {q}" for q in range(count)], quality,
        values, texts=texts, routes=routes, kinds=1, **settings,
    )  # fmt: skip


def test_a_chain_is_found() -> None:
    planner = chain()
    answers: list[Answer] = []
    for expected, answer in ((0, said("writer", "3 + 4")), (1, said("counter", "7")), (3, None)):
        asked = [a["expert"] for a in answers]
        mask = [name not in asked for name in planner.names] + [bool(asked)]
        choice = planner.decide([Situation("sum", answers, mask)])[0]
        assert choice.index == expected
        if answer is not None:
            answer["value"] = answer["text"].replace(" ", "")
            answers = [*answers, answer]


def results(
    count: int, skills: list[float], seed: int = 0
) -> tuple[Floats, list[list[str | None]]]:
    rng = np.random.default_rng(seed)
    right = rng.random((count, len(skills))) < np.array(skills)
    values: list[list[str | None]] = [
        ["7" if r else f"wrong {rng.integers(1000)}" for r in row] for row in right
    ]
    return right.astype(np.float64), values


def test_few_results_count_for_little_and_many_for_much() -> None:
    truth = [0.9, 0.5, 0.5, 0.2]
    errors = []
    for count in (0, 20, 400):
        quality, values = results(count, truth)
        known = fit_knowledge(
            NAMES, COSTS, [f"q {i}" for i in range(count)], quality, values, sizes=COSTS
        )
        errors.append(float(np.abs(mean_skill(known.logit[0], known.spread) - truth).mean()))
        assert known.source[0][0] == {0: "prior", 20: "probes", 400: "learnt"}[count]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_reading_counts_by_what_it_changes() -> None:
    """On hard questions nobody knows anything, which no log-odds say: still, who ignores what was said before
    is not moved by it. The copyist says what it reads."""
    rng = np.random.default_rng(0)
    names, form = ("a", "ignorer", "copyist"), form_of("7", "7")
    hard = rng.random(400) < 0.5
    quality = ((rng.random((400, 3)) < 0.8) & ~hard[:, None]).astype(np.float64)
    values = [["7" if right else str(rng.integers(1000)) for right in row] for row in quality]
    routes = [
        Route(q, (0, j), (form, form), (values[q][0], values[q][k]), (quality[q, 0], quality[q, k]))
        for q in range(400)
        for j, k in ((1, 1), (2, 0))  # who answers, and whose answer it gives
    ]
    questions = [f"q {i}" for i in range(400)]
    known = fit_knowledge(names, (1.0,) * 3, questions, quality, values, routes=routes)
    after_a = known.transfer.contexts.claim[0]
    right, wrong = known.transfer.right_shift[0, after_a], known.transfer.wrong_shift[0, after_a]
    assert (right[1], wrong[1]) == pytest.approx(
        (0.0, 0.0), abs=0.1
    )  # both near 3 if hardness counted
    assert right[2] > 1.0
    assert wrong[2] < -1.0


@pytest.mark.parametrize(("alone", "after"), [(1.0, 0.6), (0.95, 0.5), (0.5, 0.8), (0.0, 0.1)])
def test_what_is_expected_after_reading_is_what_was_seen(alone: float, after: float) -> None:
    rng = np.random.default_rng(0)
    form = form_of("7", "7")
    quality = (rng.random((2000, 2)) < [0.5, alone]).astype(np.float64)
    then = (rng.random(2000) < after).astype(np.float64)
    values = [["7" if right else str(rng.integers(1000)) for right in row] for row in quality]
    routes = [
        Route(
            q,
            (0, 1),
            (form, form),
            (values[q][0], "7" if then[q] else "8"),
            (quality[q, 0], then[q]),
        )
        for q in range(2000)
    ]
    known = fit_knowledge(
        ("a", "b"), (1.0, 1.0), [f"q {i}" for i in range(2000)], quality, values, routes=routes
    )
    table, moved = known.tables(0), known.transfer
    after_a = moved.contexts.claim[0]
    right_a = sigmoid(known.logit[0, 0] + table.hardness)
    for shift, hard in ((moved.right_shift, right_a), (moved.wrong_shift, 1.0 - right_a)):
        weight = HARDNESS_WEIGHT * hard
        expected = sigmoid(known.logit[0, 1] + shift[0, after_a, 1] + table.hardness) @ weight
        assert expected / weight.sum() == pytest.approx(after, abs=0.06)


def test_unknown_qualities_are_left_out() -> None:
    quality, values = results(300, [0.9, 0.5, 0.5, 0.2])
    quality[::2, 0] = np.nan
    quality[:, 3] = np.nan
    known = fit_knowledge(
        NAMES, COSTS, [f"q {i}" for i in range(300)], quality, values, sizes=COSTS
    )
    assert known.source[0] == ("probes", "learnt", "learnt", "prior")
    assert np.isfinite(known.logit).all()
    with pytest.raises(DataError, match=r"quality 2\.0"):
        fit_knowledge(NAMES, COSTS, ["q"], [[2.0, 0, 0, 0]], [[None] * 4])
    with pytest.raises(DataError, match="shape"):
        fit_knowledge(NAMES, COSTS, ["q", "r"], [[1.0, 0, 0, 0]], [[None] * 4])


def test_near_copies_are_found() -> None:
    quality, values = results(400, [0.6, 0.6, 0.6, 0.6])
    quality[:, 1] = quality[:, 0]
    for row in values:
        row[1] = row[0]
    known = fit_knowledge(NAMES, COSTS, [f"q {i}" for i in range(400)], quality, values)
    assert known.copies is not None
    assert known.copies[0, 1] > 0.6
    assert known.copies[2:, :].max() == 0.0


def test_a_thousand_experts() -> None:
    rng = np.random.default_rng(0)
    names = [f"expert {i}" for i in range(1000)]
    costs = (10 ** rng.uniform(0, 2, 1000)).tolist()
    planner = Planner.from_prior(names, costs, sizes=costs)
    planner.check_pool(names)
    answers: list[Answer] = []
    for step in range(3):
        mask = [True] * 1000 + [bool(answers)]
        for answer in answers:
            mask[names.index(answer["expert"])] = False
        choice = planner.decide([Situation("Why?", answers, mask, cost_weight=0.2)])[0]
        assert mask[choice.index]
        assert choice.explanation is not None
        assert len(choice.explanation["worth"]) <= MOST + 1  # a plan for all would take minutes
        if choice.index == 1000:
            break
        answers = [*answers, said(names[choice.index], str(step))]
    assert answers


def test_saved_and_loaded_it_decides_alike(tmp_path: Path) -> None:
    planner = chain()
    save_knowledge(planner.knowledge, tmp_path)
    again = Planner(load_knowledge(tmp_path), planner.costs)
    seen = Situation("sum", [], [True, True, True, False])
    assert again.decide([seen]) == planner.decide([seen])
    (tmp_path / "planner.json").write_text("{}")
    with pytest.raises(AgentError, match="no planner"):
        load_knowledge(tmp_path)


def test_part_of_the_pool_in_another_order() -> None:
    planner = chain()
    names, costs = ["counter", "writer"], [1.0, 1.0]
    part = planner.for_pool(names, costs)
    part.check_pool(names)
    assert part.decide([Situation("sum", [], [True, True, False])])[0].index == 1
    seen = Situation("sum", [said("writer", "3+4")], [True, False, True])
    assert part.decide([seen])[0].index == 0
    assert planner.for_pool(planner.names, planner.costs) is planner


@pytest.mark.parametrize("kinds", [1, 2])
def test_a_short_decision_takes_no_thread(kinds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that must encode the question does: others are served on the event loop meanwhile."""
    hints: Any = [0.9, 0.8] if kinds == 1 else [{"sums": 0.9, "facts": 0.4}, {"sums": 0.4}]
    agent = Planner.from_prior(NAMES[:2], [1.0, 1.0], hints=hints, encoder=WordEncoder())
    assert agent.decides_at_once is (kinds == 1)
    threads, decide = [], Planner.decide

    def watched(planner: Planner, situations: Sequence[Situation]) -> list[Choice]:
        threads.append(threading.get_ident())
        return decide(planner, situations)

    monkeypatch.setattr(Planner, "decide", watched)
    pool = [as_expert(lambda question: "4", name=name, cost=1.0) for name in NAMES[:2]]
    der = create_der_graph(pool, agent=agent).compile()
    asyncio.run(der.ainvoke({"messages": [("user", "2 + 2?")]}))
    here = [thread == threading.get_ident() for thread in threads]
    assert here
    assert here == [kinds == 1] * len(here)


def test_the_first_decision_at_other_prices_makes_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = prior().for_pool(NAMES, [2.0, 3.0, 10.0, 70.0])
    monkeypatch.setattr("der_graph.policies.planning.planner.Tree", None)
    assert NAMES[planner.decide([at()])[0].index] in NAMES
