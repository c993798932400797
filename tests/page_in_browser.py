"""The page of `der ui` in a real browser, with scripted experts behind it."""

from __future__ import annotations

import asyncio
import gc
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert

from der_graph.pool import Pool, pool_from
from der_graph.server import in_background
from der_graph.ui import create_app, create_page

MARKS = [
    pytest.mark.usefixtures("no_loop_left"),
    # Gradio's queue, in its own bookkeeping, uses what pandas 3 warns of.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]
"""What every test file with pages needs."""

FLAGS = [
    *"--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split(),
    *"--disable-component-update --disable-sync --disable-dev-shm-usage".split(),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the network is closed
]


def needs_gradio() -> None:
    pytest.importorskip("gradio", reason="needs the extra ui")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    needs_gradio()
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra test")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium: none of {', '.join(names)} is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS, timeout=200_000)
        yield browser
        browser.close()


def close_what_gradio_left() -> None:
    """Close the event loops on which Gradio makes locks: another test must not find them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)  # it is kept alive as the thread's current one
        gc.collect()


class KnobAgent(ScriptedAgent):
    """A scripted agent with a price of cost."""

    cost_weight = 0.05
    cost_weight_range = (0.02, 2.0)


class Look:
    """A page in the browser, by what a person would look at.

    Args:
        page: Playwright's.
        address: Where the server is.
        note: What the page says above when it takes questions: before, what is typed would be lost.
    """

    def __init__(self, page: Any, address: str, note: str = "ready") -> None:
        from playwright.sync_api import expect

        self.page, self.expect = page, expect
        self.asked: list[str] = []
        page.set_default_timeout(100_000)
        expect.set_options(timeout=100_000)
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        expect(page.locator(".der-title span")).to_have_text(note)

    def ask(self, question: str) -> None:
        """Ask, without waiting for the answer."""
        self.page.fill("#der-question textarea", question)
        self.page.click("#der-ask")

    def state(self, words: str) -> None:
        """Wait until the route's last line says this, and the page takes questions again if it is over."""
        self.expect(self.page.locator(".der-state")).to_have_text(words)

    def over(self, words: str) -> None:
        """Wait for the end of a route."""
        self.state(words)
        self.expect(self.page.locator("#der-ask")).to_be_enabled()

    def route(self) -> list[str]:
        """The choices so far."""
        steps = self.page.locator(".der-step")
        return [steps.nth(i).get_attribute("data-choice") for i in range(steps.count())]

    def replies(self) -> list[str]:
        """The answers in the conversation."""
        found: list[str] = self.page.locator("#der-chat [data-testid=bot]").all_inner_texts()
        return found

    def set_number(self, control: str, value: str) -> None:
        """Type a number into a control."""
        self.page.fill(f"{control} input[type=number]", value)
        self.page.press(f"{control} input[type=number]", "Tab")

    def tick(self, expert: str, *, on: bool) -> None:
        """Allow or rule out an expert."""
        self.page.locator("#der-experts label", has_text=expert).locator("input").set_checked(on)

    def panel(self) -> str:
        """The text of the route."""
        text: str = self.page.locator("#der-panel").inner_text()
        return text


@contextmanager
def opened(
    browser: Any, pool: Pool, agent: Any, *, note: str = "ready", **settings: Any
) -> Iterator[Look]:
    """A page of its own server."""
    app = create_app(create_page(pool, agent, **settings))
    with in_background(app, wait=False) as address:
        context = browser.new_context()
        yield Look(context.new_page(), address, note)
        context.close()


def two(*answers: str) -> tuple[Pool, Any, Any]:
    """A pool of a small and a large expert at 1 and 2, and the models behind them."""
    small, first = scripted_expert("small", answers[0] if answers else "a draft")
    large, second = scripted_expert("large", *(answers[1:] or ("the final word",)), cost=2.0)
    return pool_from([small, large]), first, second
