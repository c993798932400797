"""Learning in service: skills, changes, exploring, the shadow, stores that processes share."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ScriptedAgent, a_human, said, three_experts
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore

from der_graph import create_der_graph
from der_graph.errors import BudgetError, DataError
from der_graph.policies.planning import Learner, Planner
from der_graph.policies.planning.belief import Told
from der_graph.policies.planning.learning.relearning import Served, relearn
from der_graph.policies.planning.learning.route_store import (
    KEEP,
    Kept,
    Memory,
    open_store,
    pools_in,
)
from der_graph.policies.planning.tables import mean_skill
from der_graph.pool import as_pool
from der_graph.state import Situation

NAMES = ("small", "middle", "large")


def equals() -> Planner:
    return Planner.from_prior(NAMES, (1.0, 1.0, 1.0), price=0.1)


def one(expert: int, outcome: float) -> Served:
    return Served(0, (Told(expert, 0, -1),), outcome)


def skills(routes: list[Served]) -> list[float]:
    known = relearn(equals().knowledge, routes)
    return [float(x) for x in mean_skill(known.logit[0], known.spread)]


def test_outcomes_become_skills() -> None:
    rng = np.random.default_rng(0)
    rates = (0.9, 0.5, 0.2)
    routes = [one(i, float(rng.random() < rates[i])) for _ in range(300) for i in range(3)]
    assert skills(routes) == pytest.approx(rates, abs=0.08)
    assert skills([]) == pytest.approx(skills([Served(0, (), None)]))


def test_agreement_tells_without_outcomes() -> None:
    alone = Served(0, (Told(0, 0, -1), Told(1, 1, -1), Told(2, 1, -1)), None)
    before, after = skills([]), skills([alone] * 60)
    assert after[0] < before[0]
    assert after[1] > before[1]
    assert after[2] > before[2]


def test_an_expert_that_goes_bad_is_noticed_soon() -> None:
    rng = np.random.default_rng(1)
    good = [one(i, float(rng.random() < 0.8)) for _ in range(300) for i in range(3)]
    bad = [
        one(i, 0.0 if i == 0 else float(rng.random() < 0.8)) for _ in range(40) for i in range(3)
    ]
    assert min(skills(good)) > 0.7
    after = skills([*good, *bad])
    assert after[0] < 0.4
    assert min(after[1:]) > 0.65


def test_the_source_says_served() -> None:
    known = relearn(equals().knowledge, [one(0, 1.0)] * 5)
    assert known.source[0] == ("served", "prior", "prior")


def test_a_graph_learns_from_its_routes_and_their_ratings() -> None:
    experts, _ = three_experts()
    store = InMemoryStore()
    learner = Learner(Planner.from_prior(NAMES, (1.0, 2.0, 7.0)), store)
    der = create_der_graph(experts, agent=learner).compile()
    before = learner.skills()[0]["skill"]
    for _ in range(30):
        state = der.invoke(a_human("What?"), context={"allowed_experts": ["small"]})
        learner.rate(state["messages"][-1].id, 0.0)
    learner.flush()
    kept = learner.memory.routes()
    assert len(kept) == 30
    assert {route.told for route in kept} == {(("small", 0, -1),)}
    assert {route.score for route in kept} == {0.0}
    assert learner.skills()[0]["skill"] < before - 0.2
    assert "What?" not in str([item.value for item in store.search(("der",), limit=100)])


def test_the_graph_makes_a_learner_of_a_store() -> None:
    store = InMemoryStore()
    der = create_der_graph(three_experts()[0], learn=store).compile()
    der.invoke(a_human("What?"))
    again = Memory(store, NAMES)
    for _ in range(100):
        if again.routes():
            break
        import time

        time.sleep(0.05)
    assert len(again.routes()) == 1


def test_a_clock_that_is_put_back_forgets_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1e9]
    monkeypatch.setattr(
        "der_graph.policies.planning.learning.route_store.time.time", lambda: clock[0]
    )
    monkeypatch.setattr("der_graph.policies.planning.learning.route_store.KEEP", 3)
    store = InMemoryStore()

    def add(key: str) -> None:
        memory = Memory(store, NAMES)
        memory.routes()
        memory.add(Kept(key, memory.now(), 0, (("small", 0, -1),), None))

    for key in "abc":
        add(key)
    clock[0] -= 3_600
    for key in "de":
        add(key)
    assert [route.key for route in Memory(store, NAMES).routes()] == ["c", "d", "e"]
    Memory(store, NAMES).freeze()
    clock[0] -= 3_600
    add("f")
    assert [route.key for route in Memory(store, NAMES).routes()] == ["c", "d", "e"]


def test_frozen_nothing_is_learnt_and_reset_forgets() -> None:
    learner = Learner(equals(), InMemoryStore())
    before = learner.skills()
    learner.memory.freeze()
    for i in range(30):
        learner.ended(f"r{i}", "What?", [said("small", "7")])
        learner.rate(f"r{i}", 0.0)
    learner.flush()
    assert learner.skills() == before
    learner.memory.freeze(False)
    learner.flush()
    assert learner.skills()[0]["skill"] < before[0]["skill"]
    assert learner.memory.reset() == 30
    learner.flush()
    assert [s["skill"] for s in learner.skills()] == [s["skill"] for s in before]


def test_who_starts_while_learning_is_stopped_has_the_skills_of_before() -> None:
    store = InMemoryStore()
    learner = Learner(equals(), store)
    for i in range(30):
        learner.ended(f"r{i}", "What?", [said("small", "7")])
        learner.rate(f"r{i}", 0.0)
    learner.flush()
    learnt = [s["skill"] for s in learner.skills()]
    learner.memory.freeze()
    for i in range(30, 60):
        learner.ended(f"r{i}", "What?", [said("small", "7")])
        learner.rate(f"r{i}", 1.0)
    learner.flush()
    learner.memory.freeze()  # once more does not count what has come since
    later = Learner(equals(), store)
    later.flush()
    assert [s["skill"] for s in later.skills()] == pytest.approx(learnt, abs=0.01)
    assert learnt[0] < Learner(equals(), InMemoryStore()).skills()[0]["skill"] - 0.2
    assert len(later.memory.routes()) == 30
    later.memory.freeze(False)
    later.flush()
    assert len(later.memory.routes()) == 60
    assert later.skills()[0]["skill"] > learnt[0] + 0.1
    assert later.memory.reset() == 60


def test_what_comes_while_learning_is_stopped_does_not_push_out_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("der_graph.policies.planning.learning.route_store.KEEP", 5)
    memory = Memory(InMemoryStore(), NAMES)
    for i in range(4):
        memory.add(Kept(f"old{i}", float(i), 0, (("small", 0, -1),), None))
    memory.freeze()
    for i in range(9):
        memory.add(Kept(f"new{i}", 4e9 + i, 0, (("small", 0, -1),), None))
    assert [route.key for route in memory.routes()] == ["old0", "old1", "old2", "old3"]
    memory.freeze(False)  # of the new ones the last five are there
    assert [route.key for route in memory.routes()] == [f"new{i}" for i in range(4, 9)]


@pytest.mark.parametrize(
    ("key", "score", "message"),
    [("r0", 1.5, "the score is 1.5; it must be"), ("r0", float("nan"), "must be a number"),
     ("gone", 1.0, r"there is no route 'gone'; it is too old")],
)  # fmt: skip
def test_feedback_that_cannot_be_used(key: str, score: float, message: str) -> None:
    learner = Learner(equals(), InMemoryStore())
    learner.ended("r0", "What?", [said("small", "7")])
    with pytest.raises(DataError, match=message):
        learner.rate(key, score)


def test_pools_share_a_store(caplog: pytest.LogCaptureFixture) -> None:
    store = InMemoryStore()
    others = [Memory(store, names, shared=True) for names in (["a", "b"], ["expert 0", "expert 1"])]
    learner = Learner(equals(), store)
    assert not caplog.records
    others[0].add(Kept("r", 1.0, 0, (("a", 0, -1),), None))
    others[0].freeze()
    learner.ended("r", "What?", [said("small", "7")])
    learner.flush()
    assert [route.told[0][0] for route in learner.memory.routes()] == ["small"]
    assert [route.told[0][0] for route in others[0].routes()] == ["a"]
    assert [each.frozen for each in (*others, learner.memory)] == [True, False, False]
    again = Memory(store, ["b", "a"], shared=True)  # in another order
    assert (len(again.routes()), again.frozen, len(pools_in(store))) == (1, True, 3)
    assert not caplog.records
    Memory(store, ["a", "c"], shared=True)
    (record,) = caplog.records
    assert "what was learnt of a, b, and learning of a, c begins anew" in record.getMessage()


def test_a_file_of_another_pool(tmp_path: Path) -> None:
    file = tmp_path / "learnt.sqlite"
    Memory(open_store(file), ["a", "b"])
    with pytest.raises(DataError, match="holds what was learnt of a, b, and the pool has small"):
        Learner(equals(), file)
    assert Memory(open_store(file), ["b", "a"]).names == ("b", "a")


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="learn is 3; give a LangGraph store"):
        open_store(3)  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match="explore is 2; it is a share"):
        Learner(equals(), InMemoryStore(), explore=2)


def test_only_the_last_routes_are_kept() -> None:
    memory = Memory(InMemoryStore(), NAMES)
    for i in range(KEEP + 7):
        memory.add(Kept(f"r{i:05d}", float(i), 0, (("small", 0, -1),), None))
    assert [r.key for r in memory.routes()][:2] == ["r00007", "r00008"]
    assert len(memory.routes()) == KEEP


def test_exploring_keeps_to_its_budget() -> None:
    learner = Learner(equals(), InMemoryStore(), explore=0.1)
    explored = 0
    for i in range(300):
        seen = Situation("What?", [], [True, True, True, False])
        (choice,) = learner.decide([seen])
        told = choice.explanation or {}
        if told.get("explored"):
            explored += 1
            assert choice.probabilities[choice.index] == 1.0
            assert "expected_gain" not in told  # it would be the planned choice's
        learner.ended(f"r{i}", "What?", [said(NAMES[choice.index], "7")])
        learner.flush()  # what is known, and with it who is known least, follows every route at once
    assert 20 <= explored <= 30
    (choice,) = learner.decide([Situation("What?", [], [False, True, False, False])])
    assert choice.index == 1  # what is not allowed is not explored


def test_in_the_shadow_it_decides_nothing() -> None:
    experts, _ = three_experts()
    learner = Learner(
        Planner.from_prior(NAMES, (1.0, 2.0, 7.0)), InMemoryStore(), acting=ScriptedAgent("large")
    )
    state = create_der_graph(experts, agent=learner).compile().invoke(a_human("What?"))
    assert [step["choice"] for step in state["route"]] == ["large", "END"]
    shadow = state["route"][0]["explanation"]["shadow"]
    assert shadow["choice"] in NAMES
    found = learner.comparison()
    assert found["decisions"] == 2
    assert (found["same"] == 1.0) == (shadow["choice"] == "large")


def test_a_judge_scores_a_sample() -> None:
    judged: list[str] = []

    def judge(question: str, answer: str) -> float:
        judged.append(answer)
        return 0.25

    learner = Learner(equals(), InMemoryStore(), judge=judge, judge_share=0.5)
    for i in range(100):
        learner.ended(f"r{i}", "What?", [said("small", "7")])
    learner.flush()
    assert 30 <= len(judged) <= 70
    assert sum(r.score == 0.25 for r in learner.memory.routes()) == len(judged)


WRITER = """
import sys
from der_graph.policies.planning import Learner, Planner
from fakes import said
learner = Learner(Planner.from_prior(("small", "middle", "large"), (1.0, 1.0, 1.0)), sys.argv[1])
for i in range(40):
    key = f"{sys.argv[2]}-{i}"
    learner.ended(key, "What?", [said("small", "7")])
    learner.rate(key, 0.0)
learner.flush()
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_share_a_store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip(f"langgraph.store.{kind}")
    store = str(tmp_path / "learnt" / "skills.sqlite")
    if kind == "postgres":
        store = request.getfixturevalue("postgres")
    root = Path(__file__).parents[3]
    env: dict[str, Any] = {"PYTHONPATH": f"{root}:{root / 'tests'}", "PATH": "/usr/bin:/bin"}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, store, name], env=env)
        for name in ("a", "b")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    learner = Learner(equals(), store)
    learner.flush()
    assert len(learner.memory.routes()) == 80
    assert learner.skills()[0]["skill"] < 0.2
    assert as_pool(three_experts()[0]).names == learner.names


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "skills.sqlite"
    file.write_text("not a database, and long enough to be read as one" * 100)
    with pytest.raises(DataError, match="not a store that can be used"):
        open_store(file)


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DataError, match="not a store that can be used") as caught:
        open_store(f"postgresql://der:hunter22@/der?host={tmp_path}")
    assert "hunter22" not in str(caught.value)


def test_a_connection_that_was_lost_is_made_again(postgres: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    store = open_store(postgres)
    store.put(("der", "lost"), "key", {"a": 1})
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    found = store.get(("der", "lost"), "key")
    assert found is not None
    assert found.value == {"a": 1}


def test_in_a_store_of_the_application_routes_are_neither_embedded_nor_forgotten() -> None:
    class Puts(InMemoryStore):
        supports_ttl = True
        ttl_config: Any = {"default_ttl": 60.0}  # noqa: RUF012 - as LangGraph's stores have it

        def batch(self, ops: Any) -> Any:
            puts.extend(each for each in ops if isinstance(each, PutOp))
            return super().batch(ops)

    puts: list[PutOp] = []
    memory = Memory(Puts(), NAMES)
    memory.add(Kept("r", 1.0, 0, (("small", 0, -1),), None))
    memory.rate("r", 0.5)
    assert [(put.index, put.ttl) for put in puts] == [(False, None)] * 3


def test_an_asynchronous_store_is_refused_in_its_own_loop() -> None:
    aio = pytest.importorskip("langgraph.store.sqlite.aio")

    async def learn() -> None:
        async with aio.AsyncSqliteStore.from_conn_string(":memory:") as store:
            with pytest.raises(DataError, match=r"AsyncSqliteStore.* give its synchronous"):
                create_der_graph(three_experts()[0], learn=store)

    asyncio.run(learn())


def agreeing(chance: float, seed: int = 3, count: int = 500) -> list[Served]:
    """Routes of three experts, each right on half of the questions; a fifth is rated."""
    rng = np.random.default_rng(seed)
    routes = []
    for _ in range(count):
        values = []
        for i in range(3):
            right, lured = rng.random() < 0.5, rng.random() < chance
            values.append(0 if right else 1 if lured else 2 + i)
        told = tuple(Told(i, values.index(v), -1) for i, v in enumerate(values))
        outcome = float(values[-1] == 0) if rng.random() < 0.2 else None
        routes.append(Served(0, told, outcome))
    return routes


def test_where_all_make_the_same_mistakes_agreement_is_trusted_less() -> None:
    base = equals().knowledge
    often, never = (relearn(base, agreeing(chance)) for chance in (0.6, 0.0))
    assert float(often.chance[0]) > 2 * float(base.chance[0])
    assert float(never.chance[0]) < float(base.chance[0])
    assert mean_skill(often.logit[0], often.spread) == pytest.approx([0.5] * 3, abs=0.1)


def test_without_outcomes_agreement_says_what_it_did() -> None:
    base = equals().knowledge
    known = relearn(base, [r._replace(outcome=None) for r in agreeing(0.6)])
    assert known.chance.tolist() == base.chance.tolist()
    assert known.spread == base.spread


def test_what_a_store_does_not_take_is_kept_and_nobody_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Locked(InMemoryStore):
        tries = 0
        locked = False

        def batch(self, ops: Any) -> Any:
            ops = list(ops)
            if self.locked and any(isinstance(op, PutOp) for op in ops):
                self.tries += 1
                raise sqlite3.OperationalError("database is locked")
            return super().batch(ops)

    store = Locked()
    learner = Learner(equals(), store)
    store.locked = True
    ids = ["r0", "r1", "r2"]
    for each in ids:
        learner.ended(each, "What?", [said("small", "7")])
    learner.rate(ids[1], 0.25)
    assert store.tries == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "OperationalError: database is locked" in caplog.text
    with pytest.raises(TimeoutError, match="could not be written"):
        learner.rate("elsewhere", 1)
    store.locked = False
    learner.flush()
    with pytest.raises(DataError, match="no route"):
        learner.rate("elsewhere", 1)
    assert [(r.key, r.score) for r in learner.memory.routes()] == [
        (ids[0], None), (ids[1], 0.25), (ids[2], None),
    ]  # fmt: skip


class Broken(InMemoryStore):
    """Fails to write as it is told to."""

    tries = 0
    error: Exception | None = None
    of = ""  # of this key alone

    def batch(self, ops: Any) -> Any:
        ops = list(ops)
        put = [op for op in ops if isinstance(op, PutOp) and self.of in op.key]
        if self.error is not None and put:
            self.tries += 1
            raise self.error
        return super().batch(ops)


def test_feedback_alone_does_not_try_a_locked_store_again_and_again() -> None:
    store = Broken()
    learner = Learner(equals(), store)
    learner.ended("r", "What?", [said("small", "7")])
    learner.flush()
    store.error = sqlite3.OperationalError("database is locked")
    with pytest.raises(sqlite3.OperationalError):
        learner.rate("r", 1)
    with pytest.raises(TimeoutError, match="left alone"):
        learner.rate("r", 1)
    assert store.tries == 1
    store.error = None
    learner.flush()
    learner.rate("r", 1)
    assert [r.score for r in learner.memory.routes()] == [1.0]


class DataOfADriver(Exception):
    pass


DataOfADriver.__name__ = "DataError"


@pytest.mark.parametrize("error", [UnicodeEncodeError("utf-8", "x", 0, 1, "no"), DataOfADriver()])
def test_a_route_that_no_store_takes_blocks_no_other(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = Broken()
    learner = Learner(equals(), store)
    store.error, store.of = error, "bad"
    for each in ("r0", "bad", "r1"):
        learner.ended(each, "What?", [said("small", "7")])
    learner.flush()
    assert {route.key for route in learner.memory.routes()} == {"r0", "r1"}
    assert store.tries == 1
    (record,) = caplog.records
    assert "the store cannot take it" in record.getMessage()


def test_at_the_end_routes_that_wait_are_tried_once_more(caplog: pytest.LogCaptureFixture) -> None:
    store = Broken()
    learner = Learner(equals(), store)
    store.error = sqlite3.OperationalError("database is locked")
    for each in ("r0", "r1"):
        learner.ended(each, "What?", [said("small", "7")])
    assert learner.settle() == 2
    assert "2 routes are not learnt from" in caplog.text
    store.error = None
    assert learner.settle() == 0
    assert {route.key for route in learner.memory.routes()} == {"r0", "r1"}


def test_the_end_waits_for_no_store_that_hangs() -> None:
    hung, goes_on = threading.Event(), threading.Event()

    class Hung(InMemoryStore):
        def batch(self, ops: Any) -> Any:
            ops = list(ops)
            if hung.is_set() and any(isinstance(op, PutOp) for op in ops):
                goes_on.wait(30)
            return super().batch(ops)

    learner = Learner(equals(), Hung())
    hung.set()
    learner.ended("r", "What?", [said("small", "7")])
    assert learner.settle(0.1) == 1
    goes_on.set()
    assert learner.settle() == 0
