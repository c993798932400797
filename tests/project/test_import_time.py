"""What is loaded when: serving must not wait for, nor need, what it does not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    "torch",
    "transformers",
    "stable_baselines3",
    "sb3_contrib",
    "gymnasium",
    "matplotlib",
    "sklearn",
]


def loaded_by(code: str, folder: Path) -> set[str]:
    """Which of the heavy modules a fresh interpreter holds after running the code."""
    report = (
        f"{code}\nimport sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", report],
        cwd=folder,
        env={**os.environ, "LANGSMITH_TRACING": "false"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy(repo_root: Path) -> None:
    assert loaded_by("import der_graph", repo_root) == set()


def test_nor_does_building_a_graph_of_chat_models(repo_root: Path) -> None:
    assert loaded_by("from der_graph import Expert, create_der_graph, DERState", repo_root) == set()


@pytest.mark.parametrize("module", ["der_graph.cli", "der_graph.pool", "der_graph.nodes.rules"])
def test_nor_does_reading_a_command_or_a_pool(module: str, repo_root: Path) -> None:
    assert loaded_by(f"import {module}", repo_root) == set()


def test_serving_needs_no_training_library(repo_root: Path) -> None:
    loaded = loaded_by("from der_graph import DERAgent, load_agent, load_pool", repo_root)
    assert loaded.isdisjoint(
        {"stable_baselines3", "sb3_contrib", "gymnasium", "matplotlib", "sklearn"}
    )
