"""Feedback on routes, in a log and in LangSmith, and the training data that it becomes."""

from __future__ import annotations

import json
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest
from collector import collector
from fakes import ScriptedAgent, an_answer
from langchain_core.messages import AIMessage
from langsmith import tracing_context
from toy import WordEncoder, toy_examples, toy_experts

from der_graph import create_der_graph
from der_graph.data import load_examples
from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import ktp_template
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.rules import RouteRules
from der_graph.observability import tracing_client, training_rows, write_training_data
from der_graph.observability.feedback import (
    RatedRoute,
    RouteLog,
    langsmith_routes,
    rate_run,
    rated_route,
)

ALL = ("writer", "counter", "facts", "parrot")


def toy_graph(*script: str) -> Any:
    graph = create_der_graph(toy_experts(), agent=ScriptedAgent(*script), max_steps=4)
    return graph.compile(name="der")


def rated(
    texts: dict[str, str],
    *,
    score: float | None = None,
    reference: str | None = None,
    question: str = "2 + 3?",
    history: tuple[tuple[str, str], ...] = (),
) -> RatedRoute:
    """A route of one answer each, values and texts being the same; the last is the final one."""
    answers = [{**an_answer(name, text), "value": text} for name, text in texts.items()]
    final = list(texts.values())[-1]
    return RatedRoute("r", question, answers, final, score, reference, history)  # type: ignore[arg-type]


def scores(row: dict[str, Any]) -> dict[str, Any]:
    return {each["model"]: each["scores"].get("feedback") for each in row["candidates"]}


# The log ---------------------------------------------------------------------------------------------------


def test_a_log_keeps_routes_and_the_last_word_on_them(tmp_path: Path) -> None:
    log = RouteLog(tmp_path / "routes.jsonl")
    question = toy_examples(2)[1].question
    state = toy_graph("writer", "counter").invoke({"messages": [("user", question)]})
    first = log.add(state)
    second = log.add(state, "my-id")
    assert second == "my-id"
    log.rate(first, 0.0)
    log.rate(first, 1.0, reference="seven")
    one, two = log.routes()
    assert (one.id, one.question, one.answer) == (first, question, state["answer"])
    assert (one.score, one.reference) == (1.0, "seven")
    assert [answer["expert"] for answer in one.answers] == ["writer", "counter"]
    assert one.history == ()
    assert (two.id, two.score) == ("my-id", None)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert len(log.path.read_text().splitlines()) == 4


def test_a_log_keeps_the_conversation(tmp_path: Path) -> None:
    log = RouteLog(tmp_path / "routes.jsonl")
    history = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hello!")]
    state = toy_graph("parrot").invoke({"messages": [*history, ("user", "Who are you?")]})
    log.add(state)
    (route,) = log.routes()
    assert route.history == tuple(history)
    (row,) = training_rows([RatedRoute(**{**vars(route), "score": 1.0})]).rows
    assert row["history"][1] == {"role": "user", "content": "Hello"}


def test_line_separators_in_a_text_do_not_end_its_line(tmp_path: Path) -> None:
    log = RouteLog(tmp_path / "log")
    state = toy_graph("parrot").invoke(
        {"messages": [("user", "one\u2028two\x85three\x0cfour\r\nfive")]}
    )
    log.add(state)
    (route,) = log.routes()
    assert route.question == state["question"]
    assert "\u2028" in route.question
    log.path.write_text("")
    assert log.routes() == []


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), "good", None])
def test_scores_are_from_0_to_1(tmp_path: Path, score: Any) -> None:
    with pytest.raises(DataError, match="it must be a number from 0 to 1"):
        RouteLog(tmp_path / "log").rate("r", score)


def test_what_is_no_route_or_no_log_is_refused(tmp_path: Path) -> None:
    log = RouteLog(tmp_path / "log")
    with pytest.raises(DataError, match="cannot be read"):
        log.routes()
    with pytest.raises(DataError, match="the state has no route"):
        log.add({"messages": []})
    for line in ("nonsense", '{"type": "other", "id": "r"}', "[1]", '{"type": "route"}'):
        log.path.write_text(line)
        with pytest.raises(DataError, match="line 1: not a line of a route log"):
            log.routes()


def test_a_thumb_is_a_score(tmp_path: Path) -> None:
    log = RouteLog(tmp_path / "log")
    log.rate("r", True)
    assert json.loads(log.path.read_text())["score"] == 1.0


# LangSmith -------------------------------------------------------------------------------------------------


def test_feedback_in_langsmith_comes_back_with_its_route() -> None:
    run_id, other = uuid.uuid4(), uuid.uuid4()
    with collector() as got:
        client = tracing_client(api_url=got.url, api_key="not-a-key")
        graph = toy_graph("writer", "counter")
        question = toy_examples(2)[1].question
        with tracing_context(enabled=True, client=client, project_name="der"):
            for its in (run_id, other):
                graph.invoke({"messages": [("user", question)]}, {"run_id": its})
        client.flush()
        rate_run(client, run_id, 0.25, project_name="der", reference="7", comment="no")
        client.flush()
        (given,) = got.feedback.values()
        assert (given["key"], given["score"], given["comment"]) == ("user_score", 0.25, "no")
        found = {route.id: route for route in langsmith_routes(client, "der")}
        with pytest.raises(DataError):
            rate_run(client, run_id, 2.0)
        client.cleanup()
    assert set(found) == {str(run_id), str(other)}
    assert found[str(other)].score is None
    route = found[str(run_id)]
    assert (route.question, route.score, route.reference) == (question, 0.25, "7")
    assert [answer["expert"] for answer in route.answers] == ["writer", "counter"]


def test_messages_are_read_as_langsmith_keeps_them() -> None:
    state = {
        "question": "two?",
        "answer": "2",
        "route": [],
        "messages": [
            {"type": "human", "content": "one?"},
            {"lc": 1, "type": "constructor", "kwargs": {"type": "ai", "content": "1"}},
            AIMessage("a draft", response_metadata={"der_draft": True}),
            {"type": "human", "content": "two?"},
            {"type": "ai", "content": "2"},
        ],
    }
    assert rated_route("r", state, {}).history == (("user", "one?"), ("assistant", "1"))


# Training data ---------------------------------------------------------------------------------------------


def test_a_good_answer_is_the_right_one() -> None:
    (row,) = training_rows([rated({"a": "4", "b": "5", "c": "5"}, score=1.0)]).rows
    assert (row["instruction"], row["output"]) == ("2 + 3?", "5")
    assert scores(row) == {"a": 0.0, "b": 1.0, "c": 1.0}


def test_a_users_own_answer_is_the_right_one() -> None:
    (row,) = training_rows([rated({"a": "5", "b": "6"}, score=0.0, reference="5")]).rows
    assert row["output"] == "5"
    assert scores(row) == {"a": 1.0, "b": 0.0}


def test_a_bad_answer_alone_says_little() -> None:
    """Those who agree with it are as bad; of the others nothing is known, unless a later user knew."""
    bad = rated({"a": "6", "b": "6"}, score=0.0)
    (row,) = training_rows([bad]).rows
    assert row["output"] == ""
    assert scores(row) == {"a": 0.0, "b": 0.0}
    mixed = rated({"a": "5", "b": "6"}, score=0.0)
    export = training_rows([mixed])
    assert (export.rows, export.unknown) == ([], 1)
    (row,) = training_rows([mixed, rated({"c": "5"}, score=1.0)]).rows
    assert row["output"] == "5"
    assert scores(row) == {"a": 1.0, "b": 0.0, "c": 1.0}


def test_what_is_left_out_is_counted() -> None:
    routes = [
        rated({"a": "1"}, question="nobody said"),
        rated({"a": "2"}, question="one expert", score=1.0),
        rated({"a": "3", "b": "3"}, question="both", score=0.9),
        rated({"a": "3"}, question="both", score=1.0, history=(("user", "before"),)),
    ]
    export = training_rows(routes, experts=["a", "b"])
    assert [row["instruction"] for row in export.rows] == ["both"]
    assert (export.unrated, export.incomplete, export.unknown) == (1, 2, 0)


def test_without_any_row_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 questions without feedback"):
        write_training_data(tmp_path / "data.jsonl", [rated({"a": "1"})])
    assert not (tmp_path / "data.jsonl").exists()


def test_experts_that_replay_can_be_trained_on_it(tmp_path: Path) -> None:
    """Routes of an app that asked everyone, rated by users; an agent is trained on that alone."""
    pytest.importorskip("stable_baselines3")
    from der_graph.policies.observation import ObservationConfig
    from der_graph.policies.training import TrainConfig, train_agent

    log = RouteLog(tmp_path / "routes.jsonl")
    graph = toy_graph(*ALL)
    for example in toy_examples(40):
        state = graph.invoke({"messages": [("user", example.question)]})
        log.rate(log.add(state), 0.0, reference=example.reference)  # the parrot spoke last
    data = tmp_path / "feedback.jsonl"
    assert len(write_training_data(data, log.routes(), experts=ALL).rows) == 40
    examples = load_examples(data)
    assert set(examples[0].candidates) == set(ALL)
    # `counter` is right on sums, as the routes had it after `writer`; `facts` on facts; `parrot` never.
    mean = {
        name: sum(each.candidates[name].scores["feedback"] for each in examples) / 40
        for name in ALL
    }
    assert mean == {"writer": 0.0, "counter": 0.5, "facts": 0.5, "parrot": 0.0}

    costs = {expert.name: expert.cost for expert in toy_experts()}
    pool = [
        Expert(name, RecordedChat(data=str(data), model=name), cost=costs[name], ktp=ktp_template("none"))
        for name in ALL
    ]  # fmt: skip
    config = TrainConfig(
        steps=6_000,
        envs=64,
        rollout=8,
        batch=128,
        epochs=6,
        learning_rate=3e-3,
        evaluations=2,
        cost_weight=0.1,
        cost_weight_range=(0.05, 1.0),
        observation=ObservationConfig(question_dims=4, answer_dims=3),
    )
    agent = train_agent(
        pool,
        examples[:32],
        examples[32:],
        tmp_path / "agent",
        config,
        rules=RouteRules(ALL, tuple(costs.values()), 2),
        metric="recorded:feedback",
        encoder=WordEncoder(),
        progress=False,
    )
    der = create_der_graph(pool, agent=agent, max_steps=2).compile()
    routes = {
        example.question.split()[0]: der.invoke({"messages": [("user", example.question)]})["route"]
        for example in examples[32:]
    }
    # Nobody asks the parrot, and facts go to the one who knows them.
    assert all(step["choice"] != "parrot" for route in routes.values() for step in route)
    assert routes["What"][0]["choice"] == "facts"
