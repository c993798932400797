"""Chat models cost money: which routes are asked for real, and what is made up for the others."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FunctionChat
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from toy import WordEncoder

pytest.importorskip("stable_baselines3")

from der_graph import create_der_graph
from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.answers import AnswerCache, AnswerSource, Outcome, Request
from der_graph.policies.quality import get_metric
from der_graph.policies.training import preset, run_routes, train_agent
from der_graph.policies.training.ppo import _free, features_learner
from der_graph.policies.training.routes.exploration import Explorer, greedy_routes
from der_graph.policies.training.routes.imputation import ImputedSource
from der_graph.policies.training.routes.shortlist import shortlist
from der_graph.policies.training.routes.tree import collect_tree
from der_graph.state import DERContext

SHOWN = KTPTemplate("last", "{question} || {answer}")


def chat(name: str, says: Callable[[str], str], cost: float = 1.0) -> Expert:
    return Expert(name, FunctionChat(says=says), cost=cost, ktp=SHOWN, fingerprint=name)


def number_in(prompt: str) -> int:
    return int(prompt.split(" || ")[0].rsplit(" ", 1)[1])


def shown_in(prompt: str) -> str | None:
    _, _, shown = prompt.partition(" || ")
    return shown or None


def questions(count: int, first: int = 0) -> list[Example]:
    """The answer to question number n is 7 n."""
    return [
        Example(str(n), f"Question of {'sums' if n % 2 else 'words'} {n}", str(7 * n))
        for n in range(first, first + count)
    ]


def draft(prompt: str) -> str:
    """Right on every third question."""
    n = number_in(prompt)
    return f"It is {7 * n if n % 3 == 0 else 7 * n + 1}."


def follower(prompt: str) -> str:
    """Repeats what it is shown; alone it is wrong."""
    return shown_in(prompt) or f"It is {7 * number_in(prompt) + 2}."


def fixer(prompt: str) -> str:
    """Mends any wrong number that it is shown; alone it is wrong."""
    n = number_in(prompt)
    return f"It is {7 * n if shown_in(prompt) else 7 * n + 3}."


def stubborn(prompt: str) -> str:
    """Says the same whatever it is shown; right on even questions."""
    n = number_in(prompt)
    return f"It is {7 * n if n % 2 == 0 else 7 * n + 4}."


def half_right(number: int) -> Callable[[str], str]:
    """Right on some half of the questions, whatever it is shown."""

    def says(prompt: str) -> str:
        n = number_in(prompt)
        return f"It is {7 * n if zlib.crc32(f'{number} {n}'.encode()) % 2 else 7 * n + 5 + number}."

    return says


DRAFT, FOLLOWER, FIXER, STUBBORN = range(4)


def pool() -> list[Expert]:
    return [
        chat("draft", draft),
        chat("follower", follower),
        chat("fixer", fixer),
        chat("stubborn", stubborn),
    ]


def source_of(count: int, cache: AnswerCache | None = None) -> AnswerSource:
    return AnswerSource(pool(), questions(count), get_metric("match"), cache=cache)


def imputed(source: AnswerSource) -> ImputedSource:
    return ImputedSource(source, WordEncoder().encode(source.questions))


def after(source: AnswerSource, before: int, expert: int, question: int) -> Outcome:
    """What an expert says after another one's first answer."""
    (first,) = source.ask([Request(question, before, [])])
    (outcome,) = source.ask([Request(question, expert, [first.answer])])
    return outcome


def calls_to(expert: Expert) -> int:
    assert isinstance(expert.model, FunctionChat)
    return len(expert.model.prompts)


def asked_of(source: AnswerSource) -> int:
    return sum(map(calls_to, source.experts))


@pytest.mark.parametrize("expert", [FOLLOWER, FIXER, STUBBORN])
def test_reactions_are_carried_over_and_nobody_is_asked(expert: int) -> None:
    """Seen after the draft on questions 0 to 11; on the others everyone reacts in the same way."""
    source = source_of(40)
    source.first_answers()
    for question in range(12):
        after(source, DRAFT, expert, question)
    calls = asked_of(source)
    made_up = imputed(source)
    found = [after(made_up, DRAFT, expert, question) for question in range(12, 40)]
    assert asked_of(source) == calls
    really = [after(source, DRAFT, expert, question) for question in range(12, 40)]
    assert [o.quality for o in found] == [o.quality for o in really]
    assert [o.answer["value"] for o in found if o.quality] == [
        o.answer["value"] for o in really if o.quality
    ]
    assert {o.answer["expert"] for o in found} == {source.experts[expert].name}


def test_what_is_known_stays_as_it_is() -> None:
    source = source_of(10)
    source.first_answers()
    known = after(source, DRAFT, FIXER, 4)
    assert after(imputed(source), DRAFT, FIXER, 4) is known
    made_up = after(imputed(source), DRAFT, FIXER, 5)
    assert (
        source.known([Request(5, FIXER, [source.ask([Request(5, DRAFT, [])])[0].answer])]) is None
    )
    assert made_up.quality == 1.0


def test_who_was_never_seen_to_read_says_the_same_again() -> None:
    source = source_of(6)
    first = source.first_answers()
    assert after(imputed(source), DRAFT, FOLLOWER, 1) == first[1][FOLLOWER]


def test_a_chain_is_imputed_over_its_links() -> None:
    """Follower after fixer after draft: the fixer's right answer is handed on."""
    source = source_of(30)
    source.first_answers()
    for question in range(10):
        after(source, DRAFT, FIXER, question)
        after(source, DRAFT, FOLLOWER, question)
    tree = collect_tree(imputed(source), [DRAFT, FOLLOWER, FIXER], 3)
    at = tree.position[(DRAFT, FIXER, FOLLOWER)]
    assert tree.quality[:, at].tolist() == [1.0] * 30
    wrong = [n for n in range(30) if n % 3]
    assert not tree.quality[wrong, tree.position[(DRAFT, FOLLOWER)]].any()


@pytest.mark.parametrize("calls", [0, 30, 130, 400])
def test_no_more_is_asked_than_was_allowed(calls: int) -> None:
    source = source_of(50)
    source.first_answers()
    before = asked_of(source)
    explorer = Explorer(source, range(4), 4, calls)
    explorer.broadly()
    explorer.best(lambda: [(q, (FIXER, DRAFT, FOLLOWER)) for q in range(50)])
    assert asked_of(source) - before == calls - explorer.left <= calls


def test_the_routes_wanted_most_are_asked_to_their_end_where_calls_are_few() -> None:
    """Ten calls pay for five routes of three, and not for the second calls of ten."""
    source = source_of(50)
    source.first_answers()
    explorer = Explorer(source, range(4), 3, 10)
    route = (DRAFT, FIXER, FOLLOWER)
    explorer._ask([(q, route) for q in range(50)], 10)
    assert (explorer.left, sorted(explorer._tried[route])) == (0, [0, 1, 2, 3, 4])


def test_a_call_that_many_routes_share_is_counted_once() -> None:
    source = source_of(10)
    source.first_answers()
    explorer = Explorer(source, range(4), 3, 20)
    routes = [(DRAFT, FIXER), (DRAFT, FIXER, FOLLOWER), (DRAFT, FIXER, STUBBORN)]
    explorer._ask([(0, route) for route in routes], 20)
    assert explorer.left == 20 - 3  # the fixer once, and two who read it
    assert set(explorer._tried) == set(routes)


def test_in_a_crowd_of_chat_models_who_is_good_second_is_found() -> None:
    """The fixer is the worst of nine alone."""
    experts = [chat(f"own-{i}", half_right(i)) for i in range(8)]
    experts.append(chat("fixer", fixer))
    source = AnswerSource(experts, questions(60), get_metric("match"))
    first = source.first_answers()
    predicted = np.array([[o.quality for o in row] for row in first]).mean(axis=0)
    alone = np.tile(predicted, (60, 1))
    before = asked_of(source)
    explorer = Explorer(source, range(9), 4, 12 * 60)
    chosen = shortlist(source, alone, [1.0] * 9, gains=explorer.together)
    assert 8 in chosen
    assert 8 not in shortlist(source, alone, [1.0] * 9, gains=lambda useful: np.zeros((9, 9)))
    assert 0 < asked_of(source) - before <= 12 * 60 // 4
    explorer.narrow_to(chosen)
    explorer.broadly()
    assert {e for route in explorer._tried for e in route if len(route) > 2} <= set(chosen)


def test_who_answers_the_same_whatever_it_reads_is_left_alone() -> None:
    source = source_of(50)
    source.first_answers()
    before = list(map(calls_to, source.experts))
    Explorer(source, range(4), 4, 500).broadly()
    new = [calls_to(expert) - n for expert, n in zip(source.experts, before, strict=True)]
    assert 20 <= new[STUBBORN] < new[FIXER]


def test_a_second_run_asks_nobody_again(tmp_path: Path) -> None:
    """What routes may cost is counted whether the answers are known or not: else a run that finds many in the
    cache would have calls left for others."""
    asked = []
    for _ in range(2):
        with AnswerCache(tmp_path / "answers.sqlite") as cache:
            source = source_of(40, cache)
            source.first_answers()
            explorer = Explorer(source, range(4), 3, 200)
            explorer.broadly()
            asked.append((asked_of(source), explorer.left))
    assert asked[0][0] > 0
    assert asked[1] == (0, asked[0][1])


def test_the_best_routes_by_hand() -> None:
    """Routes (), (0), (1), (0, 1); the second price makes the second call too dear."""
    routes = [(), (0,), (1,), (0, 1)]
    children = np.array([[1, 2], [-1, 3], [-1, -1], [-1, -1]])
    low = [[0.9, 0.5, -np.inf], [-np.inf, 0.9, 0.6]]
    high = [[0.5, 0.4, -np.inf], [-np.inf, 0.2, 0.5]]
    choices = np.stack([low, high], axis=2).astype(np.float32)[None]
    assert greedy_routes(choices, children, routes, [0, 1]) == [[(0, 1), (0,)]]


COSTS = {"reader": 0.5, "planner": 0.5, "solver": 0.2, "big": 4.0, "noise": 0.5}


def chain_says(name: str) -> Callable[[str], str]:
    """Sums need reader, planner and solver in that order; words need big."""

    def says(prompt: str) -> str:
        n, shown = number_in(prompt), shown_in(prompt) or ""
        if name == "reader":
            return f"facts of number {n} are these"
        if name == "planner":
            return f"a plan for number {n} it is" if "facts" in shown else "I do not know."
        if name == "solver":
            return f"It is {7 * n}." if "plan" in shown and n % 2 else "I do not know."
        if name == "big":
            right = n % 2 == 0 and zlib.crc32(f"big {n}".encode()) % 10
            return f"It is {7 * n if right else n + 1}."
        return f"It is {n + 2}."

    return says


@pytest.mark.slow
def test_a_chain_of_three_chat_models_is_found_with_the_defaults(tmp_path: Path) -> None:
    """Of 125 routes to three or four, one is worth anything on half of the questions."""
    experts = [chat(name, chain_says(name), cost) for name, cost in COSTS.items()]
    rules = RouteRules.of(experts, max_steps=4)
    agent = train_agent(
        experts,
        questions(200),
        questions(40, 1_000),
        tmp_path,
        preset("default", seed=0, steps=2048),
        rules=rules,
        ktp=SHOWN,
        encoder=WordEncoder(),
        progress=False,
    )
    assert sum(map(calls_to, experts)) <= (5 + 12) * 200 + 40 * 5 * 10
    test = AnswerSource(experts, questions(100, 2_000), get_metric("match"))
    total = sum(COSTS.values())
    big = np.mean([row[3].quality for row in test.first_answers()[::2]])
    for price in (0.05, 0.2, 0.6):
        episodes = run_routes(agent, test, rules, context=DERContext(cost_weight=price))
        utility = np.mean([e.quality - price * e.cost / total for e in episodes])
        best = (1 - price * 1.2 / total + big - price * 4.0 / total) / 2
        assert utility >= 0.97 * best


def test_no_route_calls_leave_it_at_first_answers() -> None:
    source = source_of(40)
    first = source.first_answers()
    asked = asked_of(source)
    rules = RouteRules.of(source.experts)
    config = preset("default", route_calls=0)
    learner = features_learner(config, source, rules, first, WordEncoder(), {})
    assert asked_of(source) == asked
    assert isinstance(learner.env.lockstep.source, ImputedSource)


def test_what_is_free_to_ask() -> None:
    function = as_expert(draft, name="function", cost=1.0)
    model = FunctionChat(says=draft)
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{messages}")])
    chain = as_expert(prompt | model, name="chain", cost=1.0)
    graph = as_expert(
        create_der_graph([function, model_of(model)]).compile(), name="graph", cost=1.0
    )
    experts = (
        function,
        model_of(model),
        chain,
        graph,
        as_expert(RunnableLambda(draft), name="f", cost=1.0),
    )
    assert [_free(expert) for expert in experts] == [True, False, False, False, True]


def model_of(model: FunctionChat) -> Expert:
    return as_expert(model, name="model", cost=1.0)


def test_functions_are_asked_on_every_route() -> None:
    experts = [
        as_expert(says, name=says.__name__, cost=1.0, ktp=SHOWN, fingerprint=says.__name__)
        for says in (draft, follower, fixer, stubborn)
    ]
    source = AnswerSource(experts, questions(20), get_metric("match"))
    config = preset("default", route_calls=0)
    first = source.first_answers()
    rules = RouteRules.of(experts, max_steps=2)
    learner = features_learner(config, source, rules, first, WordEncoder(), {})
    assert not isinstance(learner.env.lockstep.source, ImputedSource)
    assert learner.lesson is not None
    assert len(learner.lesson.tree.routes) == 1 + 4 + 12
