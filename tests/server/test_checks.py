"""What the server finds out about its experts by itself: those that answer again, those that became bad."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from fakes import ScriptedAgent, scripted_expert, three_experts

from der_graph import Expert
from der_graph.errors import ServerError
from der_graph.nodes.langchain import as_expert
from der_graph.pool import pool_from
from der_graph.pool.health_checks import check
from der_graph.server import create_app, in_background


def out_of_order(expert: Expert, *, cooldown: float = 0.0) -> Expert:
    """The expert after three failures, whose cooldown is over, or is not."""
    breaker = expert.health.breaker
    breaker._first = breaker._cooldown = cooldown
    for _ in range(3):
        breaker.failure("unavailable")
    return expert


def test_an_expert_that_answers_again_is_found_before_a_user_asks() -> None:
    expert, model = scripted_expert("a", "ready")
    assert asyncio.run(check(out_of_order(expert))) is True
    assert expert.health.breaker.view().state == "closed"
    assert "ready" in model.prompts[0][0].text
    assert asyncio.run(check(expert)) is None  # well: nothing is spent on it
    assert len(model.prompts) == 1


def test_one_that_still_fails_is_asked_once_a_cooldown() -> None:
    expert, model = scripted_expert("a", ConnectionError("refused"))
    assert asyncio.run(check(out_of_order(expert))) is False
    out_of_order(expert, cooldown=60.0)
    expert.health.breaker.failure("unavailable", 60.0)
    assert asyncio.run(check(expert)) is None
    assert len(model.prompts) == 1


def test_the_server_checks_by_itself() -> None:
    asked = threading.Event()

    def answer(question: str) -> str:
        asked.set()
        return "ready"

    expert = out_of_order(as_expert(answer, name="a", cost=1.0))
    app = create_app(pool_from([expert, scripted_expert("b", "5")[0]]), health_interval=0.01)
    with in_background(app):
        assert asked.wait(60)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_an_interval_is_above_zero(seconds: float) -> None:
    with pytest.raises(ServerError, match="health_interval is"):
        create_app(pool_from(three_experts()[0]), health_interval=seconds)


def test_an_expert_that_became_bad_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    turned: list[bool] = []

    def answers(name: str) -> Any:
        def say(question: str) -> str:
            number = question.rsplit(maxsplit=1)[-1].strip("?")
            return f"{number}77" if turned and name == "b" else number

        return as_expert(say, name=name, cost=1.0)

    pool = pool_from([answers(name) for name in "abc"], ktp="none")
    app = create_app(pool, ScriptedAgent("a", "b", "c"))
    with in_background(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        for number in range(100):
            if number == 60:
                assert client.get("/readyz").json() == {"status": "ready"}
                turned.append(True)
            message = {"role": "user", "content": f"What is {number}?"}
            client.post("/v1/chat/completions", json={"model": "der", "messages": [message]})
        ready = client.get("/readyz").json()
        assert ready["status"] == "degraded"
        assert ready["experts"]["b"]["suspected"] is True
        assert list(ready["experts"]) == ["b"]
        page = client.get("/metrics").text
    assert 'der_expert_suspected{expert="b"} 1.0' in page
    assert 'der_expert_suspected{expert="a"} 0.0' in page
    assert "expert 'b': agrees with the others far less than it used to" in caplog.text
