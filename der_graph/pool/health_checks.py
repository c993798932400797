"""Active health checks: an expert that failed is asked by the server, and not by the next user.

    every few seconds ──the cooldown of a breaker is over?──> one short question ──> closed, or open again

Only experts whose breaker is open are asked, one question a cooldown, which costs what a call costs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from langchain_core.messages import HumanMessage

from der_graph.nodes.expert import Expert

log = logging.getLogger("der_graph.server")

QUESTION = "Answer with one word: ready"
LONGEST = 30.0
"""Seconds that a check may take."""


async def check(expert: Expert) -> bool | None:
    """Ask an expert whose breaker is open, once its cooldown is over.

    Returns:
        Whether it answers; None if it was not asked.
    """
    breaker = expert.health.breaker
    if breaker.view().state != "half_open" or not breaker.allows():
        return None
    # With something to fall back on, a failure is not tried again at once.
    answer = await expert.aask(
        [HumanMessage(QUESTION)], time_left=LONGEST, fallback="answer", insist=False
    )
    return answer["error"] is None


async def check_again_and_again(experts: Iterable[Expert], seconds: float) -> None:
    """Check all experts every so many seconds, for ever; see `check`."""
    experts = list(experts)
    while True:
        await asyncio.sleep(seconds)
        results = await asyncio.gather(*map(check, experts), return_exceptions=True)
        for expert, result in zip(experts, results, strict=True):
            if isinstance(result, Exception):
                log.warning("health check of %s: %s", expert.name, type(result).__name__)
            elif result is not None:
                log.info("health check of %s: %s", expert.name, "well" if result else "failed")
