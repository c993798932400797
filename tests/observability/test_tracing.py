"""Traces that explain a route, proved with a collector that speaks LangSmith's protocol, and with spans."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, collector
from fakes import ScriptedAgent, a_human, chat_expert, scripted_expert
from langchain_core.callbacks import BaseCallbackHandler
from langsmith import Client, tracing_context
from tiny_models import save_tiny

from der_graph import DERContext, Expert, create_der_graph
from der_graph.errors import MissingDependencyError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.observability.tracing import TracingError, hidden, redact, tracing_client

SECRET = "Zanzibar"


@pytest.fixture
def got() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """Clients to stop at the end: they have threads."""
    made: list[Client] = []
    yield made
    for client in made:
        client.cleanup()


def connect(got: Collector, clients: list[Client], **settings: Any) -> Client:
    client = tracing_client(api_url=got.url, api_key="not-a-key", **settings)
    clients.append(client)
    return client


def ask(
    client: Client | None, graph: Any, question: str = "What is 2 + 3?", **settings: Any
) -> Any:
    """One route, traced."""
    with tracing_context(enabled=client is not None, client=client, project_name="der"):
        result = graph.invoke(a_human(question), **settings)
    if client is not None:
        client.flush()
    return result


def two(*answers: str) -> Any:
    texts = answers or ("one draft", "the final word")
    experts = [chat_expert("small", texts[0]), chat_expert("large", texts[1], cost=2.0)]
    return create_der_graph(experts, agent=ScriptedAgent("small", "large")).compile(name="der")


def metadata(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = run["extra"]["metadata"]
    return found


def test_a_trace_tells_why_an_expert_was_asked(got: Collector, clients: list[Client]) -> None:
    context = DERContext(max_cost=5.0, max_steps=3, cost_weight=0.5)
    ask(connect(got, clients), two(), context=context)
    decisions = got.named("der_decision")
    assert [run["outputs"]["choice"] for run in decisions] == ["small", "large", "END"]
    second = decisions[1]
    assert second["run_type"] == "chain"
    seen = second["inputs"]
    assert seen["question"] == "What is 2 + 3?"
    assert [answer["text"] for answer in seen["answers"]] == ["one draft"]
    assert seen["prices"] == {"small": 1.0, "large": 2.0}
    assert (seen["spent"], seen["budget_left"], seen["steps_left"]) == (1.0, 4.0, 2)
    assert seen["time_left"] is None
    assert seen["context"]["cost_weight"] == 0.5
    said = second["outputs"]
    assert said["probabilities"] == {"small": 0.0, "large": 1.0, "END": 0.0}
    assert said["mask"] == {"small": False, "large": True, "END": True}
    assert (said["value"], said["reason"], said["spent"]) == (0.5, "agent", 1.0)
    assert decisions[0]["inputs"]["budget_left"] == 5.0


def test_runs_can_be_filtered_by_expert_and_step(got: Collector, clients: list[Client]) -> None:
    ask(connect(got, clients), two())
    tagged = [run for run in got.runs.values() if "der" in (run.get("tags") or [])]
    assert len(tagged) == 5  # three decisions, two experts
    steps = sorted((run["name"], metadata(run)["der_step"]) for run in tagged)
    assert [step for name, step in steps if name == "der_decision"] == [0, 1, 2]
    models = [run for run in tagged if run["run_type"] == "llm"]
    assert sorted((metadata(r)["der_expert"], metadata(r)["der_step"]) for r in models) == [
        ("large", 1),
        ("small", 0),
    ]
    nodes = [run for run in got.named("large") if run["run_type"] == "chain"]
    assert {metadata(run)["der_cost"] for run in nodes} == {2.0}
    (root,) = [run for run in got.runs.values() if not run.get("parent_run_id")]
    assert root["name"] == "der"
    assert [run["name"] for run in got.children(root)] == [
        "der_agent",
        "small",
        "der_agent",
        "large",
        "der_agent",
        "answer",
    ]


def test_the_step_of_experts_asked_at_once_is_one_run(
    got: Collector, clients: list[Client]
) -> None:
    experts = [chat_expert("small", "4"), chat_expert("large", "4", cost=2.0)]
    graph = create_der_graph(experts, agent=ScriptedAgent("small"), parallel=2).compile(name="der")
    ask(connect(got, clients), graph)
    (step,) = got.named("der_together")
    models = [metadata(run)["der_expert"] for run in got.children(step)]
    assert sorted(models) == ["large", "small"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_local_expert_has_tokens_cost_and_a_name(
    got: Collector, clients: list[Client], tmp_path: Path
) -> None:
    folder = str(save_tiny(tmp_path / "tiny"))
    chat = HuggingFaceChat(model=folder, generation={"max_new_tokens": 8})
    experts = [Expert("tiny", chat, cost=0.5)]
    graph = create_der_graph(experts, agent=ScriptedAgent("tiny")).compile(name="der")
    answer = ask(connect(got, clients), graph)["route"][0]["answer"]
    (run,) = [run for run in got.runs.values() if run["run_type"] == "llm"]
    assert metadata(run)["ls_model_name"] == Path(folder).name  # not where it lies
    assert metadata(run)["ls_provider"] == "huggingface"
    usage = metadata(run)["usage_metadata"]
    assert usage["output_tokens"] == answer["output_tokens"] > 0
    assert usage["input_tokens"] == answer["input_tokens"] > 0
    node = got.named("tiny")[0]
    assert node["outputs"]["route"][0]["answer"]["cost"] == 0.5
    assert node["outputs"]["cost"] == 0.5


def test_nothing_is_sent_when_tracing_is_off(
    got: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGSMITH_ENDPOINT", got.url)
    monkeypatch.setenv("LANGSMITH_API_KEY", "not-a-key")
    two().invoke(a_human("What is 2 + 3?"))  # LANGSMITH_TRACING is false in all tests
    ask(None, two())
    assert got.requests == []


# Redaction -------------------------------------------------------------------------------------------------


def failing() -> Any:
    """A route with a secret in the question, an answer, an error and the user's own metadata."""
    bad, _ = scripted_expert("bad", RuntimeError(f"no such place: {SECRET}"))
    good = chat_expert("good", f"{SECRET} is an island")
    return create_der_graph([bad, good], agent=ScriptedAgent("bad", "good")).compile(name="der")


def test_without_redaction_texts_are_sent(got: Collector, clients: list[Client]) -> None:
    ask(connect(got, clients), failing(), f"Where is {SECRET}?")
    assert SECRET.encode() in b"".join(got.raw)


@pytest.mark.parametrize("streamed", [False, True])
def test_redaction_hides_texts_and_keeps_reasons(
    got: Collector, clients: list[Client], streamed: bool
) -> None:
    client = connect(got, clients, redact=True)
    graph, question = failing(), f"Where is {SECRET}?"
    config: Any = {"metadata": {"note": SECRET}, "configurable": {"thread_id": "thread-7"}}
    if streamed:
        with tracing_context(enabled=True, client=client, project_name="der"):
            list(graph.stream(a_human(question), config, stream_mode="messages"))
        client.flush()
    else:
        ask(client, graph, question, config=config)
    assert got.runs
    assert SECRET.encode() not in b"".join(got.raw)
    decision = got.named("der_decision")[1]
    assert decision["outputs"]["choice"] == "good"
    assert decision["outputs"]["probabilities"] == {"bad": 0.0, "good": 1.0, "END": 0.0}
    assert decision["outputs"]["reason"] == "agent"
    assert decision["inputs"]["prices"] == {"bad": 1.0, "good": 1.0}
    assert decision["inputs"]["question"] == f"[hidden: {len(question)} characters]"
    (failed,) = decision["inputs"]["answers"]
    assert failed["expert"] == "bad"
    assert failed["error"].startswith("[hidden")
    model = next(run for run in got.runs.values() if run["run_type"] == "llm")
    assert metadata(model)["der_expert"] == "good"
    assert metadata(model)["langgraph_node"] == "good"


def test_an_error_that_ends_the_run_keeps_its_class(got: Collector, clients: list[Client]) -> None:
    expert, _ = scripted_expert("bad", RuntimeError(SECRET))
    graph = create_der_graph([expert], agent=ScriptedAgent("bad")).compile(name="der")
    client = connect(got, clients, redact=True)
    with pytest.raises(Exception, match=SECRET):
        ask(client, graph)
    client.flush()
    assert SECRET.encode() not in b"".join(got.raw)
    assert got.named("der")[0]["error"].startswith("AllExpertsFailedError: [hidden: ")


def test_what_is_shown_in_place_of_a_text_is_yours(got: Collector, clients: list[Client]) -> None:
    client = connect(got, clients, redact=lambda text: text.replace(SECRET, "***"))
    ask(client, failing(), f"Where is {SECRET}?")
    assert SECRET.encode() not in b"".join(got.raw)
    assert got.named("der_decision")[0]["inputs"]["question"] == "Where is ***?"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"score": 0.5, "n": 3, "ok": True, "none": None}, {"score": 0.5, "n": 3, "ok": True, "none": None}),
        ({"text": "abc", "empty": ""}, {"text": "[hidden: 3 characters]", "empty": ""}),
        ({"choice": "a", "reason": "agent"}, {"choice": "a", "reason": "agent"}),
        ({"choice": {"deep": "abc"}}, {"choice": {"deep": "[hidden: 3 characters]"}}),
        ({"answers": ["ab", 1]}, {"answers": ["[hidden: 2 characters]", 1]}),
        ({"error": "KeyError('abc')"}, {"error": "KeyError: [hidden: 15 characters]"}),
        ({"id": ["langchain", "schema", "HumanMessage"]}, {"id": ["langchain", "schema", "HumanMessage"]}),
        ({"id": ["ab"]}, {"id": ["[hidden: 2 characters]"]}),
        ({"der_expert": "a", "ls_model_name": "m"}, {"der_expert": "a", "ls_model_name": "m"}),
        (["ab"], ["[hidden: 2 characters]"]),
        ({"odd": Path("ab")}, {"odd": "[hidden: 2 characters]"}),
    ],
)  # fmt: skip
def test_numbers_and_names_stay(data: Any, expected: Any) -> None:
    before = repr(data)
    assert redact(data) == expected
    assert repr(data) == before  # a copy
    assert hidden("abc") == "[hidden: 3 characters]"


def test_contradicting_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TracingError, match="redact or anonymizer, not both"):
        tracing_client(redact=True, anonymizer=lambda data: data)
    import importlib

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[tracing\]'"):
        tracing_client(tracer_provider=object())


# OpenTelemetry ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hide", [False, True])
def test_routes_become_spans(got: Collector, clients: list[Client], hide: bool) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client = connect(got, clients, tracer_provider=provider, redact=hide)
    ask(client, failing(), f"Where is {SECRET}?")
    spans = exporter.get_finished_spans()
    provider.shutdown()
    names = [span.name for span in spans]
    assert names.count("der_decision") == 3
    assert {"der", "bad", "good", "answer"} <= set(names)
    decision = next(span for span in spans if span.name == "der_decision")
    attributes = dict(decision.attributes or {})
    assert attributes["langsmith.metadata.der_step"] in (0, "0")
    told = json.loads(str(attributes["gen_ai.completion"]))
    assert told["choice"] == "bad"
    assert told["mask"] == {"bad": True, "good": True, "END": False}
    everything = " ".join(str(dict(span.attributes or {})) + str(span.events) for span in spans)
    assert (SECRET in everything) != hide
    assert not [request for request in got.requests if "runs" in request]  # to OpenTelemetry alone


# Other tracers ---------------------------------------------------------------------------------------------


def test_callbacks_see_decisions_and_experts_as_well() -> None:
    """What is not LangSmith listens to LangChain's callbacks."""
    seen: list[tuple[str, Any]] = []

    class Listening(BaseCallbackHandler):
        def on_chain_start(self, serialized: Any, inputs: Any, **more: Any) -> None:
            if more.get("name") == "der_decision":
                seen.append(("decision", more["metadata"]["der_step"]))

        def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            seen.append((more["metadata"]["der_expert"], more["metadata"]["der_step"]))

    two().invoke(a_human("What is 2 + 3?"), {"callbacks": [Listening()], "run_id": uuid.uuid4()})
    assert seen == [("decision", 0), ("small", 0), ("decision", 1), ("large", 1), ("decision", 2)]
