"""Worlds whose experts answer for themselves: topics, difficulty, useless experts, shared mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from .topics import WRITING
from .world import LURE, NOTHING, RIGHT, WRONG, Call, Chances, Kind, World, unit

HOMES = {"coder": "code", "lawyer": "law", "doctor": "medicine", "mathematician": "mathematics"}
HOMES |= {"guide": "travel", "secretary": "letter", "critic": "summary", "cook": "recipe"}
EXACT = ("code", "mathematics")


def right_with(chance: float, lured: float = 0.3) -> Chances:
    """Right with a chance; of the mistakes a share is the one that many make."""
    return {RIGHT: chance, LURE: (1 - chance) * lured, WRONG: (1 - chance) * (1 - lured)}


def harder(chance: float, by: float) -> float:
    """A chance moved down by so many logits."""
    return 1 / (1 + math.exp(by) * (1 - chance) / chance)


def text_worth(quality: float) -> Kind:
    """A text of some quality, a multiple of 0.1; its words do not show which."""
    quality = round(quality, 1)
    return Kind(f"text {quality}", "text", quality, own=True)


# Topics -------------------------------------------------------------------------------------------


def specialists(call: Call) -> Chances:
    if call.model == "useless":
        return right_with(0.08)
    home = 0.9 if HOMES.get(call.model) == call.topic else 0.2
    skill = 0.85 if call.model == "generalist" else home
    return right_with(harder(skill, 1.2 if call.hard else -0.5))


SPECIALISTS = World(
    "specialists",
    {"coder": 1.0, "lawyer": 1.1, "doctor": 1.2, "mathematician": 0.9, "generalist": 8.0},
    specialists,
    hard=0.3,
)
"""Four specialists for five topics, and a generalist; some questions are hard."""

NOISY = replace(SPECIALISTS, name="noisy", noise=0.2)
"""The same, trained with a judge who is wrong about every fifth answer."""


def crowd(useless: int) -> World:
    """The same in a crowd of useless experts, cheap and dear, mixed among the others."""
    extra = {f"extra-{i:02d}": round(0.3 + 6.0 * i / useless, 2) for i in range(useless)}
    everyone = {**SPECIALISTS.costs, **extra}
    costs = {name: everyone[name] for name in sorted(everyone, key=unit)}
    name = f"crowd-{len(costs)}"
    return replace(SPECIALISTS, name=name, costs=costs, alike=dict.fromkeys(extra, "useless"))


def modest(call: Call) -> Chances:
    able = specialists(call)
    if call.model == "generalist" or HOMES.get(call.model) == call.topic:
        return able
    return {NOTHING: 0.7, **{kind: 0.3 * chance for kind, chance in able.items()}}


MODEST = replace(SPECIALISTS, name="modest", chances=modest)
"""The same specialists, who mostly say that they do not know what is outside their field."""

FIVE = {"coder": 1.0, "lawyer": 1.0, "doctor": 1.0, "mathematician": 1.0, "guide": 1.0}


def five_topics(call: Call) -> Chances:
    home = 0.95 if HOMES.get(call.model) == call.topic else 0.15
    return right_with({"generalist": 0.8, "amateur": 0.7}.get(call.model, home))


FIVE_TOPICS = World("five-topics", {**FIVE, "generalist": 8.0}, five_topics)
"""A cheap specialist for each topic, and a generalist who is dearer and worse than they."""

RARE_TOPICS = World(
    "rare-topics",
    {**FIVE, "amateur": 6.0},
    five_topics,
    weights={"code": 0.4, "law": 0.3, "medicine": 0.17, "mathematics": 0.1, "travel": 0.03},
)
"""A specialist for each topic again, but one topic makes 40 %, another 3 % of the questions."""


def easy_and_hard(call: Call) -> Chances:
    skills = {"quick": (0.93, 0.15), "brisk": (0.9, 0.25), "thinker": (0.95, 0.6)}
    return right_with(skills.get(call.model, (0.97, 0.85))[call.hard])


EASY_AND_HARD = World(
    "easy-and-hard",
    {"quick": 0.5, "brisk": 0.6, "thinker": 4.0, "professor": 10.0},
    easy_and_hard,
    hard={"code": 0.5, "law": 0.2, "medicine": 0.4, "mathematics": 0.8, "travel": 0.05},
)
"""The topic says how many questions are hard; whether two cheap experts agree tells which."""


def open_answers(call: Call) -> Chances:
    if call.model == "author":
        return {text_worth(0.9): 0.6, text_worth(0.7): 0.4}
    if HOMES.get(call.model) == call.topic:
        return {text_worth(0.8): 0.7, text_worth(0.6): 0.3}
    return {text_worth(0.5): 0.2, text_worth(0.3): 0.5, text_worth(0.1): 0.3}


OPEN_ANSWERS = World(
    "open-answers",
    {"secretary": 1.0, "critic": 1.2, "cook": 0.8, "poet": 2.0, "author": 7.0},
    open_answers,
    WRITING,
    metric="token_f1",
)
"""Texts, judged by token F1. Each expert has words of its own, so no two texts can be compared, and nothing
can be learnt from an answer: the optimum over who is asked is the exact one."""

# Shared mistakes ----------------------------------------------------------------------------------


def near_copies(call: Call) -> Chances:
    if call.model == "copy":
        return {LURE if call.hard else RIGHT: 0.95, WRONG: 0.05}
    return right_with(0.6 if call.model == "other" else 0.9, lured=0.0)


COPIES = {f"copy-{i}": 1.0 for i in range(1, 7)}
NEAR_COPIES = World(
    "near-copies",
    {**COPIES, "other": 1.0, "strong": 6.0},
    near_copies,
    hard=0.4,
    alike=dict.fromkeys(COPIES, "copy"),
)
"""Six near copies of a model that is right in 60 %, an independent one as good, and a better, dearer one."""


def liars(call: Call) -> Chances:
    if call.model.startswith("liar"):
        return {LURE: 0.8, RIGHT: 0.15, WRONG: 0.05}
    exact = call.topic in EXACT
    skills = {"honest-a": 0.75 if exact else 0.5, "honest-b": 0.5 if exact else 0.75}
    return right_with({**skills, "honest-c": 0.65, "strong": 0.9}[call.model], lured=0.1)


LIARS = World(
    "liars",
    {
        "liar-a": 0.3,
        "liar-b": 0.3,
        "honest-a": 1.0,
        "honest-b": 1.2,
        "honest-c": 1.5,
        "strong": 9.0,
    },
    liars,
)
"""Two cheap liars tell the same tale; honest experts are right more often than not."""


def correlated_failures(call: Call) -> Chances:
    skills: Mapping[str, float] = {"sibling-a": 0.8, "sibling-b": 0.85, "sibling-c": 0.9}
    if call.model not in skills:
        return right_with(0.9 if call.model == "strong" else 0.7)
    if call.hard:
        return {LURE: 0.9, RIGHT: 0.05, WRONG: 0.05}
    return right_with(skills[call.model], lured=0.0)


CORRELATED_FAILURES = World(
    "correlated-failures",
    {"sibling-a": 0.5, "sibling-b": 0.7, "sibling-c": 1.0, "stranger": 1.5, "strong": 8.0},
    correlated_failures,
    hard={"code": 0.15, "law": 0.5, "medicine": 0.15, "mathematics": 0.15, "travel": 0.5},
)
"""Three siblings fall for the same trick questions; a stranger and a strong model do not."""


# Hidden kinds, votes, free calls ------------------------------------------------------------------


def hidden_halves(call: Call) -> Chances:
    if call.model == "generalist":
        return right_with(0.8)
    if call.model == "fool":
        return right_with(0.3, lured=0.9)
    if call.hard == (call.model == "right"):
        return {RIGHT: 0.88, WRONG: 0.06, NOTHING: 0.06}
    return {NOTHING: 0.8, LURE: 0.15, RIGHT: 0.05}


HIDDEN_HALVES = World(
    "hidden-halves",
    {"left": 1.0, "right": 1.2, "fool": 0.5, "generalist": 6.0},
    hidden_halves,
    hard=0.45,
)
"""Two specialists, each for half of the questions; none shows for which, but the other mostly says so."""


def committee(call: Call) -> Chances:
    return right_with(0.87 if call.model == "strong" else 0.62, lured=0.1)


COMMITTEE = World(
    "committee",
    {**{f"member-{i}": 1.0 + 0.05 * i for i in range(6)}, "strong": 14.0},
    committee,
    max_steps=5,
)
"""Six who are right more often than not, of whom two or three that agree beat the strong one."""


def free_call(call: Call) -> Chances:
    skills = {"free": 0.5, "cheap": 0.6, "local": 0.55, "dear": 0.92}
    return right_with(0.9 if (call.model, call.topic) == ("local", "law") else skills[call.model])


FREE_CALL = World("free-call", {"free": 0.0, "cheap": 0.1, "local": 0.4, "dear": 5.0}, free_call)
"""One expert costs nothing, and the dear one fifty times as much as the cheap one."""


def two(call: Call) -> Chances:
    if call.model == "cheap":
        return right_with(0.85 if call.topic in EXACT else 0.4)
    return right_with(0.9 if call.shown is None else 0.93 if call.shown == RIGHT else 0.8)


TWO = World("two", {"cheap": 1.0, "dear": 5.0}, two)
"""The smallest pool: a cheap one that knows two topics of five, and one that wrong drafts mislead a bit."""


def coins(call: Call) -> Chances:
    return right_with(harder(0.64, 0.8 if call.hard else -0.5), lured=0.15)


COINS = World("coins", {f"coin{i}": 0.8 + 0.05 * i for i in range(9)}, coins, hard=0.3, max_steps=5)
"""Nine who are equally good, and all worse on hard questions: only votes help."""


def refusers(call: Call) -> Chances:
    if call.model == "generalist":
        return right_with(0.72)
    if call.topic in REFUSE_ALL_BUT[call.model]:
        return right_with(0.93)
    return {NOTHING: 0.8, WRONG: 0.2}


REFUSE_ALL_BUT = {
    "lawyer": ("law",), "doctor": ("medicine",), "maths": ("mathematics", "code"), "guide": ("travel",)
}  # fmt: skip
REFUSERS = World(
    "refusers",
    {"lawyer": 0.6, "doctor": 0.8, "maths": 1.0, "guide": 0.5, "generalist": 6.0},
    refusers,
)
"""Specialists that mostly refuse what is not theirs."""
