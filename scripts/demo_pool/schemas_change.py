"""Schemas in which a quantity grows or shrinks: its start, its change or its end is asked for."""

from __future__ import annotations

from word_problem_world import GAIN, LOSE, Group, World


def gain_and_lose(w: World) -> Group:
    """One owner, a gain and a loss, another thing that does not matter."""
    a, o, p = w.name(), w.thing(), w.thing()
    gained, gain = w.rng.choice(GAIN)
    lost, lose = w.rng.choice(LOSE)
    x, y, z, q = w.large(), w.num(), w.num(), w.num()
    z = min(z, x + y - 1)
    he = w.he()
    extra = w.maybe(f" and {q} {p}")
    story = (
        f"{a} had {x} {o}{extra}. "
        + w.pick(f"Later {he} {gained} {y} more {o} and {lost} {z}.",
                 f"{he.capitalize()} {gained} {y} {o} and then {lost} {z} of them.",
                 f"{he.capitalize()} {lost} {z} of the {o} and {gained} {y} new ones.")
    )  # fmt: skip
    return Group(story, [
        (w.pick(f"How many {o} does {a} have now?", f"How many {o} does {a} have in the end?",
                f"How many {o} are left?"), f"( {x} + {y} ) - {z}"),
        (f"How many {o} did {a} {lose}?", f"{z}"),
        (f"How many more {o} did {a} {gain} than {he} {lost}?", f"{y} - {z}"),
        (f"How many {o} did {a} have before {he} {lost} any if {he} {gained} the others first?",
         f"{x} + {y}"),
    ])  # fmt: skip


def lose_result(w: World) -> Group:
    """A loss with another thing beside it; each question asks about one of them."""
    a, (o, p) = w.name(), w.kinds()
    lost, lose = w.rng.choice(LOSE)
    x, y = w.large(), w.large()
    u, v = w.less(x), w.less(y)
    he = w.he()
    story = f"{a} had {x} {o} and {y} {p}. " + w.pick(
        f"Then {he} {lost} {u} {o} and {v} {p}.", f"{he.capitalize()} {lost} {v} {p} and {u} {o}."
    )
    return Group(story, [
        (f"How many {o} does {a} have left?", f"{x} - {u}"),
        (f"How many {p} does {a} still have?", f"{y} - {v}"),
        (f"How many more {o} than {p} did {a} have at first?", f"{x} - {y}"),
        (f"How many more {o} than {p} did {a} {lose}?", f"{u} - {v}"),
        (f"How many {o} and {p} did {a} {lose} in all?", f"{u} + {v}"),
    ])  # fmt: skip


def change_unknown(w: World) -> Group:
    """Before and after are known for two things, mentioned in another order; the change is not."""
    a, (o, p) = w.name(), w.kinds()
    up = w.flip()
    did, do = w.rng.choice(GAIN if up else LOSE)
    x, y = w.large(), w.large()
    u, v = (x + w.num(), y + w.num()) if up else (w.less(x), w.less(y))
    he = w.he()
    two = w.flip(0.7)
    if two:
        first = f"{a} had {x} {o} and {y} {p}."
        after = w.pick(f"{v} {p} and {u} {o}", f"{u} {o} and {v} {p}")
        what = f"some {o} and {p}"
    else:
        first = f"{a} had {x} {o}."
        after, what = f"{u} {o}", w.pick("some", f"some {o}", "some of them" if not up else "some")
    left = "" if up else " left"
    story = f"{first} " + w.pick(
        f"After {he} {did} {what}, {he} had {after}{left}.",
        f"{he.capitalize()} {did} {what} and now has {after}{left}.",
        f"Then {he} {did} {what}. In the end there were {after}{left}.",
    )
    change = f"{u} - {x}" if up else f"{x} - {u}"
    other = f"{v} - {y}" if up else f"{y} - {v}"
    questions = [(f"How many {o} did {a} {do}?", change), (f"How many {o} did {he} {do}?", change)]
    if two:
        questions = [
            questions[0],
            (f"How many {p} did {he} {do}?", other),
            (f"How many more {o} than {p} does {a} have now?", f"{u} - {v}"),
            (f"How many more {o} than {p} did {a} have at first?", f"{x} - {y}"),
            (f"How many {o} and {p} does {a} have now?", f"{u} + {v}"),
        ]
    return Group(story, questions)


def start_unknown(w: World) -> Group:
    """The end is known and the beginning asked for."""
    a, o, p = w.name(), w.thing(), w.thing()
    x, y, q = w.large(), w.num(), w.num()
    he = w.he()
    gained, gain = w.rng.choice(GAIN)
    lost, lose = w.rng.choice(LOSE)
    mode = w.rng.randrange(4)
    ask = w.pick(
        f"How many {o} did {a} have at first?", f"How many {o} did {a} have in the beginning?",
        f"How many {o} did {he} have initially?", f"How many {o} did {a} start with?",
    )  # fmt: skip
    extra = w.maybe(f" and {q} {p}", 0.4)
    if mode == 0:
        story = w.pick(
            f"{a} {lost} {y} {o}. Now {he} has {x} {o}{extra}.",
            f"{a} had some {o}. After {he} {lost} {y} {he} had {x} {o}{extra} left.",
            f"{a} {lost} {y} of the {o}{extra}. {he.capitalize()} still has {x} {o}.",
        )
        return Group(story, [(ask, f"{x} + {y}"),
                             (f"How many {o} does {a} have left?", f"{x}")])  # fmt: skip
    if mode == 1:
        y = w.less(x)
        story = w.pick(f"{a} {gained} {y} {o}{extra}. Now {he} has {x} {o}.",
                       f"{a} had some {o}. {he.capitalize()} {gained} {y} more{extra} and then"
                       f" had {x} {o}.")  # fmt: skip
        return Group(story, [(ask, f"{x} - {y}")])
    if mode == 2:
        z = w.less(x + y)
        story = (f"{a} {lost} {y} {o} and then {gained} {z} new ones{extra}. "
                 f"Now {he} has {x} {o}.")  # fmt: skip
        return Group(story, [(ask, f"( {x} + {y} ) - {z}"),
                             (f"How many {o} did {a} {gain}?", f"{z}"),
                             (f"How many {o} did {a} {lose}?", f"{y}")])  # fmt: skip
    z = w.num()
    story = (
        f"{a} had some {o}. {he.capitalize()} {lost} {y} {o}{extra} one day and {z} the next day."
    )
    return Group(f"{story} {he.capitalize()} was left with {x} {o}.", [
        (ask, f"( {x} + {y} ) + {z}"),
        (f"How many {o} did {a} {lose} in all?", f"{y} + {z}"),
    ])  # fmt: skip


def middle_unknown(w: World) -> Group:
    """Something is added and something taken; one of the two is asked for."""
    who, stop, gone, came = w.rng.choice((
        ("people on the bus", "at the next stop", "got off", "got on"),
        ("guests in the hotel", "at noon", "left", "arrived"),
        ("cars in the parking lot", "in the evening", "drove away", "came"),
        ("passengers on the train", "at the station", "got off", "got on"),
        ("customers in the cafe", "after a while", "left", "came in"),
        ("birds in the tree", "a minute later", "flew away", "came"),
        ("books on the shelf", "on monday", "were taken away", "were put there"),
    ))  # fmt: skip
    kind = who.split()[0]
    x, y, c = w.large(), w.num(), w.num()
    y = min(y, x - 1)
    limit = w.maybe(f" There is room for {c} {kind}.", 0.3)
    mode = w.rng.randrange(3)
    if mode == 0:  # Who came is unknown.
        z = x - y + w.num()
        story = (f"There were {x} {who}. {stop.capitalize()} {y} {kind} {gone} and some more "
                 f"{came}.{limit} Then there were {z} {who}.")  # fmt: skip
        more = z > x
        questions = [
            (f"How many {kind} {came} {stop}?", f"( {z} - {x} ) + {y}"),
            (f"How many {kind} {came}?", f"( {z} + {y} ) - {x}"),
            (f"How many {kind} {gone} {stop}?", f"{y}"),
        ]
        if more:
            questions.append((f"How many more {kind} {came} than {gone}?", f"{z} - {x}"))
        return Group(story, questions)
    if mode == 1:
        z = w.less(x)
        story = f"There were {x} {who}. {stop.capitalize()} some {kind} {gone}.{limit}"
        story += w.pick(f" Then there were {z} {who}.", f" Now there are {z} {kind} left.")
        return Group(story, [
            (f"How many {kind} {gone} {stop}?", f"{x} - {z}"),
            (f"How many more {kind} were there before than there are now?", f"{x} - {z}"),
        ])  # fmt: skip
    story = f"There were {x} {who}. {stop.capitalize()} {c} {kind} {came} and {y} {gone}."
    return Group(story, [
        (f"How many {kind} are there now?", f"( {x} + {c} ) - {y}"),
        (f"How many {kind} were there before anyone {gone}?", f"{x} + {c}"),
        (f"How many more {kind} {came} than {gone}?", f"{c} - {y}"),
    ])  # fmt: skip


SCHEMAS = (gain_and_lose, lose_result, change_unknown, start_unknown, middle_unknown)
