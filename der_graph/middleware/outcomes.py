"""What became of an agent's run, as a row to train from.

    agent.invoke(...) ──outcome_of(result, success)──> one line of the file for der train --agent-task

Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import HumanMessage

from der_graph.errors import DataError
from der_graph.middleware.loop import text_for_agent


def outcome_of(result: Mapping[str, Any], success: float) -> dict[str, Any]:
    r"""The row of one run.

    Args:
        result: What the agent gave: its state, with `messages`, `der_route` and `der_cost`.
        success: Was the task done? From 0 to 1; the caller knows how to tell.

    Raises:
        DataError: If the run was none of `DERMiddleware`'s.

    Examples:
        ```python
        result = agent.invoke({"messages": [("user", task)]})
        with open("runs.jsonl", "a") as file:
            file.write(json.dumps(outcome_of(result, success=done(task))) + "\n")
        ```
    """
    first = next((step for step in result.get("der_route") or [] if step["answer"]), None)
    if first is None:
        raise DataError("the result has no der_route; did DERMiddleware run in this agent?")
    messages = list(result["messages"])
    asked = [i for i, m in enumerate(messages) if isinstance(m, HumanMessage)]
    return {
        "task": text_for_agent(messages[: asked[-1] + 1]),
        "expert": first["choice"],
        "success": float(success),
        "cost": float(result["der_cost"]),
        "probability": first["probabilities"][first["choice"]]
        if first["reason"] == "agent"
        else 1.0,
    }
