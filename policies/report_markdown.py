"""The report as Markdown: `report.md`, for a README, a pull request or a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from der_graph.policies.report import UNITS, Report
from der_graph.policies.report_parts import Comparison, Estimate, MethodResult
from der_graph.policies.summary import shown_p


def to_markdown(report: Report, plots: Sequence[str] = ()) -> str:
    """Write a report as Markdown.

    Args:
        report: The report.
        plots: Names of the plots that lie beside it.
    """
    parts = [f"# DER on {report.data.source}", report.headline]
    parts += [
        f"![{name.replace('_', ' ')}]({name}.svg)" for name in plots if name == "quality_cost"
    ]
    parts += ["## Methods", NOTE.format(unit=UNITS[report.pool.unit]), table(*method_table(report))]
    if report.comparisons:
        parts += ["## DER against each of them, question by question", TESTS]
        parts.append(table(*comparison_table(report)))
    sweep = [m for m in report.methods if "@" in m.name]
    if sweep:
        parts += ["## The knob", table(*sweep_table(sweep))]
    if len(report.data.tasks) > 1:
        parts += ["## By task", table(*task_table(report))]
    parts += [f"![{name.replace('_', ' ')}]({name}.svg)" for name in plots if name == "tasks"]
    parts += ["## Routes", table(*route_table(report))]
    parts += [f"![{name.replace('_', ' ')}]({name}.svg)" for name in plots if name == "route_flow"]
    if report.wall_clock is not None:
        parts += ["## Where the time goes", table(*clock_table(report))]
    if report.skipped:
        parts += ["## Not run", "\n".join(f"- {s.name}: {s.reason}" for s in report.skipped)]
    parts += [
        "## How this was made",
        "\n".join(f"- {name}: {value}" for name, value in facts(report)),
    ]
    return "\n\n".join(parts) + "\n"


NOTE = (
    "Means over the questions, 95 % bootstrap intervals in brackets. Cost is in {unit} a question. "
    "Latency is what the experts of a route take one after another, as measured when each answer was "
    "generated (an answer generated in a batch counts its share of the batch); in parentheses, calls that "
    "wait for no other run at the same time. Oracles know every answer's quality beforehand: they bound "
    "what choosing one expert can reach, and only a method that combines experts can pass them."
)
"""What the table of methods means."""

TESTS = (
    "DER at its default price minus the other method. p: two-sided paired permutation test, then adjusted "
    "for all methods listed (Holm). At equal cost: DER's curve at the other method's cost, minus the "
    "other method; a dash where DER's curve does not reach that cost."
)
"""What the table of tests means."""

Table = tuple[list[str], list[list[str]]]


def method_table(report: Report) -> Table:
    """Every method at its default setting; best first within the baselines."""
    plain = [m for m in report.methods if "@" not in m.name]
    rest = sorted(plain[1:], key=lambda m: (m.family == "oracle", -m.quality.estimate))
    head = ["method", "quality", "cost", "of run-all", "calls"]
    timed = plain[0].latency_s is not None
    if timed:
        head.append("latency, s")
    if any(m.failed_calls for m in plain):
        head.append("failed calls")
    rows = []
    for m in [plain[0], *rest]:
        row = [m.label, interval(m.quality), interval(m.cost, 3, significant=True)]
        row += [f"{m.share_of_run_all:.0%}", f"{m.calls.estimate:.2f}"]
        if timed:
            row.append(_latency(m))
        if "failed calls" in head:
            row.append(str(m.failed_calls))
        rows.append(row)
    return head, rows


def comparison_table(report: Report) -> Table:
    """The paired tests."""
    head = [
        "against",
        "difference in quality",
        "better / worse on",
        "p",
        "p (Holm)",
        "at equal cost",
    ]
    labels = {m.name: m.label for m in report.methods}
    rows = []
    for c in report.comparisons:
        rows.append(
            [labels[c.method], interval(c.difference, signed=True), f"{c.better} / {c.worse}",
             _p(c.p), _p(c.p_holm), _equal(c)]
        )  # fmt: skip
    return head, rows


def sweep_table(sweep: Sequence[MethodResult]) -> Table:
    """Points of the knob, by curve and price."""
    head = ["method", "quality", "cost", "of run-all", "calls"]
    return head, [
        [m.name, interval(m.quality), f"{m.cost.estimate:.3g}", f"{m.share_of_run_all:.0%}",
         f"{m.calls.estimate:.2f}"]
        for m in sweep
    ]  # fmt: skip


def task_table(report: Report) -> Table:
    """Quality by task, DER first."""
    tasks = list(report.data.tasks)
    plain = [m for m in report.methods if "@" not in m.name]
    rest = sorted(plain[1:], key=lambda m: (m.family == "oracle", -m.quality.estimate))
    head = ["method", *(f"{task or 'other'} ({report.data.tasks[task]})" for task in tasks)]
    rows = [
        [m.label, *(f"{m.tasks[task].quality.estimate:.3f}" for task in tasks)]
        for m in [plain[0], *rest]
    ]
    return head, rows


def route_table(report: Report) -> Table:
    """The most common routes."""
    total = report.data.questions
    return ["route", "questions", "quality", "cost"], [
        [" → ".join(r.experts), f"{r.questions} ({r.questions / total:.0%})", f"{r.quality:.2f}",
        f"{r.cost:.3g}"] for r in report.routes.most_common
    ]  # fmt: skip


def clock_table(report: Report) -> Table:
    """Where the time goes."""
    clock = report.wall_clock
    assert clock is not None
    parts = {
        name: getattr(clock, name) for name in ("experts", "encoder", "agent", "graph", "total")
    }
    return ["part", "mean, ms", "median, ms", "95th percentile, ms", "share"], [
        [name, f"{1e3 * s.mean:.1f}", f"{1e3 * s.median:.1f}", f"{1e3 * s.p95:.1f}",
         f"{s.mean / (clock.total.mean or 1):.1%}"]
        for name, s in parts.items()
    ]  # fmt: skip


def facts(report: Report) -> list[tuple[str, str]]:
    """What a reader needs to make the report again."""
    run, pool, data = report.run, report.pool, report.data
    train = (
        f"{data.train_source} ({data.train_questions} questions)" if data.train_source else "none"
    )
    if data.train_overlap:
        train += f"; {data.train_overlap} questions are in both: THE COMPARISON IS SPOILT"
    return [
        ("command", f"`{run.command}`"),
        ("made", f"{run.created}, {run.seconds:.0f} s, {run.generated} answers generated, seed {run.seed}"),
        ("pool", f"{pool.source} ({len(pool.experts)} experts, {'live' if pool.live else 'recorded'}, "
                 f"routes of at most {pool.max_steps} calls, transfer `{pool.ktp}`, run-all costs "
                 f"{pool.run_all_cost:.4g}), fingerprint {pool.fingerprint}"),
        ("agent", f"{report.agent.source}, SHA-256 {report.agent.sha256[:16] or 'none'}"),
        ("questions", f"{data.source} ({data.questions}), metric {data.metric}, SHA-256 {data.sha256[:16]}"),
        ("routers learned from", train),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("machine", run.machine),
    ]  # fmt: skip


def interval(
    given: Estimate, digits: int = 3, *, signed: bool = False, significant: bool = False
) -> str:
    """A number with its interval."""
    layout = f"{'+' if signed else ''}.{digits}{'g' if significant else 'f'}"
    return f"{given.estimate:{layout}} [{given.low:{layout}}, {given.high:{layout}}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _latency(method: MethodResult) -> str:
    assert method.latency_s is not None
    assert method.latency_parallel_s is not None
    one, many = method.latency_s, method.latency_parallel_s
    text = f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"
    return text if abs(many.estimate - one.estimate) < 5e-3 else f"{text} ({many.estimate:.2f})"


def _equal(comparison: Comparison) -> str:
    found = comparison.equal_cost
    if found is None:
        return "–"
    return f"{interval(found.difference, signed=True)}, {shown_p(found.p)}"


def _p(p: float) -> str:
    return shown_p(p).removeprefix("p ").removeprefix("= ")
