"""What no agent can learn from is refused before an agent is written; leaks are said beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import an_answer
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from toy import WordEncoder, profile_observer, toy_examples, toy_experts, toy_rules

pytest.importorskip("stable_baselines3")

from der_graph.data import Candidate, Example
from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.policies.agent import load_agent
from der_graph.policies.answers import AnswerSource, Outcome
from der_graph.policies.quality import get_metric
from der_graph.policies.training import TrainConfig, train_agent
from der_graph.policies.training.preflight import (
    FIRST_CALLS,
    check_first_answers,
    failed_on_routes,
    leak_warnings,
    near_duplicates,
    usable,
    with_prices_for,
)
from der_graph.policies.training.routes.tree import collect_tree


def expert(name: str, answer: Callable[[str], str]) -> Expert:
    return Expert(name, RunnableLambda(lambda m: AIMessage(answer(m[-1].text))), cost=1.0)


def tried(experts: list[Expert], examples: list[Example], out: Path) -> list[str]:
    said: list[str] = []
    train_agent(
        experts, examples, toy_examples(10, seed=2), out, TrainConfig(steps=64, envs=16, rollout=4),
        rules=toy_rules(experts), encoder=WordEncoder(), progress=False, say=said.append,
    )  # fmt: skip
    return said


def test_an_expert_that_always_fails_stops_the_run_after_a_few_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    calls = []

    def down(question: str) -> str:
        calls.append(question)
        raise ConnectionError("no server; you sent sk-very-secret")

    with pytest.raises(
        DataError, match=r"'down' answered none of 8 questions; .*no server"
    ) as error:
        tried([*toy_experts(), expert("down", down)], toy_examples(40), tmp_path)
    assert "very-secret" not in str(error.value)
    assert len(calls) == FIRST_CALLS
    assert not (tmp_path / "config.json").exists()


def test_nothing_right_and_nothing_different_are_refused(tmp_path: Path) -> None:
    wrong = [expert("a", lambda q: "no"), expert("b", lambda q: "never")]
    with pytest.raises(DataError, match=r"no answer of any expert is right.*'a' said 'no'"):
        tried(wrong, toy_examples(20), tmp_path)
    truth = {e.question: e.reference for e in [*toy_examples(20), *toy_examples(10, seed=2)]}
    right = [expert(name, lambda q: truth.get(q, "?")) for name in "ab"]
    with pytest.raises(DataError, match="nothing tells the experts apart"):
        tried(right, toy_examples(20), tmp_path)
    assert not (tmp_path / "config.json").exists()
    right[1] = replace(right[1], cost=2.0)
    said = tried(right, toy_examples(20), tmp_path)
    assert any("all that can be learnt is to ask 'a', the cheapest" in line for line in said)


def test_experts_that_differ_only_after_a_transfer_are_worth_training(tmp_path: Path) -> None:
    writer, counter, *_ = toy_experts()
    sums = [example for example in toy_examples(40) if example.task == "sum"]
    assert any("quality alone 0.000" in line for line in tried([writer, counter], sums, tmp_path))
    assert load_agent(tmp_path).names == ["writer", "counter"]


def test_who_may_not_be_asked_along_routes_is_not_asked_to_see_whether_they_help() -> None:
    writer, counter, *_ = toy_experts()
    sums = [example for example in toy_examples(40) if example.task == "sum"]
    source = AnswerSource([writer, counter], sums, get_metric("match"))
    first = source.first_answers()
    asked = source.generated
    with pytest.raises(DataError, match="no answer of any expert is right"):
        check_first_answers(source, first, pairs=False)
    assert source.generated == asked
    assert check_first_answers(source, first) == []


def test_questions_without_a_reference_are_left_out_or_count_for_who_was_shown(
    tmp_path: Path,
) -> None:
    shown = Candidate("parrot", "squawk", {"feedback": 0.0})
    bad = Example("bad", "How many pebbles?", "", candidates={"parrot": shown})
    none = Example("none", "Why?", "")
    names = [e.name for e in toy_experts()]
    good, verdicts, lines = usable([*toy_examples(4), bad, none], get_metric("match"), names, "dev")
    assert good == toy_examples(4)
    assert [(v.example.id, v.expert, v.quality) for v in verdicts] == [("bad", 3, 0.0)]
    assert [line[:30] for line in lines] == [
        "1 dev questions have users' sc",
        "warning: 1 of 6 dev questions ",
    ]
    with pytest.raises(DataError, match="none of 1 dev questions has a reference"):
        usable([none], get_metric("match"), names, "dev")
    assert usable([none], get_metric("recorded:x"), names, "dev")[0] == [none]


def test_references_that_a_metric_cannot_read_are_refused_before_anybody_is_asked() -> None:
    paris = Example("q1", "Capital of France?", "Paris")
    with pytest.raises(DataError, match="'q1': the metric 'numeric' needs a number"):
        usable([paris], get_metric("numeric"), ["a"], "dev")
    with pytest.raises(DataError, match="'q1': the metric 'choice' needs a letter"):
        usable([paris], get_metric("choice"), ["a"], "dev")
    # As multiple choice is read (docs/data.md).
    both = Example("q2", "Capital of France?", "B | Paris")
    metric = get_metric("choice")
    assert usable([both], metric, ["a"], "dev")[0] == [both]
    assert metric.score([an_answer("a", "B. Paris"), an_answer("a", "A")], [both, both]) == [
        1.0,
        0.0,
    ]


def test_a_bad_verdict_lowers_its_expert_and_no_other() -> None:
    before = profile_observer()
    after = before.with_results(["How many pebbles?"] * 3, [2, 2, 2], [0.0, 0.0, 0.0])
    assert after.skill[2] < before.skill[2]
    assert np.delete(after.skill, 2).tolist() == np.delete(before.skill, 2).tolist()


def test_leaks_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    train = toy_examples(8)
    twin = replace(train[0], id="twin", question=train[0].question.upper() + " ", reference="other")
    near = replace(train[2], id="near", question=train[2].question + "!")
    others = toy_examples(6, seed=4)
    assert leak_warnings(train, others) == []
    (line,) = leak_warnings(train, [train[0], *others])
    assert line.startswith("warning: 1 of 7 dev questions are training questions as well")
    (line,) = leak_warnings([*train, twin], others)
    assert "come twice with different references" in line
    assert "'other' in twin" in line
    for at_once in (128, 1):
        monkeypatch.setattr("der_graph.policies.training.preflight._COMPARED", at_once)
        (line,) = near_duplicates(train, [near, replace(near, id="again")], WordEncoder())
        assert "2 of 2 dev questions nearly are training questions" in line


def test_prices_reach_where_only_the_cheapest_is_worth_asking() -> None:
    """On the mean of all questions `mid` is little better than `cheap`; on sums it is always right."""
    priced = [expert(name, lambda q: "no") for name in ("cheap", "twin", "mid", "dear")]
    by_token = [replace(e, token_prices=TokenPrices(1.0, 1.0)) for e in priced]
    costs = (0.01, 0.012, 0.1, 0.878)

    def row(sums: bool) -> list[Outcome]:
        right = (0.0, 0.0, 1.0, 1.0) if sums else (1.0, 1.0, 0.5, 1.0)
        return [Outcome(an_answer(cost=c), q) for c, q in zip(costs, right, strict=True)]

    first = [row(True), *[row(False)] * 3]
    low, high = with_prices_for(TrainConfig(), by_token, first).cost_weight_range
    # The step from `cheap` to `mid` is charged 0.09 of the cost of asking everyone, so at 11.1 it costs as
    # much as a right answer is worth. `twin` costs nearly the same, and needs no price to be left out.
    assert low == TrainConfig().cost_weight_range[0]
    assert 11.1 < high < 30
    assert with_prices_for(TrainConfig(), priced, first) == TrainConfig()
    mine = replace(TrainConfig(), cost_weight_range=(0.1, 1.0))
    assert with_prices_for(mine, by_token, first) == mine
    alike = [[row(True)[0]] * 4]
    assert with_prices_for(TrainConfig(), by_token, alike) == TrainConfig()


def test_an_expert_that_answers_alone_and_fails_after_others_is_told() -> None:
    def short(text: str) -> str:
        if "earlier_answer" in text:
            raise ValueError("a prompt of so many bytes is too dear")
        return "It is 5."

    experts = [expert("narrow", short), expert("other", lambda text: "It is 7.")]
    source = AnswerSource(experts, toy_examples(6), get_metric("match"))
    collect_tree(source, [0, 1], 2)
    (line,) = failed_on_routes(source)
    assert line.startswith("warning: narrow failed in 6 of 6 calls after others")
    assert "too dear" in line
