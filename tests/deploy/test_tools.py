"""What promtool, Docker Compose and Helm themselves say of deploy/. Skipped where a tool is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

TAKEN: list[dict[str, Any]] = [
    {},
    {"autoscaling": {"enabled": True}, "persistence": {"enabled": False}},
    {"replicas": 3, "persistence": {"enabled": False}, "postgresql": {"secretName": "12"}},
    {"persistence": {"existingClaim": "mine"}},
    {"persistence": {"storageClass": "fast", "accessModes": ["ReadWriteMany"]}},
    {"serviceMonitor": {"enabled": True, "labels": {"release": "shop"}}},
    {
        "config": 'port = 8000\npool = "pool.yaml"',
        "files": {"pool.yaml": "experts:\n\n  - {{ x }}"},
    },
    {
        "image": {"tag": "1.10"},
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {},
        "podAnnotations": {"example/note": "1"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    },
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 2}, "persistence.enabled=false"),
    ({"autoscaling": {"enabled": True}}, "persistence.enabled=false"),
    ({"replica": 2}, "replica"),
    ({"startupMinutes": 0.5}, "startupMinutes"),
    ({"secretName": ""}, "secretName"),
]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def told(*command: str, code: int = 0, **settings: str) -> str:
    env = {**os.environ, **settings}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rendered(chart: Path, given: dict[str, Any], folder: Path) -> tuple[bool, str]:
    """Whether Helm takes these values, and its manifests or its complaint."""
    if shutil.which("helm") is None:
        library = pytest.importorskip("helm_python.chart", reason="helm is not installed")
        try:
            with library.Chart.load(str(chart)) as loaded:
                files: dict[str, str] = loaded.render(given, name="shop")
        except Exception as error:  # its errors have no common class in older releases
            return False, str(error)
        return True, "\n---\n".join(t for name, t in files.items() if name.endswith(".yaml"))
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    command = ("helm", "template", "shop", str(chart), "--values", str(file))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr


@pytest.fixture
def deploy(repo_root: Path) -> Path:
    return repo_root / "deploy"


def test_prometheus_takes_its_configuration(deploy: Path) -> None:
    told(program("promtool"), "check", "config", str(deploy / "prometheus.yml"))


def test_prometheus_understands_every_panel(deploy: Path, tmp_path: Path) -> None:
    board = json.loads((deploy / "grafana" / "der.json").read_text(encoding="utf-8"))
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(shown)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(shown)} rules found" in told(program("promtool"), "check", "rules", str(file))


def test_docker_compose_takes_its_file(deploy: Path) -> None:
    docker = program("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    command = (docker, "compose", "--file", str(deploy / "compose.yaml"), "config")
    text = told(*command, DER_API_KEY="key", GRAFANA_PASSWORD="word")
    assert set(yaml.safe_load(text)["services"]) == {"der", "grafana", "prometheus"}
    assert "set a key for your clients" in told(
        *command, code=1, DER_API_KEY="", GRAFANA_PASSWORD="w"
    )


@pytest.mark.parametrize("given", TAKEN, ids=lambda given: ",".join(given) or "none")
def test_helm_renders_what_kubernetes_takes(
    deploy: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    well, text = rendered(deploy / "helm", given, tmp_path)
    assert well, text
    manifests = [each for each in yaml.safe_load_all(text) if each]
    kinds = {each["kind"] for each in manifests}
    assert {"ConfigMap", "Deployment", "Service"} <= kinds
    assert ("HorizontalPodAutoscaler" in kinds) == ("autoscaling" in given)
    assert ("ServiceMonitor" in kinds) == ("serviceMonitor" in given)
    schemas = pytest.importorskip("kubernetes_validate")
    for each in manifests:
        if each["kind"] != "ServiceMonitor":  # of the Prometheus operator
            schemas.validate(each, schemas.latest_version(), strict=True)


@pytest.mark.parametrize(("given", "why"), REFUSED)
def test_helm_refuses_what_cannot_work(
    deploy: Path, tmp_path: Path, given: dict[str, Any], why: str
) -> None:
    well, text = rendered(deploy / "helm", given, tmp_path)
    assert not well
    assert why in text
