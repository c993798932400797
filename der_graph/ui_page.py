"""The page: a conversation on the left, the route and its limits on the right.

    question, limits ──answer──> [ parts of the stream -> RouteView -> HTML ]* ──> one more turn

Models' words are shown as text. The chat component takes HTML even without Markdown, and removes only what
is dangerous, so its messages are escaped here; the route is escaped by `der_graph.ui_route`. Gradio is imported when a page
is made.
"""
# No `from __future__ import annotations` here: Gradio reads the annotations of the handlers, and those are of
# an optional package that is imported inside the function.

import html
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypedDict

from der_graph.pool import Pool
from der_graph.ui_route import RouteView, dearest_route, escaped, visible
from der_graph.ui_run import Ensemble, Watched, request_of, words_of

UNITS = {"parameters_b": "billions of parameters", "usd": "US dollars", "seconds": "seconds"}

IDLE = "Ask a question: the route is drawn here while it is built."


class Turn(TypedDict):
    """One message of the conversation as the page keeps it."""

    role: str
    content: str
    counts: bool
    """Do the experts read it in later turns? Questions without an answer and notes do not count."""


def build_page(
    ensemble: Ensemble, *, title: str = "der-graph", examples: Sequence[str] = ()
) -> Any:
    """Build the page; see `der_graph.ui.create_page`.

    Args:
        ensemble: Who answers.
        title: What is shown above the page.
        examples: Questions that are offered before the first one.

    Returns:
        `gradio.Blocks`.
    """
    import gradio as gr

    pool = ensemble.pool
    watched: dict[str, Watched] = {}
    end, step = scale_of(pool)

    def heading(note: str) -> str:
        return f'<p class="der-title"><b>{escaped(title)}</b><span role="status">{escaped(note)}</span></p>'

    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        status = gr.HTML(heading("loading"), js_on_load=None)
        turns = gr.State([])
        with gr.Row():
            with gr.Column(scale=5, min_width=360):
                chat = gr.Chatbot(
                    label="Conversation",
                    height="calc(100vh - 290px)",
                    min_height=360,
                    render_markdown=False,  # a model's images would be fetched
                    sanitize_html=True,
                    allow_tags=False,
                    latex_delimiters=[],
                    buttons=[],  # what they copied would be the escaped text
                    feedback_options=None,
                    elem_id="der-chat",
                    examples=[{"text": each} for each in examples] or None,
                    layout="bubble",
                )
                box = gr.Textbox(
                    placeholder="Your question",
                    label="Question",
                    show_label=False,
                    lines=2,
                    max_lines=6,
                    autofocus=True,
                    max_length=20_000,
                    elem_id="der-question",
                )
                with gr.Row():
                    send = gr.Button("Ask", variant="primary", min_width=80, elem_id="der-ask")
                    stop = gr.Button("Stop", interactive=False, min_width=80, elem_id="der-stop")
                    fresh = gr.Button("New conversation", min_width=80, elem_id="der-new")
            with gr.Column(scale=6, min_width=420):
                panel = gr.HTML(
                    fresh_view(pool).html(), elem_id="der-panel", js_on_load=None, autoscroll=True
                )
                with gr.Column(elem_id="der-limits"):
                    with gr.Row():
                        budget = gr.Slider(
                            0,
                            end or 1.0,
                            value=end,
                            step=step,
                            visible=end > 0,
                            min_width=180,
                            elem_id="der-max-cost",
                            label="Budget",
                            info=f"max_cost, {UNITS[pool.settings.cost_unit]}; right end: no limit",
                        )
                        weight = gr.Slider(
                            0,
                            1,
                            visible=False,
                            min_width=180,
                            elem_id="der-cost-weight",
                            label="Price of cost",
                            info="cost_weight; higher: thriftier",
                        )
                        longest = gr.Slider(
                            1,
                            max(2, pool.settings.max_steps),
                            value=pool.settings.max_steps,
                            step=1,
                            interactive=pool.settings.max_steps > 1,
                            min_width=180,
                            elem_id="der-max-steps",
                            label="Longest route",
                            info="max_steps, in calls",
                        )
                    with gr.Row():
                        deadline = gr.Number(
                            0,
                            label="Deadline, s (0: none)",
                            min_width=180,
                            elem_id="der-deadline",
                        )
                        experts = gr.CheckboxGroup(
                            [(priced(pool, name), name) for name in pool.names],
                            value=list(pool.names),
                            label="Experts that may be asked (price of a call)",
                            scale=3,
                            elem_id="der-experts",
                        )

        def buttons(running: bool) -> dict[Any, Any]:
            return {
                send: gr.update(interactive=not running),
                stop: gr.update(interactive=running),
                fresh: gr.update(interactive=not running),
            }

        async def answer(
            question: str,
            said: list[Turn],
            max_cost: float,
            price: float,
            steps: float,
            seconds: float | None,
            names: list[str],
            request: gr.Request,
        ) -> AsyncGenerator[dict[Any, Any], None]:
            session = str(request.session_hash)
            question = visible(question or "").strip()
            if not question or session in watched:
                return
            asked = [*said, Turn(role="user", content=question, counts=False)]
            knob = hasattr(ensemble.agent, "cost_weight_range")
            view = fresh_view(pool, state="waiting for the models")
            reply = ""
            try:
                context = request_of(
                    pool,
                    max_cost=max_cost if end else None,
                    no_limit=end,
                    max_steps=steps,
                    cost_weight=price if knob else None,
                    deadline=seconds or None,
                    experts=names,
                )
                view.max_cost, view.deadline = context.max_cost, context.deadline
                view.max_steps = min(int(steps), pool.settings.max_steps)
                history = [(each["role"], each["content"]) for each in said if each["counts"]]
                run = watched[session] = Watched(ensemble, [*history, ("user", question)], context)
                yield {
                    box: "",
                    chat: messages_of(asked),
                    panel: view.html(),
                    turns: asked,
                    **buttons(True),
                }
                async with aclosing(run.batches()) as batches:
                    async for batch in batches:
                        for mode, part in batch:
                            if mode == "note":
                                view.state = part if part != "ready" else "the agent is choosing"
                                continue
                            view.take(mode, part)
                        # What may still be a draft is in the route only.
                        reply = view.final["text"] if view.final else ""
                        yield {panel: view.html(), **({chat: shown(asked, reply)} if reply else {})}
                if run.stopped:
                    view.state = "stopped"
                    view.problem = ""
                    note = "Stopped before there was an answer."
                    reply = ""
                else:
                    note = "The answer is empty."
            except Exception as error:
                view.problem = words_of(error)
                view.state = "no answer"
                note, reply = f"No answer: {view.problem}", ""
            finally:
                watched.pop(session, None)
            asked[-1]["counts"] = bool(reply)
            asked.append(Turn(role="assistant", content=visible(reply or note), counts=bool(reply)))
            yield {
                box: gr.update() if reply or not view.problem else question,
                chat: messages_of(asked),
                panel: view.html(),
                turns: asked,
                **buttons(False),
            }

        def halt(request: gr.Request) -> None:
            run = watched.get(str(request.session_hash))
            if run is not None:
                run.stop()

        def restart() -> dict[Any, Any]:
            return {chat: [], turns: [], panel: fresh_view(pool).html(), box: ""}

        def pick(event: gr.SelectData) -> str:
            return str(event.value["text"])

        async def follow() -> AsyncGenerator[dict[Any, Any], None]:
            async with aclosing(ensemble.notes()) as notes:
                async for note in notes:
                    yield {status: heading(note)}
            knob = getattr(ensemble.agent, "cost_weight_range", None)
            if knob is not None:
                low, high = knob
                yield {
                    weight: gr.update(
                        minimum=low,
                        maximum=high,
                        value=ensemble.agent.cost_weight,
                        step=nice(high / 100),
                        visible=True,
                    )
                }  # type: ignore[union-attr]

        private: Any = {"api_visibility": "private", "show_progress": "hidden"}
        gr.on(
            [box.submit, send.click],
            answer,
            [box, turns, budget, weight, longest, deadline, experts],
            [box, chat, panel, turns, send, stop, fresh],
            trigger_mode="once",
            concurrency_limit=None,
            **private,
        )
        stop.click(halt, queue=False, **private)
        fresh.click(restart, None, [chat, turns, panel, box], queue=False, **private)
        chat.clear(restart, None, [chat, turns, panel, box], queue=False, **private)
        chat.example_select(pick, None, box, queue=False, **private)
        page.load(follow, None, [status, weight], concurrency_limit=None, **private)
        page.unload(halt)
    page.queue(api_open=False)
    return page


def fresh_view(pool: Pool, state: str = IDLE) -> RouteView:
    """A route that has not begun."""
    settings = pool.settings
    prices = {expert.name: expert.cost for expert in pool}
    dearest = dearest_route(list(prices.values()), settings.max_steps, settings.repeat_experts)
    return RouteView(prices, settings.cost_unit, dearest, settings.max_steps, state=state)


def messages_of(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """The conversation as the chat component takes it."""
    return [{"role": each["role"], "content": as_chat_html(each["content"])} for each in turns]


def shown(turns: Sequence[Turn], reply: str) -> list[dict[str, str]]:
    """The conversation with an answer that is not complete yet."""
    return [*messages_of(turns), {"role": "assistant", "content": as_chat_html(visible(reply))}]


def as_chat_html(text: str) -> str:
    """Text for the chat component, which takes HTML with or without Markdown, and removes indentation.

    >>> as_chat_html("<img src=x>" + chr(10) + "  b")
    '&lt;img src=x&gt;\\n&nbsp;&nbsp;b'
    """
    kept = (line.expandtabs(4) for line in html.escape(text, quote=False).split("\n"))
    return "\n".join(
        "&nbsp;" * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") for line in kept
    )


def priced(pool: Pool, name: str) -> str:
    """An expert's name with its price."""
    return f"{name} ({fresh_view(pool).amount(pool[name].cost)})"


def scale_of(pool: Pool) -> tuple[float, float]:
    """End and step of the budget's slider: what no route costs more than, in about a hundred steps.

    Returns:
        End, 0 where all experts are free; and step.
    """
    dearest = fresh_view(pool).dearest
    if dearest <= 0:
        return 0.0, 0.1
    step = nice(dearest / 100)
    return round(math.ceil(dearest / step - 1e-9) * step, 12), step


def nice(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a value.

    >>> nice(0.0054), nice(0.7), nice(30)
    (0.005, 0.5, 20)
    """
    power = math.floor(math.log10(value))
    return max(
        (n * 10**power if power >= 0 else n / 10**-power)
        for n in (1, 2, 5)
        if n * 10.0**power <= value * (1 + 1e-9)
    )
