"""Feedback on answers of a server that learns."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fakes import three_experts
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore

from der_graph.pool import pool_from
from der_graph.server import create_app, in_background


def ask(client: httpx.Client) -> str:
    body = {"model": "der", "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
    return str(client.post("/v1/chat/completions", json=body).json()["id"])


def app(**settings: Any) -> Any:
    return create_app(pool_from(three_experts()[0]), **settings)


def test_a_completion_is_rated_by_its_id() -> None:
    server = app(learn=InMemoryStore())
    with in_background(server) as address, httpx.Client(base_url=address) as client:
        key = ask(client)
        assert client.post("/v1/feedback", json={"id": key, "score": 1}).status_code == 200
        learner = server.state.der.engine.learner
        assert [(r.key, r.score) for r in learner.memory.routes()] == [(key, 1.0)]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [(b"{", 400, "feedback is"), (b'{"id": 3, "score": 1}', 400, "id must be a text"),
     (b'{"id": "x", "score": 7}', 400, "the score is 7"), (b'{"id": "x"}', 400, "feedback is"),
     (b'{"id": "gone", "score": 1}', 404, "there is no route 'gone'")],
)  # fmt: skip
def test_what_is_wrong_with_it_is_said(body: bytes, status: int, message: str) -> None:
    server = app(learn=InMemoryStore())
    with in_background(server) as address, httpx.Client(base_url=address) as client:
        ask(client)
        reply = client.post(
            "/v1/feedback", content=body, headers={"content-type": "application/json"}
        )
        assert reply.status_code == status
        assert message in reply.json()["error"]["message"]


def test_by_default_nothing_is_learnt() -> None:
    with in_background(app()) as address, httpx.Client(base_url=address) as client:
        key = ask(client)
        reply = client.post("/v1/feedback", json={"id": key, "score": 1})
        assert reply.status_code == 404
        assert "start it with --learn" in reply.json()["error"]["message"]


def test_feedback_that_a_store_does_not_take_may_be_sent_again() -> None:
    class Full(InMemoryStore):
        full = False

        def batch(self, ops: Any) -> Any:
            ops = list(ops)
            if self.full and any(isinstance(op, PutOp) for op in ops):
                raise OSError("no space left on postgresql://me:secret@host")
            return super().batch(ops)

    store = Full()
    with in_background(app(learn=store)) as address, httpx.Client(base_url=address) as client:
        key = ask(client)
        assert client.post("/v1/feedback", json={"id": key, "score": 1}).status_code == 200
        store.full = True
        for _ in range(2):
            reply = client.post("/v1/feedback", json={"id": key, "score": 0})
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
            assert "secret" not in reply.text


def test_as_the_server_ends_routes_that_wait_are_kept() -> None:
    store = InMemoryStore()
    server = app(learn=store)
    with in_background(server) as address, httpx.Client(base_url=address) as client:
        learner = server.state.der.engine.learner
        learner.flush()
        learner._again = float("inf")  # the store is left alone, as one that was locked
        key = ask(client)
    assert [route.key for route in learner.memory.routes()] == [key]
