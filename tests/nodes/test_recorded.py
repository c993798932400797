from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig

from der_graph.errors import DataError, ExpertError
from der_graph.nodes.recorded import RecordedChat, recorded_models


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        {
            "id": "1",
            "instruction": "What is 2 + 3?",
            "input": "",
            "output": "5",
            "candidates": [
                {
                    "model": "a",
                    "text": "It is 5.",
                    "scores": {"accuracy": 1},
                    "answer": "5",
                    "tokens": 9,
                },
                {"model": "b", "text": "Six, I think", "scores": {"accuracy": 0}},
            ],
        },
        {
            "id": "2",
            "instruction": "Name a colour.",
            "input": "",
            "output": "red",
            "candidates": [{"model": "a", "text": "Red", "scores": {}}],
        },
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_it_says_what_was_recorded(data: str) -> None:
    chat = RecordedChat(data=data, model="a")
    message = chat.invoke([SystemMessage("ignored"), HumanMessage(" What is 2 + 3? ")])
    assert message.content == "It is 5."
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 9
    assert message.response_metadata["der_value"] == "5"
    assert message.response_metadata["der_scores"] == {"accuracy": 1.0}
    assert asyncio.run(chat.ainvoke("Name a colour.")).content == "Red"
    assert [m.content for m in chat.batch(["Name a colour.", "What is 2 + 3?"])] == [
        "Red",
        "It is 5.",
    ]


def test_what_was_not_recorded_is_estimated_or_empty(data: str) -> None:
    message = RecordedChat(data=data, model="b").invoke("What is 2 + 3?")
    assert message.response_metadata["der_value"] is None
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 3


def test_unknown_questions_models_and_files(data: str, tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match=r"no recorded answer of 'b' to 'Name a colour\.'"):
        RecordedChat(data=data, model="b").invoke("Name a colour.")
    with pytest.raises(ExpertError, match="no answers of a model named 'c', but of: a, b"):
        RecordedChat(data=data, model="c").load()
    with pytest.raises(DataError):
        RecordedChat(data=str(tmp_path / "none.jsonl"), model="a").load()
    assert recorded_models(data) == ["a", "b"]


def test_traces_name_the_recorded_model(data: str) -> None:
    chat = RecordedChat(data=data, model="a")
    assert chat._get_ls_params()["ls_model_name"] == "a"
    assert "a" in chat.fingerprint


def test_real_recordings(recorded_data: Path) -> None:
    path = str(recorded_data / "dev.jsonl.gz")
    from der_graph.data import load_examples

    example = load_examples(path, limit=1)[0]
    for name, candidate in example.candidates.items():
        message = RecordedChat(data=path, model=name).invoke(example.question)
        assert message.content == candidate.text
        assert message.response_metadata["der_value"] == candidate.answer
        break


def test_a_batch_needs_no_threads(data: str) -> None:
    class Where(BaseCallbackHandler):
        def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
            seen.append(threading.get_ident())

    seen: list[int] = []
    given: list[Any] = [[HumanMessage(q)] for q in ("What is 2 + 3?", "Why?", "Name a colour.")]
    chat = RecordedChat(data=data, model="a")
    config: RunnableConfig = {"callbacks": [Where()]}
    first, unknown, last = chat.batch(given, config, return_exceptions=True)
    assert (first.content, last.content) == ("It is 5.", "Red")
    assert isinstance(unknown, ExpertError)
    assert seen == [threading.get_ident()] * 2
    with pytest.raises(ExpertError):
        chat.batch(given)
