"""The node that closes a route: what the experts said becomes what the graph adds to the conversation.

Task ──the answer that counts──> one AIMessage, with the route's experts, tokens and cost
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableConfig

from der_graph.errors import ExpertError
from der_graph.nodes.conversation import DRAFT, EXPERTS
from der_graph.nodes.hub import ANSWER_NODE
from der_graph.nodes.reliability.graph_node import Node
from der_graph.nodes.streaming import write_event
from der_graph.state import (
    END_CHOICE,
    Answer,
    RouteStep,
    Task,
    answers_of,
    elapsed,
    good_answers,
)

log = logging.getLogger("der_graph.agent")
ROUTE_ID = "der_route_id"
"""Name in a run's metadata of the id that feedback will name the route by."""


def answer_node(
    select: Callable[[Sequence[Answer], str], int] | None = None,
    output_mode: Literal["final", "experts"] = "final",
    ended: Callable[[str, str, Sequence[Answer]], None] | None = None,
) -> Node:
    """Make the node that closes the route.

    Args:
        select: Chooses among the good answers to a question, for agents that vote; the last one counts
            if left out.
        output_mode: `final` adds the answer alone to `messages`; `experts` adds the other good answers
            before it, each as a message with its expert's name. The answer itself is given once.
        ended: Told of every route that ends, for agents that learn: its id (`der_route_id` of the run's
            metadata, or else the message's), the question, the answers.
    """

    def answer(task: Task, config: RunnableConfig) -> dict[str, Any]:
        answers = answers_of(task["route"])
        good = good_answers(answers)  # not empty: the rules allow END only once there is an answer
        final = good[_chosen(select, good, task["question"])]
        # Fixed here, so that reducers of parent graphs recognise it; the id of its tokens where they were
        # streamed, so that readers do too.
        message_id = final.get("message_id") or _id_of(task)
        message = AIMessage(
            content=final["text"],
            tool_calls=final.get("tool_calls", []),
            id=message_id,
            usage_metadata=summed_usage(answers),
            response_metadata={
                EXPERTS: [each["expert"] for each in answers],
                "der_cost": sum(each["cost"] for each in answers),
                **_finish(final),
                **({"logprobs": final["logprobs"]} if "logprobs" in final else {}),
            },
        )
        route = [*task["route"], RouteStep(**task["decision"], answer=None)]
        messages = [message]
        if output_mode == "experts":
            message.name = final["expert"]
            drafts = [each for each in good if each is not final]
            messages = [
                *(_draft(each, f"{message_id}-{i}") for i, each in enumerate(drafts)),
                message,
            ]
        end = {
            "expert": final["expert"],
            "text": final["text"],
            "message_id": message_id,
            "experts": [each["expert"] for each in answers],
            "cost": sum(each["cost"] for each in answers),
            "seconds": elapsed(route),
        }
        write_event(config, "der.final", end)
        if ended is not None:
            metadata = config.get("metadata") or {}
            ended(str(metadata.get(ROUTE_ID) or message_id), task["question"], answers)
        return {"messages": messages, "answer": final["text"], "route": route}

    return Node(ANSWER_NODE, answer)


def _id_of(task: Task) -> str:
    """The same whenever the end of a route is replayed, and another one for every other route.

    So a resumed run and time travel tell feedback, learning and front ends of one route, and not of several.
    The times in it differ where the same question is answered again.
    """
    steps = [
        (step["choice"], step["seconds"], answer and (answer["text"], answer["seconds"]))
        for step in task["route"]
        for answer in [step["answer"]]
    ]
    said = json.dumps([task["question_id"], steps])
    return f"der-{uuid.uuid5(uuid.NAMESPACE_OID, said)}"


def finished(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of a route, which has ended: for those who cannot wait for a person.

    Raises:
        ExpertError: If it has not, as an expert asks a person (`interrupt`).
    """
    route = state.get("route")
    if route and route[-1]["choice"] == END_CHOICE:
        return state
    raise ExpertError(
        "an expert asks a person (`interrupt`), and nobody can be asked here; leave it out of the pool, or "
        "use create_der_graph(...).compile(checkpointer=...), whose runs can be resumed"
    )


def _chosen(
    select: Callable[[Sequence[Answer], str], int] | None, good: Sequence[Answer], question: str
) -> int:
    """Which answer counts: the last one, also where the agent's vote fails."""
    if select is None:
        return -1
    try:
        chosen = select(good, question)
        return chosen if -len(good) <= chosen < len(good) else -1
    except Exception as error:
        log.warning("the agent's choice among the answers failed (%s)", type(error).__name__)
        return -1


def _finish(answer: Answer) -> dict[str, str]:
    """Why an answer ended, in the words of OpenAI's protocol; nothing where nobody says."""
    if answer.get("tool_calls"):
        return {"finish_reason": "tool_calls"}
    reason = answer.get("finish_reason")
    return {} if reason is None else {"finish_reason": reason}


def _draft(answer: Answer, message_id: str) -> AIMessage:
    """An expert's own message. Its tokens and cost are in the final answer's sums, and not here again."""
    return AIMessage(
        answer["text"], name=answer["expert"], id=message_id, response_metadata={DRAFT: True}
    )


def summed_usage(parts: Iterable[Mapping[str, Any]]) -> UsageMetadata | None:
    """The tokens that answers used together; None where nobody says: a zero would be a count.

    Args:
        parts: Answers, or sums of answers, with `input_tokens` and `output_tokens`, and `cached_tokens` and
            `reasoning_tokens` where some of them came from a cache and were a thought.
    """
    names = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    given = list(parts)
    tokens_in, tokens_out, cached, thought = (
        sum(each.get(name, 0) for each in given) for name in names
    )
    if not tokens_in + tokens_out:
        return None
    usage = UsageMetadata(
        input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out
    )
    if cached:
        usage["input_token_details"] = {"cache_read": cached}
    if thought:
        usage["output_token_details"] = {"reasoning": thought}
    return usage
