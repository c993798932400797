"""The page without a browser: a route as HTML, the limits that it sends, and the routes that it can stop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedAgent, an_answer, chat_expert, scripted_expert
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableLambda

from der_graph.errors import AgentError, AllExpertsFailedError, BudgetError
from der_graph.nodes.expert import Expert
from der_graph.pool import pool_from
from der_graph.state import END_CHOICE, Decision, DERContext
from der_graph.ui.chat import as_chat_html
from der_graph.ui.limits import UNSEEN, fresh_view, nice, request_of, scale_of
from der_graph.ui.route import LONGEST, REASONS, RouteView, escaped, shortened, visible
from der_graph.ui.run import Ensemble, Watched, words_of

EVIL = '<script>hit()</script><img src=x onerror="hit()"> \' ${hit()} {{hit}} `x`'


def a_view(**more: Any) -> RouteView:
    return RouteView({"small": 1.0, "large": 2.0}, "parameters_b", 3.0, 4, **more)


def a_decision(choice: str, step: int = 0, reason: str = "agent", **more: Any) -> dict[str, Any]:
    chances = {"small": 0.25, "large": 0.75, END_CHOICE: 0.0}
    return {
        "type": "der.decision",
        "step": step,
        "choice": choice,
        "probabilities": chances,
        "value": 1.5,
        "mask": {"small": True, "large": True, END_CHOICE: False},
        "reason": reason,
        "cost_weight": None,
        "spent": 0.0,
        "seconds": 0.25,
        **more,
    }


def answered(expert: str = "large", text: str = "42", **more: Any) -> dict[str, Any]:
    cost = 2.0 if expert == "large" else 1.0
    answer = {**an_answer(expert, text, cost=cost), "seconds": 1.5, **more}
    return {"type": "der.answer", "step": 0, **answer}


def test_every_reason_has_words() -> None:
    """What the state's documentation names as reasons is said in words on the page."""
    source = Path(inspect.getfile(Decision)).read_text(encoding="utf-8")
    documented = source.split("    reason: str\n")[1].split('"""')[1]
    named = set(re.findall(r"`([a-z_]+)`", documented)) - {
        "agent",
        "prompt_cache",
    }  # the middleware's
    assert {"unavailable", "hedge"} < named
    assert named - REASONS.keys() == set()


def test_a_route_is_drawn_as_it_grows() -> None:
    view = a_view(max_cost=2.5, deadline=10.0)
    view.take("custom", a_decision("large"))
    drawn = view.html()
    assert "The agent asks <b>large</b>" in drawn
    assert "expects +1.50, 250 ms" in drawn
    assert view.state == "large is answering"
    # Nothing is spent; the running call takes 2 of 2.5.
    assert '<span class="der-spent" style="width:0.0%">' in drawn
    assert '<span class="der-pending" style="width:80.0%">' in drawn
    assert "budget 2.500 B" in drawn
    bars = re.findall(
        r'der-chance ([\w-]*)"><span class="der-name">(\w+)<.*?width:([\d.]+)%', drawn
    )
    assert bars == [
        ("", "small", "25.0"),
        ("der-chosen", "large", "75.0"),
        ("der-forbidden", "stop", "0.0"),
    ]

    view.take("custom", {"type": "der.draft", "expert": "large", "step": 0, "text": "for"})
    view.take("messages", (AIMessageChunk(content="ty"), {"der_expert": "large", "der_step": 0}))
    view.take("messages", (AIMessage("of the answer node"), {}))
    assert '<div class="der-text" dir="auto">forty</div>' in view.html()
    assert "is answering ..." in view.html()

    view.take("custom", answered(output_tokens=1))
    assert (view.cost, view.pending, view.seconds) == (2.0, 0.0, 1.75)
    drawn = view.html()
    assert '<div class="der-text" dir="auto">42</div>' in drawn
    assert "2.000 B, 1.5 s, 1 token<" in drawn
    assert "1.8 s of 10 s" in drawn
    assert '<span class="der-spent" style="width:80.0%">' in drawn

    only_end = {"small": False, "large": False, END_CHOICE: True}
    view.take("custom", a_decision(END_CHOICE, 1, "max_cost", mask=only_end))
    view.take("custom", {"type": "der.final", "text": "42", "experts": ["large"]})
    drawn = view.html()
    assert "The agent stops" in drawn
    assert "the budget pays for no other expert" in drawn
    assert drawn.count("der-chances") == 1, "there was nothing to weigh at the end"
    assert "done: 1 call<" in drawn


def test_failures_are_told() -> None:
    view = a_view()
    view.take("custom", a_decision("large"))
    view.take("custom", answered(error="ValueError: <no power>"))
    drawn = view.html()
    assert "Failed: ValueError: &lt;no power&gt;" in drawn
    assert "der-failed" in drawn
    assert "der-problem" not in drawn
    view.problem = "no expert could answer"
    assert '<p class="der-problem" role="alert">no expert could answer</p>' in view.html()


def test_nothing_of_a_model_is_html() -> None:
    view = RouteView({EVIL: 1.0}, "usd", 1.0, 1, state=EVIL, problem=EVIL)
    decision = a_decision(EVIL, reason=EVIL, probabilities={EVIL: 1.0}, mask={EVIL: True})
    view.take("custom", decision)
    view.take("custom", {"type": "der.draft", "expert": EVIL, "step": 0, "text": EVIL})
    for event in (None, answered(EVIL, EVIL), answered(EVIL, error=EVIL)):
        if event:
            view.take("custom", event)
        drawn = view.html()
        assert set(re.findall(r"<(\w+)", drawn)) <= {"div", "span", "b", "ol", "li", "p"}
        assert not re.search(r"\$|\{|`|'", drawn)
        # Every quoted attribute is one of ours.
        assert set(re.findall(r' ([a-z-]+)="', drawn)) <= {
            "class",
            "style",
            "role",
            "dir",
            "data-choice",
        }
    assert "<" not in as_chat_html(EVIL)


def test_text_that_would_act_is_shown() -> None:
    assert visible("a\x1b[0m\tb\r\nc\u202ed\x00") == "a\\x1b[0m\tb\nc\\x202ed\\x00"
    assert visible("naïve 日本 👩‍🔬") == "naïve 日本 👩‍🔬"
    assert escaped(1.5) == "1.5"
    assert shortened("x" * LONGEST) == "x" * LONGEST
    assert shortened("abcdef", 4) == "abcd ... (2 more characters)"
    assert as_chat_html("if a & b:\n    c") == "if a &amp; b:\n&nbsp;&nbsp;&nbsp;&nbsp;c"


@pytest.mark.parametrize(
    ("costs", "max_steps", "end", "step"),
    [
        ([0.135, 0.268, 0.135, 0.0015], 4, 0.54, 0.005),  # together 0.5395
        ([7.0, 70.0], 1, 70.0, 0.5),
        ([0.0, 0.0], 2, 0.0, 0.1),
        ([100.0, 200.0], 2, 300.0, 2),
    ],
)
def test_the_sliders_end_is_what_no_route_exceeds(
    costs: list[float], max_steps: int, end: float, step: float
) -> None:
    pool = pool_from(
        [scripted_expert(f"e{i}", "x", cost=cost)[0] for i, cost in enumerate(costs)],
        max_steps=max_steps,
    )
    found, steps = scale_of(pool)
    assert found == pytest.approx(end)
    assert steps == step
    assert fresh_view(pool).dearest <= scale_of(pool)[0] + 1e-9


def test_steps_are_round() -> None:
    assert [nice(value) for value in (0.001, 0.0099, 0.2, 4.9, 1000)] == [
        0.001,
        0.005,
        0.2,
        2,
        1000,
    ]


def test_the_controls_become_a_request() -> None:
    pool = pool_from([chat_expert("small", "x"), chat_expert("large", "y", cost=2.0)])
    settings: dict[str, Any] = {
        "max_cost": 3.0,
        "max_steps": 4,
        "cost_weight": None,
        "deadline": None,
        "experts": ["large", "small"],
    }
    assert request_of(pool, **settings) == DERContext(max_steps=4)
    narrow = {**settings, "max_cost": 0, "cost_weight": 0.5, "deadline": 3, "experts": ["small"]}
    assert request_of(pool, **narrow) == DERContext(
        max_cost=0.0, max_steps=4, cost_weight=0.5, deadline=3.0, allowed_experts=["small"]
    )
    assert request_of(pool, **{**settings, "deadline": 0}).deadline is None
    assert request_of(pool, **{**settings, "cost_weight": UNSEEN}).cost_weight is None
    with pytest.raises(BudgetError, match="no expert is ticked; tick at least one"):
        request_of(pool, **{**settings, "experts": []})
    with pytest.raises(BudgetError, match=r"deadline=-1.0: it must be a number of seconds above 0"):
        request_of(pool, **{**settings, "deadline": -1})


def an_ensemble(*experts: Expert, script: tuple[str, ...] = ()) -> Ensemble:
    names = script or tuple(expert.name for expert in experts)
    return Ensemble(pool_from(list(experts)), lambda: ScriptedAgent(*names))


async def gathered(run: Watched) -> list[tuple[str, Any]]:
    return [part async for batch in run.batches() for part in batch]


def test_a_watched_route_gives_everything() -> None:
    async def watch() -> list[tuple[str, Any]]:
        ensemble = an_ensemble(chat_expert("small", "one draft"), chat_expert("large", "two"))
        ensemble.start()
        ensemble.start()  # once is enough
        return await gathered(Watched(ensemble, [("user", "Count")], DERContext()))

    parts = asyncio.run(watch())
    kinds = [
        part["type"] for mode, part in parts if mode == "custom" and part["type"] != "der.draft"
    ]
    assert kinds == ["der.decision", "der.answer"] * 2 + ["der.decision", "der.final"]
    view = a_view()
    for mode, part in parts:
        if mode != "note":
            view.take(mode, part)
    assert view.final is not None
    assert view.final["text"] == "two"
    assert [step.words for step in view.steps] == ["one draft", "two", ""]


def test_a_route_that_is_stopped_gives_its_expert_up() -> None:
    left = threading.Event()

    async def watch() -> Watched:
        asked = asyncio.Event()

        async def never(messages: Any) -> AIMessage:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                left.set()
                raise
            raise AssertionError("unreachable")

        ensemble = an_ensemble(Expert("slow", RunnableLambda(never), cost=1.0))
        ensemble.start()
        run = Watched(ensemble, [("user", "Count")], DERContext())
        reading = asyncio.create_task(gathered(run))
        await asked.wait()
        assert not run.stopped
        run.stop()
        await reading
        return run

    assert asyncio.run(watch()).stopped
    assert left.is_set()


def test_what_ends_a_route_is_raised() -> None:
    async def watch(ensemble: Ensemble, **context: Any) -> None:
        ensemble.start()
        await gathered(Watched(ensemble, [("user", "Count")], DERContext(**context)))

    broken, _ = scripted_expert("broken", ValueError("no power"))
    with pytest.raises(AllExpertsFailedError, match="no power"):
        asyncio.run(watch(an_ensemble(broken)))
    with pytest.raises(BudgetError, match="does not pay for a single call"):
        asyncio.run(watch(an_ensemble(broken), max_cost=0.5))


def test_models_that_cannot_be_loaded_are_told() -> None:
    told: list[str] = []

    def fail() -> Any:
        raise AgentError("there is no agent")

    async def watch() -> list[str]:
        ensemble = Ensemble(pool_from([chat_expert("a", "x")]), fail, lambda: told.append("told"))
        ensemble.start()
        notes = [note async for note in ensemble.notes()]
        with pytest.raises(AgentError, match="there is no agent"):
            await gathered(Watched(ensemble, [("user", "Count")], DERContext()))
        return notes

    assert asyncio.run(watch())[-1] == "the models could not be loaded: there is no agent"
    assert told == ["told"]


def test_an_error_inside_is_named_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "der_graph.ui"):
        words = words_of(KeyError("/secret/path"))
    assert words == "internal error (KeyError); the log of the program says more"
    assert "/secret/path" in caplog.text
    assert words_of(BudgetError("too little")) == "too little"
