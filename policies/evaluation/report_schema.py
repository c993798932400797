"""The report of an evaluation: what `report.json` holds, field by field.

    evaluate ──Report──> report.json (read it with `read_report`), report.md, report.html, plots

`Report` comes last, its parts before it. Each number carries its interval and its number of questions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from der_graph.errors import DataError

Unit = Literal["parameters_b", "usd", "seconds", "calls"]


class Part(BaseModel):
    """What all parts share: frozen, and fields that a newer version added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class Estimate(Part):
    """A mean over the questions with its 95 % interval."""

    estimate: float
    low: float
    high: float


class TaskResult(Part):
    """A method on the questions of one task."""

    questions: int
    quality: Estimate
    cost: float
    calls: float


class MethodResult(Part):
    """One method."""

    name: str
    """`der`, `der@0.1`, `single:big`, `run_all:vote`, `router:knn@0.1`, `oracle` ..."""
    label: str
    family: str
    """`der`, `single`, `reference`, `cascade`, `run_all`, `mixture`, `router` or `oracle`."""
    curve: str | None
    """Methods with the same one differ in the price of cost alone."""
    cost_weight: float | None
    quality: Estimate
    cost: Estimate
    """A question's mean, in the pool's unit."""
    share_of_run_all: float
    """Cost as a share of asking every expert once."""
    calls: Estimate
    latency_s: Estimate | None
    """Seconds that the experts of a route take one after another; of a cached answer, when it was generated.
    None where answers are recorded."""
    latency_parallel_s: Estimate | None
    """The same if calls that wait for no other run at once, each on a machine of its own."""
    failed_calls: int
    tasks: dict[str, TaskResult]


class EqualCost(Part):
    """DER against a method at the method's own cost.

    Between the two nearest points of DER's knob each question's quality is interpolated, which is what a
    system gets that takes one of the two prices at random.
    """

    lower: str
    """Point of DER's knob just below the method's cost."""
    upper: str
    quality: float
    """DER's, interpolated."""
    difference: Estimate
    p: float


class Comparison(Part):
    """DER (default price) minus another method, question by question."""

    method: str
    difference: Estimate
    cost_difference: Estimate
    better: int
    """Questions on which DER is better."""
    worse: int
    p: float
    """Two-sided permutation test of the difference in quality."""
    p_holm: float
    """The same, adjusted for all methods compared (Holm)."""
    mcnemar_p: float | None
    """Exact McNemar test, where qualities are right or wrong."""
    equal_cost: EqualCost | None
    """None where the method is cheaper or dearer than all of DER's curve."""


class RouteCount(Part):
    """One route, and how often and how well it went."""

    experts: list[str]
    questions: int
    quality: float
    cost: float


class Flow(Part):
    """Who follows whom."""

    rows: list[str]
    """`START`, then the experts."""
    columns: list[str]
    """The experts, then `END`."""
    counts: list[list[int]]


class Routes(Part):
    """What DER's routes look like at its default price."""

    method: str
    shares: dict[str, float]
    """Share of the calls that go to each expert."""
    lengths: dict[int, int]
    """Number of questions by number of calls."""
    most_common: list[RouteCount]
    flow: Flow
    flow_by_task: dict[str, Flow]


class Span(Part):
    """Wall-clock seconds of one part, per question."""

    mean: float
    median: float
    p95: float


class WallClock(Part):
    """Where the time of a question goes, through the graph, one question at a time, nothing cached."""

    questions: int
    total: Span
    experts: Span
    encoder: Span
    agent: Span
    graph: Span
    decisions: float
    """Mean number of decisions a question, END included."""


class ExampleRoute(Part):
    """One question with its route, to look at."""

    id: str
    task: str
    question: str
    reference: str
    steps: list[tuple[str, str]]
    """Expert and answer, in order; long texts are shortened."""
    quality: float
    cost: float


class Run(Part):
    """How the report was made."""

    created: str
    """UTC, ISO 8601."""
    command: str
    seed: int
    seconds: float
    generated: int
    """Answers generated in this run; the others came from the answer cache."""
    versions: dict[str, str]
    machine: str


class ExpertInfo(Part):
    """One expert of the pool."""

    name: str
    cost: float
    description: str


class PoolInfo(Part):
    """The pool."""

    source: str
    fingerprint: str
    live: bool
    """False where answers are recorded."""
    unit: Unit
    max_steps: int
    ktp: str
    run_all_cost: float
    """Of asking every expert once; what calls did cost on average where they are charged by what they use."""
    experts: list[ExpertInfo]


class AgentInfo(Part):
    """The agent."""

    source: str
    sha256: str
    """Of its weights; empty for agents that are no folder."""
    cost_weight: float | None


class DataInfo(Part):
    """The questions."""

    source: str
    sha256: str
    """Of the ids, questions and references that were used, in order."""
    questions: int
    tasks: dict[str, int]
    metric: str
    train_source: str | None
    train_questions: int
    train_overlap: int
    """Questions that are also among the training questions; anything but 0 spoils the comparison."""
    agent_overlap: int = 0
    """Questions that the agent was trained on or chosen by; anything but 0 flatters it."""


class Drift(Part):
    """An expert whose cached answers were asked again."""

    expert: str
    asked: int
    different: int
    """Answers that come to something else now."""
    then: float
    """Mean quality of the cached answers."""
    now: float
    changed: bool
    """Is it another model by now, as far as the sample tells? Then its figures here are those of then."""
    since: str | None
    """When the oldest of the cached answers was given: UTC, ISO 8601."""


class SkippedMethod(Part):
    """A method that was not run, and why."""

    name: str
    reason: str


SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields do not raise it."""

REPORT_FILE = "report.json"
UNITS: dict[str, str] = {
    "parameters_b": "billions of parameters",
    "usd": "US dollars",
    "seconds": "seconds",
    "calls": "calls",
}
"""The pool's cost units, in words."""


def mean_unit(unit: str) -> tuple[float, str]:
    """What mean costs of a question are shown in: a factor, and words. Money is shown for 1,000 questions."""
    if unit == "usd":
        return 1000.0, "US dollars per 1,000 questions"
    return 1.0, f"{UNITS[unit]} a question"


def shown_cost(cost: float, unit: str) -> str:
    """A mean cost of a question as it is read: `$0.42 per 1,000 questions`, `0.146 seconds a question`.

    Args:
        cost: In the pool's unit.
        unit: The pool's unit.
    """
    if unit != "usd":
        return f"{cost:.3g} {UNITS[unit]} a question"
    many = 1000.0 * cost
    shown = f"{many:,.2f}" if many >= 0.1 or not many else f"{many:.2g}"
    return f"${shown} per 1,000 questions"


class Report(Part):
    """Everything that an evaluation found."""

    schema_version: int = SCHEMA_VERSION
    headline: str
    run: Run
    pool: PoolInfo
    agent: AgentInfo
    data: DataInfo
    methods: list[MethodResult]
    comparisons: list[Comparison]
    routes: Routes
    wall_clock: WallClock | None
    examples: list[ExampleRoute]
    skipped: list[SkippedMethod]
    drift: list[Drift] = []

    def method(self, name: str) -> MethodResult:
        """A method by its name.

        Raises:
            DataError: If it is not in the report.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise DataError(
            f"the report has no method '{name}'; it has: {', '.join(m.name for m in self.methods)}"
        )

    def comparison(self, name: str) -> Comparison | None:
        """How DER compares with a method, or None."""
        return next((c for c in self.comparisons if c.method == name), None)

    def curve(self, name: str) -> list[MethodResult]:
        """The points of a curve, cheapest first; the one at the default price is among them."""
        return sorted((m for m in self.methods if m.curve == name), key=lambda m: m.cost.estimate)


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a `report.json`, or the one in a folder.

    Raises:
        DataError: If there is none, or it is not a report of this version.
    """
    file = Path(path)
    file = file / REPORT_FILE if file.is_dir() else file
    try:
        report = Report.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); der eval writes one"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{file} is not a report: {where}: {first['msg']}") from None
    if report.schema_version > SCHEMA_VERSION:
        raise DataError(
            f"{file} has schema version {report.schema_version}; this version of der-graph reads up to "
            f"{SCHEMA_VERSION}"
        )
    return report
