"""A judge by name: with and without references, its marks kept; and metrics of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from fakes import an_answer
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from der_graph.commands.options import metric_of
from der_graph.commands.train import METRICS
from der_graph.data import Example
from der_graph.errors import MetricError
from der_graph.policies.answers import AnswerCache
from der_graph.policies.quality import get_metric, metric_names, needs_reference

OPEN, KNOWN = Example("1", "Why is it late?", ""), Example("2", "2 + 3?", "5")


def judge(
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Any],
    name: str = "judge:openai:gpt",
    **settings: Any,
) -> Any:
    def mark(messages: Any) -> AIMessage:
        asked.append(messages)
        return AIMessage("7")

    made = RunnableLambda(mark)
    monkeypatch.setattr(
        "der_graph.policies.quality.judge_registry.as_chat_runnable", lambda model, **more: made
    )
    return get_metric(name, **settings)


def test_a_judge_needs_no_reference_and_is_not_asked_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    (tmp_path / "rubric.txt").write_text("Kind words count.")
    cache = AnswerCache(tmp_path / "c.db")
    for _ in range(2):  # two runs
        metric = judge(monkeypatch, asked, rubric=str(tmp_path / "rubric.txt"))
        metric.keep_marks_in(cache)
        assert metric.name == "judge:openai:gpt"
        assert not needs_reference(metric)
        assert metric.score([an_answer()] * 2 + [an_answer(error="down")], [OPEN, KNOWN, OPEN]) == [
            0.7,
            0.7,
            0.0,
        ]
    assert len(asked) == 2
    alone, beside = (messages[1].text for messages in asked)
    assert "Reference answer" not in alone
    assert "Reference answer:\n5" in beside
    assert "Kind words count." in asked[0][0].text
    other = judge(monkeypatch, asked, "judge:openai:other")
    other.keep_marks_in(cache)
    other.score([an_answer()], [OPEN])
    assert len(asked) == 3  # another judge has marks of its own


def test_a_judge_that_nobody_can_look_into_keeps_no_marks(tmp_path: Path) -> None:
    metric: Any = get_metric("judge", model=FakeListChatModel(responses=["3", "x"]))
    assert metric.score([an_answer()], [OPEN]) == [0.3]
    with pytest.raises(MetricError, match="gave no mark"):
        metric.score([an_answer(text="other")], [OPEN])


def test_a_metric_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metric_module.py").write_text(
        "def short(answer, example): return len(answer['text']) < 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    metric = get_metric("my_metric_module:short")
    assert metric.score([an_answer(), an_answer(text="long")], [KNOWN, KNOWN]) == [1.0, 0.0]
    with pytest.raises(
        MetricError, match=r"'my_metric_module:none': .* has no 'none'; .*match, numeric"
    ):
        get_metric("my_metric_module:none")


def test_help_names_every_metric() -> None:
    shown = [name.split(":")[0].lower() for name in METRICS]
    assert shown == [
        name.split(":")[0].strip("<>").lower() for name in metric_names() if name != "judge"
    ]


def test_a_judge_that_cannot_be_made_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_openai")
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MetricError, match=r"--metric-setting 'api_key=\$\{MY_KEY\}'$"):
        get_metric("judge:openai:gpt")
    address = "http://127.0.0.1:9/v1"
    with pytest.raises(MetricError, match=r"api_key=.*any text will do for a server that asks for"):
        get_metric("judge:openai:gpt", base_url=address)
    monkeypatch.setenv("MY_KEY", "secret")  # as the message says
    setting = [f"base_url={address}", "api_key=${MY_KEY}"]
    made: Any = metric_of(argparse.Namespace(metric_setting=setting), "judge:openai:gpt")
    assert made.name == "judge:openai:gpt"
    with pytest.raises(MetricError) as failed:
        get_metric("judge:house-model")
    assert str(failed.value) == (
        "judge: model 'house-model': its name does not say who provides it; give PROVIDER:MODEL, such as "
        "'openai:house-model'"
    )
    with pytest.raises(MetricError, match=r"LangChain has no provider 'opnai'; give .*[^\n]$"):
        get_metric("judge:opnai:gpt")
