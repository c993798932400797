"""A conversation with routes: from a question to the frames that the page shows, one after another.

    question, turns ──frames──> Frame, Frame, ...

The conversation keeps what was answered. A question that was stopped, or that nobody could answer, stays
visible and is not read by experts.
"""

from __future__ import annotations

import html
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypedDict

from der_graph.ui.limits import fresh_view, request_of
from der_graph.ui.route import RouteView, visible
from der_graph.ui.run import Ensemble, Watched, words_of


class Turn(TypedDict):
    """One message of the conversation as the page keeps it."""

    role: str
    content: str
    counts: bool
    """Do the experts read it in later turns?"""


@dataclass(frozen=True)
class Frame:
    """What the page shows at one moment.

    Attributes:
        view: The route.
        turns: The conversation.
        answer: What is said of the final answer while it is not yet one of the turns.
        running: Is the route being built?
        again: A question to be put back into the box, as it was not answered; else empty.
    """

    view: RouteView
    turns: list[Turn]
    answer: str = ""
    running: bool = True
    again: str = ""


async def frames(
    ensemble: Ensemble,
    question: str,
    said: Sequence[Turn],
    limits: Mapping[str, Any],
    begun: Callable[[Watched], None],
) -> AsyncGenerator[Frame, None]:
    """Answer a question; close it to stop the route.

    Args:
        ensemble: Who answers.
        question: The question.
        said: The conversation before it.
        limits: The controls, as `request_of` takes them.
        begun: Is given the route when it begins, so that it can be stopped.

    Yields:
        Frames; the last one is not `running`, whatever happened.
    """
    turns: list[Turn] = [*said, Turn(role="user", content=question, counts=False)]
    view = fresh_view(ensemble.pool, "waiting for the models")
    reply, note = "", "The answer is empty."
    run: Watched | None = None
    try:
        context = request_of(ensemble.pool, **limits)
        view.limit(context)
        history = [(turn["role"], turn["content"]) for turn in said if turn["counts"]]
        run = Watched(ensemble, [*history, ("user", question)], context)
        begun(run)
        yield Frame(view, turns)
        speaker: str | None = None
        async with aclosing(run.batches()) as batches:
            async for batch in batches:
                for mode, part in batch:
                    if mode == "note":
                        view.state = "the agent is choosing" if part == "ready" else part
                        continue
                    view.take(mode, part)
                    if mode == "messages" and part[0].text:
                        # Another message after the first: that expert broke off, an earlier answer counts.
                        reply = (reply if speaker == part[0].id else "") + part[0].text
                        speaker = part[0].id
                yield Frame(view, turns, reply)
        if run.stopped:
            view.state, reply, note = "stopped", "", "Stopped before there was an answer."
        else:
            reply = view.final["text"] if view.final else reply
    except Exception as error:
        view.problem, view.state, reply = words_of(error), "no answer", ""
        note = f"No answer: {view.problem}"
    finally:
        if run is not None:
            run.stop()  # a page that leaves before the first batch would leave the route behind
    done = bool(reply)
    turns = [
        *said,
        Turn(role="user", content=question, counts=done),
        Turn(role="assistant", content=visible(reply or note), counts=done),
    ]
    yield Frame(view, turns, running=False, again=question if view.problem else "")


def messages_of(frame: Frame) -> list[dict[str, str]]:
    """The conversation as Gradio's chat component takes it."""
    said = [(turn["role"], turn["content"]) for turn in frame.turns]
    if frame.answer:
        said.append(("assistant", visible(frame.answer)))
    return [{"role": role, "content": as_chat_html(text)} for role, text in said]


def as_chat_html(text: str) -> str:
    r"""Text for the chat component, which takes HTML with or without Markdown, and removes indentation.

    >>> as_chat_html("<img src=x>" + chr(10) + "  b")
    '&lt;img src=x&gt;\n&nbsp;&nbsp;b'
    """
    kept = (line.expandtabs(4) for line in html.escape(text, quote=False).split("\n"))
    return "\n".join(
        "&nbsp;" * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") for line in kept
    )
