"""The scripts still make the data that the shipped experts learnt from: by digests of what they draw."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "demo_pool"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    if not SCRIPTS.is_dir():
        pytest.skip("the scripts are not part of an installed package")
    monkeypatch.syspath_prepend(str(SCRIPTS))


def load(name: str) -> Any:
    return sys.modules.get(name) or importlib.import_module(name)


def digest(drawn: Any) -> str:
    return hashlib.sha256(json.dumps(drawn, ensure_ascii=False).encode()).hexdigest()[:16]


def test_word_problems_of_the_translator() -> None:
    draw, rng = load("word_problem_generator").generate, random.Random(7)
    problems = [draw(rng) for _ in range(3000)]
    drawn = [(p.question, p.expression, p.answer, p.family) for p in problems]
    assert digest(drawn) == "dd1070712d59f7bf"


def test_stories_of_the_router() -> None:
    stories, rng = load("question_stories"), random.Random(7)
    drawn = [stories.word_problem(rng) for _ in range(500)]
    drawn += [stories.reading(rng) for _ in range(500)]
    assert digest(drawn) == "dad2ed3941584313"


def test_calculations_of_the_calculator() -> None:
    draw, rng = load("arithmetic_data").training_example, random.Random(7)
    examples = [draw(rng) for _ in range(1000)]
    assert digest([(e.kind, e.text, e.completion) for e in examples]) == "0c92e08557360722"


def test_facts_of_the_router() -> None:
    made = load("make_questions")
    collected = [
        make(random.Random(7))
        for make in (made.plurals, made.languages, made.translations, made.vocabulary)
    ]
    assert digest(collected) == "7c3b72677fe8defb"
