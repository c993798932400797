"""`der completion`: the shell completes what `der` understands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import run

BASH = shutil.which("bash") or ""

DRIVER = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_der
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("shtab", reason="needs the extra completion")
    assert run("completion", shell) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(not BASH, reason="needs bash")
def test_bash_completes_commands_options_choices_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "der.bash").write_text(script("bash", capsys), encoding="utf-8")
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mines").mkdir()

    def completed(*words: str) -> set[str]:
        line = [BASH, "--norc", "-c", DRIVER, "bash", "der.bash", "der", *words]
        done = subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, text=True)
        assert done.stderr == ""
        return {word.strip() for word in done.stdout.split()}

    assert completed("tr") == {"train"}
    assert {"ask", "serve", "completion"} <= completed("")
    assert {"check", "add", "refresh"} <= completed("pool", "")
    assert completed("train", "--res") == {"--resume"}
    assert completed("train", "--preset", "p") == {"paper"}
    assert completed("train", "--pool", "min") == {"mine.yaml", "mines"}
    assert completed("train", "--pool", "mine.yaml", "--out", "min") == {"mines"}


def test_zsh_gets_commands_with_their_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("zsh", capsys)
    assert text.startswith("#compdef der\n")
    assert "train:'train an agent for a pool'" in text
    assert ":FILE:_files" in text
    assert ":FOLDER:_files -/" in text


def test_other_shells_and_a_missing_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("completion", "tcsh") == 2
    assert "choose from" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "shtab", None)  # as if it were not installed
    assert run("completion", "bash") == 2
    assert "pip install 'der-graph[completion]'" in capsys.readouterr().err
