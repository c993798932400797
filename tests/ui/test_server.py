"""The page and its server: what a browser may load, who may come in, how it starts and ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
from fakes import ScriptedAgent
from page_in_browser import MARKS, Look, needs_gradio, opened, two

from der_graph.cli import main
from der_graph.errors import MissingDependencyError, ServerError
from der_graph.server.process import in_background, open_socket
from der_graph.ui.app import check_logins, create_app, create_page, read_logins, serve_page

pytestmark = MARKS


EVIL = (
    "<script>window.hit=1</script><img src=/evil.png onerror='window.hit=2'> <b>bold</b> **stars** "
    "${window.hit=3} {{window.hit}} ![x](/evil.png) [y](javascript:window.hit=4)\n    indented"
)


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


def call(address: str, path: str, cookie: str = "", **form: str) -> tuple[int, Any]:
    """Status, and the cookies that were set."""
    data = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(f"{address}{path}", data, {"Cookie": cookie})
    try:
        with urllib.request.urlopen(request, timeout=100) as response:
            set_ = response.headers.get_all("Set-Cookie") or []
            return response.status, "; ".join(each.split(";")[0] for each in set_)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, ""


def test_without_the_password_nobody_comes_in(caplog: pytest.LogCaptureFixture) -> None:
    needs_gradio()
    pool, model, _ = two()
    with caplog.at_level(logging.DEBUG):
        app = create_app(create_page(pool, ScriptedAgent("small")), ["ada:one:two", "bob:three"])
        with in_background(app, wait=False) as address:
            for path in ("/config", "/gradio_api/info"):
                assert call(address, path)[0] == 401
            assert call(address, "/gradio_api/queue/join", fn_index="0", data="[]")[0] == 401
            for user, password in (
                ("ada", "one"),
                ("ada", "three"),
                ("eve", "one:two"),
                ("bob", "x"),
            ):
                assert call(address, "/login", username=user, password=password)[0] == 400
            assert call(address, "/config", "access-token=made-up")[0] == 401
            for user, password in (("ada", "one:two"), ("bob", "three")):
                status, cookies = call(address, "/login", username=user, password=password)
                assert status == 200
                assert call(address, "/config", cookies)[0] == 200
    assert model.prompts == []
    assert "one:two" not in caplog.text


@pytest.mark.slow
def test_with_the_password_the_page_is_as_ever(browser: Any) -> None:
    pool, _, _ = two()
    app = create_app(create_page(pool, ScriptedAgent("small")), ["ada:secret"])
    with in_background(app, wait=False) as address:
        page = browser.new_page()
        page.set_default_timeout(100_000)
        page.goto(address)
        page.locator("input").nth(0).fill("ada")
        page.locator("input").nth(1).fill("secret")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#der-question textarea")
        look = Look(page, address)
        look.ask("Count")
        look.over("done: 1 call")
        assert look.replies() == ["a draft"]
        page.close()


def test_where_passwords_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_gradio()
    monkeypatch.delenv("DER_UI_PASSWORD", raising=False)
    assert read_logins() == []
    monkeypatch.setenv("DER_UI_PASSWORD", "ada:secret")
    monkeypatch.setenv("OTHER", "nocolon-secret")
    assert read_logins() == ["ada:secret"]
    assert read_logins(["OTHER"]) == ["nocolon-secret"]
    assert main(["ui", "--port", "0", "--password-env", "DER_UI_PASSWORD", "NOT_SET"]) == 2
    assert "NOT_SET is not set; set it to USER:PASSWORD" in capsys.readouterr().err
    assert main(["ui", "--port", "0", "--password-env", "OTHER"]) == 2
    said = "".join(capsys.readouterr())
    assert "a login is not of the form USER:PASSWORD" in said
    assert "secret" not in said.replace("ada:secret", "")
    with pytest.raises(ServerError, match="not of the form"):
        check_logins([":secret"])


@pytest.mark.parametrize(
    ("host", "logins", "warned"),
    [("0.0.0.0", [], True), ("0.0.0.0", ["ada:secret"], False), ("127.0.0.1", [], False)],
)
def test_a_page_that_stands_open_is_warned_of(
    host: str,
    logins: list[str],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    needs_gradio()

    class Ended:
        should_exit = False

        async def serve(self, sockets: Any) -> None:
            """Ends at once."""

    # Only loopback sockets are allowed in tests.
    monkeypatch.setattr(
        "der_graph.ui.app.open_socket", lambda host, port: open_socket("127.0.0.1", 0)
    )
    monkeypatch.setattr("der_graph.ui.app.make_server", lambda app, **settings: Ended())
    pool, _, _ = two()
    with caplog.at_level(logging.WARNING, "der_graph.ui"):
        serve_page(pool, ScriptedAgent("small"), host=host, port=0, logins=logins)
    said = [record.getMessage() for record in caplog.records if record.name == "der_graph.ui"]
    expected = "no password is set: everybody who reaches http://0.0.0.0:"
    assert [text.startswith(expected) for text in said] == ([True] if warned else [])
    assert "secret" not in caplog.text


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
