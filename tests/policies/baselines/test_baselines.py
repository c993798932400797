"""Baselines and routers: what they choose, by hand, and that none breaks a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from der_graph.errors import AgentPoolMismatchError, DataError, UnknownExpertError
from der_graph.nodes.decision import RoutingAgent
from der_graph.policies.baselines import (
    PREDICTORS,
    Baseline,
    FixedOrder,
    OneShotRouter,
    Oracle,
    Random,
    Single,
)
from der_graph.policies.baselines.routers import (
    Clusters,
    Factorization,
    Logistic,
    Neighbours,
    Network,
)
from der_graph.policies.baselines.voting import Cascade, RunAll, majority, nearest_to_all
from der_graph.state import Answer, Situation, blank_answer, good_answers

NAMES = ("mid", "big", "small")
COSTS = (8.0, 70.0, 2.0)
END = 3


def answer(expert: str, value: str | None = "1", *, error: str | None = None) -> Answer:
    text, value = ("", None) if error else (f"{value}", value)
    return blank_answer(expert, text=text, value=value, cost=1.0, error=error)


def situation(*answers: Answer, masked: Sequence[int] = (), **more: Any) -> Situation:
    """What the agent sees, with everything allowed that is not masked or asked before."""
    asked = {given["expert"] for given in answers}
    mask = [name not in asked and i not in masked for i, name in enumerate(NAMES)]
    question = more.pop("question", "2 + 3?")
    end = bool(good_answers(list(answers)))
    return Situation(question=question, answers=list(answers), mask=[*mask, end], **more)


def chosen(agent: RoutingAgent, *answers: Answer, **more: Any) -> int:
    choice = agent.decide([situation(*answers, **more)])[0]
    assert len(choice.probabilities) == END + 1
    assert sum(choice.probabilities) == pytest.approx(1)
    return choice.index


class LetterEncoder:
    """A vector by the question's first letter, a to z."""

    name = "letters"

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = np.zeros((len(texts), 26), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[ord(text[0].lower()) - ord("a")] = 1.0
        return rows


def test_single() -> None:
    agent = Single(NAMES, COSTS, "big")
    assert chosen(agent) == 1
    assert chosen(agent, answer("big")) == END
    # It failed, or is too dear: the cheapest that is left, because a route needs an answer.
    assert chosen(agent, answer("big", error="down")) == 2
    assert chosen(agent, masked=[1]) == 2
    with pytest.raises(UnknownExpertError, match="'huge' is not in the pool; it has: mid, big"):
        Single(NAMES, COSTS, "huge")


def test_random_draws_what_is_allowed() -> None:
    agent = Random(NAMES, COSTS, seed=1)
    first = [chosen(agent, question=f"question {i}") for i in range(300)]
    assert set(first) == {0, 1, 2}
    assert min(first.count(index) for index in range(3)) > 70
    later = [chosen(agent, answer("mid"), question=f"question {i}") for i in range(300)]
    assert set(later) == {1, 2, END}
    # Not the order of the batch, but the seed decides.
    assert first == [chosen(agent, question=f"question {i}") for i in range(300)]
    assert first != [chosen(Random(NAMES, COSTS, 2), question=f"question {i}") for i in range(300)]


def test_fixed_order() -> None:
    agent = FixedOrder(NAMES, COSTS, ["small", "mid"])
    assert chosen(agent) == 2
    assert chosen(agent, answer("small")) == 0
    assert chosen(agent, answer("small"), answer("mid")) == END
    assert chosen(agent, masked=[2]) == 0
    assert chosen(agent, answer("small", error="down"), masked=[0]) == 1  # only that one is left
    assert chosen(FixedOrder(NAMES, COSTS, k=1), answer("mid")) == END
    with pytest.raises(UnknownExpertError, match="at least one"):
        FixedOrder(NAMES, COSTS, k=0)


def test_cascade_stops_when_two_agree() -> None:
    agent = Cascade(NAMES, COSTS)
    assert chosen(agent) == 2
    assert chosen(agent, answer("small", "5")) == 0
    assert chosen(agent, answer("small", "5"), answer("mid", "5")) == END
    assert chosen(agent, answer("small", "5"), answer("mid", "6")) == 1
    # No value, no agreement; a failed call is no answer.
    assert chosen(agent, answer("small", None), answer("mid", None)) == 1
    assert chosen(agent, answer("small", error="x"), answer("mid", "5")) == 1
    assert chosen(agent, answer("small", "5"), answer("mid", "6"), masked=[1]) == END
    assert chosen(Cascade(NAMES, COSTS, agree=1), answer("small", None)) == END


def test_run_all_asks_everyone_and_votes() -> None:
    agent = RunAll(NAMES, COSTS)
    answers: list[Answer] = []
    for expected in (1, 0, 2):
        assert chosen(agent, *answers) == expected
        answers.append(answer(NAMES[expected]))
    assert chosen(agent, *answers) == END
    values: list[tuple[list[str | None], int]] = [
        (["1", "2", "2"], 1),
        (["1", "2"], 0),
        ([None, None, "3"], 0),
        ([None, "3", None, "3"], 1),
        (["1"], 0),
    ]
    for given_values, expected in values:
        assert agent.select([answer("x", value) for value in given_values], "q") == expected
        assert majority([answer("x", value) for value in given_values]) == expected


def test_vote_by_similarity() -> None:
    select = nearest_to_all(LetterEncoder())
    assert select([answer("x", "zebra"), answer("x", "apple"), answer("x", "ant")], "q") == 1
    assert RunAll(NAMES, COSTS, select).select([answer("x", "zebra")], "q") == 0


def test_oracles() -> None:
    qualities = [[0.9, 0.9, 0.2], [0.5, 1.0, 0.8], [0.0, 0.0, 0.0]]
    questions = ["a", "b", "c"]
    best = Oracle(NAMES, COSTS, questions, qualities)
    cheap = Oracle(NAMES, COSTS, questions, qualities, good_enough=0.73)
    # Of two equally good answers the cheaper; of none that is good, the cheapest.
    assert [chosen(best, question=q) for q in questions] == [0, 1, 2]
    assert [chosen(cheap, question=q) for q in questions] == [0, 2, 2]
    assert chosen(best, answer("mid"), question="a") == END
    assert chosen(best, question="b", masked=[1]) == 2
    with pytest.raises(DataError, match="does not know the question 'd'"):
        chosen(best, question="d")
    with pytest.raises(DataError, match=r"shape \(3, 3\) for 2 questions"):
        Oracle(NAMES, COSTS, ["a", "b"], qualities)


def test_pools_are_checked() -> None:
    agent = Random(NAMES, COSTS)
    agent.check_pool(list(NAMES))
    with pytest.raises(AgentPoolMismatchError, match="mid, big, small; the pool has big, mid"):
        agent.check_pool(["big", "mid"])
    with pytest.raises(ValueError, match="3 experts, but 1 costs"):
        Random(NAMES, [1.0])


SMALL: list[Callable[[], Any]] = [
    Neighbours,
    Logistic,
    lambda: Network(hidden=16),
    lambda: Clusters(k=2),
    Factorization,
]


@pytest.mark.parametrize("predictor", SMALL, ids=list(PREDICTORS))
def test_routers_learn_who_is_good_at_what(predictor: Callable[[], Any]) -> None:
    # The big one knows all; the small one knows what begins with a; the middle one nothing.
    questions = [f"{letter} {i}" for i in range(40) for letter in "ab"]
    qualities = [[0.0, 1.0, float(q[0] == "a")] for q in questions]
    router = OneShotRouter(NAMES, COSTS, LetterEncoder(), predictor()).fit(questions, qualities)
    table = router.predictor.predict(np.asarray(LetterEncoder().encode(["a", "b"]), dtype=float))
    assert table.shape == (2, 3)
    np.testing.assert_allclose(table, [[0, 1, 1], [0, 1, 0]], atol=0.25)

    both = [situation(question=q, cost_weight=0.6) for q in ("a new one", "b new one")]
    assert [choice.index for choice in router.decide(both)] == [2, 1]
    # At another price of cost: never worth the big one.
    choices = router.decide([situation(question="b new one", cost_weight=5.0)])
    assert choices[0].index == 2
    assert choices[0].cost_weight == 5.0
    # One shot, then the end; and what fails is replaced by the next best.
    assert chosen(router, answer("big"), question="b") == END
    assert chosen(router, answer("big", error="down"), question="a") == 2


def test_routers_take_few_and_one_sided_questions() -> None:
    for predictor in SMALL:
        router = OneShotRouter(NAMES, COSTS, LetterEncoder(), predictor(), price=1.0)
        router.fit(["a", "b"], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
        assert chosen(router, question="a") in range(3)
    logistic = OneShotRouter(NAMES, COSTS, LetterEncoder(), Logistic(), price=0.1)
    logistic.fit(["a", "b"], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    assert chosen(logistic, question="b") == 2


def test_routers_refuse_bad_tables() -> None:
    router = OneShotRouter(NAMES, COSTS, LetterEncoder(), Neighbours())
    with pytest.raises(DataError, match="one question at least"):
        router.fit([], np.zeros((0, 3)))
    with pytest.raises(DataError, match="shape"):
        router.fit(["a"], [[1.0, 0.0]])
    with pytest.raises(DataError, match="question 0, expert 'big': the quality is nan"):
        router.fit(["a"], [[1.0, float("nan"), 0.0]])


def _agents() -> list[RoutingAgent]:
    router = OneShotRouter(NAMES, COSTS, LetterEncoder(), Neighbours())
    router.fit(["a", "b"], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return [
        Single(NAMES, COSTS, "mid"),
        Random(NAMES, COSTS),
        FixedOrder(NAMES, COSTS),
        Cascade(NAMES, COSTS),
        RunAll(NAMES, COSTS),
        Oracle(NAMES, COSTS, ["a"], [[0.1, 0.2, 0.3]]),
        router,
    ]


AGENTS = _agents()


@settings(max_examples=60, deadline=None)
@given(
    mask=st.lists(st.booleans(), min_size=4, max_size=4),
    asked=st.lists(st.sampled_from(NAMES), max_size=3, unique=True),
    failed=st.booleans(),
)
def test_no_agent_breaks_the_mask(mask: list[bool], asked: list[str], failed: bool) -> None:
    answers = [answer(name, error="down" if failed else None) for name in asked]
    mask[END] = bool(good_answers(answers))
    if not any(mask):
        return
    seen = Situation(question="a", answers=answers, mask=mask)
    for agent in AGENTS:
        assert isinstance(agent, RoutingAgent)
        choice = agent.decide([seen])[0]
        assert mask[choice.index]
        assert all(
            free or share == 0 for free, share in zip(mask, choice.probabilities, strict=True)
        )


def test_a_mask_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no choice"):
        Single(NAMES, COSTS, "mid").decide([Situation(question="a", mask=[False] * 4)])
    with pytest.raises(NotImplementedError):
        Baseline(NAMES, COSTS).decide([situation()])
