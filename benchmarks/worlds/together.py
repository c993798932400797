"""Worlds whose experts build on each other: what one is worth depends on the answer that it is shown."""

from __future__ import annotations

from .alone import EXACT, harder, right_with, text_worth
from .topics import CALCULATION, WRITING
from .world import LURE, NOTHING, RIGHT, SAME, WRONG, Call, Chances, Kind, World

FACTS, BAD_FACTS = Kind("facts", "facts"), Kind("bad facts", "facts", own=True)
EXPRESSION = Kind("expression", "expression")
BAD_EXPRESSION = Kind("bad expression", "expression", own=True)
ESTIMATE = Kind("estimate")


def verifier(call: Call) -> Chances:
    by = 1.0 if call.hard else -0.4
    if call.model == "verifier":
        if call.shown is None:
            return right_with(0.15)
        if call.shown == RIGHT:
            return {RIGHT: 0.97, WRONG: 0.03}
        mends = harder(0.6, by)
        return {RIGHT: mends, SAME: (1 - mends) * 0.7, WRONG: (1 - mends) * 0.3}
    one, other = (0.7, 0.4) if call.topic in EXACT else (0.4, 0.7)
    skills = {"draft-a": one, "draft-b": other, "weak": 0.35, "strong": 0.82}
    return right_with(harder(skills[call.model], by))


VERIFIER = World(
    "verifier",
    {"draft-a": 1.0, "draft-b": 1.2, "verifier": 2.0, "weak": 0.5, "strong": 10.0},
    verifier,
    hard=0.3,
)
"""Two who draft, each for some topics, and a verifier who knows little by himself."""


def pipeline(call: Call) -> Chances:
    topic, shown = call.topic, call.shown
    if call.model == "reader":
        return {FACTS: 0.92, BAD_FACTS: 0.08} if topic == "story" else {NOTHING: 1.0}
    if call.model == "translator":
        if topic in ("service", "trivia"):
            return {BAD_EXPRESSION: 0.3, NOTHING: 0.7}
        story = 0.93 if shown == FACTS else 0.0 if shown == BAD_FACTS else 0.05
        chance = {"sum": 0.95, "problem": 0.9, "story": story}[topic]
        return {EXPRESSION: chance, BAD_EXPRESSION: 1 - chance}
    if call.model == "calculator":
        if topic == "sum":
            return {RIGHT: 0.97, WRONG: 0.03}
        if shown == EXPRESSION:
            return {RIGHT: 0.98, WRONG: 0.02}
        return {WRONG if shown == BAD_EXPRESSION else NOTHING: 1.0}
    much = {"sum": 0.7, "problem": 0.45, "story": 0.3, "service": 0.85, "trivia": 0.6}
    little = {"sum": 0.05, "problem": 0.05, "story": 0.05, "service": 0.35, "trivia": 0.45}
    return right_with((much if call.model == "generalist" else little)[topic], lured=0.0)


PIPELINE = World(
    "pipeline",
    {"reader": 0.5, "translator": 1.0, "calculator": 0.1, "generalist": 4.0, "summariser": 1.0},
    pipeline,
    CALCULATION,
)
"""A story needs its reader, the translator and the calculator, in this order; a problem the last two."""


def order_matters(call: Call) -> Chances:
    if call.model == "planner":
        return right_with(0.1) if call.shown else {ESTIMATE: 0.75, RIGHT: 0.2, WRONG: 0.05}
    if call.model == "solver":
        helped = {None: 0.45, ESTIMATE: 0.93, RIGHT: 0.85}
        return right_with(helped.get(call.shown, 0.4))
    return right_with(0.5 if call.model == "friend" else 0.86)


ORDER_MATTERS = World(
    "order-matters", {"solver": 1.0, "planner": 1.0, "friend": 0.8, "strong": 8.0}, order_matters
)
"""The planner's estimate makes the solver good; after the solver the planner only spoils the answer."""


def only_good_second(call: Call) -> Chances:
    if call.model == "critic":
        return right_with(0.92) if call.shown else {NOTHING: 0.9, RIGHT: 0.1}
    skills = {"starter": 0.2, "average": 0.5, "strong": 0.85}
    return right_with(skills.get(call.model, 0.9 if call.topic in EXACT else 0.6))


ONLY_GOOD_SECOND = World(
    "only-good-second",
    {"critic": 1.5, "starter": 0.4, "average": 1.2, "expert": 5.0, "strong": 9.0},
    only_good_second,
)
"""A critic has nothing to say alone, and is the best of all after any answer."""


def editor(call: Call) -> Chances:
    if call.model in ("editor", "proofreader"):
        before = call.shown.quality if call.shown else 0.0
        better = min(before + (0.3 if call.model == "editor" else 0.1), 0.9)
        return {text_worth(better): 0.8, text_worth(max(better - 0.1, 0.0)): 0.2}
    if call.model == "author":
        return {text_worth(0.8): 0.8, text_worth(0.6): 0.2}
    low = 0.5 if call.topic == {"writer": "letter", "columnist": "summary"}[call.model] else 0.3
    return {text_worth(low): 0.5, text_worth(low + 0.2): 0.5}


EDITOR = World(
    "editor",
    {"writer": 1.0, "columnist": 1.5, "editor": 1.5, "proofreader": 0.5, "author": 9.0},
    editor,
    WRITING,
    metric="token_f1",
)
"""Texts again: an editor improves what he is shown, a proofreader a little; neither writes well."""


def herd(call: Call) -> Chances:
    skill = {"first": 0.55, "second": 0.6, "third": 0.72, "strong": 0.9}[call.model]
    if call.topic in ("law", "travel") and call.model != "third":
        skill -= 0.1
    if call.shown in (WRONG, LURE):
        return {RIGHT: skill * 0.4, SAME: 0.55, WRONG: 0.45 - skill * 0.4}
    if call.shown == RIGHT:
        skill = min(skill + 0.1, 0.98)
        return {RIGHT: skill, WRONG: 1 - skill}
    return right_with(skill)


HERD = World("herd", {"first": 1.0, "second": 1.3, "third": 2.5, "strong": 6.0}, herd)
"""Everyone, the strong one too, mostly repeats a wrong answer that he is shown."""


def four_steps(call: Call) -> Chances:
    topic, shown = call.topic, call.shown
    if call.model == "scanner":
        return {FACTS: 0.95, BAD_FACTS: 0.05} if topic in ("story", "problem") else {NOTHING: 1.0}
    if call.model == "translator":
        chance = 0.9 if topic == "sum" else 0.94 if shown == FACTS else 0.02
        return {EXPRESSION: chance, BAD_EXPRESSION: 1 - chance}
    if call.model == "calculator":
        return {RIGHT: 0.5, LURE: 0.5} if shown == EXPRESSION else {WRONG: 0.2, NOTHING: 0.8}
    if call.model == "checker":
        if shown == RIGHT:
            return {RIGHT: 0.99, WRONG: 0.01}
        return {RIGHT: 0.92, LURE: 0.08} if shown == LURE else {NOTHING: 0.9, WRONG: 0.1}
    if call.model == "fool":
        return right_with(0.25)
    return right_with(
        {"sum": 0.8, "problem": 0.5, "story": 0.2, "service": 0.8, "trivia": 0.7}[topic]
    )


FOUR_STEPS = World(
    "four-steps",
    {"scanner": 0.4, "translator": 0.8, "calculator": 0.1, "checker": 0.5, "fool": 0.3, "generalist": 6.0},
    four_steps,
    CALCULATION,
    max_steps=5,
)  # fmt: skip
"""Stories need four experts in their order, of whom the third is wrong every other time, unseen."""


def languages(call: Call) -> Chances:
    foreign = call.topic in ("law", "travel")
    if call.model == "interpreter":
        return {FACTS: 0.95, BAD_FACTS: 0.05} if foreign else {NOTHING: 1.0}
    skill = {"small": 0.6, "middle": 0.78, "polyglot": 0.85}[call.model]
    if foreign and call.model != "polyglot":
        skill = skill + 0.1 if call.shown == FACTS else 0.1
    return right_with(skill)


LANGUAGES = World(
    "languages", {"interpreter": 0.5, "small": 1.0, "middle": 2.0, "polyglot": 9.0}, languages
)
"""Two topics are in a language that only the polyglot reads, unless the interpreter comes first."""


def mixed(call: Call) -> Chances:
    if call.model == "critic":
        if call.shown is None:
            return right_with(0.2)
        if call.shown == RIGHT:
            return {RIGHT: 0.97, WRONG: 0.03}
        return {RIGHT: 0.5, SAME: 0.4, WRONG: 0.1}
    skill = {"echo": 0.65, "solid": 0.7, "strong": 0.88}[call.model]
    own = right_with(skill - 0.1 if call.topic in EXACT else skill)
    repeats = 0.0
    if call.model == "echo" and call.shown is not None:
        repeats = 0.85
    if call.model == "strong" and call.shown in (WRONG, LURE):
        repeats = 0.5
    if not repeats:
        return own
    return {SAME: repeats, **{kind: chance * (1 - repeats) for kind, chance in own.items()}}


MIXED = World("mixed", {"echo": 1.0, "solid": 1.2, "critic": 1.5, "strong": 7.0}, mixed)
"""One needs the answer before, two repeat it, and one does not mind."""


def graded(call: Call) -> Chances:
    letter = call.topic == "letter"
    if call.model == "polish":
        before = call.shown.quality if call.shown else 0.0
        better = min(before + 0.3, 0.9) if letter else max(before - 0.2, 0.1)
        return {text_worth(better): 0.8, text_worth(max(better - 0.1, 0.0)): 0.2}
    if call.model == "author":
        return {text_worth(0.8): 0.8, text_worth(0.6): 0.2}
    low = 0.5 if call.model == "draft" else 0.4
    return {text_worth(low): 0.5, text_worth(low + 0.2): 0.5}


GRADED = World(
    "graded",
    {"draft": 1.0, "other": 0.7, "polish": 1.0, "author": 8.0},
    graded,
    WRITING,
    metric="token_f1",
)
"""Texts: who polishes makes letters better and everything else worse."""


def newsroom(call: Call) -> Chances:
    if call.model == "checker":
        if call.shown is None:
            return {NOTHING: 0.85, RIGHT: 0.1, WRONG: 0.05}
        return right_with(
            0.97 if call.shown == RIGHT else 0.7 if call.shown.form == "number" else 0.1
        )
    return right_with({"reporter": 0.5, "editor-in-chief": 0.88}[call.model])


REPORTERS = {f"reporter-{i}": round(0.8 + 0.1 * i, 1) for i in range(8)}
NEWSROOM = World(
    "newsroom",
    {**REPORTERS, "checker": 1.5, "editor-in-chief": 12.0},
    newsroom,
    alike=dict.fromkeys(REPORTERS, "reporter"),
)
"""More experts than a tree holds: eight are alike, and one is useless alone and mends what they say."""
