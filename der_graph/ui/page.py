"""The page: a conversation on the left, the route and its limits on the right.

    controls ──answer──> frames of the route ──> updates of the components

Models' words are shown as text. The chat component takes HTML even without Markdown, and removes only what
is dangerous, so its messages are escaped by `der_graph.ui.chat`, and the route by `der_graph.ui.route`.

The style is black on white, legible on a projector and on paper, with the system's fonts. What is chosen is
solid, what is only likely is hatched, what failed has a thick border: nothing is told by colour alone.
Gradio is imported when a page is made.
"""

# No `from __future__ import annotations` here: Gradio reads the annotations of the handlers, and those are of
# an optional package that is imported inside the function.

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from der_graph.pool import Pool
from der_graph.ui.chat import frames, messages_of
from der_graph.ui.limits import UNITS, UNSEEN, fresh_view, nice, priced, scale_of
from der_graph.ui.route import escaped, visible
from der_graph.ui.run import Ensemble, Watched

TITLE = "der-graph"


def build_page(ensemble: Ensemble, *, examples: Sequence[str] = ()) -> Any:
    """Build the page; see `der_graph.ui.app.create_page`.

    Args:
        ensemble: Who answers.
        examples: Questions that are offered before the first one.

    Returns:
        `gradio.Blocks`.
    """
    import gradio as gr

    pool = ensemble.pool
    watched: dict[str, Watched] = {}

    def heading(note: str) -> str:
        return f'<p class="der-title"><b>{TITLE}</b><span role="status">{escaped(note)}</span></p>'

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        status = gr.HTML(heading("loading"), js_on_load=None)
        turns = gr.State([])
        with gr.Row():
            with gr.Column(scale=5, min_width=360):
                chat, box, send, stop, fresh = _conversation(gr, examples)
            with gr.Column(scale=6, min_width=420):
                panel = gr.HTML(
                    fresh_view(pool).html(), elem_id="der-panel", js_on_load=None, autoscroll=True
                )
                controls = _limit_controls(gr, pool)
        weight = controls[1]

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
                yield {panel: gr.skip()}  # without any update Gradio would empty the whole page
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
            [box, turns, *controls],
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


def _conversation(gr: Any, examples: Sequence[str]) -> tuple[Any, Any, Any, Any, Any]:
    """The conversation, the question's box and its buttons: ask, stop, begin anew."""
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
    return chat, box, send, stop, fresh


def _limit_controls(gr: Any, pool: Pool) -> tuple[Any, Any, Any, Any, Any]:
    """The limits of a route, in the order in which an answer is asked for with them."""
    end, step = scale_of(pool)
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
    return budget, weight, longest, deadline, experts


CSS = """
.gradio-container {max-width: 1500px !important; margin: 0 auto !important}
.der-title {font-size: 1.25rem; margin: 0}
.der-title b {margin-right: .75rem}
.der-title span {font-size: 1rem; opacity: .85}
#der-panel {height: calc(100vh - 375px); min-height: 360px; overflow-y: auto !important;
  padding: .75rem 1rem !important; border: 1px solid currentColor; border-radius: 4px}
.der-route, .der-route * {box-sizing: border-box}
.der-route {font-size: 1rem; line-height: 1.35; color: var(--body-text-color)}
.der-route p {margin: 0 0 .2rem}
.der-meters {position: sticky; top: -.75rem; padding: .75rem 0 .5rem; margin-top: -.75rem; z-index: 1;
  background: var(--body-background-fill)}
.der-meter-line {display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1.5rem;
  font-variant-numeric: tabular-nums}
.der-meter {display: flex; height: 14px; border: 1px solid currentColor; margin-top: .3rem; overflow: hidden}
.der-limits {font-size: .875rem; opacity: .85; margin: .3rem 0 0 !important; overflow-wrap: anywhere}
.der-spent, .der-chosen .der-fill {background: currentColor}
.der-pending, .der-fill {background:
  repeating-linear-gradient(135deg, currentColor 0 1.5px, transparent 1.5px 5px)}
.der-steps {list-style: none; margin: .25rem 0 0; padding: 0}
.der-step {margin: 0; padding: .3rem 0 .4rem; border-top: 1px solid var(--border-color-primary)}
.der-head {overflow-wrap: anywhere}
.der-number {display: inline-block; min-width: 1.5em; text-align: center; border: 1px solid currentColor;
  border-radius: 50%; font-size: .85rem; margin-right: .25rem}
.der-note {opacity: .8; font-size: .875rem; margin-left: .35rem}
.der-body {display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .35rem 0 0 2rem}
.der-chances {flex: 0 1 19rem; min-width: min(16rem, 100%)}
.der-chance {display: grid; grid-template-columns: minmax(4rem, 6.5rem) 1fr 4.5rem; gap: .5rem;
  align-items: center; font-size: .875rem; line-height: 1.3}
.der-name {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.der-track {display: block; height: 10px; border-bottom: 1px solid var(--border-color-primary)}
.der-fill {display: block; height: 10px}
.der-number-of {font-variant-numeric: tabular-nums}
.der-chosen {font-weight: 700}
.der-forbidden {opacity: .7}
.der-forbidden .der-name {text-decoration: line-through}
.der-answer {flex: 1 1 15rem; min-width: 0; align-self: flex-start; padding: .25rem .7rem .4rem;
  border: 1px solid currentColor; border-radius: 4px}
.der-answer .der-text {white-space: pre-wrap; overflow-wrap: anywhere; max-height: 9.5rem; overflow-y: auto;
  font-size: 1.05rem; min-height: 1.35em}
.der-open {border-style: dashed}
.der-failed {border-width: 3px}
.der-problem {border: 3px solid currentColor; padding: .4rem .7rem; font-weight: 600; overflow-wrap: anywhere;
  white-space: pre-wrap}
.der-state {font-weight: 600}
#der-limits {padding-top: .25rem}
#der-chat .top-panel {display: none}
"""
"""Style sheet of the page."""
