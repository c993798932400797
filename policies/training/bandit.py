"""Learning who should act in runs with tools: from what became of runs, by who opened them.

    {"task", "expert", "success", "cost", "probability"}, a line a run ──> one ridge regression per expert

Rows come from traces (`der_graph.middleware.outcome_of`) or from a set of tasks that every expert ran. Runs
that an expert was drawn for are no fair sample of its runs; so a row counts 1 / probability, as in inverse
propensity scoring (Dudik, Langford, Li: Doubly Robust Policy Evaluation and Learning, ICML 2011), at most
`HEAVIEST` times. Knows nothing of LangChain.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.policies.agent.bandit import Array, BanditAgent, project
from der_graph.policies.observation import TextEncoder, as_encoder
from der_graph.policies.observation.price_of_cost import PRICE
from der_graph.policies.observation.projection import principal_axes

HEAVIEST = 20.0
"""A run that was opened against all odds counts no more than this."""
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_PRIOR = 2.0  # runs of the whole pool's kind that every expert has had beforehand


@dataclass(frozen=True)
class AgentOutcome:
    """What became of one run.

    Attributes:
        task: What the human wanted.
        expert: Who made the first model call.
        success: Was it done? In [0, 1].
        cost: What the run cost, in the pool's unit, >= 0.
        probability: How likely that expert was to be chosen, in (0, 1]; 1 where every expert ran every task.
    """

    task: str
    expert: str
    success: float
    cost: float
    probability: float = 1.0


def load_outcomes(path: str | os.PathLike[str], experts: Sequence[str]) -> list[AgentOutcome]:
    """Read a file of runs, a JSON object a line.

    Args:
        path: The file.
        experts: The pool's experts.

    Raises:
        DataError: If it cannot be read, is empty, or a line says something that cannot be.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    runs = [
        _outcome(line, f"{path}, line {number}", experts)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    missing = [name for name in experts if name not in {run.expert for run in runs}]
    if missing:
        raise DataError(
            f"{path}: no run was opened by '{missing[0]}'; every expert of the pool needs some runs"
        )
    return runs


def _outcome(line: str, where: str, experts: Sequence[str]) -> AgentOutcome:
    try:
        row: Any = json.loads(line)
        run = AgentOutcome(
            task=str(row["task"]),
            expert=str(row["expert"]),
            success=float(row["success"]),
            cost=float(row["cost"]),
            probability=float(row.get("probability", 1.0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f'{where}: {type(error).__name__}: {error}; a line is {{"task", "expert", "success", "cost"}}, '
            'with "probability" where another expert might have been chosen'
        ) from error
    allowed = {
        f"expert is '{run.expert}'; the pool has: {', '.join(experts)}": run.expert in experts,
        "task is empty": bool(run.task.strip()),
        f"success is {run.success}; it must be from 0 to 1": 0 <= run.success <= 1,
        f"cost is {run.cost}; it must be a number >= 0": 0 <= run.cost < math.inf,
        f"probability is {run.probability}; it must be above 0, at most 1": 0
        < run.probability
        <= 1,
    }
    for fault, fine in allowed.items():
        if not fine:
            raise DataError(f"{where}: {fault}")
    return run


def train_bandit(
    experts: Sequence[Expert],
    runs: Sequence[AgentOutcome],
    out: str | os.PathLike[str] | None = None,
    *,
    encoder: TextEncoder | Embeddings | str | None = None,
    dims: int = 8,
    cost_weight: float = PRICE,
    say: Callable[[str], None] | None = None,
) -> BanditAgent:
    """Learn who should open a run.

    Args:
        experts: The pool's experts; each has opened a run at least.
        runs: What became of runs.
        out: Folder for the agent; none is written where left out.
        encoder: Of tasks; MiniLM where left out.
        dims: Numbers that are seen of a task.
        cost_weight: The price of cost: 1 means that a success is worth what a run of every expert costs.
        say: Receives one-line messages.

    Returns:
        The agent.
    """
    reader = as_encoder(encoder)
    vectors = reader.encode([run.task for run in runs])
    mean, axes = principal_axes(np.unique(vectors, axis=0), dims)
    features = project(vectors, {"mean": mean, "axes": axes})
    own = np.array([[run.expert == expert.name for run in runs] for expert in experts])
    weights = np.array([min(HEAVIEST, 1.0 / run.probability) for run in runs])
    cost = np.array([run.cost for run in runs])
    scale = float(sum(np.average(cost[mine], weights=weights[mine]) for mine in own)) or 1.0
    targets = {"success": np.array([run.success for run in runs]), "cost": cost / scale}
    arrays: dict[str, Array] = {"mean": mean, "axes": axes}
    for name, values in targets.items():
        centre = float(np.average(values, weights=weights))
        strength = min(_STRENGTHS, key=lambda s: _error(features, values, weights, own, centre, s))
        fits = [
            _ridge(features[mine], values[mine], weights[mine], centre, strength)[0] for mine in own
        ]
        arrays[name] = np.array(fits, dtype=np.float32)
    agent = BanditAgent(
        [(expert.name, expert.cost) for expert in experts],
        reader,
        arrays,
        cost_scale=scale,
        cost_weight=cost_weight,
        metadata={"training": {"runs": len(runs), "dims": dims}},
    )
    if say is not None:
        for expert, mine in zip(experts, own, strict=True):
            say(
                f"{expert.name}: {int(mine.sum())} runs, success "
                f"{np.average(targets['success'][mine], weights=weights[mine]):.3f}, cost "
                f"{np.average(cost[mine], weights=weights[mine]):.4g}"
            )
    if out is not None:
        agent.save_pretrained(out)
    return agent


Numbers = npt.NDArray[np.float64]


def _ridge(
    features: Array, values: Numbers, weights: Numbers, centre: float, strength: float
) -> tuple[Numbers, Numbers]:
    """Weighted ridge regression that leaves the mean alone, and the error at each row without that row.

    Args:
        features: (n, k + 1), the constant last.
        values: (n,)
        weights: (n,), normalised to a mean of 1 here.
        centre: What the mean is pulled to.
        strength: Of the pull to no dependence on the features.

    Returns:
        (k + 1,) coefficients, and (n,) leave-one-out errors (Hastie et al., Elements of Statistical Learning,
        equation 5.26).
    """
    w = weights / weights.mean()
    x = features.astype(np.float64)
    penalty = np.diag([*[strength] * (x.shape[1] - 1), _PRIOR])
    inverse = np.linalg.inv((x * w[:, None]).T @ x + penalty)
    fit = inverse @ ((x * w[:, None]).T @ (values - centre))
    leverage = w * np.einsum("ij,jk,ik->i", x, inverse, x)
    errors = (values - centre - x @ fit) / (1.0 - leverage)
    fit[-1] += centre
    return fit, errors


def _error(
    features: Array,
    values: Numbers,
    weights: Numbers,
    own: npt.NDArray[np.bool_],
    centre: float,
    strength: float,
) -> float:
    errors = [
        _ridge(features[mine], values[mine], weights[mine], centre, strength)[1] for mine in own
    ]
    return float(sum((weights[mine] * e**2).sum() for mine, e in zip(own, errors, strict=True)))
