"""`der serve --config der.toml`: the same names as the flags, and flags win."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from der_graph import cli
from der_graph.cli import _parser
from der_graph.config_file import with_config
from der_graph.errors import ConfigError

WHOLE = """
pool = "pools/mine.yaml"
agent = "planner"
host = "0.0.0.0"
port = 9000
api-key-env = ["MY_KEY", "YOUR_KEY"]
cors-origin = "https://chat.example"
deadline = 60
max-cost = 0.5
max-steps = 3
cache = "/var/cache/der/answers.sqlite"
root-path = "/der"
quiet = true
"""


def options(folder: Path, text: str, *words: str) -> argparse.Namespace:
    (folder / "der.toml").write_text(text, encoding="utf-8")
    line = ["--config", str(folder / "der.toml"), *words]
    return with_config(_parser().parse_args(["serve", *line]), line)


def test_every_kind_of_value_is_read_as_its_flag_would_be(tmp_path: Path) -> None:
    args = options(tmp_path, WHOLE)
    found = {name: value for name, value in vars(args).items() if name not in ("parser", "run")}
    assert found["pool"] == str(tmp_path / "pools/mine.yaml")  # relative to the file
    assert found["cache"] == "/var/cache/der/answers.sqlite"
    assert found["agent"] == "planner"
    assert (found["host"], found["port"]) == ("0.0.0.0", 9000)
    assert found["api_key_env"] == ["MY_KEY", "YOUR_KEY"]
    assert found["cors_origin"] == ["https://chat.example"]
    assert (found["deadline"], found["max_cost"], found["max_steps"]) == (60.0, 0.5, 3)
    assert (found["root_path"], found["quiet"]) == ("/der", True)
    assert found["grace"] == 30.0  # the default of what nobody says


def test_flags_win_wherever_they_stand_and_whatever_they_say(tmp_path: Path) -> None:
    flags = ["--port", "8000", "--cors-origin", "https://mine.example", "--max-cost", "2"]
    args = options(tmp_path, WHOLE, *flags)
    assert args.port == 8000  # said, though it is the default
    assert args.cors_origin == ["https://mine.example"]  # not one more
    assert args.max_cost == 2.0
    assert args.deadline == 60.0
    line = [*flags, "--config", str(tmp_path / "der.toml")]
    before = with_config(_parser().parse_args(["serve", *line]), line)
    assert (before.port, before.max_cost, before.deadline) == (8000, 2.0, 60.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_cost = 1", "unknown option 'max_cost'; did you mean 'max-cost'"),
        ("dedline = 1", "did you mean 'deadline'"),
        ("[serve]\nport = 1", "unknown option 'serve'; .*allowed: .*, port, "),
        ("api-key = 'sk-123'", "secrets are not read from this file.*'api-key-env'"),
        ("api-key-env = 'sk-123'", "api-key-env: that is no name of an environment variable"),
        ("port = 'many'", "port is 'many'; it must be a whole number"),
        ("port = 8000.5", "port is 8000.5; it must be a whole number"),
        ("deadline = true", "deadline is True; it must be a text or a number"),
        ("quiet = 'yes'", "quiet is 'yes'; it must be true or false"),
        ("max-cost = [1, 2]", r"max-cost is \[1, 2\]"),
        ("explore = -1", "explore: -1 is not a number >= 0"),
        ("port = ", "cannot be read as TOML"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        options(tmp_path, text)
    assert "sk-123" not in str(told.value)


def test_a_missing_file_ends_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--config", str(tmp_path / "none.toml")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_the_server_gets_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import der_graph.server

    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        der_graph.server, "serve", lambda pool, agent, **more: seen.update(more, agent=agent)
    )
    monkeypatch.setenv("A_KEY", "a-long-enough-key")
    (tmp_path / "der.toml").write_text(
        "api-key-env = 'A_KEY'\nmax-cost = 0.5\nroot-path = '/der'", encoding="utf-8"
    )
    assert cli.main(["serve", "--config", str(tmp_path / "der.toml"), "--max-cost", "1"]) == 0
    assert seen["keys"] == {"A_KEY": "a-long-enough-key"}
    assert (seen["max_cost"], seen["root_path"], seen["agent"]) == (1.0, "/der", None)


def test_a_key_that_is_given_in_place_of_its_variable_is_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["serve", "--api-key-env", "sk-123"])
    assert "sk-123" not in capsys.readouterr().err
