"""What has answered before a fork answers in the child as well: gunicorn's `--preload`, Celery's workers."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import save_tiny

from der_graph.nodes.reliability.bulkhead import Bulkhead
from der_graph.nodes.reliability.copying import _renewals, renew_in_children

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.mark.slow
def test_whoever_has_answered_answers_in_a_child_too(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    script = Path(__file__).parents[2] / "forked.py"
    # With more than one thread: those of OpenMP are lost as well.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=400, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith("right right")] == [
        f"{kind} {way} right right"
        for kind in ("function", "coroutine", "chat")
        for way in ("invoke", "ainvoke")
    ]
    assert lines[-1] == "encoder 384 384"


def test_objects_that_are_gone_are_not_renewed() -> None:
    called: list[str] = []

    class Thing:
        def renew(self) -> None:
            called.append("renewed")

    thing, kept = Thing(), Bulkhead()  # which has places of its own, too
    renew_in_children(thing.renew)
    renew_in_children(thing.renew)
    assert sum(each is thing for each in _renewals) == 1
    assert {kept, kept.places} <= set(_renewals)
    del thing
    gc.collect()
    assert not any(isinstance(each, Thing) for each in _renewals)
    assert called == []
