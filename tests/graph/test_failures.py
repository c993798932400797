"""Experts and policies that fail: the route goes on, and nobody is asked twice."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from fakes import (
    FailingAgent,
    ScriptedAgent,
    a_human,
    route_of,
    scripted_expert,
    three_experts,
)
from langchain_core import exceptions
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.types import RetryPolicy
from provider_stub import provider, remote_model

from der_graph import ChatDER, Expert, create_der_graph
from der_graph.errors import (
    AllExpertsFailedError,
    ExpertError,
)
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.failures import as_langchain


@pytest.mark.parametrize("failure", [OSError("disk on fire\nand more"), "", "  ", None])
def test_when_an_expert_fails_the_route_goes_on(failure: Any) -> None:
    bad, _ = scripted_expert("bad", AIMessage("") if failure is None else failure)
    good, model = scripted_expert("good", "5", cost=2.0)
    result = (
        create_der_graph([bad, good], agent=ScriptedAgent("bad", "good"))
        .compile()
        .invoke(a_human("2 + 3?"))
    )
    assert route_of(result) == ["bad", "good", "END"]
    assert result["answer"] == "5"
    assert result["cost"] == 3.0  # the failed call is paid for
    failed = result["route"][0]["answer"]
    assert failed["text"] == ""
    expected = (
        "OSError: disk on fire" if isinstance(failure, OSError) else "returned an empty answer"
    )
    assert failed["error"] == expected
    assert result["route"][1]["mask"] == {"bad": False, "good": True, "END": False}
    assert [message.text for message in model.prompts[0]] == ["2 + 3?"]


def test_a_function_that_returns_nothing_has_failed() -> None:
    def forgetful(messages: list[Any]) -> None:
        return None

    bad = Expert("bad", RunnableLambda(forgetful), cost=1.0)
    good, _ = scripted_expert("good", "5")
    result = (
        create_der_graph([bad, good], agent=ScriptedAgent("bad", "good"))
        .compile()
        .invoke(a_human("2 + 3?"))
    )
    assert result["route"][0]["answer"]["error"] == "returned nothing"
    assert result["answer"] == "5"


def test_an_earlier_answer_counts_when_the_last_expert_fails() -> None:
    good, _ = scripted_expert("good", "5")
    bad, _ = scripted_expert("bad", OSError("no"))
    result = (
        create_der_graph([good, bad], agent=ScriptedAgent("good", "bad"))
        .compile()
        .invoke(a_human("2 + 3?"))
    )
    assert route_of(result) == ["good", "bad", "END"]
    assert result["answer"] == "5"


def test_when_all_fail_the_error_tells_why() -> None:
    experts = [scripted_expert(name, OSError(f"{name} is down"))[0] for name in ("a", "b")]
    graph = create_der_graph(experts, agent=ScriptedAgent("a", "b")).compile()
    with pytest.raises(
        AllExpertsFailedError, match=r"a: OSError: a is down; b: OSError: b is down"
    ):
        graph.invoke(a_human("2 + 3?"))


REFUSED = {
    400: ("This model's maximum context length is 8192 tokens.", "ContextOverflowError", False),
    401: ("no such key", "ModelAuthenticationError", False),
    429: ("slow down", "ModelRateLimitError", True),
    503: ("out of order", "ModelConnectionError", True),
}


@pytest.mark.parametrize("status", REFUSED)
def test_where_all_fail_alike_the_error_is_langchains_too(status: int) -> None:
    """Middleware, retries and fallbacks around a model go by these classes."""
    message, name, passes = REFUSED[status]
    theirs: Any = getattr(exceptions, name, None)
    if theirs is None:
        pytest.skip("this langchain-core has no such class")
    with provider(lambda body: {"status": status, "error": {"message": message}}) as stub:
        experts = [as_expert(remote_model(stub.url), name=name, cost=1.0) for name in "ab"]
        model = ChatDER(experts=experts, agent=ScriptedAgent("a", "b"))
        with pytest.raises(AllExpertsFailedError) as caught:
            model.invoke("2 + 3?")
        mixed = [experts[0], scripted_expert("c", ValueError("broken"))[0]]
        with pytest.raises(AllExpertsFailedError) as other:
            ChatDER(experts=mixed, agent=ScriptedAgent("a", "c")).invoke("2 + 3?")
    assert isinstance(caught.value, theirs)
    assert (type(caught.value).__name__, len(caught.value.answers)) == ("AllExpertsFailedError", 2)
    assert theirs.is_retryable is passes
    assert not isinstance(other.value, exceptions.ModelError)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(sent, (AllExpertsFailedError, theirs))
    assert (str(sent), sent.answers) == (str(caught.value), caught.value.answers)


def test_the_first_that_may_be_asked_again_tells_when() -> None:
    def busy(body: Any) -> dict[str, Any]:
        wait = {"a": "30", "b": "20"}[body["model"]]
        return {"status": 429, "error": {"message": "slow down"}, "headers": {"Retry-After": wait}}

    with provider(busy) as stub:
        experts = [as_expert(remote_model(stub.url, name), name=name, cost=1.0) for name in "ab"]
        with pytest.raises(AllExpertsFailedError) as caught:
            ChatDER(experts=experts, agent=ScriptedAgent("a", "b")).invoke("2 + 3?")
    assert caught.value.retry_after == 20.0


def test_a_graph_whose_experts_all_failed_is_not_asked_again() -> None:
    """Its experts were."""
    with provider(lambda body: {"status": 500, "error": {"message": "no"}}) as stub:
        inner = as_expert(remote_model(stub.url), name="a", cost=1.0)
        graph = create_der_graph([inner], agent=ScriptedAgent("a")).compile()
        outer = create_der_graph([as_expert(graph, name="g", cost=1.0)], agent=ScriptedAgent("g"))
        with pytest.raises(AllExpertsFailedError):
            outer.compile().invoke(a_human("2 + 3?"))
        assert len(stub.requests) == 2


@pytest.mark.parametrize("name", ["ContextOverflowError", "ModelRateLimitError"])
def test_an_older_langchain_has_no_such_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"langchain_core.exceptions.{name}", raising=False)
    as_langchain.cache_clear()
    kinds = {"ContextOverflowError": "context_length", "ModelRateLimitError": "rate_limit"}
    assert as_langchain(AllExpertsFailedError, kinds[name]) is AllExpertsFailedError
    as_langchain.cache_clear()


def test_who_was_shut_out_by_others_failures_is_asked_at_last() -> None:
    """Other requests' failures open the breaker of `a` while this one is on its way to it."""
    (a, _), (b, _) = scripted_expert("a", "5"), scripted_expert("b", ValueError("boom"))
    breaker, enter = a.health.breaker, a.health.breaker.enter

    def race(*, insist: bool = False) -> bool:
        if breaker.view().state == "closed":
            for _ in range(3):
                breaker.failure("error")
        return enter(insist=insist)

    breaker.enter = race  # type: ignore[method-assign]
    graph = create_der_graph([a, b], agent=ScriptedAgent("a", "b", "a")).compile()
    result = graph.invoke(a_human("2 + 3?"))
    assert route_of(result) == ["a", "b", "a", "END"]
    assert result["answer"] == "5"


def test_a_failure_can_end_the_run_or_be_retried() -> None:
    flaky, model = scripted_expert("flaky", OSError("once"), "5")
    builder = create_der_graph([flaky], agent=ScriptedAgent("flaky"), on_error="raise")
    with pytest.raises(ExpertError, match="expert 'flaky': OSError: once"):
        builder.compile().invoke(a_human("2 + 3?"))
    model.prompts.clear()
    builder.set_node_defaults(retry_policy=RetryPolicy(retry_on=ExpertError, initial_interval=0.0))
    assert builder.compile().invoke(a_human("2 + 3?"))["answer"] == "5"


def test_retrying_a_policy_does_not_ask_an_expert_again() -> None:
    experts, models = three_experts()
    builder = create_der_graph(experts, agent=FailingAgent(1, "small", "large"), on_error="raise")
    builder.set_node_defaults(retry_policy=RetryPolicy(initial_interval=0.0, jitter=False))
    result = builder.compile().invoke(a_human("2 + 3?"))
    assert route_of(result) == ["small", "large", "END"]
    assert [len(model.prompts) for model in models.values()] == [1, 0, 1]
