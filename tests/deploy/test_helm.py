"""The Helm chart fits the server; read without Helm, so expressions are replaced by a word."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

import der_graph
from der_graph.cli import _parser
from der_graph.config_file import with_config

CONTROL = re.compile(r"\s*\{\{-?\s*(if|range|with|end|else|define)\b.*?\}\}\s*")
BLOCK = re.compile(r"^\s*\{\{-? .*nindent.*\}\}$", re.MULTILINE)


@pytest.fixture
def chart(repo_root: Path) -> Path:
    return repo_root / "deploy" / "helm"


def values(chart: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    return found


def templates(chart: Path) -> dict[str, str]:
    files = [path for path in (chart / "templates").iterdir() if path.is_file()]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def manifest(text: str) -> dict[str, Any]:
    """A template with everything in it that is under a condition, but no `else`."""
    lines, otherwise = [], False
    for line in text.splitlines():
        control = CONTROL.fullmatch(line)
        if control:
            otherwise = control[1] == "else"
        elif not otherwise:
            lines.append(line)
    plain = re.sub(r"\{\{.*?\}\}", "word", BLOCK.sub("", "\n".join(lines)))
    found: dict[str, Any] = yaml.safe_load(plain)
    return found


def test_every_value_is_used_and_every_use_has_a_value(chart: Path) -> None:
    def leaves(tree: dict[str, Any], path: str = "") -> set[str]:
        found = set()
        for name, value in tree.items():
            inside = isinstance(value, dict) and value and name != "resources"
            found |= leaves(value, f"{path}{name}.") if inside else {f"{path}{name}"}
        return found

    text = "\n".join(templates(chart).values())
    assert set(re.findall(r"\.Values\.([\w.]+)", text)) == leaves(values(chart))


def test_conditions_and_helpers_are_whole(chart: Path) -> None:
    files = templates(chart)
    for name, text in files.items():
        opened = re.findall(r"\{\{-?\s*(?:if|range|with|define)\b", text)
        assert len(opened) == len(re.findall(r"\{\{-?\s*end\b", text)), name
        assert text.count("{{") == text.count("}}"), name
    text = "\n".join(files.values())
    defined = set(re.findall(r'define "([\w.-]+)"', text))
    assert set(re.findall(r'include "([\w.-]+)"', text)) == defined


def test_each_template_is_one_manifest(chart: Path) -> None:
    kinds = {
        name: manifest(text)["kind"]
        for name, text in templates(chart).items()
        if name.endswith(".yaml")
    }
    assert kinds == {
        "configmap.yaml": "ConfigMap",
        "deployment.yaml": "Deployment",
        "hpa.yaml": "HorizontalPodAutoscaler",
        "pvc.yaml": "PersistentVolumeClaim",
        "service.yaml": "Service",
        "servicemonitor.yaml": "ServiceMonitor",
    }


def test_the_container_is_the_images(chart: Path, repo_root: Path) -> None:
    spec = manifest(templates(chart)["deployment.yaml"])["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["command"] == ["der", "serve", "--config", "/etc/der/der.toml"]
    probes = {kind: container[kind]["httpGet"]["path"] for kind in container if "Probe" in kind}
    assert probes == {
        "startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz",
    }  # fmt: skip
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {"config": "/etc/der", "cache": "/var/cache/der", "tmp": "/tmp"}
    assert [each["name"] for each in spec["volumes"]] == list(mounts)
    dockerfile = (repo_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f"--uid {spec['securityContext']['runAsUser']} " in dockerfile
    assert f"EXPOSE {container['ports'][0]['containerPort']}" in dockerfile
    monitor = manifest(templates(chart)["servicemonitor.yaml"])
    assert monitor["spec"]["endpoints"][0]["path"] == "/metrics"


def test_the_address_of_the_database_is_in_a_secret(chart: Path) -> None:
    text = templates(chart)["deployment.yaml"]
    container = manifest(text)["spec"]["template"]["spec"]["containers"][0]
    reference = {"secretKeyRef": {"name": "word", "key": "word"}}
    assert container["env"] == [{"name": "DER_LEARN", "valueFrom": reference}]
    assert "{{- if .Values.postgresql.secretName }}\n          env:" in text
    assert values(chart)["postgresql"]["secretName"] == ""


def test_the_image_has_what_its_options_need(repo_root: Path) -> None:
    dockerfile = (repo_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG EXTRAS=(.*)$", dockerfile, re.MULTILINE)
    assert found is not None
    # Without a pool file the demo pool is served, which needs its extra as well.
    needed = {"serve", "langchain", "init", "learn", "postgres", "demo"}
    assert needed <= set(found[1].split(","))


def test_it_runs_where_pods_are_restricted(chart: Path) -> None:
    """What Kubernetes' Pod Security Standard `restricted` asks for, and a read-only root."""
    spec = manifest(templates(chart)["deployment.yaml"])["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_schema_knows_the_values(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    Draft7Validator(schema).validate(values(chart))

    def names(tree: dict[str, Any]) -> set[str]:
        """Every name that the schema allows, with those of the objects that it closes."""
        found = set()
        for name, inner in tree.get("properties", {}).items():
            inside = names(inner)
            found |= {f"{name}.{each}" for each in inside} or {name}
        return found

    given = values(chart)
    for path in names(schema) - {"global"}:
        found: Any = given
        for part in path.split("."):
            found = found[part]


def test_its_options_are_those_of_the_compose_file(
    chart: Path, repo_root: Path, tmp_path: Path
) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    given = values(chart)
    compose = tomllib.loads((repo_root / "deploy" / "der.toml").read_text(encoding="utf-8"))
    assert tomllib.loads(given["config"]) == compose
    shown = re.sub(r"^# (?=[\w-]+ = )", "", given["config"], flags=re.MULTILINE)
    file = tmp_path / "der.toml"
    file.write_text(shown, encoding="utf-8")
    words = ["--config", str(file)]
    args = with_config(_parser().parse_args(["serve", *words]), words)
    assert (args.pool, args.learn) == (str(tmp_path / "pool.yaml"), "/var/cache/der/learnt.sqlite")
    assert given["terminationGracePeriodSeconds"] > args.grace
    assert not given["autoscaling"]["enabled"]


def test_its_version_is_the_packages(chart: Path) -> None:
    described = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    assert described["appVersion"] == der_graph.__version__
