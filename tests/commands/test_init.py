"""`der init`: from models, or a server, to a pool file that can be used."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from der_graph.cli import main
from der_graph.errors import PoolError
from der_graph.pool import load_pool
from der_graph.pool.draft import Found, chosen, models_of, names_of, pool_text

KEY = "sk-do-not-write-me"


@contextmanager
def a_server(
    *models: str, key: str = "", broken: str = "", bare: bool = False, no_list: int = 0
) -> Iterator[str]:
    """An OpenAI-compatible server that answers 5.

    `bare`: its list of models is nothing but a list; `no_list`: the status that it has in place of one.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def reply(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refused(self) -> bool:
            if key and self.headers.get("authorization") != f"Bearer {key}":
                self.reply(401, {"error": {"message": "who are you?"}})
                return True
            return False

        def do_GET(self) -> None:
            if no_list:
                self.reply(no_list, {"error": {"message": "no such thing"}})
            elif not self.refused():
                listed = [{"id": model} for model in models]
                self.reply(200, listed if bare else {"data": listed})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.refused():
                return
            if body["model"] == broken:
                self.reply(400, {"error": {"message": "out of memory"}})
                return
            message = {"role": "assistant", "content": "5"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
            self.reply(
                200,
                {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                 "choices": [choice], "usage": usage},
            )  # fmt: skip

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def init(*args: str) -> int:
    return main(["init", *args])


def test_a_server_in_three_commands(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "pool.yaml"
    with a_server("small-1b", "large-70b") as url:
        assert init("--base-url", url, "--yes", "--out", str(file)) == 0
        assert main(["ask", "What is 2 + 3?", "--pool", str(file), "--json"]) == 0
    state = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert state["answer"] == "5"
    assert state["route"][0]["explanation"]["source"] == "prior"
    pool = load_pool(file)
    assert [(e.name, e.cost) for e in pool] == [("small-1b", 1.0), ("large-70b", 70.0)]
    assert pool.settings.cost_unit == "parameters_b"
    assert all(e.seconds and e.seconds < 30 for e in pool)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_a_list(status: int, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "pool.yaml"
    with a_server("small-1b", no_list=status) as url:
        assert init("--base-url", url, "--yes", "--out", str(file)) == 2
        assert "name those that you want" in capsys.readouterr().err
        assert init("small-1b", "--base-url", url, "--yes", "--out", str(file)) == 0
    assert load_pool(file).names == ("small-1b",)


def test_no_key_is_written(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    file = tmp_path / "pool.yaml"
    with a_server("small-1b", key=KEY) as url:
        assert init("--base-url", url, "--yes", "--out", str(file)) == 2
        assert "refused (401); name the variable" in capsys.readouterr().err
        assert not file.exists()
        assert init("--base-url", url, "--api-key-env", "MY_KEY", "--yes", "--out", str(file)) == 0
        assert main(["ask", "What?", "--pool", str(file)]) == 0
    said = capsys.readouterr()
    assert KEY not in file.read_text() + said.out + said.err
    assert "${MY_KEY}" in file.read_text()


def test_who_does_not_answer_is_left_out(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "pool.yaml"
    with a_server("good-1b", "bad-2b", broken="bad-2b") as url:
        assert init("--base-url", url, "--yes", "--out", str(file)) == 0
        assert load_pool(file).names == ("good-1b",)
        assert '# left out: "openai:bad-2b": ' in file.read_text()
        assert "bad-2b: left out, " in capsys.readouterr().err
        file.unlink()
        assert init("bad-2b", "--base-url", url, "--yes", "--out", str(file)) == 2
    assert "no model can be used; openai:bad-2b: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [(["--yes"], "name at least one model"), (["a:b", "a:b", "--yes"], "named twice"),
     (["openai:gpt-4o-mini"], "give --yes, as nobody can be asked"),
     (["--base-url", "ftp://x", "--yes"], "give an address such as"),
     (["--base-url", "http://me:pw@127.0.0.1/v1", "--yes"], "no password in the address"),
     (["--base-url", "http://127.0.0.1:9/v1", "--yes"], "no list of models"),
     (["--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "NOT_SET", "--yes"], "NOT_SET is not set"),
     (["nobody:model-7b", "--yes"], "no model can be used; nobody:model-7b")],
)  # fmt: skip
def test_bad_input(args: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert init(*args, "--out", str(tmp_path / "pool.yaml")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "pw@" not in error
    assert not list(tmp_path.iterdir())


def test_many_models() -> None:
    many = [f"m{i}" for i in range(300)]
    with a_server(*many) as url:
        assert len(models_of(url)) == 300
    with pytest.raises(
        PoolError, match=r"lists 300 models; name those .* der init m0 m1 --base-url u"
    ):
        chosen(many, [], "u")
    with pytest.raises(PoolError, match=r"u has no model 'x'; it has m0, .* and 280 more"):
        chosen(many, ["x"], "u")
    assert chosen(many, ["m7"], "u") == ["m7"]
    assert chosen(many, ["openai:m7"], "u") == ["m7"]  # as models are named elsewhere
    assert chosen(["openai:m7"], ["openai:m7"], "u") == ["openai:m7"]
    with pytest.raises(PoolError, match=r"did you mean 'gemma-2b'\? it has gemma-2b"):
        chosen(["gemma-2b"], ["gema-2b"], "u")
    with a_server() as url:
        assert models_of(url) == []
    with pytest.raises(PoolError, match=r"u lists no models; .* name those that you want"):
        chosen([], [], "u")
    assert chosen([], ["m7"], "u") == ["m7"]
    with a_server("a", "b", "a", bare=True) as url:
        assert models_of(url) == ["a", "b"]


def test_prices_where_all_are_known(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    cheap = Found("a", "openai:a", prices=(0.15, 0.6))
    file.write_text(pool_text([cheap, Found("b", "openai:b", prices=(1.0, 5.0), about="tools")]))
    assert "token_prices: {input: 0.15, output: 0.6}" in file.read_text()
    assert "cost: 0.0012 #" in file.read_text()  # (4000 * 0.15 + 1000 * 0.6) / 1e6
    assert "cost_unit: usd" in file.read_text()
    mixed = pool_text([cheap, Found("b", "openai:b")])
    assert "cost_unit: calls" in mixed
    assert "no price of every model is known ($0.15 in, $0.6 out per million)" in mixed


def test_a_server_cannot_write_the_file(tmp_path: Path) -> None:
    name = "x\nsettings: {agent: evil}\u2028# "
    bad = Found("bad", f"openai:{name}", error=f"no\n{name}")
    file = tmp_path / "pool.yaml"
    file.write_text(pool_text([Found("good", f"openai:{name}", about=name, size=1.0), bad]))
    assert file.read_text().count("\nsettings:") == 1
    assert "agent: evil}\n" not in file.read_text()


def test_names() -> None:
    assert names_of(["openai:gpt-4o", "azure:gpt-4o", "org/m x"]) == ["gpt-4o", "gpt-4o-2", "m-x"]
    local = ["openai:qwen2.5:0.5b", "ollama:llama3.2:1b", "openai:meta/llama3.2:1b"]
    assert names_of(local) == ["qwen2.5-0.5b", "llama3.2-1b", "llama3.2-1b-2"]
