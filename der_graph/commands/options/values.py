"""How the values of options are read."""

from __future__ import annotations

import argparse
import re


def variable(text: str) -> str:
    """Read the name of an environment variable; what is none may be a secret, and is not repeated."""
    if not re.fullmatch(r"[A-Za-z_]\w*", text):
        raise argparse.ArgumentTypeError(
            "that is no name of an environment variable; put the key into one, and name it here"
        )
    return text


def cost(text: str) -> float:
    """Read a number >= 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value


def quality(text: str) -> float:
    """Read a quality, from 0 to 1."""
    value = cost(text)
    if value > 1:
        percent = f"; {value:g} % is {value / 100:g}" if value <= 100 else ""
        raise argparse.ArgumentTypeError(f"{text} is not a quality from 0 to 1{percent}")
    return value


def seconds(text: str) -> float:
    """Read a number above 0."""
    value = cost(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def cost_range(text: str) -> tuple[float, float]:
    """Read two numbers above 0, the lower one first."""
    try:
        low, high = (seconds(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH") from None
    if low > high:
        raise argparse.ArgumentTypeError(f"{text!r}: the lower one comes first")
    return low, high
