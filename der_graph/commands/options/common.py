"""Seed, address and answer cache."""

from __future__ import annotations

import argparse


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="random seed (default: 0)")


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add `--host` and `--port`.

    Args:
        parser: The command's.
        port: Where it listens by default.
    """
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=port, help="port, 0 for a free one (default: %(default)s)"
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache", metavar="FILE", help="answer cache (default: in the user's cache folder)"
    )


def add_fresh(parser: argparse.ArgumentParser) -> None:
    """Add `--fresh`."""
    parser.add_argument(
        "--fresh",
        type=int,
        default=5,
        metavar="N",
        help="cached answers of each remote expert that are asked again, to see whether it is still the same "
        "model, and more of them where one differs (default: 5; 0 for none)",
    )
