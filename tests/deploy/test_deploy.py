"""The files in deploy/ fit the server: its options, its metrics, its port."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


def test_the_image_is_built_from_files_that_are_there(repo_root: Path) -> None:
    dockerfile = (repo_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)).split()
    ignored = (repo_root / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    kept = {line.removeprefix("!") for line in ignored.splitlines() if line.startswith("!")}
    assert kept == set(copied)
    for name in copied:
        assert (repo_root / name).exists(), name
    described = (repo_root / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.search(r"^license-files = (\[.*\])$", described, re.MULTILINE)
    assert needed is not None
    assert {*json.loads(needed[1]), "pyproject.toml", "README.md"} <= kept  # the build reads them


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


def test_the_dashboard_groups_by_labels_that_there_are(repo_root: Path) -> None:
    pytest.importorskip("prometheus_client")
    from der_graph.server.metrics import Metrics

    counted = [each for each in vars(Metrics()).values() if hasattr(each, "_labelnames")]
    labels = {each._name: {*each._labelnames, "le"} for each in counted}
    board = json.loads((repo_root / "deploy/grafana/der.json").read_text(encoding="utf-8"))
    seen = 0
    for expr in [t["expr"] for panel in board["panels"] for t in panel["targets"]]:
        names = [each for each in labels if re.search(rf"\b{each}(_|\b)", expr)]
        by = ",".join(re.findall(r"by \(([^)]*)\)", expr) + re.findall(r"\{(\w+)=", expr))
        wanted = {each.strip() for each in by.split(",") if each.strip()}
        seen += len(wanted)
        assert names
        assert all(wanted <= labels[each] for each in names), expr
    assert seen >= 8


def test_the_health_check_asks_this_machine_and_no_proxy(repo_root: Path) -> None:
    class Ready(BaseHTTPRequestHandler):
        code = 200

        def do_GET(self) -> None:
            self.send_response(self.code if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    dockerfile = (repo_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^HEALTHCHECK .*\\\n  CMD (.*)$", dockerfile, re.MULTILINE)
    assert found is not None
    _, *words = json.loads(found[1])
    env = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"127.0.0.1:{server.server_port}"
        command = [sys.executable, *(word.replace("127.0.0.1:8000", here) for word in words)]
        assert here in command[-1]
        assert subprocess.run(command, env=env, check=False).returncode == 0
        Ready.code = 503
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        assert done.returncode == 1
        server.shutdown()
