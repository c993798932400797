"""The page: a conversation on the left, the route and its limits on the right.

    controls ──answer──> frames of the route ──> updates of the components

Models' words are shown as text. The chat component takes HTML even without Markdown, and removes only what
is dangerous, so its messages are escaped by `der_graph.ui_chat`, and the route by `der_graph.ui_route`.
Gradio is imported when a page is made.
"""
# No `from __future__ import annotations` here: Gradio reads the annotations of the handlers, and those are of
# an optional package that is imported inside the function.

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from der_graph.ui_chat import frames, messages_of
from der_graph.ui_limits import UNITS, UNSEEN, fresh_view, nice, priced, scale_of
from der_graph.ui_route import escaped, visible
from der_graph.ui_run import Ensemble, Watched


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
                            info=f"max_cost, {UNITS[pool.settings.cost_unit]}; right end: none",
                        )
                        weight = gr.Slider(
                            UNSEEN,
                            1,
                            value=UNSEEN,
                            visible=False,
                            min_width=180,
                            elem_id="der-cost-weight",
                            label="Price of cost",
                            info="cost_weight, higher is thriftier",
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
            said: list[Any],
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
            limits = {
                "max_cost": max_cost,
                "max_steps": steps,
                "cost_weight": price,
                "deadline": seconds,
                "experts": names,
            }

            def begun(run: Watched) -> None:
                watched[session] = run

            first = True
            try:
                async with aclosing(frames(ensemble, question, said, limits, begun)) as shown:
                    async for frame in shown:
                        update: dict[Any, Any] = {panel: frame.view.html()}
                        if first or frame.answer or not frame.running:
                            update[chat] = messages_of(frame)
                        if first:
                            update |= {box: "", **buttons(running=True)}
                        if not frame.running:
                            update |= {turns: frame.turns, **buttons(running=False)}
                            if frame.again:
                                update[box] = frame.again
                        first = False
                        yield update
                # Gradio sends the last update twice: what was typed in between would be lost.
                yield {panel: gr.skip()}
            finally:
                watched.pop(session, None)

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
                    if not ensemble.settled:
                        yield {status: heading(note)}
            knob = getattr(ensemble.agent, "cost_weight_range", None)
            if knob is not None:
                low, high = knob
                usual = getattr(ensemble.agent, "cost_weight", low)
                setting = {
                    "minimum": low,
                    "maximum": high,
                    "value": usual,
                    "step": nice(high / 100),
                }
                yield {weight: gr.update(visible=True, **setting)}
            # Last, as Gradio sends the last update twice: the knob may have been moved in between.
            yield {status: heading(ensemble.note)}

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
