"""Commands where the environment is hostile: streams, home folder, permissions, disks, other processes."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run

from der_graph.data.saving import sole_folder, sole_writer
from der_graph.errors import DataError

PYTHON_POOL = (
    'experts: [{name: one, backend: python, model: "%s:one", cost: 1}]\nsettings: {max_steps: 1}\n'
)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """One function, whose answer has what many an output cannot show, and a line separator."""
    name = f"environment_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        'def one(question):\n    return "caf\\u00e9 \\U0001f642 a\\u2028b"\n', encoding="utf-8"
    )
    path = tmp_path / "pool.yaml"
    path.write_text(PYTHON_POOL % name)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A file of two questions, and where their answers go."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "a"}\n{"question": "b"}\n')
    return data, tmp_path / "out.jsonl"


def ask(pool: Path, *words: object) -> int:
    return run("ask", *words, "--pool", pool, "--allow-python")


def ask_all(pool: Path, data: Path, out: Path, *words: object) -> int:
    return ask(pool, "--file", data, "--out", out, "--cache", ":memory:", *words)


def output(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    return shown


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("ascii", rb"caf\u00e9 \ud83d\ude42"),
        ("latin-1", b"caf\xe9 \\ud83d\\ude42"),
        ("utf-8", "café \U0001f642".encode()),
    ],
)
def test_output_of_any_encoding_shows_any_answer(
    pool: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, text: bytes
) -> None:
    shown = output(monkeypatch, encoding)
    assert ask(pool, "hi") == 0
    assert text in shown.getvalue()


def test_json_is_json_in_any_encoding(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = output(monkeypatch, "ascii")
    assert ask(pool, "wie spät? \U0001f642", "--json") == 0
    state = json.loads(shown.getvalue())
    assert state["question"] == "wie spät? \U0001f642"
    assert state["answer"] == "café \U0001f642 a\u2028b"


def test_a_question_is_utf8_whatever_the_locale(
    pool: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that the locale cannot read come as lone surrogates."""
    as_ascii = "spät".encode().decode("ascii", "surrogateescape")
    assert ask(pool, as_ascii, "--json") == 0
    assert json.loads(capsys.readouterr().out)["question"] == "spät"
    assert ask(pool, b"\xff?".decode("ascii", "surrogateescape")) == 2
    assert "the question is not UTF-8 text" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    assert ask(pool, "-") == 2
    assert "the question is not UTF-8 text" in capsys.readouterr().err


def test_a_service_without_streams(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert ask(pool, "hi") == 0
    assert ask(pool, "-") == 2  # there is no question
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()


class FullDisk(io.TextIOBase):
    """As `/dev/full`."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_output_on_a_full_disk(
    pool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    assert ask(pool, "hi") == 2
    assert "der: No space left on device; check the paths" in capsys.readouterr().err


def test_a_route_that_cannot_be_shown_is_not_left_open(
    pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads would keep the process alive while somebody holds the error, as Python itself does."""
    from der_graph import display

    def fail(*_: object) -> None:
        raise RuntimeError("cannot be shown")

    closed: list[bool] = []
    der = pytest.importorskip("der_graph.graph")

    class Parts:
        def __init__(self, parts: Any) -> None:
            self._parts = parts

        def __iter__(self) -> Any:
            return iter(self._parts)

        def close(self) -> None:
            self._parts.close()
            closed.append(True)

    graph = type(der.create_der_graph([str.upper]).compile())
    stream = graph.stream
    monkeypatch.setattr(graph, "stream", lambda *a, **k: Parts(stream(*a, **k)))
    monkeypatch.setattr(display.Display, "event", fail)
    with pytest.raises(RuntimeError, match="cannot be shown"):
        ask(pool, "hi")
    assert closed == [True]


def test_no_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for a user id without an account."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: os.fspath(path))
    for name in ("DER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert run("cache", "info") == 2
    assert "set DER_CACHE to a folder that can be written" in capsys.readouterr().err
    assert run("pool", "check", "~/pool.yaml") == 2
    assert "~/pool.yaml: there is no such pool file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_home_folder_in_options_and_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No shell expands `--cache=~/x`, and none reads the file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run("cache", "info", "--cache=~/answers.sqlite") == 0
    assert (tmp_path / "answers.sqlite").is_file()

    from der_graph.cli import _parser
    from der_graph.config_file import with_config

    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "der.toml"
    file.write_bytes(b'\xef\xbb\xbfcache = "~/served.sqlite"\r\npool = "mine.yaml"\r\n')
    words = ["--config", str(file)]
    found = with_config(_parser().parse_args(["serve", *words]), words)
    assert found.cache == str(tmp_path / "served.sqlite")
    assert found.pool == str(tmp_path / "conf" / "mine.yaml")


def test_files_as_windows_writes_them(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool.write_bytes(b"\xef\xbb\xbf" + pool.read_bytes().replace(b"\n", b"\r\n"))
    assert run("pool", "check", pool, "--allow-python") == 0
    assert "one" in capsys.readouterr().out


def test_answers_with_line_separators_are_gone_on_with(
    pool: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask_all(pool, *files, "--limit", 1) == 0
    assert ask_all(pool, *files) == 0
    assert "1 answered before, 1 questions to ask" in capsys.readouterr().err
    rows = [json.loads(line) for line in files[1].read_text(encoding="utf-8").split("\n") if line]
    assert [row["question"] for row in rows] == ["a", "b"]


def test_two_runs_do_not_write_the_same_file(
    pool: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = files
    with sole_writer(out):
        assert ask_all(pool, *files) == 2
    assert f"{out}: another process is writing to it; wait" in capsys.readouterr().err
    assert not out.exists()
    assert ask_all(pool, *files) == 0
    assert not list(out.parent.glob("*.lock"))


def test_a_lock_that_is_let_go_of_while_another_opens_it_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.name == "nt":
        pytest.skip("a file that is open stays there")
    out, opened = tmp_path / "out.jsonl", os.open
    first = contextlib.ExitStack()
    first.enter_context(sole_writer(out))

    def open_late(path: Any, *more: Any) -> int:
        found = opened(path, *more)
        first.close()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_late)
        second = contextlib.ExitStack()
        with contextlib.suppress(DataError):
            second.enter_context(sole_writer(out))
            with pytest.raises(DataError, match="another process"), sole_writer(out):
                pass
        second.close()


@pytest.mark.parametrize("command", ["train", "eval"])
def test_two_runs_do_not_write_into_the_same_folder(
    recorded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    pool, data = recorded
    out = tmp_path / "out"
    with sole_folder(out):
        assert (
            run(command, "--pool", pool, "--data", data, "--out", out, "--cache", ":memory:") == 2
        )
    assert "out: another process is writing to it; wait" in capsys.readouterr().err
    assert not out.exists()


def test_a_device_is_not_replaced(pool: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    """A file takes its name by being renamed, which would remove the device for everybody."""
    pipe = tmp_path / "pipe"
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(pipe)
    for words in ((), ("--route-only",)):
        assert ask_all(pool, files[0], pipe, *words) == 2
    assert pipe.is_fifo()


def test_results_that_cannot_be_written_cost_nothing(
    recorded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, data = recorded
    taken = tmp_path / "taken"
    taken.write_text("a file")
    words = ("--pool", pool, "--data", data, "--cache", ":memory:")
    assert run("eval", *words, "--out", taken) == 2
    assert run("probe", *words, "--out", taken / "profile.json") == 2
    printed = capsys.readouterr().err
    assert (
        printed.count(f"{taken}: the folder cannot be made or written to ({taken} is a file)") == 2
    )
    assert "quality" not in printed
    assert run("probe", *words, "--out", tmp_path) == 2
    printed = capsys.readouterr().err
    assert f"{tmp_path} is a folder" in printed
    assert "cost" not in printed


def test_output_into_head(pool: Path) -> None:
    words = [sys.executable, "-m", "der_graph", "ask", "hi", "--allow-python", "--pool", str(pool)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), told) == (0, b"")


def test_a_store_below_a_file(tmp_path: Path) -> None:
    pytest.importorskip("langgraph.store.sqlite", reason="needs the extra learn")
    from der_graph.policies.planning.learning.route_store import open_store

    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="not a store that can be used"):
        open_store(tmp_path / "taken" / "learnt.sqlite")


def test_an_agent_that_a_full_disk_cuts_short(tmp_path: Path) -> None:
    """The writer of safetensors has an error of its own, which no command knows."""
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    import numpy as np

    from der_graph.policies.agent.folder import write_agent

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="safetensors"):
            write_agent(tmp_path, {"a": np.zeros(10_000, dtype=np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "no locks")]
)
def test_a_file_system_without_locks_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from filelock import FileLock

    def refuse(*args: object, **settings: object) -> None:
        raise error  # as it is by then

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with sole_writer(tmp_path):
        (tmp_path / "a").write_text("written")
    error = PermissionError(errno.EACCES, "denied")
    with pytest.raises(DataError, match="cannot be written"), sole_writer(tmp_path):
        pass


@pytest.mark.parametrize("words", [(), ("--quiet",), ("--json",)])
def test_nobody_waits_for_a_person(
    tmp_path: Path,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "asks_a_person.py").write_text(
        "from langgraph.types import interrupt\n\n\ndef one(question):\n    return interrupt(question)\n"
    )
    path = tmp_path / "pool.yaml"
    path.write_text(PYTHON_POOL % "asks_a_person")
    assert ask(path, "hi", *words) != 0
    told = capsys.readouterr()
    assert "an expert asks a person" in told.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    ("command", "way_on"),
    [("ask --file FILE --out OUT/a.jsonl --concurrency 1", "goes on from there"),
     ("eval --data FILE --out OUT/report", "the answer cache has what was answered"),
     ("probe --data FILE --out OUT/profile.json", "the answer cache has what was answered"),
     ("tune --data FILE --target-cost 1", "the answer cache has what was answered")],
)  # fmt: skip
def test_a_signal_keeps_what_was_answered(
    name: str,
    code: int,
    background: bool,
    command: str,
    way_on: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if background and name == "SIGINT":
        pytest.skip("it is ignored there")
    (tmp_path / "signalled.py").write_text(
        "import itertools, os, signal\n"
        "calls = itertools.count(1)\n"
        "def one(question):\n"
        "    if next(calls) == 3:\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "    return '7'\n"
    )
    (tmp_path / "pool.yaml").write_text(
        "experts: [{name: one, backend: python, model: 'signalled:one', cost: 1}]\n"
    )
    rows = [{"id": str(i), "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(6)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "out").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    words = command.replace("FILE", str(tmp_path / "data.jsonl")).replace(
        "OUT", str(tmp_path / "out")
    )
    given = [*words.split(), "--pool", tmp_path / "pool.yaml", "--allow-python"]
    given += ["--cache", tmp_path / "cache.sqlite"]
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler
    )
    try:
        assert run(*given) == code
    finally:
        signal.signal(signal.SIGINT, before)
        sys.modules.pop("signalled", None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    said = capsys.readouterr().err
    assert way_on in said
    assert said.endswith("der: interrupted\n")
    assert not [each for each in (tmp_path / "out").rglob("*") if each.suffix in (".lock", ".part")]
