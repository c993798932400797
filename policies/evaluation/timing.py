"""Where the time of a question goes: experts, encoder, agent, graph. Measured through the compiled graph.

    one question at a time, nothing cached:  total = experts + encoder + agent + the graph's own work

Experts and decisions report their own seconds in the route; the encoder, which runs inside a decision, is
timed by a wrapper around it. The rest of the wall clock is the graph's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from der_graph.errors import AllExpertsFailedError
from der_graph.policies.agent import DERAgent
from der_graph.policies.evaluation.report_schema import Span, WallClock
from der_graph.policies.observation.encoder import SentenceEncoder, TextEncoder, Vectors


class TimedEncoder:
    """An encoder that counts the seconds spent in it.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.seconds = 0.0

    @property
    def name(self) -> str:
        """The encoder's."""
        return self._encoder.name

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts, on the clock."""
        start = time.perf_counter()
        vectors = self._encoder.encode(texts)
        self.seconds += time.perf_counter() - start
        return vectors


def measure_wall_clock(
    build: Callable[[Any], Any], agent: Any, conversations: Sequence[Sequence[Any]]
) -> WallClock | None:
    """Route questions one at a time and split their wall clock.

    Args:
        build: Makes a compiled graph of an agent.
        agent: The agent. A copy of it is timed that has seen none of the questions.
        conversations: The questions, each as the `messages` that the graph takes. The first is asked once
            more beforehand and not counted, so that models are loaded. Questions that nobody can answer are
            left out.

    Returns:
        Seconds per question; None if there are no questions.
    """
    rows = []
    fresh, timed = timed_agent(agent)
    der = build(fresh)
    for number, messages in enumerate(conversations):
        try:
            if number == 0:
                build(agent).invoke({"messages": list(messages)})
            before = timed.seconds if timed is not None else 0.0
            start = time.perf_counter()
            route = der.invoke({"messages": list(messages)})["route"]
            total = time.perf_counter() - start
        except AllExpertsFailedError:
            continue
        encoding = (timed.seconds - before) if timed is not None else 0.0
        experts = sum(s["answer"]["seconds"] for s in route if s["answer"] is not None)
        deciding = sum(step["seconds"] for step in route)
        rest = max(0.0, total - experts - deciding)
        rows.append((total, experts, encoding, max(0.0, deciding - encoding), rest, len(route)))
    if not rows:
        return None
    columns = np.array(rows, dtype=np.float64).T
    spans = [_span(column) for column in columns[:5]]
    return WallClock(
        questions=len(rows),
        total=spans[0],
        experts=spans[1],
        encoder=spans[2],
        agent=spans[3],
        graph=spans[4],
        decisions=float(columns[5].mean()),
    )


def timed_agent(agent: Any) -> tuple[Any, TimedEncoder | None]:
    """A copy of an agent that remembers no text, with a clock on its encoder; None for agents without one."""
    if not isinstance(agent, DERAgent):
        return agent, None
    known = agent.observer
    encoder = known.encoder
    if isinstance(encoder, SentenceEncoder):
        encoder = SentenceEncoder(encoder.model_id, device=encoder.device)
    encoder.encode(["warm up"])
    timed = TimedEncoder(encoder)
    fresh = copy.copy(agent)
    fresh.observer = known.with_encoder(timed)
    return fresh, timed


def _span(seconds: Any) -> Span:
    return Span(
        mean=float(np.mean(seconds)),
        median=float(np.median(seconds)),
        p95=float(np.quantile(seconds, 0.95)),
    )
