"""Memory of failures: when an expert is not asked, for how long, and what ends it."""

from __future__ import annotations

import asyncio
import pickle
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fakes import ScriptedAgent, a_human, route_of, scripted_expert, three_experts
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from der_graph import Expert, create_der_graph
from der_graph.errors import ExpertError
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.providers import Failure as Meaning
from der_graph.nodes.reliability import Breaker, Health, failure_of, is_free
from der_graph.nodes.reliability.failures import LONGEST_WAIT


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_breaker() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker("a", failures=3, cooldown=10.0, longest=35.0, clock=clock), clock


def fail(breaker: Breaker, times: int = 1, **more: Any) -> None:
    for _ in range(times):
        assert breaker.enter(insist=True)
        breaker.failure("timeout", **more)


def test_three_failures_in_a_row_open_it_for_the_cooldown() -> None:
    breaker, clock = a_breaker()
    fail(breaker, 2)
    assert breaker.allows()
    fail(breaker)
    assert not breaker.allows()
    assert not breaker.enter()
    assert breaker.view() == ("open", "timeout", 10.0, 3)
    clock.now = 9.99
    assert not breaker.allows()
    clock.now = 10.0
    assert breaker.allows()
    assert breaker.view().state == "half_open"


def test_an_answer_between_them_begins_the_count_anew() -> None:
    breaker, _ = a_breaker()
    for _ in range(5):
        fail(breaker, 2)
        breaker.success()
    assert breaker.view() == ("closed", None, 0.0, 0)


def test_one_probe_at_a_time_and_a_failed_one_doubles_the_cooldown() -> None:
    breaker, clock = a_breaker()
    fail(breaker, 3)
    for cooldown in (20.0, 35.0, 35.0):  # twice as long each time, 35 at the most
        clock.now += breaker.view().retry_in
        assert breaker.enter()
        assert not breaker.allows()  # the probe is under way
        assert not breaker.enter()
        breaker.failure("timeout")
        assert breaker.view().retry_in == cooldown
    clock.now += 35.0
    assert breaker.enter()
    breaker.success()
    assert breaker.view().state == "closed"
    fail(breaker, 3)
    assert breaker.view().retry_in == 10.0  # as at first


def test_a_probe_that_says_nothing_leaves_the_door_to_another() -> None:
    breaker, clock = a_breaker()
    fail(breaker, 3)
    clock.now = 10.0
    assert breaker.enter()
    breaker.leave()
    assert breaker.enter()
    clock.now = 131.0  # the probe never came back
    assert breaker.enter()


def test_calls_that_were_under_way_do_not_lengthen_it() -> None:
    breaker, clock = a_breaker()
    fail(breaker, 3)
    clock.now = 4.0
    breaker.failure("timeout")
    assert breaker.view().retry_in == 6.0


def test_retry_after_opens_it_at_once_for_as_long() -> None:
    breaker, clock = a_breaker()
    fail(breaker, 1, retry_after=50.0)
    assert breaker.view() == ("open", "timeout", 50.0, 1)
    clock.now = 20.0
    fail(breaker, 1, retry_after=5.0)  # another call's says less
    assert breaker.view().retry_in == 30.0


@given(st.lists(st.sampled_from(["success", "failure", "wait", "enter", "leave"]), max_size=40))
def test_it_never_shuts_for_ever_nor_lets_two_probes_in(events: list[str]) -> None:
    breaker, clock = a_breaker()
    probing = 0
    for event in events:
        if event == "wait":
            clock.now += 5.0
        elif event == "enter":
            was_open = breaker.view().state != "closed"
            allowed = breaker.allows()
            entered = breaker.enter()
            assert entered == allowed
            probing += entered and was_open
        else:
            getattr(breaker, event)(*(["error"] if event == "failure" else []))
            probing = 0
        assert probing <= 1
        assert breaker.view().retry_in <= 35.0
    clock.now += 200.0
    assert breaker.allows()


# What counts --------------------------------------------------------------------------------------


def http_error(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    response = httpx.Response(status, request=request, headers=headers)
    return httpx.HTTPStatusError("no", request=request, response=response)


@pytest.mark.parametrize(
    ("error", "kind", "retry_after"),
    [
        (http_error(429, **{"Retry-After": "7"}), "rate_limit", 7.0),
        (http_error(429, **{"retry-after-ms": "1500"}), "rate_limit", 1.5),
        (http_error(503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), "unavailable", 0.0),
        (http_error(429, **{"Retry-After": "1e9"}), "rate_limit", LONGEST_WAIT),
        (http_error(429, **{"Retry-After": "soon"}), "rate_limit", None),
        (http_error(401), "auth", None),
        (http_error(402), "auth", None),
        (http_error(400), "request", None),
        (http_error(500), "unavailable", None),
        (ConnectionRefusedError("refused"), "unavailable", None),
        (httpx.ConnectError("refused"), "unavailable", None),
        (httpx.ReadTimeout("slow"), "timeout", None),
        (TimeoutError(), "timeout", None),
        (asyncio.TimeoutError(), "timeout", None),
        (asyncio.CancelledError(), "cancelled", None),
        (SystemExit(3), "exit", None),
        (KeyboardInterrupt(), "exit", None),
        (ExpertError("the prompt has 5000 tokens"), "context_length", None),
        (ValueError("odd"), "error", None),
        (OSError("disk on fire"), "error", None),
    ],
)
def test_kinds_of_failures(error: BaseException, kind: str, retry_after: float | None) -> None:
    failure = failure_of(error)
    assert (failure.kind, failure.retry_after) == (kind, retry_after)


@pytest.mark.parametrize("headers", [[("retry-after", "7")], None, 5, {"retry-after": object()}])
def test_headers_of_another_form_say_nothing(headers: Any) -> None:
    error: Any = http_error(429)
    error.response = SimpleNamespace(status_code=429, headers=headers)
    failure = failure_of(error)
    assert (failure.kind, failure.retry_after) == ("rate_limit", None)


def test_an_error_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[BaseException] = []

    def meaning(error: BaseException) -> Meaning:
        read.append(error)
        return Meaning("request")

    monkeypatch.setattr("der_graph.nodes.reliability.failures.providers.failure_of", meaning)
    assert failure_of(ValueError("odd")).kind == "request"
    assert len(read) == 1


def test_what_costs_nothing() -> None:
    free = {"auth", "busy", "open", "rate_limit", "request", "unavailable", "timeout", "deadline"}
    kinds: Any = [*free, "error", "empty", "cancelled", "exit"]
    assert {kind for kind in kinds if is_free(kind, spoken=False)} == free
    ran_here = {kind for kind in kinds if is_free(kind, spoken=False, ran=True)}
    assert ran_here == free - {"timeout", "deadline"}
    assert {kind for kind in kinds if is_free(kind, spoken=True)} == {"busy", "open"}


def test_a_date_that_has_passed_asks_for_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker("a")
    breaker.failure("unavailable", 0.0)
    assert breaker.view().state == "closed"
    assert not caplog.records


def test_keys_in_a_providers_words_are_masked() -> None:
    expert, _ = scripted_expert("a", "5")
    answer = expert.answer_from(ValueError("bad key sk-abcdefghijklmnop1234 given"), 0.1)
    assert answer["error"] == "ValueError: bad key *** given"


def test_tiny_deadlines_do_not_get_an_expert_out_of_the_way() -> None:
    """Else anybody could: three requests with a deadline of a millisecond."""
    health = Health()
    health.answered(2.0)
    for _ in range(9):
        health.failed("deadline", limit=5.9)  # less than three times what it usually takes
    assert health.breaker.allows()
    for _ in range(3):
        health.failed("deadline", limit=6.1)
    assert not health.breaker.allows()
    unknown = Health()
    for _ in range(9):
        unknown.failed("timeout", limit=0.2)
    assert unknown.breaker.allows()


@pytest.mark.parametrize("kind", ["request", "context_length", "content_filter", "format", "cut"])
def test_what_one_request_is_refused_is_no_failing_expert(kind: Any) -> None:
    health = Health()
    for _ in range(9):
        health.failed(kind)
    assert health.breaker.allows()


FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("said", "settings", "kind"),
    [
        (AIMessage("no JSON"), {"response_format": FORM}, "format"),
        (AIMessage("", response_metadata={"finish_reason": "length"}), {"max_tokens": 1}, "cut"),
        (AIMessage("", response_metadata={"finish_reason": "stop"}), {"stop": ["4"]}, "cut"),
    ],
)
def test_what_a_request_demands_tells_nothing_about_an_expert(
    said: AIMessage, settings: dict[str, Any], kind: str
) -> None:
    expert, model = scripted_expert("a", *[said] * 5, AIMessage("42"))
    for _ in range(5):
        (answer,) = expert.ask([[HumanMessage("6 * 7?")]], settings=settings)
        assert answer["failure"] == kind
        assert answer["cost"] == 1.0  # it was generated
    assert expert.health.breaker.view().failures == 0
    assert len(model.prompts) == 5


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_an_empty_answer_that_no_request_asked_for_does_tell(finish: str) -> None:
    empty = AIMessage("", response_metadata={"finish_reason": finish})
    expert, _ = scripted_expert("a", empty)
    (answer,) = expert.ask([[HumanMessage("6 * 7?")]])
    assert answer["failure"] == "empty"
    assert expert.health.breaker.view().failures == 1


def test_a_model_that_is_no_more_is_not_asked_for_ever() -> None:
    class GoneError(RuntimeError):
        status_code = 404

    gone, model = scripted_expert("gone", GoneError("the model does not exist"))
    good, _ = scripted_expert("good", "5")
    graph = create_der_graph([gone, good], agent=ScriptedAgent("gone", "good")).compile()
    for _ in range(10):
        graph.invoke(a_human("2 + 3?"))
    assert len(model.prompts) == 3


def test_a_copy_in_another_process_knows_nothing() -> None:
    health = Health()
    health.failed("auth", retry_after=60.0)
    assert pickle.loads(pickle.dumps(health)).breaker.allows()


# In the graph -------------------------------------------------------------------------------------


def test_a_dead_expert_is_asked_three_times_of_a_hundred() -> None:
    calls = []

    def dead(question: str) -> str:
        calls.append(question)
        raise ConnectionError("refused")

    good, _ = scripted_expert("good", "5", cost=2.0)
    patient = Health(breaker=Breaker(cooldown=300.0))  # the test may take longer than the usual one
    experts = [replace(as_expert(dead, name="dead", cost=1.0), health=patient), good]
    graph = create_der_graph(experts, agent=ScriptedAgent("dead", "good")).compile()
    routes = [graph.invoke(a_human("2 + 3?"))["route"] for _ in range(100)]
    assert len(calls) == 3
    assert [step["choice"] for step in routes[-1]] == ["good", "END"]
    assert routes[-1][0]["mask"] == {"dead": False, "good": True, "END": False}
    assert routes[-1][1]["reason"] == "unavailable"
    # All graphs over this expert know it.
    other = create_der_graph(experts, agent=ScriptedAgent("dead", "good")).compile()
    assert route_of(other.invoke(a_human("2 + 3?"))) == ["good", "END"]
    assert len(calls) == 3


def test_where_nobody_else_is_left_it_is_asked_all_the_same() -> None:
    expert, model = scripted_expert("a", *[OSError("no")] * 3, "5")
    graph = create_der_graph([expert], agent=ScriptedAgent("a")).compile()
    for _ in range(3):
        with pytest.raises(ExpertError):
            graph.invoke(a_human("2 + 3?"))
    assert not expert.health.breaker.allows()
    assert graph.invoke(a_human("2 + 3?"))["answer"] == "5"
    assert len(model.prompts) == 4
    assert expert.health.breaker.allows()


def test_failed_calls_take_neither_steps_nor_a_budget_that_they_did_not_cost() -> None:
    down, _ = scripted_expert("down", ConnectionError("refused"), cost=1.0)
    experts, _ = three_experts()
    graph = create_der_graph([down, *experts], agent=ScriptedAgent("down", "small")).compile()
    result = graph.invoke(a_human("2 + 3?"), context={"max_cost": 1.0, "max_steps": 1})
    assert route_of(result) == ["down", "small", "END"]
    assert result["cost"] == 1.0
    failed = result["route"][0]["answer"]
    assert (failed["failure"], failed["cost"]) == ("unavailable", 0.0)


def test_a_failure_that_passes_is_tried_again_only_where_nobody_else_is_left() -> None:
    flaky, model = scripted_expert("flaky", ConnectionError("reset"), "5")
    alone = create_der_graph([flaky], agent=ScriptedAgent("flaky")).compile()
    assert route_of(alone.invoke(a_human("2 + 3?"))) == ["flaky", "END"]
    assert len(model.prompts) == 2
    flaky, model = scripted_expert("flaky", ConnectionError("reset"), "5")
    good, _ = scripted_expert("good", "6")
    graph = create_der_graph([flaky, good], agent=ScriptedAgent("flaky", "good")).compile()
    assert route_of(graph.invoke(a_human("2 + 3?"))) == ["flaky", "good", "END"]
    assert len(model.prompts) == 1


def busy_at_first(busy: float, wait: float) -> tuple[Expert, list[str]]:
    """Refuses whoever comes within so many seconds of the first call, with a time to wait."""
    calls: list[str] = []
    began: list[float] = []

    class TooManyError(RuntimeError):
        status_code = 429
        response = SimpleNamespace(headers={"retry-after": str(wait)})

    async def answer(question: str) -> str:
        calls.append(question)
        began.append(time.monotonic())
        await asyncio.sleep(0)  # the others are let in meanwhile
        if began[-1] - began[0] < busy:
            raise TooManyError("rate limited")
        return "5"

    return as_expert(answer, name="a", cost=1.0), calls


@pytest.mark.parametrize("many", [1, 5, 40])
def test_all_who_share_a_refusal_are_answered_after_the_wait(many: int) -> None:
    expert, calls = busy_at_first(0.1, 0.3)
    graph = create_der_graph([expert], agent=ScriptedAgent("a")).compile()

    async def ask_all() -> list[Any]:
        return list(await asyncio.gather(*(graph.ainvoke(a_human("2 + 3?")) for _ in range(many))))

    assert [state["answer"] for state in asyncio.run(ask_all())] == ["5"] * many
    assert many < len(calls) <= 2 * many


def test_a_wait_for_the_breaker_is_not_the_one_more_try() -> None:
    expert, model = scripted_expert("a", ConnectionError("reset"), "5")
    expert.health.breaker.failure("rate_limit", 0.1)
    (answer,) = expert.ask([[HumanMessage("2 + 3?")]], insist=False)
    assert (answer["text"], len(model.prompts)) == ("5", 2)


def test_nobody_else_means_asked_all_the_same_also_while_others_probe() -> None:
    """A long wait is not sat out, and the caller is told what the provider said."""
    expert, calls = busy_at_first(1e9, 40.0)
    graph = create_der_graph([expert], agent=ScriptedAgent("a")).compile()

    async def ask_all() -> list[Any]:
        work = (graph.ainvoke(a_human("2 + 3?")) for _ in range(12))
        return list(await asyncio.gather(*work, return_exceptions=True))

    errors = asyncio.run(ask_all())
    assert [error.answers[0]["failure"] for error in errors] == ["rate_limit"] * 12
    assert {error.answers[0]["retry_after"] for error in errors} == {40.0}
    assert len(calls) == 12


def test_where_another_can_answer_nobody_waits() -> None:
    expert, calls = busy_at_first(1e9, 2.0)
    good, _ = scripted_expert("good", "6")
    graph = create_der_graph([expert, good], agent=ScriptedAgent("a", "good")).compile()
    expert.health.breaker.failure("rate_limit", 2.0)
    (answer,) = expert.ask([[HumanMessage("2 + 3?")]], fallback="expert", insist=False)
    assert (answer["failure"], answer["cost"], calls) == ("open", 0.0, [])
    assert 0 < answer["retry_after"] <= 2.0
    assert graph.invoke(a_human("2 + 3?"))["answer"] == "6"


def test_copies_of_an_expert_share_what_is_known() -> None:
    expert, _ = scripted_expert("a", "5")
    copy = replace(expert, cost=3.0)
    assert copy.health is expert.health
    assert isinstance(copy, Expert)


def test_a_moment_that_a_provider_asks_for_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "der_graph.reliability")
    breaker = Breaker("a")
    for wait, level in ((1.0, "INFO"), (60.0, "WARNING")):
        breaker.failure("rate_limit", wait)
        breaker.success()
        assert [record.levelname for record in caplog.records] == [level] * 2
        caplog.clear()
