"""What a report was made with: versions, machine, command line, fingerprints of pool, agent and questions."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import der_graph
from der_graph.data import Example
from der_graph.data.leaks import shared_questions
from der_graph.policies.evaluation.evaluate import Evaluation
from der_graph.policies.evaluation.report_schema import (
    AgentInfo,
    DataInfo,
    ExpertInfo,
    PoolInfo,
    Run,
)

if TYPE_CHECKING:
    from der_graph.pool import Pool

_PACKAGES = (
    "torch",
    "transformers",
    "langgraph",
    "langchain-core",
    "numpy",
    "scikit-learn",
    "matplotlib",
)


def run_info(seed: int, evaluation: Evaluation, argv: Sequence[str] | None = None) -> Run:
    """How a report was made.

    Args:
        seed: The random seed.
        evaluation: What was run.
        argv: The command line; that of this process if left out.
    """
    words = list(sys.argv if argv is None else argv)
    if words and Path(words[0]).name == "__main__.py":  # python -m der_graph
        words[0] = "der"
    return Run(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join([Path(words[0]).name, *words[1:]]) if words else "",
        seed=seed,
        seconds=round(evaluation.seconds, 1),
        generated=evaluation.generated,
        versions=package_versions(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores{_gpu()}",
    )


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python, and of what results depend on, as far as it is installed."""
    found = {"der-graph": der_graph.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def pool_info(pool: Pool, source: str, *, live: bool) -> PoolInfo:
    """The pool, as a report names it."""
    template = pool.settings.ktp
    return PoolInfo(
        source=source,
        fingerprint=pool.fingerprint,
        live=live,
        unit=pool.settings.cost_unit,
        max_steps=pool.settings.max_steps,
        ktp="default" if template is None else template.name,
        run_all_cost=sum(expert.cost for expert in pool),
        experts=[ExpertInfo(name=e.name, cost=e.cost, description=e.description) for e in pool],
    )


def agent_info(agent: Any, source: str) -> AgentInfo:
    """The agent, as a report names it, with a digest of its weights."""
    digest = ""
    network = getattr(agent, "network", None)
    if network is not None:
        sha = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().numpy().tobytes())
        digest = sha.hexdigest()
    return AgentInfo(source=source, sha256=digest, cost_weight=getattr(agent, "cost_weight", None))


def data_info(
    examples: Sequence[Example],
    source: str,
    metric: str,
    train: Sequence[Example] = (),
    train_source: str | None = None,
    agent_overlap: int = 0,
) -> DataInfo:
    """The questions, as a report names them, and how many of them routers and agent were trained on."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(
            "\x00".join((example.id, example.question, example.reference)).encode() + b"\x01"
        )
    return DataInfo(
        source=Path(source).name,
        sha256=sha.hexdigest(),
        questions=len(examples),
        tasks=dict(sorted(Counter(example.task or "other" for example in examples).items())),
        metric=metric,
        train_source=Path(train_source).name if train_source else None,
        train_questions=len(train),
        train_overlap=len(shared_questions(examples, train)),
        agent_overlap=agent_overlap,
    )


def _gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return f", {torch.cuda.get_device_name()}"
