"""The commands of `der`, one module each: `add` describes the command to the parser, `run` does it.

To add a command, write a module with these two functions and name it in `COMMANDS`. Modules import what is
heavy inside `run`, so that `der --help` stays quick.
"""

from __future__ import annotations

COMMANDS = (
    "init",
    "ask",
    "train",
    "collect",
    "eval",
    "tune",
    "serve",
    "ui",
    "pool",
    "data",
    "plugins",
    "probe",
    "learn",
    "cache",
    "demo",
)
"""Modules of this package, in the order of `der --help`."""
