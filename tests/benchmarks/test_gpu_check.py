"""The check of a GPU, with tiny models on the CPU: every part runs, and what it finds is written down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

ENV = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_part_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "gpu_check.sh"), str(tmp_path), "--tiny"],
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert list(found) == [
        *("card", "equal", "speed tiny", "compiled", "routes", "decisions", "memory", "demo")
    ]
    assert set(found["equal"].values()) == {1.0}
    speed = found["speed tiny"]
    for batching in ("static", "continuous"):
        for flights in ("1", "2", "4", "4 staggered"):
            assert speed[f"{batching} {flights}"]["tokens_per_s"] > 0
            assert speed[f"{batching} {flights}"]["first_token_s"] > 0
            assert speed[f"{batching} {flights}"]["answer_s"] > 0
    assert speed["continuous_over_one_at_a_time"] > 0
    assert speed["continuous_over_static_staggered"] > 0
    assert speed["kv_bytes_per_token"] == 2 * 2 * 2 * 8 * 4  # layers, heads, their size, float32
    assert found["routes"]["route_over_generations"] > 1
    assert found["decisions"]["cpu 1"] > 0
    page = (tmp_path / "gpu.md").read_text("utf-8")
    assert "Measured on: CPU, no figure of a GPU" in page
    assert "| tiny | continuous | 4 staggered |" in page


def test_without_a_gpu_the_real_check_says_so(tmp_path: Path) -> None:
    script = str(ROOT / "scripts" / "gpu_check.sh")
    done = subprocess.run(
        ["bash", script, str(tmp_path)],
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no CUDA device here; --tiny runs the check with tiny models" in done.stderr
