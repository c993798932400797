"""A route as the page draws it: what has happened so far, and its HTML.

    events of the graph's stream ──RouteView.take──> steps, cost, time ──RouteView.html──> the right half

Everything that comes from a model, a question or a pool file passes `escaped` on its way into the HTML: it is
data, and the page must not obey it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from der_graph.display import Display
from der_graph.state import END_CHOICE, DERContext

LONGEST = 4000
"""Characters of one answer that the route shows."""

REASONS = {
    "max_steps": "the longest route is reached",
    "deadline": "no time for another call",
    "max_cost": "the budget pays for no other expert",
    "not_allowed": "no other expert is allowed",
    "not_approved": "no other expert was approved",
    "no_expert_left": "every expert was asked",
    "unavailable": "who is left has failed again and again",
    "no_tools": "no other expert can call tools",
    "no_inputs": "no other expert reads what the question holds",
    "context_length": "no other expert reads so long a prompt",
    "agent_failed": "a rule, as the agent could not decide",
    "stickiness": "stays with the expert of the last turn",
    "person": "chosen by a person",
    "parallel": "asked at once with the next",
    "hedge": "asked beside the one before, which took its time",
}

# Overrides of the writing direction can make a line read as another one than it is.
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
# Templates in the browser must find nothing to fill in, whoever renders the HTML.
_TEMPLATES = {ord(sign): f"&#{ord(sign)};" for sign in "${}`"}


def visible(text: str) -> str:
    r"""Text with control characters and overrides of direction shown as `\x..` instead of obeyed.

    >>> visible("a" + chr(27) + "[31m")
    'a\\x1b[31m'
    """
    return "".join(
        f"\\x{ord(c):02x}"
        if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or ord(c) in _BIDI
        else c
        for c in text.replace("\r\n", "\n")
    )


def escaped(text: object) -> str:
    """Text as HTML that shows just that text, in elements and in quoted attributes.

    >>> escaped("<b>${1}</b>")
    '&lt;b&gt;&#36;&#123;1&#125;&lt;/b&gt;'
    """
    return html.escape(visible(str(text)), quote=True).translate(_TEMPLATES)


@dataclass
class Step:
    """One decision, and what came of it so far.

    Attributes:
        decision: The event `der.decision`.
        words: What the expert has said so far.
        answer: The event `der.answer`, once it is there.
    """

    decision: Mapping[str, Any]
    words: str = ""
    answer: Mapping[str, Any] | None = None


@dataclass
class RouteView:
    """A route that is being built.

    Attributes:
        prices: What one call of each expert costs at most, in the pool's unit.
        unit: The pool's cost unit.
        dearest: What the dearest route costs: the end of the meter where there is no budget.
        max_steps: Longest route.
        max_cost: Budget, or None.
        deadline: Seconds, or None.
        state: One line about where the route is.
        limits: What was asked for, as the graph was told; empty before there was a question.
        problem: What went wrong; empty if nothing did.
    """

    prices: Mapping[str, float]
    unit: str
    dearest: float
    max_steps: int
    max_cost: float | None = None
    deadline: float | None = None
    state: str = ""
    limits: str = ""
    problem: str = ""
    steps: list[Step] = field(default_factory=list)
    final: Mapping[str, Any] | None = None

    def limit(self, context: DERContext) -> None:
        """Show the bounds of a request."""
        self.max_cost, self.deadline = context.max_cost, context.deadline
        self.max_steps = min(self.max_steps, context.max_steps or self.max_steps)
        budget = "no budget" if self.max_cost is None else f"budget {self.amount(self.max_cost)}"
        parts = [budget, f"at most {self.max_steps} call{'' if self.max_steps == 1 else 's'}"]
        parts.append("no deadline" if self.deadline is None else f"deadline {self.deadline:g} s")
        if context.cost_weight is not None:
            parts.append(f"price of cost {context.cost_weight:g}")
        asked = context.allowed_experts
        parts.append("all experts" if asked is None else f"only {', '.join(asked)}")
        self.limits = ", ".join(parts)

    def take(self, mode: str, part: Any) -> None:
        """Take in one part of the stream: modes `custom` and `messages`."""
        if mode == "messages":
            chunk, about = part
            if self.steps and about.get("der_expert") == self.steps[-1].decision["choice"]:
                self.steps[-1].words += chunk.text
            return
        kind = part.get("type")
        if kind == "der.decision":
            self.steps.append(Step(part))
            choice = part["choice"]
            self.state = "closing the route" if choice == END_CHOICE else f"{choice} is answering"
        elif kind == "der.draft" and self.steps:
            self.steps[-1].words += part["text"]
        elif kind == "der.answer" and self.steps:
            self.steps[-1].answer = part
            self.state = "the agent is choosing"
        elif kind == "der.final":
            self.final = part
            calls = len(part["experts"])
            self.state = f"done: {calls} call{'' if calls == 1 else 's'}"

    @property
    def cost(self) -> float:
        """Cost so far."""
        return sum(float(step.answer["cost"]) for step in self.steps if step.answer is not None)

    @property
    def pending(self) -> float:
        """Price of the call that is running; 0 if there is none."""
        if self.problem or self.final or not self.steps or self.steps[-1].answer is not None:
            return 0.0
        return self.prices.get(self.steps[-1].decision["choice"], 0.0)

    @property
    def seconds(self) -> float:
        """Seconds of all decisions and answers so far."""
        return sum(
            float(step.decision["seconds"]) + float((step.answer or {}).get("seconds", 0.0))
            for step in self.steps
        )

    def amount(self, cost: float) -> str:
        """A cost with its unit."""
        return Display(unit=self.unit).cost(cost)

    def html(self) -> str:
        """The route as HTML."""
        steps = "".join(self._step(number, step) for number, step in enumerate(self.steps, 1))
        problem = (
            f'<p class="der-problem" role="alert">{escaped(self.problem)}</p>'
            if self.problem
            else ""
        )
        return f'<div class="der-route">{self._meters()}<ol class="der-steps">{steps}</ol>{problem}</div>'

    def _meters(self) -> str:
        end = self.dearest if self.max_cost is None else self.max_cost
        limit = "no limit" if self.max_cost is None else f"budget {self.amount(self.max_cost)}"
        cost = escaped(self.amount(self.cost))
        calls = sum(step.decision["choice"] != END_CHOICE for step in self.steps)
        time = f"{self.seconds:.1f} s" + (
            "" if self.deadline is None else f" of {self.deadline:g} s"
        )
        return (
            f'<div class="der-meters"><p class="der-state" role="status">{escaped(self.state)}</p>'
            f'<div class="der-meter-line"><span>Cost <b class="der-cost">{cost}</b>, '
            f'<span class="der-limit">{escaped(limit)}</span></span>'
            f"<span>Calls <b>{calls}</b> of {self.max_steps}</span><span>Time <b>{time}</b></span></div>"
            f'<div class="der-meter">{_bar("der-spent", self.cost, end)}'
            f"{_bar('der-pending', self.pending, end)}</div>"
            + (f'<p class="der-limits">Limits: {escaped(self.limits)}</p>' if self.limits else "")
            + "</div>"
        )

    def _step(self, number: int, step: Step) -> str:
        decision = step.decision
        ends = decision["choice"] == END_CHOICE
        verb = "stops" if ends else f"asks <b>{escaped(decision['choice'])}</b>"
        reason = decision["reason"]
        notes = [] if reason == "agent" else [REASONS.get(reason, str(reason))]
        if decision["value"] is not None:
            notes.append(f"expects {decision['value']:+.2f}")
        notes.append(f"{decision['seconds'] * 1000:.0f} ms")
        return (
            f'<li class="der-step" data-choice="{escaped(decision["choice"])}">'
            f'<div class="der-head"><span class="der-number">{number}</span> The agent {verb} '
            f'<span class="der-note">{escaped(", ".join(notes))}</span></div>'
            f'<div class="der-body">{self._chances(decision)}{"" if ends else self._answer(step)}</div></li>'
        )

    def _chances(self, decision: Mapping[str, Any]) -> str:
        """The probabilities as bars; the choice is solid, what was forbidden has no bar.

        Where only END is left there was nothing to weigh, and the reason says why.
        """
        if decision["choice"] == END_CHOICE and sum(decision["mask"].values()) == 1:
            return ""
        rows = []
        for name, chance in decision["probabilities"].items():
            chosen, free = name == decision["choice"], decision["mask"].get(name, True)
            kind = "der-chosen" if chosen else "" if free else "der-forbidden"
            shown = "stop" if name == END_CHOICE else name
            number = f"{chance:.2f}" if free else self._why_not(name, decision)
            rows.append(
                f'<div class="der-chance {kind}"><span class="der-name">{escaped(shown)}</span>'
                f'<span class="der-track">{_bar("der-fill", chance, 1.0)}</span>'
                f'<span class="der-number-of">{number}</span></div>'
            )
        return f'<div class="der-chances">{"".join(rows)}</div>'

    def _why_not(self, name: str, decision: Mapping[str, Any]) -> str:
        """Why a choice was forbidden, in two words."""
        if name == END_CHOICE:
            return "not yet"
        before = [step.decision["choice"] for step in self.steps[: decision["step"]]]
        if name in before:
            return "was asked"
        price = self.prices.get(name, 0.0)
        if self.max_cost is not None and decision["spent"] + price > self.max_cost * (1 + 1e-9):
            return "too dear"
        return "not allowed"

    def _answer(self, step: Step) -> str:
        answer = step.answer
        if answer is None:
            lost = self.problem or self.state.startswith("stopped")
            note = "given up" if lost else "is answering ..."
            body, kind = shortened(step.words), "der-open"
        elif answer["error"] is not None:
            body, kind = f"Failed: {shortened(str(answer['error']), 600)}", "der-failed"
            note = self._bill(answer)
        else:
            body, kind, note = shortened(answer["text"]), "", self._bill(answer)
        name = escaped(step.decision["choice"])
        return (
            f'<div class="der-answer {kind}"><div class="der-head"><b>{name}</b> '
            f'<span class="der-note">{escaped(note)}</span></div>'
            f'<div class="der-text" dir="auto">{escaped(body)}</div></div>'
        )

    def _bill(self, answer: Mapping[str, Any]) -> str:
        words = f"{self.amount(answer['cost'])}, {answer['seconds']:.1f} s"
        tokens = answer["output_tokens"]
        return f"{words}, {tokens} token{'' if tokens == 1 else 's'}" if tokens else words


def _bar(kind: str, part: float, whole: float) -> str:
    share = 0.0 if whole <= 0 else 100.0 * min(1.0, max(0.0, part / whole))
    return f'<span class="{kind}" style="width:{share:.1f}%"></span>'


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text, its end left out where it is too long."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} ... ({len(text) - longest} more characters)"
