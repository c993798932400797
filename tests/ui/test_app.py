"""The page in a real browser, with scripted experts: conversations, and routes as they grow and end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from page_in_browser import MARKS, KnobAgent, needs_gradio, opened, two

from der_graph.nodes.expert import Expert
from der_graph.pool import pool_from
from der_graph.ui import create_page

pytestmark = MARKS


def test_a_blank_question_leaves_the_page_as_it_is() -> None:
    needs_gradio()
    pool, model, _ = two()
    page = create_page(pool, ScriptedAgent("small"))
    answer = next(each.fn for each in page.fns.values() if each.name == "answer")
    request = SimpleNamespace(session_hash="a tab")

    async def updates() -> list[Any]:
        return [each async for each in answer(" \n", [], 2.0, 0.1, 2, 0, ["small"], request)]

    # A handler that ends without an update empties the page, to the labels of its buttons.
    found = asyncio.run(updates())
    assert [list(each.values()) for each in found] == [[{"__type__": "update"}]]
    assert model.prompts == []


@pytest.mark.slow
def test_a_conversation_and_its_routes(browser: Any) -> None:
    pool, _, large = two("a draft", "forty-two", "and more")
    with opened(
        browser, pool, KnobAgent("small", "large"), examples=["What <b>is</b> it?"]
    ) as look:
        look.page.locator("#der-chat button", has_text="What <b>is</b> it?").click()
        look.expect(look.page.locator("#der-question textarea")).to_have_value("What <b>is</b> it?")
        look.page.click("#der-ask")
        look.over("done: 2 calls")
        assert look.route() == ["small", "large", "END"]
        assert look.replies() == ["forty-two"]
        assert look.page.locator(".der-answer .der-text").all_inner_texts() == [
            "a draft",
            "forty-two",
        ]
        assert look.page.locator(".der-cost").inner_text() == "3.000 B"
        assert look.page.locator(".der-limit").inner_text() == "no limit"
        chances = look.page.locator(".der-step").first.locator(".der-chance").all_inner_texts()
        assert [text.split() for text in chances] == [
            ["small", "1.00"],
            ["large", "0.00"],
            ["stop", "not", "yet"],
        ]
        look.expect(look.page.locator("#der-question textarea")).to_have_value("")
        look.ask("And now?")
        look.over("done: 2 calls")
        look.expect(look.page.locator("#der-chat [data-testid=bot]")).to_have_count(2)
        assert look.replies() == ["forty-two", "and more"]
        # The large expert has read the first turn.
        said = [message.text for message in large.prompts[-1]]
        assert said[:2] == ["What <b>is</b> it?", "forty-two"]
        look.page.click("#der-new")
        look.expect(look.page.locator("#der-chat [data-testid=bot]")).to_have_count(0)
        look.ask("Afresh")
        look.over("done: 2 calls")
        assert "forty-two" not in [message.text for message in large.prompts[-1]]
        look.page.set_viewport_size({"width": 320, "height": 640})
        assert look.page.evaluate("document.documentElement.scrollWidth") == 320


def gated(name: str) -> tuple[Expert, threading.Event, threading.Event]:
    """An expert that says one word and waits for the first event; the second tells that it was given up."""
    going, left = threading.Event(), threading.Event()

    class Gated(GenericFakeChatModel):
        async def _astream(self, *args: Any, **more: Any) -> AsyncIterator[ChatGenerationChunk]:
            run_manager = args[2] if len(args) > 2 else more.get("run_manager")
            for word in ("word", " two"):
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
                if run_manager:
                    await run_manager.on_llm_new_token(word, chunk=chunk)
                yield chunk
                try:
                    await asyncio.to_thread(going.wait, 100)
                except asyncio.CancelledError:
                    left.set()
                    raise

    model = Gated(messages=iter([AIMessage("unused")]))
    return Expert(name, model, cost=1.0), going, left


@pytest.mark.slow
def test_words_are_seen_as_they_come(browser: Any) -> None:
    slow, going, _ = gated("slow")
    other, _ = scripted_expert("other", "never asked")
    with opened(browser, pool_from([slow, other]), ScriptedAgent("slow")) as look:
        look.ask("Count")
        look.expect(look.page.locator(".der-open .der-text")).to_have_text("word")
        look.state("slow is answering")
        assert look.replies() == []  # it may be a draft
        look.expect(look.page.locator("#der-ask")).to_be_disabled()
        pending = look.page.locator(".der-pending").get_attribute("style")
        assert pending == "width:50.0%"  # 1 of the 2 that the dearest route costs
        going.set()
        look.over("done: 1 call")
        assert look.replies() == ["word two"]


@pytest.mark.slow
def test_a_route_can_be_stopped(browser: Any) -> None:
    slow, going, left = gated("slow")
    other, model = scripted_expert("other", "here")
    agent = ScriptedAgent("slow")
    with opened(browser, pool_from([slow, other]), agent) as look:
        look.ask("Count")
        look.expect(look.page.locator(".der-open .der-text")).to_have_text("word")
        look.page.click("#der-stop")
        look.over("stopped")
        assert left.wait(100)
        going.set()  # the thread that waits
        assert "given up" in look.panel()
        assert look.replies() == ["Stopped before there was an answer."]
        agent.script = ("other",)
        look.ask("And you?")
        look.over("done: 1 call")
        assert [message.text for message in model.prompts[-1]] == ["And you?"]


@pytest.mark.slow
def test_a_page_that_is_closed_stops_its_route(browser: Any) -> None:
    slow, going, left = gated("slow")
    with opened(browser, pool_from([slow]), ScriptedAgent("slow")) as look:
        look.ask("Count")
        look.expect(look.page.locator(".der-open .der-text")).to_have_text("word")
        look.page.close()
        assert left.wait(100)
        going.set()


@pytest.mark.slow
def test_failures_are_shown_in_words(browser: Any) -> None:
    broken, _ = scripted_expert("broken", ValueError("no <b>power</b>"))
    other, _ = scripted_expert("other", "here")
    with opened(browser, pool_from([broken, other]), ScriptedAgent("broken", "other")) as look:
        look.ask("Count")
        look.over("done: 2 calls")
        failed = look.page.locator(".der-failed .der-text").inner_text()
        assert failed == "Failed: ValueError: no <b>power</b>"
        assert look.replies() == ["here"]
        look.tick("other", on=False)
        look.ask("And now?")
        look.over("no answer")
        assert "no expert could answer" in look.page.locator(".der-problem").inner_text()
        look.expect(look.page.locator("#der-chat [data-testid=bot]")).to_have_count(2)
        assert look.replies()[1].startswith("No answer: no expert could answer")


@pytest.mark.slow
def test_a_question_waits_for_the_models(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()

    def load(folder: Any, pool: Any) -> Any:
        assert loaded.wait(100)
        return KnobAgent("small", "large")

    monkeypatch.setattr("der_graph.ui.app.find_agent", load)
    pool, _, _ = two()
    with opened(browser, pool, "some/folder", note="loading the agent") as look:
        title = look.page.locator(".der-title span")
        look.ask("Count")
        look.state("loading the agent")
        loaded.set()
        look.over("done: 2 calls")
        look.expect(title).to_have_text("ready")
        assert look.replies() == ["the final word"]
