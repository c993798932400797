"""Short texts with a question: word problems and reading, drawn from templates.

The word problems here are the router's own: other wording than the translator is trained on, so
that a router recognises a word problem by more than one generator's habits.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Story = tuple[str, str]
"""A question and its answer."""

_GIRLS = (
    "Alice Beatriz Chloe Daisy Emma Freya Greta Holly Irene Jasmin Kira Louise Mara Nadia".split()
)
_BOYS = "Adam Bruno Carlos Daniel Erik Felix George Hugo Ian Jonas Karim Lukas Martin Noel".split()
_THINGS = (
    "apples books pencils marbles stickers cookies shells stamps coins cards oranges balloons "
    "candles buttons ribbons postcards magnets peaches muffins tulips"
).split()


def _pick(rng: random.Random, values: list[str], count: int) -> list[str]:
    return rng.sample(values, count)


def _person(rng: random.Random) -> tuple[str, str, str, str]:
    """Draws a name and its pronouns (he, his, him)."""
    if rng.random() < 0.5:
        return rng.choice(_GIRLS), "she", "her", "her"
    return rng.choice(_BOYS), "he", "his", "him"


def word_problem(rng: random.Random) -> Story:
    """Draws a word problem of one or two steps on whole numbers, and its answer."""
    name, he, his, him = _person(rng)
    other = rng.choice([one for one in (*_GIRLS, *_BOYS) if one != name])
    thing, thing2 = _pick(rng, _THINGS, 2)
    a, b, c = rng.randint(12, 95), rng.randint(3, 11), rng.randint(2, 9)
    k, m = rng.randint(3, 12), rng.randint(3, 12)
    d = a + rng.randint(5, 60)
    price = rng.randint(2, 15)
    he_ = he.capitalize()
    templates: list[tuple[str, int]] = [
        (f"{name} had {a} {thing} and lost {b} of them. How many {thing} are left?", a - b),
        (f"There were {a} {thing} on the shelf. {name} put {d} more there. How many {thing} are "
         f"on the shelf now?", a + d),
        (f"{name} gave {b} {thing} to {other} and still has {a}. How many {thing} did {name} have "
         f"before?", a + b),
        (f"{name} has {d} {thing}, {other} has {a}. How many more does {name} have?", d - a),
        (f"A box holds {k} {thing}. How many {thing} are there in {m} boxes?", k * m),
        (f"{name} shares {k * m} {thing} equally among {k} friends. How many does each friend "
         f"get?", m),
        (f"{name} bought {k} {thing} for ${price} each. How much did {he} pay?", k * price),
        (f"{name} paid ${k * price} for {k} tickets of the same price. What does one ticket "
         f"cost?", price),
        (f"A bus with {a} passengers stops. {b} get off and {c} get on. How many passengers are "
         f"on the bus now?", a - b + c),
        (f"{name} reads {k} pages a day. How many pages does {he} read in {m} days?", k * m),
        (f"The book of {name} has {k * m} pages. {he_} reads {k} pages every evening. In how many "
         f"evenings is {he} done?", m),
        (f"{name} picked {a} {thing} in the morning and {d} in the afternoon, then {he} ate {b}. "
         f"How many {thing} remain?", a + d - b),
        (f"A ticket costs ${price}. {name} buys {k} tickets and pays with ${k * price + b}. How "
         f"much change does {he} get?", b),
        (f"In a hall there are {k} rows of {m} chairs. {b} chairs are broken. How many chairs can "
         f"be used?", k * m - b),
        (f"{name} has {k} bags with {m} {thing} each and {c} single {thing}. How many {thing} is "
         f"that altogether?", k * m + c),
        (f"{name} is {a} years old. {other} is {b} years older. How old is {other}?", a + b),
        (f"{name} is {a} years old and {his} brother is {b} years younger. How old is {his} "
         f"brother?", a - b),
        (f"After giving away {a} {thing}, {name} has {b} left. How many did {he} start with?",
         a + b),
        (f"A rope is {d} meters long. {name} cuts off {b} meters. How long is the rest?", d - b),
        (f"{name} drives {a} miles on Monday and {d} miles on Tuesday. How far does {he} drive in "
         f"the two days?", a + d),
        (f"{name} earns ${price} an hour. How much does {he} earn in {k} hours?", price * k),
        (f"{name} wants a bike for ${d}. {he_} has saved ${a}. How much more money does {he} "
         f"need?", d - a),
        (f"{k * m} children form {k} teams of the same size. How many children are in a team?", m),
        (f"{name} baked {a} muffins and sold all but {b} of them. How many muffins did {he} sell?",
         a - b),
        (f"A farmer has {a} cows and {d} sheep. How many animals does the farmer have in all?",
         a + d),
        (f"{name} has {k} times as many {thing} as {other}. {other} has {m}. How many has "
         f"{name}?", k * m),
        (f"{name} collected {a} {thing} and {d} {thing2}. {he_} gave {b} {thing} to {other}. How "
         f"many {thing} does {he} have now?", a - b),
        (f"{name} buys {k} {thing} at ${price} each and a bag for ${c}. What is the total?",
         k * price + c),
        (f"There are {d} seats in the cinema and {a} are taken. {b} more people sit down. How "
         f"many seats are free?", d - a - b if d - a >= b else d - a),
        (f"{other} gave {name} {k} packs of {m} {thing}. {name} already had {a}. How many {thing} "
         f"does {name} have now?", k * m + a),
        (f"{name} ran {k} laps of {m * 10} meters. How many meters did {he} run?", k * m * 10),
        (f"{a + b + c} birds sat in a tree. First {b} flew away, then {c} more. How many birds "
         f"stayed?", a),
        (f"{name} and {other} have {d} {thing} together. {a} of them belong to {name}. How many "
         f"belong to {other}?", d - a),
        (f"Every week {name} puts ${price} into a jar. How much is in the jar after {m} weeks if "
         f"it held ${b} at first?", price * m + b),
        (f"{name}'s mother gave {him} ${d}. A shirt costs ${a}. How much is left after {he} buys "
         f"the shirt?", d - a),
        (f"A baker fills {k} trays with {m} rolls each and sells {b} rolls. How many rolls are "
         f"left over?", k * m - b),
    ]  # fmt: skip
    text, answer = rng.choice(templates)
    # One template's numbers may not fit: fewer free seats than people who sit down.
    return (text, str(answer)) if answer > 0 else word_problem(rng)


_COLORS = "red blue green yellow black white brown purple orange pink gray".split()
_INSTRUMENTS = "guitar piano violin drums flute trumpet harp cello".split()
_FOOD = "soup pizza salad pasta rice fish soup pancakes sushi noodles bread".split()
_ROOMS = "kitchen hall bathroom garage cellar attic bedroom garden office".split()
_OBJECTS = "keys glasses shoes books letters tools towels boots candles maps".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_PETS = "Max Bella Rocky Luna Charlie Coco Bruno Molly Oscar Ruby Milo Daisy".split()
_JOBS = "nurse pilot teacher baker farmer lawyer plumber painter singer driver".split()
_CITIES = "Rome Oslo Paris Berlin Madrid Vienna London Dublin Athens Prague".split()
_CLOTHES = "hat scarf coat dress shirt jacket sweater".split()
_DRINKS = "tea coffee milk juice water lemonade cocoa".split()
_ANIMALS = "cat horse rabbit parrot goldfish hamster turtle snake".split()


def reading(rng: random.Random) -> Story:
    """Draws two facts and a question about one of them.

    The two facts differ in what is asked, so that a repeated word alone is no answer.
    """
    # No name is also that of a pet.
    one, two = _pick(rng, [n for n in (*_GIRLS, *_BOYS) if n not in _PETS], 2)
    asked = rng.randrange(2)
    who = (one, two)[asked]

    def two_of(values: list[str]) -> list[str]:
        return _pick(rng, sorted(set(values)), 2)

    def plays() -> Story:
        x = two_of(_INSTRUMENTS)
        return f"{one} plays the {x[0]} and {two} plays the {x[1]}. Who plays the {x[asked]}?", who

    def ordered() -> Story:
        x = two_of(_FOOD)
        return f"{one} ordered {x[0]} and {two} ordered {x[1]}. What did {who} order?", x[asked]

    def rooms() -> Story:
        x, r = two_of(_OBJECTS), two_of(_ROOMS)
        text = f"The {x[0]} are in the {r[0]} and the {x[1]} are in the {r[1]}."
        return f"{text} Where are the {x[asked]}?", r[asked]

    def days() -> Story:
        d = two_of(_DAYS)
        w = ("rained", "snowed") if rng.random() < 0.5 else ("snowed", "rained")
        verb = "rain" if w[asked] == "rained" else "snow"
        return f"On {d[0]} it {w[0]} and on {d[1]} it {w[1]}. On which day did it {verb}?", d[asked]

    def pets() -> Story:
        n, k = two_of(_PETS), two_of(_ANIMALS)
        text = f"{one} has a {k[0]} named {n[0]} and a {k[1]} named {n[1]}."
        return f"{text} What is the name of the {k[asked]}?", n[asked]

    def jobs() -> Story:
        j = two_of(_JOBS)
        text = f"{one} works as a {j[0]} and {two} works as a {j[1]}."
        return (f"{text} What is the job of {who}?", j[asked]) if rng.random() < 0.5 else (
            f"{text} Who is the {j[asked]}?", who)  # fmt: skip

    def cities() -> Story:
        p = two_of(_CITIES)
        text = f"{one} lives in {p[0]} and {two} lives in {p[1]}."
        return (f"{text} Who lives in {p[asked]}?", who) if rng.random() < 0.5 else (
            f"{text} Where does {who} live?", p[asked])  # fmt: skip

    def clothes() -> Story:
        c, g = two_of(_COLORS), rng.choice(_CLOTHES)
        text = f"{one} wore a {c[0]} {g} and {two} wore a {c[1]} {g}."
        return f"{text} Who wore the {c[asked]} {g}?", who

    def boxes() -> Story:
        c, x = two_of(_COLORS), two_of(_OBJECTS)
        text = f"The {c[0]} box holds {x[0]} and the {c[1]} box holds {x[1]}."
        return f"{text} What is in the {c[asked]} box?", x[asked]

    def drinks() -> Story:
        x = two_of(_DRINKS)
        return f"{one} drinks {x[0]}, but {two} drinks {x[1]}. Who drinks {x[asked]}?", who

    def birthdays() -> Story:
        d = two_of(_DAYS)
        text = f"The birthday of {one} is on {d[0]} and that of {two} is on {d[1]}."
        return f"{text} Whose birthday is on {d[asked]}?", who

    kinds: list[Callable[[], Story]] = [
        plays, ordered, rooms, days, pets, jobs, cities, clothes, boxes, drinks, birthdays,
    ]  # fmt: skip
    return rng.choice(kinds)()
