"""Text that holds nothing to compute, for the calculator expert to answer with "?"."""

from __future__ import annotations

import random

_NAMES = (
    "Ann Ben Carla Dev Elif Farid Gus Hana Ivo June Kofi Lena Milo Nora Omar Pia Quinn Rosa Sam "
    "Tara Uma Vera Wes Yara Zack Haley Brian Megan Paul Sandy Jerry Robin Dana Frank Olivia"
).split()
_THINGS = (
    "apples marbles stickers books pencils cookies tickets balloons cards coins stamps plants "
    "eggs bottles shells toys pages seats buses boxes bags miles dollars cents hours minutes games "
    "songs photos flowers trees cupcakes candies crayons students teachers children fish birds "
    "slices pizzas points runs shirts pounds ounces inches meters kilometers gallons blocks"
).split()
_VERBS = (
    "has had buys bought sold gave found lost needs ate used picked made read shared collected "
    "earned spent baked sent drove ran scored planted received owed saved washed counted"
).split()
_FILLER = (
    "the a of in on at with for from after before each every all some more than left over and then "
    "while because school store park home table garden friend mother brother sister morning day "
    "week month year summer red blue green big small old new how why when where who which is are "
    "was were can does please explain write tell story poem list name capital city country river "
    "history music color animal planet language code python function word sentence translate "
    "summary reason meaning weather best first last number sum total difference equation answer"
).split()
_QUESTIONS = (
    "How many {t} does {n} have now?", "How many {t} are left?", "How much did {n} spend in all?",
    "How many {t} did {n} {v} altogether?", "How many more {t} than {t2} are there?",
    "What is the total number of {t}?", "How long will it take {n}?", "Find the cost of the {t}.",
    "How many {t} will each {t2} get?", "What was the price of one of the {t}?",
    "How far did {n} travel?", "By how much is the number of {t} larger?", "",
)  # fmt: skip
_CLAUSES = (
    "{n} {v} {a} {t}", "{n} {v} {a} {t} and {b} {t2}", "There are {a} {t} in the {f}",
    "there were {a} {t} and {b} {t2} in each of the {f}", "{n} {v} {a} of the {t} for ${b}",
    "a {a}-{f} trip costs ${b} per {f}", "each of the {a} {t} weighs {b} pounds",
    "{n2} gave {n} {a} {t}", "he {v} {a} {t} {f} {f}", "If {n} {v} {a} {t} at {b} {t2} per hour",
    "{n} and {n2} {v} {t} {f} the {f}", "the {t} cost {a} cents each", "{a}% of the {t} are {f}",
    "{a} of the {b} {t} were {f}", "{n} {v} {a} more {t} than {n2}", "{a}/{b} of the {t} were {f}",
)  # fmt: skip
_PLAIN = (
    "What is the capital of {w}?", "Who wrote {w}?", "Hello", "hi", "Thanks!", "Explain {w} {w}.",
    "Write a {f} about {t} and {t2}.", "Translate '{w} {w}' to {w}.", "What is {w}?", "?", "",
    "What color are {t}?", "Is {a} a prime number?", "Count from {a} to {b}.", "I am {a} years old.",
    "When did {w} {v} the {f}?", "In {a}, {w} {v} {b} {t}.", "What is the meaning of {f}?",
    "def {w}(x): return x", "print('{w}')", "A) {t} B) {t2} C) {f}", "ok", "Yes, {n}.", "{n}: {w}",
    "Which is larger, {a} or {b}?", "What is {n} {v}?", "Calculate {f} {t}", "Solve the {f}",
    "Compute the {f} of {t}", "How much is {a} {t}?", "How much is the {f}?", "{a} {b}", "{a} {t}",
)  # fmt: skip
_BROKEN = (
    "{a} +", "{a} * ", "+ {a} {b}", "/ {a}", "( {a} + {b}", "{a} + {b} )", "{a} {b} {c}", "()",
    "{a} + * {b}", "x + {a} = {b}", "{a} x = {b}", "y / {a}", "{a} + y", "n * {b}", "{a} ** {b}",
    "{a} - ( {b}", "({a}", "{a})", "* {a}", "{a} / * {b}", "{a} , {b} , {c}", "{a}:{b}", "x - y",
)  # fmt: skip


def _pseudo_word(rng: random.Random) -> str:
    """Makes up a word, so that unknown words are nothing new to the model."""
    parts = rng.randrange(1, 5)
    letters = "".join(
        rng.choice("bcdfghjklmnprstvwyz") + rng.choice(("a", "e", "i", "o", "u", "ea", "oo", "ar"))
        for _ in range(parts)
    ) + rng.choice(("", "n", "s", "r", "t", "ing", "ed"))
    return letters.capitalize() if rng.random() < 0.3 else letters


def _number(rng: random.Random) -> str:
    value = rng.randrange(1, 10 ** rng.choices((1, 2, 3, 4), (35, 40, 20, 5))[0])
    roll = rng.random()
    if roll < 0.06:
        return f"{value}.{rng.randrange(1, 100)}"
    return f"{value:,}" if roll < 0.1 else str(value)


def _fill(rng: random.Random, template: str) -> str:
    values = {
        "n": rng.choice(_NAMES) if rng.random() < 0.7 else _pseudo_word(rng).capitalize(),
        "n2": rng.choice(_NAMES),
        "t": rng.choice(_THINGS) if rng.random() < 0.7 else _pseudo_word(rng),
        "t2": rng.choice(_THINGS),
        "v": rng.choice(_VERBS),
        "f": rng.choice(_FILLER) if rng.random() < 0.7 else _pseudo_word(rng),
        "w": _pseudo_word(rng) if rng.random() < 0.6 else rng.choice(_FILLER),
        "a": _number(rng),
        "b": _number(rng),
        "c": _number(rng),
    }
    return template.format(**values)


def _story(rng: random.Random) -> str:
    clauses = [
        _fill(rng, rng.choice(_CLAUSES)) for _ in range(rng.choices((1, 2, 3), (45, 40, 15))[0])
    ]
    text = rng.choice((". ", ". ", ", ", " and ")).join(clauses)
    question = _fill(rng, rng.choice(_QUESTIONS))
    return f"{text}. {question}".strip() if rng.random() < 0.85 else f"{text} {question.lower()}"


def _salad(rng: random.Random) -> str:
    words = []
    for _ in range(rng.randrange(1, 14)):
        roll = rng.random()
        words.append(
            _number(rng) if roll < 0.14
            else _pseudo_word(rng) if roll < 0.5
            else rng.choice((*_FILLER, *_THINGS, *_VERBS))
        )  # fmt: skip
    if all(word[0].isdigit() for word in words):
        words.append(rng.choice(_FILLER))
    return " ".join(words) + rng.choice(("", ".", "?", "!"))


def garbage(rng: random.Random) -> str:
    """Draws a text with nothing to compute: stories, questions, word salad, broken expressions."""
    roll = rng.random()
    if roll < 0.38:
        text = _story(rng)
    elif roll < 0.58:
        text = _fill(rng, rng.choice(_PLAIN))
    elif roll < 0.74:
        text = _salad(rng)
    else:
        text = _fill(rng, rng.choice(_BROKEN))
    roll = rng.random()
    if roll < 0.15:
        return text.lower()
    return f"{rng.choice(('Question: ', 'Q: ', 'Problem: '))}{text}" if roll < 0.22 else text
