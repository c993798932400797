"""Routes and tables as a person reads them on a terminal.

A line a step, in six colours at most, the same in a pipe without them: too little to need rich for.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from der_graph.state import END_CHOICE

_STYLES = {"bold": "1", "dim": "2", "green": "32", "red": "31", "cyan": "36", "yellow": "33"}
_WIDTH = 96


class Display:
    """Prints routes as they happen.

    Args:
        stream: Where to; standard output if left out.
        unit: Name of the pool's cost unit.
    """

    def __init__(self, stream: TextIO | None = None, *, unit: str = "parameters_b") -> None:
        self.stream = stream or sys.stdout
        self.unit = unit
        tty = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = tty and "NO_COLOR" not in os.environ

    def styled(self, text: str, *styles: str) -> str:
        """Text in a style, where the terminal shows any."""
        if not self._colour:
            return text
        return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Print one line, at once."""
        print(text, file=self.stream, flush=True)

    def cost(self, amount: float) -> str:
        """An amount in the pool's unit."""
        if self.unit == "parameters_b":
            return f"{amount:.3f} B" if amount < 10 else f"{amount:.1f} B"
        if self.unit == "usd":
            # Calls of small models cost millionths: two figures, and no exponent.
            places = 1 - math.floor(math.log10(amount)) if amount > 0 else 5
            return f"${amount:.{max(5, places)}f}"
        if self.unit == "calls":
            return f"{amount:.3g} calls"
        return f"{amount:.2f} s"

    def event(self, event: Mapping[str, Any]) -> None:
        """Show one of the graph's custom stream events: a decision or an answer."""
        if event.get("type") == "der.decision":
            self._decision(event)
        elif event.get("type") == "der.answer":
            self._answer(event)

    def _decision(self, decision: Mapping[str, Any]) -> None:
        ranked = sorted(decision["probabilities"].items(), key=lambda item: -item[1])
        shown = [f"{name} {p:.2f}" for name, p in ranked if p >= 0.005][:4]
        why = "" if decision["reason"] == "agent" else f" ({decision['reason']})"
        value = "" if decision["value"] is None else f", expects {decision['value']:+.2f}"
        choice = decision["choice"]
        arrow = "stop" if choice == END_CHOICE else f"ask {choice}"
        self.line(
            f"   {self.styled('agent', 'dim')}  {self.styled(arrow, 'cyan')}{why}   "
            + self.styled(
                f"[{', '.join(shown)}{value}, {decision['seconds'] * 1000:.0f} ms]", "dim"
            )
        )
        if reason := (decision.get("explanation") or {}).get("why"):
            self.line(self.styled(f"          {printable(reason)}", "dim"))

    def _answer(self, answer: Mapping[str, Any]) -> None:
        head = f"   {self.styled(answer['expert'], 'bold')}  "
        tail = self.styled(f"   {self.cost(answer['cost'])}, {answer['seconds']:.1f} s", "dim")
        if answer["error"] is not None:
            self.line(head + self.styled(f"failed: {answer['error']}", "red") + tail)
        else:
            self.line(head + shortened(answer["text"]) + tail)


def printable(text: str) -> str:
    """Text with control characters shown, not obeyed: model output must not drive a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def shortened(text: str, width: int = _WIDTH) -> str:
    """One printable line of a text, its middle left out where it is too long."""
    line = " ".join(printable(text).split())
    if len(line) <= width:
        return line
    half = (width - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain table: first column left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines
