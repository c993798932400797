"""Fixtures of the commands' tests."""

from cli_runs import recorded

__all__ = ["recorded"]
