"""Feedback of users on routes: kept next to the app or in LangSmith, and read again.

    state ──RouteLog.add, or a run in LangSmith──┐
    user  ──RouteLog.rate, or rate_run───────────┴──> RatedRoute ──feedback_data──> training data

A route log is a JSON Lines file next to the app; LangSmith keeps the same in its runs and feedback. Both hold
users' questions and answers: whoever keeps them decides who may read them.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from der_graph.errors import DataError
from der_graph.nodes.conversation import DRAFT
from der_graph.state import Answer, RouteStep, answers_of

if TYPE_CHECKING:
    from langsmith import Client

_ROLES = {"system": "system", "human": "user", "ai": "assistant"}

FEEDBACK_KEY = "user_score"
"""Name of the feedback in LangSmith, where no other is given."""


@dataclass(frozen=True)
class RatedRoute:
    """A route that has ended, and what a user said about it.

    Attributes:
        id: Of the run or the log's entry.
        question: The question.
        answers: The answers in order, failed ones included.
        answer: The final answer.
        score: How good the user found it, in [0, 1]; None if nobody said.
        reference: The right answer, if the user gave one.
        history: The conversation before the question: pairs of role (`system`, `user`, `assistant`) and text.
    """

    id: str
    question: str
    answers: list[Answer] = field(default_factory=list)
    answer: str = ""
    score: float | None = None
    reference: str | None = None
    history: tuple[tuple[str, str], ...] = ()


def rate_run(
    client: Client,
    run_id: str | uuid.UUID,
    score: float,
    *,
    project_name: str | None = None,
    reference: str | None = None,
    comment: str | None = None,
    key: str = FEEDBACK_KEY,
) -> None:
    """Attach a user's feedback to a route's run in LangSmith.

    Args:
        client: The client.
        run_id: Id of the run: that of the whole call, chosen by you with `config={"run_id": uuid.uuid4()}`.
        score: How good the answer was, from 0 to 1.
        project_name: The run's project; newer LangSmith servers need to know it.
        reference: The right answer, if the user gave one.
        comment: In the user's words.
        key: Name of the feedback.

    Raises:
        DataError: If the score is outside of [0, 1].
    """
    project = None if project_name is None else client.read_project(project_name=project_name).id
    client.create_feedback(
        run_id=run_id,
        trace_id=run_id,
        key=key,
        score=_score(score),
        correction=None if reference is None else {"answer": reference},
        comment=comment,
        session_id=project,
    )


class RouteLog:
    """Routes and feedback in a JSON Lines file: a line is added for each, and none is ever changed.

    Args:
        path: The file; made when first written, readable by its owner alone.

    Examples:
        ```python
        log = RouteLog("routes.jsonl")
        state = der.invoke({"messages": [("user", "What is 37 * 48?")]})
        route_id = log.add(state)
        log.rate(route_id, 1.0)
        ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def add(self, state: Mapping[str, Any], route_id: str | uuid.UUID | None = None) -> str:
        """Log a route.

        Args:
            state: What the graph returned.
            route_id: Its id, such as that of its run; made up if left out.

        Returns:
            The id.

        Raises:
            DataError: If the state is not that of a route that has ended.
        """
        if not state.get("route") or not state.get("question"):
            raise DataError("the state has no route; log what the graph returned")
        identity = str(route_id or uuid.uuid4())
        line = {"id": identity, "question": state["question"], "answer": state.get("answer", "")}
        turns = [{"type": role, "content": text} for role, text in _turns(state.get("messages"))]
        self._write({"type": "route", **line, "route": state["route"], "messages": turns})
        return identity

    def rate(
        self, route_id: str | uuid.UUID, score: float, *, reference: str | None = None
    ) -> None:
        """Log what a user said; the last word on a route counts.

        Args:
            route_id: Id of the route.
            score: How good the answer was, from 0 to 1.
            reference: The right answer, if the user gave one.

        Raises:
            DataError: If the score is outside of [0, 1].
        """
        given = {"id": str(route_id), "score": _score(score), "reference": reference}
        self._write({"type": "feedback", **given})

    def routes(self) -> list[RatedRoute]:
        """All routes of the file, in order, with the feedback on them.

        Raises:
            DataError: If the file cannot be read, or a line is not one of a route log.
        """
        routes: dict[str, dict[str, Any]] = {}
        feedback: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(self._lines(), 1):
            try:
                entry = json.loads(line)
                {"route": routes, "feedback": feedback}[entry["type"]][entry["id"]] = entry
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self.path}, line {number}: not a line of a route log") from None
        return [
            rated_route(identity, entry, feedback.get(identity, {}))
            for identity, entry in routes.items()
        ]

    def _lines(self) -> list[str]:
        try:
            # Not `splitlines`: texts may hold line separators that JSON does not escape.
            text = self.path.read_text(encoding="utf-8").removesuffix("\n")
            return text.split("\n") if text else []
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from None

    def _write(self, entry: Mapping[str, Any]) -> None:
        # One write at the end of the file, so that processes may share it.
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)


def langsmith_routes(
    client: Client, project_name: str, *, key: str = FEEDBACK_KEY, **filters: Any
) -> list[RatedRoute]:
    """Read the routes of a LangSmith project with the feedback on them.

    Args:
        client: The client.
        project_name: The project.
        key: Name of the feedback.
        filters: Passed on to `Client.list_runs`, such as `start_time` or `limit`. By default root runs are
            read; for routes inside another graph give `is_root=False` and `filter='eq(name, "der")'`, with
            the name that the graph was compiled with. Feedback on the whole trace counts for its routes.

    Returns:
        Runs that have ended with a route.
    """
    with warnings.catch_warnings():
        # To be replaced when every server has its successor, `Client.runs.query`.
        warnings.filterwarnings("ignore", "list_runs", DeprecationWarning)
        found = list(client.list_runs(project_name=project_name, **{"is_root": True, **filters}))
    runs = [run for run in found if (run.outputs or {}).get("route") and not run.error]
    if not runs:
        return []
    wanted = list(dict.fromkeys(each for run in runs for each in (run.id, run.trace_id) if each))
    said: dict[str, dict[str, Any]] = {}
    for each in client.list_feedback(run_ids=wanted, feedback_key=[key]):
        corrected = each.correction if isinstance(each.correction, Mapping) else {}
        said[str(each.run_id)] = {"score": each.score, "reference": corrected.get("answer")}
    return [
        rated_route(
            str(run.id), run.outputs or {}, said.get(str(run.id)) or said.get(str(run.trace_id), {})
        )
        for run in runs
    ]


def rated_route(identity: str, state: Mapping[str, Any], feedback: Mapping[str, Any]) -> RatedRoute:
    """Make a rated route of a state and the feedback on it."""
    route: list[RouteStep] = state["route"]
    score = feedback.get("score")
    return RatedRoute(
        id=identity,
        question=state["question"],
        answers=answers_of(route),
        answer=state.get("answer") or "",
        score=None if score is None else _score(score),
        reference=feedback.get("reference"),
        history=_history(state),
    )


def _history(state: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The turns before the question, which is the last human one."""
    turns = _turns(state.get("messages"))
    asked = [i for i, (role, _) in enumerate(turns) if role == "human"]
    before = turns[: asked[-1]] if asked else []
    return tuple((_ROLES[role], text) for role, text in before)


def _turns(messages: Any) -> list[tuple[str, str]]:
    """Types and texts of messages, be they messages, or what a log or LangSmith made of them."""
    turns = []
    for message in messages or []:
        if isinstance(message, Mapping):
            given: Any = message.get("kwargs", message)
            kind, text = given.get("type"), given.get("content")
            marks = given.get("response_metadata") or {}
        else:
            kind, text, marks = message.type, message.text, message.response_metadata
        if kind in _ROLES and isinstance(text, str) and text.strip() and not marks.get(DRAFT):
            turns.append((str(kind), str(text)))
    return turns


def _score(value: Any) -> float:
    if isinstance(value, bool):
        return float(value)  # a thumb up or down
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"the score is {value!r}; it must be a number from 0 to 1")
    return float(value)
