"""The examples run and do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkout import load_example
from toy import WordEncoder, toy_agent, toy_examples, toy_experts, toy_source


def test_embedded_as_a_subgraph(repo_root: Path) -> None:
    from der_graph.pool import pool_from

    app = load_example(repo_root, "embed_as_subgraph").build_app(
        pool_from(toy_experts(), max_steps=3), toy_agent(toy_source(8))
    )
    greeted = app.invoke({"messages": [("user", "hello")]})["messages"]
    assert [message.type for message in greeted] == ["human", "ai"]
    assert "Hello" in greeted[-1].text
    question = toy_examples(2)[1].question
    answered = app.invoke({"messages": [("user", question)]})["messages"]
    assert [message.type for message in answered] == ["human", "ai"]
    assert answered[-1].response_metadata["der_experts"]


@pytest.mark.slow
def test_a_pool_of_your_own(repo_root: Path) -> None:
    pytest.importorskip("stable_baselines3")
    route = load_example(repo_root, "own_pool").main(encoder=WordEncoder())
    assert route == ["price-list", "till", "END"]


def test_one_chat_model(repo_root: Path) -> None:
    from der_graph import ChatDER
    from der_graph.pool import pool_from

    der = ChatDER(pool=pool_from(toy_experts(), max_steps=3), agent=toy_agent(toy_source(8)))
    shown = load_example(repo_root, "one_chat_model").main(der)
    assert shown["text"] == shown["streamed"] != ""
    assert shown["answers"] == 4
    assert shown["route"][-1] == "END"
    assert len(shown["route"]) >= 2


def test_tracing_and_feedback(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = load_example(repo_root, "tracing").main()
    assert b"der_decision" in seen["sent"]
    assert b"3 * 4" not in seen["sent"]  # redacted
    assert seen["row"]["output"] == "12"
    assert "0 guesser" in capsys.readouterr().out


def test_a_remote_expert(repo_root: Path) -> None:
    example = load_example(repo_root, "remote_expert")
    with example.stub_server() as address:
        state = example.main(address)
    assert [step["choice"] for step in state["route"]] == ["local", "remote", "END"]
    assert state["answer"] == "4, as the other one said."  # it was told
    assert state["cost"] == pytest.approx(0.1 + (20 * 10_000 + 6 * 30_000) / 1e6)


@pytest.mark.slow
def test_adding_an_expert(repo_root: Path) -> None:
    pytest.importorskip("stable_baselines3")
    route = load_example(repo_root, "adding_an_expert").main(encoder=WordEncoder())
    assert "adder" in route


def test_experts_in_a_langchain_agent(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain")
    result = load_example(repo_root, "agent_middleware").main()
    assert [step["choice"] for step in result["der_route"]] == ["small", "large", "small"]
    assert "room 4 is booked. It cost 12.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("first_minute", ["102", "['middle', 'END'] 4.0", "['small', "]),
        ("slow_and_failing_experts", ["It is 102.", "slow agent overtaken", "steady hedge None"]),
    ],
)
def test_the_notebooks_run(
    repo_root: Path, capsys: pytest.CaptureFixture[str], name: str, printed: list[str]
) -> None:
    if name == "slow_and_failing_experts":
        for package in ("fastapi", "uvicorn", "prometheus_client", "openai"):
            pytest.importorskip(package, reason="needs the extras serve and test")
    path = repo_root / "examples" / "notebooks" / f"{name}.ipynb"
    scope: dict[str, object] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), scope)
    out = capsys.readouterr().out
    assert [each for each in printed if each not in out] == [], out
