"""An evaluation from end to end on the toy pool, whose best routes and qualities are known."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from evaluated import COSTS, NAMES, BestAgent, toy_evaluation, toy_report
from fakes import ScriptedAgent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from toy import toy_agent, toy_examples, toy_experts, toy_rules, toy_source

from der_graph.errors import AgentPoolMismatchError, DataError
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, SharedHead
from der_graph.policies.answers import AnswerCache
from der_graph.policies.baselines import Baseline, FixedOrder
from der_graph.policies.evaluation import BASELINES, Report, read_report, write_report
from der_graph.policies.evaluation.evaluate import evaluate, knob_points
from der_graph.policies.evaluation.render import to_markdown
from der_graph.policies.evaluation.report_schema import Drift, shown_cost
from der_graph.policies.evaluation.summary import headline, share_of
from der_graph.policies.evaluation.timing import timed_agent
from der_graph.policies.observation import Observer
from der_graph.policies.observation.features import EXPERT_FEATURES, STATE_FEATURES, FeatureNames
from der_graph.policies.quality import get_metric
from der_graph.pool import pool_from
from der_graph.state import Situation


@pytest.fixture(scope="module")
def report() -> Report:
    return toy_report(toy_evaluation(train=toy_examples(30, seed=1)))


def test_every_method_is_there_and_right(report: Report) -> None:
    names = [method.name for method in report.methods]
    assert names[:3] == ["der", "der@0.1", "der@10"]
    for name in (*(f"single:{name}" for name in NAMES), "random", "fixed_order", "cascade:2",
                 "run_all:vote", "run_all:vote_chain", "run_all:centroid", "mixture:facts", "oracle",
                 "oracle:cheapest", "router:knn", "router:knn@10", "router:matrix"):  # fmt: skip
        assert name in names
    der = report.method("der")
    assert der.quality.estimate == 1.0
    assert der.cost.estimate == pytest.approx((1.1 + 2) / 2)
    assert der.calls.estimate == 1.5
    assert der.share_of_run_all == pytest.approx(1.55 / 3.6)
    assert report.method("der@10").quality.estimate == 0.0
    assert report.method("der@10").cost.estimate == 0.5
    assert report.method("single:facts").quality.estimate == 0.5
    assert report.method("oracle").quality.estimate == 0.5  # nobody knows a sum alone
    # Facts is the best on the training questions; it aggregates, asked twice: 3.6 + 2.
    assert report.method("mixture:facts").cost.estimate == pytest.approx(5.6)
    # Votes are independent: the counter gets no sum to count.
    assert report.method("run_all:vote").cost.estimate == pytest.approx(3.6)
    # "not sure" of whom it asks for sums ends no route: one call for facts, two for sums.
    assert report.method("router:knn").calls.estimate == 1.5
    assert (
        report.method("fixed_order").quality.estimate == 0.5
    )  # writer, counter, facts: the last counts
    assert {s.name for s in report.skipped} == {"run_all:rank"}


def test_tasks_comparisons_and_routes(report: Report) -> None:
    assert report.data.tasks == {"fact": 10, "sum": 10}
    assert report.method("single:facts").tasks["fact"].quality.estimate == 1.0
    assert report.method("single:facts").tasks["sum"].quality.estimate == 0.0
    # Ten wrong of ten: Wilson's interval, z^2 / (n + z^2).
    assert report.method("single:facts").tasks["sum"].quality.high == pytest.approx(
        3.8415 / 13.8415, abs=1e-4
    )
    facts = report.comparison("single:facts")
    assert facts is not None
    assert (facts.better, facts.worse) == (10, 0)
    assert facts.p == pytest.approx(2 / 2**10)
    assert facts.p_holm >= facts.p
    assert report.comparison("der@10") is None
    assert report.comparison("router:knn@10") is None
    assert report.routes.lengths == {1: 10, 2: 10}
    assert report.routes.shares["writer"] == pytest.approx(1 / 3)
    assert report.routes.flow.counts == [
        [10, 0, 10, 0, 0],  # START
        [0, 10, 0, 0, 0],  # writer -> counter
        [0, 0, 0, 0, 10],
        [0, 0, 0, 0, 10],
        [0, 0, 0, 0, 0],
    ]
    assert report.routes.most_common[0].experts == ["writer", "counter"]
    assert set(report.routes.flow_by_task) == {"fact", "sum"}


def test_the_headline_tells_which_way_it_went(report: Report) -> None:
    assert report.headline.startswith(
        "DER is better than best order until 2 agree, at 1.5 times its cost; best at this budget."
    )
    assert (
        "It has a quality of 1.000 [0.839, 1.000] on 20 questions, at 1.55 billions"
        in report.headline
    )
    assert "43% of asking everyone" in report.headline
    experts = toy_experts()
    # An agent that always asks the parrot is worse, and the headline says so.
    found = evaluate(
        experts, _Named("parrot"), toy_examples(20), get_metric("match"), rules=toy_rules(experts),
        baselines=["single"], cost_weights=[],
    )  # fmt: skip
    worse = toy_report(found).headline
    assert worse.startswith("DER is worse than facts alone")


def test_money_is_said_for_a_thousand_questions_and_changed_experts_at_once(report: Report) -> None:
    pool = report.pool.model_copy(update={"unit": "usd"})
    drift = [
        Drift(expert=name, asked=20, different=9, then=0.9, now=now, changed=now < 0.9, since=None)
        for name, now in (("facts", 0.2), ("parrot", 0.9))
    ]
    text = headline(report.methods, report.comparisons, pool, report.data, drift)
    assert "at $1,550.00 per 1,000 questions" in text
    assert "Warning: 'facts' has changed since its answers were cached (quality 0.900 then" in text
    assert "parrot" not in text
    shares = [(0.31, 1.0), (1.0, 1.0), (1.84, 1.0), (2105.0, 10.0), (0.0, 0.0)]
    said = ["31% of", "100% of", "1.8 times", "210 times", "no more than"]
    assert [share_of(*pair) for pair in shares] == said
    assert shown_cost(0.00042, "usd") == "$0.42 per 1,000 questions"
    assert shown_cost(4.2e-7, "usd") == "$0.00042 per 1,000 questions"
    assert shown_cost(0.146, "calls") == "0.146 calls a question"
    dollars = report.model_copy(update={"pool": pool, "drift": drift})
    page = to_markdown(dollars)
    assert "Cost is in US dollars per 1,000 questions" in page
    assert "1.55e+03" in page
    assert "IT HAS CHANGED" in page


class _Named(ScriptedAgent):
    """A scripted agent that every method may check."""


def test_where_the_time_goes(report: Report) -> None:
    clock = report.wall_clock
    assert clock is not None
    assert clock.questions == 3
    assert clock.total.mean >= clock.experts.mean
    assert clock.encoder.mean == 0.0  # this agent has none
    assert clock.decisions == pytest.approx((2 + 3 + 2) / 3)


def test_how_it_was_made(report: Report) -> None:
    assert report.run.command == "der eval --out 'a b'"
    assert report.run.versions["der-graph"]
    # Ten of the training questions given there are questions of the evaluation.
    assert report.data.train_overlap == 10
    assert report.pool.run_all_cost == pytest.approx(3.6)
    assert len(report.data.sha256) == 64


def test_an_interrupted_evaluation_goes_on_from_the_cache(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "answers.db") as cache:
        first = toy_evaluation(cache)
        again = toy_evaluation(cache)
    assert first.generated > 0
    assert again.generated == 0
    for name, episodes in first.episodes.items():
        assert [e.quality for e in episodes] == [e.quality for e in again.episodes[name]]
        assert [e.cost for e in episodes] == [e.cost for e in again.episodes[name]]


def test_only_what_is_wanted_runs() -> None:
    found = toy_evaluation(baselines=["random"])
    assert [m.name for m in found.methods] == ["der", "der@0.1", "der@10", "random"]
    alone = toy_evaluation(baselines=[])
    assert [m.family for m in alone.methods] == ["der"] * 3
    orders = toy_evaluation(baselines=["fixed_order"], fixed_orders=[["writer", "counter"]])
    chain = orders.episodes["fixed_order:writer>counter"]
    assert sum(e.quality for e in chain) / 20 == 0.5
    named = toy_evaluation(baselines=["run_all:vote", "oracle:cheapest"])
    assert [m.name for m in named.methods][3:] == ["run_all:vote", "oracle:cheapest"]
    routers = toy_evaluation(baselines=["router"])
    assert [s.name for s in routers.skipped] == ["router"]
    assert "--train" in routers.skipped[0].reason


def test_mistakes_are_named() -> None:
    experts = toy_experts()
    agent = BestAgent(NAMES, COSTS)
    with pytest.raises(DataError, match="no questions"):
        evaluate(experts, agent, [], get_metric("match"))
    with pytest.raises(
        DataError, match="baseline 'runall' is unknown; choose from: single, random"
    ):
        toy_evaluation(baselines=["runall"])
    with pytest.raises(DataError, match="there is no baseline 'run_all:votes' for this pool"):
        toy_evaluation(baselines=["run_all:votes"])
    with pytest.raises(AgentPoolMismatchError):
        evaluate(experts[:2], agent, toy_examples(2), get_metric("match"))


def test_the_knob_is_swept_over_the_agents_range() -> None:
    points = knob_points(BestAgent(NAMES, COSTS), 3)
    assert points == [0.1, 1.0, 10.0]
    assert knob_points(Baseline(NAMES, COSTS), 2) == [0.02, 2.0]


def test_the_files(report: Report, tmp_path: Path) -> None:
    found = toy_evaluation(baselines=["single", "oracle"])
    files = write_report(report, found, tmp_path)
    assert all((tmp_path / name).stat().st_size > 0 for name in files)
    assert read_report(tmp_path) == report
    with gzip.open(tmp_path / "episodes.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == len(found.methods) * 20
    mine = [row for row in rows if row["method"] == "der"]
    assert sum(row["quality"] for row in mine) == 20
    assert mine[1]["experts"] == ["writer", "counter"]


def test_all_groups_have_a_maker() -> None:
    from der_graph.policies.evaluation.methods import _GROUPS

    assert {*_GROUPS, "router"} == set(BASELINES)


def test_the_timed_copy_of_an_agent_decides_as_it_does() -> None:
    """Also for agents that see fewer features than this version computes, as the shipped one does."""
    agent = toy_agent(toy_source(8))
    observer = agent.observer
    old = Observer(
        observer.config,
        observer.names,
        observer.costs.tolist(),
        observer.encoder,
        observer.arrays,
        FeatureNames(STATE_FEATURES[:19], EXPERT_FEATURES[:11]),
    )
    shape = Shape(4, old.context_size, old.expert_size, 8)
    agent = DERAgent(old, SharedHead(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))
    copied, encoder = timed_agent(agent)
    situation = Situation("What is the colour of thing 7?", mask=[True] * 4 + [False], max_steps=3)
    expected = agent.decide([situation])[0].probabilities
    assert copied.decide([situation])[0].probabilities == pytest.approx(expected)
    assert encoder is not None
    assert encoder.seconds > 0


def test_asking_everyone_costs_what_calls_did_cost() -> None:
    def answer(messages: object) -> AIMessage:
        usage = UsageMetadata(input_tokens=100, output_tokens=10, total_tokens=110)
        return AIMessage("5", usage_metadata=usage)

    # At most 10 and in fact 2 for each of two; 4 for the third.
    experts = [
        as_expert(answer, name=name, cost=10.0, token_prices=(10_000.0, 100_000.0), ktp="none")
        for name in ("a", "b")
    ]
    experts.append(as_expert(answer, name="c", cost=4.0, ktp="none"))
    found = evaluate(
        experts, FixedOrder(["a", "b", "c"], [10.0, 10.0, 4.0], ["c"]), toy_examples(6), get_metric("match"),
        rules=RouteRules.of(experts, max_steps=2), baselines=["single"], cost_weights=[],
    )  # fmt: skip
    report = toy_report(found, pool_from(experts, max_steps=2))
    assert report.pool.run_all_cost == pytest.approx(8.0)
    assert report.method("der").share_of_run_all == pytest.approx(0.5)


def test_asking_everyone_costs_no_more_than_calls_that_read_nothing() -> None:
    def answer(messages: list[BaseMessage]) -> AIMessage:
        size = len(messages[-1].text)
        usage = UsageMetadata(input_tokens=size, output_tokens=1, total_tokens=size + 1)
        return AIMessage("5", usage_metadata=usage)

    experts = [
        as_expert(answer, name=name, cost=10.0, token_prices=(10_000.0, 0.0))
        for name in ("a", "b", "c")
    ]
    found = evaluate(
        experts, FixedOrder(["a", "b", "c"], [10.0] * 3), toy_examples(6), get_metric("match"),
        rules=RouteRules.of(experts, max_steps=3), baselines=["run_all"], cost_weights=[],
    )  # fmt: skip
    report = toy_report(found, pool_from(experts, max_steps=3))
    assert report.method("run_all:vote").share_of_run_all == pytest.approx(1.0)
    assert report.method("der").share_of_run_all > 1.2
