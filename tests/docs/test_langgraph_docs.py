"""docs/langgraph.md and its examples: the code runs and does what the text says.

The page's pool is the demo pool; here experts of the same names and prices stand in for its models.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import load_example
from fakes import ScriptedAgent, scripted_expert

from der_graph.policies.observation.encoder import Vectors
from der_graph.pool import Pool, pool_from

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def stand_ins() -> Pool:
    answers = {
        "smollm2": ("84", 0.135),
        "gemma": ("80", 0.268),
        "translator": ("7 * 12", 0.135),
        "calculator": ("84", 0.01),
    }
    return pool_from(
        [scripted_expert(n, text, cost=cost)[0] for n, (text, cost) in answers.items()]
    )


def test_the_pages_code_runs(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = ScriptedAgent("translator", "calculator")
    monkeypatch.setattr("der_graph.pool.pool.load_pool", lambda name: stand_ins())
    monkeypatch.setattr("der_graph.policies.agent.agent.load_agent", lambda name: agent)
    page = (repo_root / "docs" / "langgraph.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "langgraph.md", "exec"), scope)
    assert capsys.readouterr().out.splitlines() == [
        "84",
        "['translator', 'calculator', 'END'] agent",
        "None | A box holds 12 eggs. How many eggs are in 7 boxes?",
        "translator | 7 * 12",
        "calculator | 84",
        "84",
        "translator 0.135 0.0 ['smollm2', 'gemma', 'translator', 'calculator']",
        "calculator 0.01 0.135 ['smollm2', 'gemma', 'calculator', 'END']",
        "84",
    ]


def test_the_page_names_every_setting_of_a_request(repo_root: Path) -> None:
    from der_graph.state import DERContext

    page = (repo_root / "docs" / "langgraph.md").read_text(encoding="utf-8")
    ours = set(DERContext.__dataclass_fields__) - {"stream_tokens"}  # docs/streaming.md
    assert {name for name in ours if f"`{name}`" not in page} == set()


class Words:
    """Rows of words, of which every one has a dimension of its own: `toy.WordEncoder`, less coarse."""

    name = "words"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), 4096), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"[a-z]+", text.lower()):
                row[zlib.crc32(word.encode()) % 4096] += 1.0
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def test_a_support_chatbot_with_history_and_a_budget(repo_root: Path) -> None:
    pytest.importorskip("sklearn")
    module = load_example(repo_root, "support_chatbot")
    assert module.main(encoder=Words()) == ["faq", "orders", "orders", "specialist"]
    bot = module.Chatbot(budget=8.6, encoder=Words())
    assert bot.say("Where is my order 1234?") == ("Order 1234 is on its way.", ["orders"])
    answer, _ = bot.say("And when will it arrive?")
    assert answer == "Order 1234 arrives on Tuesday."
    # 7.6 are left, which do not pay for the specialist.
    assert "specialist" not in bot.say("The lamp is broken, I want my money back.")[1]
    bot.left = 0.05
    assert bot.say("When do you open?") == ("A colleague will write to you.", [])


@pytest.mark.parametrize(
    ("typed", "route", "questions"),
    [
        ("y", ["quick", "panel", "END"], 1),
        ("n", ["quick", "END"], 1),
        ("careful", ["quick", "careful", "panel", "END"], 2),
        ("END", ["quick", "END"], 1),
    ],
)
def test_a_person_is_asked_before_money_is_spent(
    repo_root: Path, typed: str, route: list[str], questions: int
) -> None:
    keys = iter([typed, "yes"])
    asked: list[str] = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        return next(keys)

    state = load_example(repo_root, "human_approval").main(read)
    assert [step["choice"] for step in state["route"]] == route
    assert len(asked) == questions
    assert asked[0].startswith("ask 'panel' for 50 (spent so far: 1)?")
