"""The controls of the page: what they show is what the next question is asked with."""

from __future__ import annotations

import asyncio
import re
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import ScriptedAgent
from langchain_core.runnables import RunnableLambda
from page_in_browser import MARKS, KnobAgent, needs_gradio, opened, two

from der_graph.nodes.expert import Expert
from der_graph.pool import pool_from
from der_graph.ui import create_page
from der_graph.ui.chat import frames
from der_graph.ui.limits import UNSEEN
from der_graph.ui.run import Ensemble, Watched

pytestmark = MARKS


@pytest.mark.slow
def test_limits_take_effect(browser: Any) -> None:
    pool, small, _ = two()
    agent = KnobAgent("small", "large")
    with opened(browser, pool, agent) as look:
        look.set_number("#der-max-cost", "1.5")
        look.expect(look.page.locator("#der-cost-weight")).to_be_visible()
        look.set_number("#der-cost-weight", "1.2")
        look.set_number("#der-deadline", "50")
        look.ask("Count")
        look.over("done: 1 call")
        assert look.route() == ["small", "END"]
        assert look.page.locator(".der-limit").inner_text() == "budget 1.500 B"
        assert look.page.locator(".der-limits").inner_text() == (
            "Limits: budget 1.500 B, at most 4 calls, deadline 50 s, price of cost 1.2, all experts"
        )
        assert "the budget pays for no other expert" in look.panel()
        assert "of 50 s" in look.panel()
        assert look.replies() == ["a draft"]
        assert (agent.seen[0].max_cost, agent.seen[0].cost_weight) == (1.5, 1.2)
        assert agent.seen[0].deadline_left == 50

        look.tick("small", on=False)
        look.ask("And now?")
        look.over("no answer")
        problem = look.page.locator(".der-problem").inner_text()
        assert problem.startswith("max_cost=1.5 does not pay for a single call")
        look.tick("large", on=False)
        look.ask("Anybody?")
        look.expect(look.page.locator(".der-problem")).to_contain_text("no expert is ticked")
        look.over("no answer")
        # What was not answered can be asked again, and was never part of the conversation.
        look.expect(look.page.locator("#der-question textarea")).to_have_value("Anybody?")
        look.tick("small", on=True)
        look.page.click("#der-ask")
        look.over("done: 1 call")
        said = [message.text for message in small.prompts[-1]]
        assert said == ["Count", "a draft", "Anybody?"]


@pytest.mark.slow
def test_the_longest_route_is_a_limit(browser: Any) -> None:
    pool, _, _ = two()
    with opened(browser, pool, ScriptedAgent("small", "large")) as look:
        look.set_number("#der-max-steps", "1")
        look.ask("Count")
        look.over("done: 1 call")
        assert look.route() == ["small", "END"]
        assert "the longest route is reached" in look.panel()
        assert not look.page.locator("#der-cost-weight").is_visible()


@pytest.mark.slow
def test_limits_that_are_set_while_the_models_load_hold(
    browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, agent = threading.Event(), KnobAgent("small", "large")

    def load(folder: Any, pool: Any) -> Any:
        assert loaded.wait(100)
        return agent

    monkeypatch.setattr("der_graph.ui.app.find_agent", load)
    pool, _, _ = two()
    with opened(browser, pool, "some/folder", note="loading the agent") as look:
        look.set_number("#der-max-cost", "1.5")
        look.page.fill("#der-deadline input", "50")  # and does not leave the field
        loaded.set()
        # The page draws the controls anew around the price of cost, which this agent has.
        look.expect(look.page.locator("#der-cost-weight")).to_be_visible()
        look.expect(look.page.locator(".der-title span")).to_have_text("ready")
        shown = look.page.locator("#der-limits input[type=number]")
        assert [shown.nth(i).input_value() for i in range(4)] == ["1.5", "0.05", "4", "50"]
        look.ask("Count")
        look.over("done: 1 call")
        assert look.page.locator(".der-limits").inner_text() == (
            "Limits: budget 1.500 B, at most 4 calls, deadline 50 s, price of cost 0.05, all experts"
        )
    seen = agent.seen[0]
    assert (seen.max_cost, seen.cost_weight, seen.deadline_left) == (1.5, 0.05, 50)


def handlers_of(page: Any) -> dict[str, Any]:
    """What Gradio calls, by name."""
    return {handler.name: handler.fn for handler in page.fns.values()}


def test_what_a_question_is_asked_with_is_shown_beside_its_answer() -> None:
    needs_gradio()
    pool, _, _ = two()
    agent = KnobAgent("large")
    page = create_page(pool, agent)

    async def asked(*limits: Any) -> str:
        """The text of the limits in the last drawing of the route; in all others it is the same."""
        request = SimpleNamespace(session_hash="one")
        drawn = []
        async for update in handlers_of(page)["answer"]("Count", [], *limits, request):
            drawn += [str(value) for value in update.values() if "der-route" in str(value)]
        (limit,) = {
            re.findall('<p class="der-limits">Limits: (.*?)</p>', each)[0] for each in drawn
        }
        return str(limit)

    usual = (3.0, UNSEEN, 4, 0, ["small", "large"])
    assert asyncio.run(asked(*usual)) == "no budget, at most 4 calls, no deadline, all experts"
    # The price of cost is not on the page yet: the agent's own holds.
    assert (agent.seen[0].max_cost, agent.seen[0].cost_weight) == (None, None)
    agent.seen.clear()
    assert asyncio.run(asked(2.5, 0.1, 1, 50, ["large"])) == (
        "budget 2.500 B, at most 1 call, deadline 50 s, price of cost 0.1, only large"
    )
    seen = agent.seen[0]
    assert (seen.max_cost, seen.cost_weight, seen.max_steps) == (2.5, 0.1, 1)
    assert list(seen.mask) == [False, True, False]
    # What cannot be is shown as it was asked, too.
    words = "budget 0.500 B, at most 4 calls, no deadline, price of cost 0.1, all experts"
    assert asyncio.run(asked(0.5, 0.1, 4, None, ["small", "large"])) == words


def test_a_page_that_leaves_at_once_leaves_no_route_behind() -> None:
    slow = Expert("slow", RunnableLambda(lambda messages: "x"), cost=1.0)
    asked: list[Watched] = []

    async def leave() -> bool:
        ensemble = Ensemble(pool_from([slow]), lambda: ScriptedAgent("slow"))  # never loaded
        limits = {"max_cost": 1, "max_steps": 1, "cost_weight": None, "deadline": 0}
        shown = frames(ensemble, "Count", [], {**limits, "experts": ["slow"]}, asked.append)
        await anext(shown)
        await shown.aclose()
        await asyncio.wait([asked[0]._task], timeout=30)
        return bool(asked[0].stopped)

    assert asyncio.run(leave())


def test_the_last_update_moves_no_control() -> None:
    # Gradio sends the last update twice, and what a person did in between would be undone.
    needs_gradio()
    import gradio

    pool, _, _ = two()
    page = create_page(pool, KnobAgent("small", "large"))
    handlers = handlers_of(page)

    async def updates(handler: str, *given: Any) -> list[dict[str, Any]]:
        gathered = handlers[handler](*given)
        return [
            {item.elem_id or item.get_block_name(): value for item, value in update.items()}
            async for update in gathered
        ]

    *_, knob, last = asyncio.run(updates("follow"))
    assert knob["der-cost-weight"]["value"] == 0.05
    assert list(last) == ["html"]
    assert ">ready<" in last["html"]
    limits = (0.5, 0.05, 2, 0, ["small", "large"])  # a budget of 0.5 pays for nobody
    *_, end, last = asyncio.run(
        updates("answer", "Count", [], *limits, SimpleNamespace(session_hash="one"))
    )
    assert end["der-question"] == "Count"
    assert end["der-ask"]["interactive"]
    assert last == {"der-panel": gradio.skip()}
