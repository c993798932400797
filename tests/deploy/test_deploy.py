"""The files in deploy/ fit the server: its options, its metrics, its port."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from der_graph.cli import _parser
from der_graph.config_file import with_config


def test_commands_are_understood(repo_root: Path) -> None:
    dockerfile = (repo_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    command = json.loads(dockerfile.splitlines()[-1].removeprefix("CMD "))
    compose = yaml.safe_load((repo_root / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    for words in (command, compose["services"]["der"]["command"]):
        given = [word.replace("/etc/der/", f"{repo_root}/deploy/") for word in words[2:]]
        args = with_config(_parser().parse_args(["serve", *given]), given)
        assert (args.host, args.port) == ("0.0.0.0", 8000)
        assert args.cache.startswith("/var/cache/der/")
        assert args.grace < int(compose["services"]["der"]["stop_grace_period"].removesuffix("s"))
    copied = re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (repo_root / name).exists(), name


def test_every_option_that_the_configuration_shows_is_one(repo_root: Path, tmp_path: Path) -> None:
    text = (repo_root / "deploy" / "der.toml").read_text(encoding="utf-8")
    shown = re.sub(r"^# (?=[\w-]+ = )", "", text, flags=re.MULTILINE)
    assert shown.count("\n") == text.count("\n")
    assert shown != text
    (tmp_path / "der.toml").write_text(shown, encoding="utf-8")
    given = ["--config", str(tmp_path / "der.toml")]
    args = with_config(_parser().parse_args(["serve", *given]), given)
    assert (args.pool, args.root_path) == (str(tmp_path / "pool.yaml"), "/der")


def test_files_that_are_mounted_exist(repo_root: Path) -> None:
    folder = repo_root / "deploy"
    compose = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))
    mounts = [v for s in compose["services"].values() for v in s.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(files) == 5
    for name in files:
        assert (folder / name).is_file(), name
    scrape = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": ["der:8000"]}]


def test_the_dashboard_shows_what_the_server_counts(repo_root: Path) -> None:
    pytest.importorskip("prometheus_client")
    from der_graph.server.metrics import Metrics

    known = set()
    for family in Metrics().registry.collect():
        kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
        known |= {family.name + end for end in kinds[family.type]}
    board = json.loads((repo_root / "deploy/grafana/der.json").read_text(encoding="utf-8"))
    shown = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    named = {name for expr in shown for name in re.findall(r"der_\w+", expr)}
    assert len(named) >= 9
    assert named <= known
