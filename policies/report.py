"""The report of an evaluation: what `report.json` holds, field by field.

    evaluate ──Report──> report.json (read it with `read_report`), report.md, report.html, plots

Every number that a reader may doubt has its interval, its number of questions, and what it was measured with
beside it. The parts are in `report_parts.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from der_graph.errors import DataError
from der_graph.policies.report_parts import (
    AgentInfo,
    Comparison,
    DataInfo,
    ExampleRoute,
    MethodResult,
    Part,
    PoolInfo,
    Routes,
    Run,
    SkippedMethod,
    WallClock,
)

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields do not raise it."""

REPORT_FILE = "report.json"
UNITS: dict[str, str] = {
    "parameters_b": "billions of parameters",
    "usd": "US dollars",
    "seconds": "seconds",
}
"""The pool's cost units, in words."""


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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, target)


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
