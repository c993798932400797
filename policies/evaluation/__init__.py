"""Evaluation of agents and baselines on the same questions, with intervals, tests and a report.

`evaluate` runs the methods, `summarize` makes a `Report` of their routes, `write_report` writes it down.
"""

from der_graph.policies.evaluation.evaluate import Evaluation, evaluate
from der_graph.policies.evaluation.methods import BASELINES
from der_graph.policies.evaluation.render import write_report
from der_graph.policies.evaluation.report_schema import Report, read_report
from der_graph.policies.evaluation.summary import summarize

__all__ = [
    "BASELINES",
    "Evaluation",
    "Report",
    "evaluate",
    "read_report",
    "summarize",
    "write_report",
]
