"""Running the stages of `make results`.

A stage is current when its JSON is there and was made by the same command from the same data and the same
benchmark scripts; otherwise it runs. A stage whose data or weights are absent is skipped. The package itself
is not watched, or every edit of it would cost an hour: `--force` measures again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from results_memory import PeakMemory
from results_plan import HERE, ROOT, WEIGHTS, Places, Stage, filled, paths


def missing(what: Stage, places: Places) -> str | None:
    """What a stage lacks to run, in words; None if nothing."""
    absent = [file for file in paths(what, places) if not file.is_file()]
    if absent:
        return f"{absent[0].name} is not in {absent[0].parent}"
    weights = [module for module in WEIGHTS if find_spec(module) is None]
    if what.live and weights:
        return f"the demo's weights are not installed ({weights[0]}): make install"
    return None


def fingerprint(what: Stage, places: Places, *, fast: bool = False) -> dict[str, Any]:
    """What a stage's result depends on: its arguments, its data, its scripts."""
    files = [HERE / name for name in what.code]
    if what.script.endswith(".py"):
        files.append(ROOT / what.script)
    files += paths(what, places)
    return {
        "script": what.script,
        "arguments": list(what.fast if fast else what.arguments),
        "inputs": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }


def is_current(what: Stage, places: Places, *, fast: bool = False) -> bool:
    """Is the result there, and made by the present command from the present data?"""
    meta = places.runs / f"{what.name}.meta.json"
    if not (places.runs / what.output).is_file() or not meta.is_file():
        return False
    made = json.loads(meta.read_text(encoding="utf-8"))
    now = fingerprint(what, places, fast=fast)
    return all(made.get(key) == value for key, value in now.items())


def run_stage(
    what: Stage, places: Places, *, fast: bool = False, run: str | None = None
) -> dict[str, Any]:
    """Run a stage and note what it was made of, how long it took and how much memory.

    Args:
        what: The stage.
        places: Where things are.
        fast: The fast variant?
        run: Identifies the run that it is part of.

    Raises:
        SystemExit: If its command fails.
    """
    out = places.runs / what.output
    out.parent.mkdir(parents=True, exist_ok=True)
    words = filled(what.fast if fast else what.arguments, places, what.output)
    if what.live and places.cache is not None:
        words += ["--cache", str(places.cache)]
    start = ["-m", "der_graph"] if what.script == "der_graph" else [str(ROOT / what.script)]
    # Before: what changes meanwhile is not in the result.
    noted = fingerprint(what, places, fast=fast)
    began = time.perf_counter()
    log = places.runs / f"{what.name}.log"
    with log.open("w", encoding="utf-8") as lines, PeakMemory() as memory:
        code = subprocess.run(
            [sys.executable, *start, *words], cwd=ROOT, stdout=lines, check=False
        ).returncode
    if code:
        raise SystemExit(
            f"stage '{what.name}' failed with exit code {code}; its output is in {log}"
        )
    noted |= {
        "run": run, "seconds": round(time.perf_counter() - began), "cores": os.cpu_count(),
        "peak_gb": memory.gigabytes,
    }  # fmt: skip
    _note(what, places, noted)
    return noted


def adopt(what: Stage, file: Path, places: Places) -> None:
    """Take a result that the stage's very command made elsewhere.

    Raises:
        SystemExit: If the file is no JSON.
    """
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file}: no result of stage '{what.name}' ({error})") from error
    out = places.runs / what.output
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, out)
    _note(what, places, fingerprint(what, places))


def run_all(
    wanted: Sequence[Stage],
    places: Places,
    *,
    fast: bool = False,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Run the stages that are not current, in order, and say how long each took."""
    run, began, peak = uuid.uuid4().hex, time.perf_counter(), 0.0
    for what in wanted:
        lack = missing(what, places)
        if lack:
            say(f"{what.name}: skipped, {lack}")
        elif not force and is_current(what, places, fast=fast):
            say(f"{what.name}: current")
        else:
            say(f"{what.name}: {what.script} ...")
            noted = run_stage(what, places, fast=fast, run=run)
            peak = max(peak, noted["peak_gb"])
            say(f"{what.name}: {noted['seconds'] / 60:.1f} minutes, peak {noted['peak_gb']:.1f} GB")
    say(f"in all: {(time.perf_counter() - began) / 60:.1f} minutes, peak {peak:.1f} GB")


def _note(what: Stage, places: Places, noted: dict[str, Any]) -> None:
    text = json.dumps(noted, indent=1) + "\n"
    (places.runs / f"{what.name}.meta.json").write_text(text, encoding="utf-8")
