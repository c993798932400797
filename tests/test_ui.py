"""The page in a real browser, with scripted experts: what a person sees, sets, stops, and is kept from."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import ScriptedAgent, scripted_expert
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from der_graph.cli import main
from der_graph.errors import MissingDependencyError, ServerError
from der_graph.nodes.expert import Expert
from der_graph.pool import Pool, pool_from
from der_graph.serving.running import in_background, open_socket
from der_graph.ui import create_app, create_page, serve_page

# Gradio's queue, in its own bookkeeping, uses what pandas 3 warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

FLAGS = [
    *"--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split(),
    *"--disable-component-update --disable-sync --disable-dev-shm-usage".split(),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the network is closed
]
EVIL = (
    "<script>window.hit=1</script><img src=/evil.png onerror='window.hit=2'> <b>bold</b> **stars** "
    "${window.hit=3} {{window.hit}} ![x](/evil.png) [y](javascript:window.hit=4)\n    indented"
)


@pytest.fixture(autouse=True)
def _left_open() -> Iterator[None]:
    """Gradio makes locks on event loops that it never closes; they must not be found by another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)  # it is kept alive as the thread's current one
        gc.collect()


def needs_gradio() -> None:
    pytest.importorskip("gradio", reason="needs the extra ui")


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
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
def test_nothing_that_a_model_says_is_run_or_fetched(browser: Any) -> None:
    pool, _, _ = two(EVIL, EVIL)
    with opened(browser, pool, ScriptedAgent("small", "large")) as look:
        look.ask(EVIL)
        look.over("done: 2 calls")
        look.expect(look.page.locator("#der-chat [data-testid=bot]")).to_have_count(1)
        assert look.page.evaluate("window.hit") is None
        for part in ("#der-chat [data-testid=bot]", "#der-chat [data-testid=user]", "#der-panel"):
            inside = look.page.locator(part)
            assert inside.locator("img, script, a").count() == 0
            assert inside.get_by_text("<b>bold</b> **stars** ${window.hit=3}").count() >= 1
        assert look.page.locator(".der-text").first.inner_text() == EVIL
        assert look.replies()[0].replace("\xa0", " ") == EVIL
        address = look.page.url.rstrip("/")
        assert [url for url in look.asked if not url.startswith((address, "data:", "blob:"))] == []
        assert not any("evil" in url for url in look.asked)
        assert len(look.asked) > 5


def test_the_browser_may_load_nothing_from_elsewhere() -> None:
    needs_gradio()
    pool, _, _ = two()
    app = create_app(create_page(pool, ScriptedAgent("small")))
    with in_background(app, wait=False) as address, urllib.request.urlopen(address) as response:
        policy, text = response.headers["content-security-policy"], response.read().decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert '"analytics_enabled":false' in text.replace(" ", "")
    for elsewhere in ("fonts.googleapis", "fonts.gstatic", "cdn.", "huggingface.co"):
        assert f'src="https://{elsewhere}' not in text
        assert f'href="https://{elsewhere}' not in text


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

    def load(folder: Any) -> Any:
        assert loaded.wait(100)
        return KnobAgent("small", "large")

    monkeypatch.setattr("der_graph.ui.load_agent", load)
    pool, _, _ = two()
    with opened(browser, pool, "some/folder", note="loading the agent") as look:
        title = look.page.locator(".der-title span")
        look.ask("Count")
        look.state("loading the agent")
        loaded.set()
        look.over("done: 2 calls")
        look.expect(title).to_have_text("ready")
        assert look.replies() == ["the final word"]


def test_the_last_update_moves_no_control() -> None:
    # Gradio sends the last update twice, and what a person did in between would be undone.
    needs_gradio()
    import gradio

    pool, _, _ = two()
    page = create_page(pool, KnobAgent("small", "large"))
    handlers = {handler.name: handler.fn for handler in page.fns.values()}

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


SCRIPT = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from fakes import ScriptedAgent, scripted_expert
    from der_graph.pool import pool_from
    from der_graph.ui import serve_page
    serve_page(pool_from([scripted_expert("small", "x")[0]]), ScriptedAgent("small"), port=0)
    """
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_good_order(repo_root: Any, number: signal.Signals) -> None:
    needs_gradio()
    command = [sys.executable, "-c", SCRIPT, str(repo_root / "tests")]
    environment = {**os.environ, "LANGSMITH_TRACING": "false"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), line
        with urllib.request.urlopen(line.split()[1], timeout=100) as response:
            assert response.status == 200
        child.send_signal(number)
        _, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors
    assert "Traceback" not in errors


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'der-graph\[ui\]'"):
        create_page()
    assert main(["ui"]) == 2
    assert "pip install 'der-graph[ui]'" in capsys.readouterr().err


def test_what_cannot_be_served_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    needs_gradio()
    assert main(["ui", "--pool", "no/such.yaml", "--port", "0"]) == 2
    assert "no/such.yaml" in capsys.readouterr().err
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        pool, _, _ = two()
        with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1 port {port}"):
            serve_page(pool, ScriptedAgent("small"), port=port)


def test_models_that_cannot_be_loaded_end_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    needs_gradio()
    assert main(["ui", "--agent", "no/such/agent", "--port", "0"]) == 2
    assert "no/such/agent" in capsys.readouterr().err
