"""What a middleware keeps of an agent's run: its state, and the time that it took."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from langchain.agents.middleware import AgentState
from langchain.agents.middleware.types import OmitFromSchema
from typing_extensions import NotRequired

from der_graph.policies.observation.last_used import LastUsed
from der_graph.state import Answer, Decision, LoopState, Phase, RouteStep

_Outside = OmitFromSchema(input=True, output=False)
_Inside = OmitFromSchema(input=True, output=True)


class AgentStep(RouteStep):
    """A decision in an agent's run, and what came of it."""

    call: int
    """Which model call of the run it belongs to, from 0."""
    phase: Phase
    """Where the loop stood."""


class DERAgentState(AgentState[Any]):
    """What the middleware adds to the state of an agent. The last run's values stay until the next one."""

    der_route: NotRequired[Annotated[list[AgentStep], _Outside]]
    """All decisions of the run and what came of them, in order."""
    der_cost: NotRequired[Annotated[float, _Outside]]
    """Cost of the run so far, in the pool's unit."""
    der_question: NotRequired[Annotated[str, _Inside]]
    """The text by which the routing agent knows what the run is about, also once it was summarized away."""
    der_elapsed: NotRequired[Annotated[float, _Inside]]
    """Seconds that the run has taken, up to the end of its last model call."""


def agent_step(decision: Decision, answer: Answer | None, loop: LoopState) -> AgentStep:
    """A decision of a model call, and what came of it."""
    return AgentStep(**decision, answer=answer, call=loop.calls, phase=loop.phase)


def calls_so_far(run: Sequence[AgentStep]) -> int:
    """Model calls of a run."""
    return run[-1]["call"] + 1 if run else 0


def experts_of_last_call(run: Sequence[AgentStep]) -> list[str]:
    """The experts of the last model call."""
    return [s["choice"] for s in run if s["call"] == run[-1]["call"] and s["answer"] is not None]


class Clock:
    """Seconds that pass between the model calls of a run while it runs, so without a person's pauses."""

    def __init__(self) -> None:
        # LangGraph makes one `control` per invocation; held, so that no other gets its id.
        self._marks: LastUsed[int, tuple[Any, float]] = LastUsed(1024)

    def mark(self, runtime: Any) -> None:
        """Remember when this invocation was last seen."""
        control = getattr(runtime, "control", None)
        if control is None:
            return
        self._marks.remember({id(control): (control, time.monotonic())})

    def read(self, runtime: Any, state: Mapping[str, Any]) -> float:
        """Seconds of the run so far; those since the last call count if this invocation has seen it."""
        known = self._marks.get(id(getattr(runtime, "control", None)))
        since = 0.0 if known is None else time.monotonic() - known[1]
        return float(state.get("der_elapsed") or 0.0) + since
