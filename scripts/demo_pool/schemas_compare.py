"""Schemas that compare quantities or put parts together."""

from __future__ import annotations

from word_problem_world import DO, TIMES, UNITS, Group, World


def two_by_two(w: World) -> Group:
    """Two people, two things."""
    a, b, (o, p) = w.name(), w.name(), w.kinds()
    did, do = w.rng.choice((*DO, ("has", "have"), ("had", "have"), ("has", "have")))
    verb = "do" if did == "has" else "did"
    x, y, u, v = w.num(), w.num(), w.num(), w.num()
    story = w.pick(
        f"{a} {did} {x} {o} and {y} {p} while {b} {did} {u} {o} and {v} {p}.",
        f"{a} {did} {x} {o} and {y} {p}. {b} {did} {v} {p} and {u} {o}.",
        f"{a} {did} {x} {o}. {b} {did} {u} {o}. {a} also {did} {y} {p} and {b} {did} {v} {p}.",
    )
    does = "does" if did == "has" else "did"
    return Group(story, [
        (w.pick(f"How many {o} {verb} {a} and {b} {do}?", f"How many {o} {verb} they {do} in all?"),
         f"{x} + {u}"),
        (w.pick(f"How many {p} {verb} they {do} together?", f"How many {p} {verb} they {do}?"),
         f"{y} + {v}"),
        (f"How many more {o} {does} {a} {do} than {b}?", f"{x} - {u}"),
        (f"How many more {p} {does} {b} {do} than {a}?", f"{v} - {y}"),
        (f"How many more {o} than {p} {does} {a} {do}?", f"{x} - {y}"),
        (f"How many more {p} than {o} {does} {b} {do}?", f"{v} - {u}"),
        (f"How many {o} and {p} {does} {b} {do}?", f"{u} + {v}"),
    ])  # fmt: skip


def made_and_sold(w: World) -> Group:
    """Two things, each made and partly sold; the numbers follow no order."""
    a, (o, p) = w.pick("The baker", "A shop", w.name(), w.name(), "The farmer"), w.kinds()
    (did, do), (gone, go) = w.rng.choice((
        (("made", "make"), ("sold", "sell")), (("bought", "buy"), ("used", "use")),
        (("picked", "pick"), ("ate", "eat")), (("printed", "print"), ("mailed", "mail")),
        (("packed", "pack"), ("shipped", "ship")), (("collected", "collect"), ("lost", "lose")),
    ))  # fmt: skip
    x, y, u, v = w.num(), w.num(), w.num(), w.num()
    low = a[0].lower() + a[1:] if " " in a else a
    he = w.he()
    story = f"{a} {did} {x} {o} and {y} {p}."
    if w.flip(0.75):
        more = w.pick(f"{v} {p} and {u} {o}", f"{u} {o} and {v} {p}")
        story += w.pick(f" {he.capitalize()} {gone} {more}.", f" Then {he} {gone} {more}.")
        return Group(story, [
            (f"How many more {o} than {p} did {low} {do}?", f"{x} - {y}"),
            (f"How many more {p} than {o} did {low} {do}?", f"{y} - {x}"),
            (f"How many more {o} than {p} did {low} {go}?", f"{u} - {v}"),
            (f"How many more {p} than {o} did {low} {go}?", f"{v} - {u}"),
            (f"How many {o} would {low} still have?", f"{x} - {u}"),
            (f"How many {p} does {low} have left?", f"{y} - {v}"),
            (f"How many {o} and {p} did {low} {do}?", f"{x} + {y}"),
            (f"How many more {o} did {low} {do} than those {he} {gone}?", f"{x} - {u}"),
        ])  # fmt: skip
    return Group(story, [
        (f"If {he} {gone} {u} {o} how many {o} would {low} still have?", f"{x} - {u}"),
        (f"If {he} {gone} {v} of the {p} how many more {p} did {low} {do} than those {he} {gone}?",
         f"{y} - {v}"),
        (f"If {he} {gone} {u} {o} and {did} {v} new ones how many {o} does {low} have?",
         f"( {x} - {u} ) + {v}"),
        (f"How many more {o} than {p} did {low} {do}?", f"{x} - {y}"),
    ])  # fmt: skip


def three_kinds(w: World) -> Group:
    """Three colors or kinds in one place."""
    o = w.thing()
    a, b, c = w.color(), w.color(), w.color()
    place = w.pick("in the box", "in the basket", "on the table", "in the shop", "in the jar")
    x, y, z = w.num(), w.num(), w.num()
    story = w.pick(f"There are {x} {a} {o}, {y} {b} {o} and {z} {c} {o} {place}.",
                   f"{x} {a} {o}, {y} {b} {o} and {z} {c} {o} are {place}.")  # fmt: skip
    return Group(story, [
        (f"How many more {a} {o} than {b} {o} are {place}?", f"{x} - {y}"),
        (f"How many more {c} {o} than {a} {o} are {place}?", f"{z} - {x}"),
        (f"How many more {b} {o} than {c} {o} are {place}?", f"{y} - {z}"),
        (f"How many fewer {b} {o} than {c} {o} are {place}?", f"{z} - {y}"),
        (f"How many {a} and {c} {o} are {place}?", f"{x} + {z}"),
        (f"How many {o} are {place}?", f"( {x} + {y} ) + {z}"),
        (f"How many {o} {place} are not {b}?", f"{x} + {z}"),
    ])  # fmt: skip


def three_times(w: World) -> Group:
    """The same at three times."""
    a, o = w.name(), w.thing()
    (s, t, r) = w.rng.choice(TIMES)
    did, do = w.rng.choice(DO)
    x, y, z, he = w.num(), w.num(), w.num(), w.he()
    story = w.pick(f"{a} {did} {x} {o} {s}, {y} {o} {t} and {z} {o} {r}.",
                   f"{a} {did} {x} {o} {s}. {he.capitalize()} {did} {y} {t} and {z} {r}."
    )  # fmt: skip
    return Group(story, [
        (f"How many more {o} did {a} {do} {s} than {t}?", f"{x} - {y}"),
        (f"How many more {o} did {he} {do} {r} than {s}?", f"{z} - {x}"),
        (f"How many more {o} did {a} {do} {t} than {r}?", f"{y} - {z}"),
        (f"How many {o} did {a} {do} {s} and {r}?", f"{x} + {z}"),
        (f"How many {o} did {he} {do} {t} and {r}?", f"{y} + {z}"),
        (w.pick(f"How many {o} did {a} {do} in all?", f"How many {o} did {he} {do} altogether?"),
         f"( {x} + {y} ) + {z}"),
        (f"How many more {o} did {a} {do} {s} and {t} than {r}?", f"( {x} + {y} ) - {z}"),
    ])  # fmt: skip


def two_times_two_things(w: World) -> Group:
    """Two things at two times."""
    a, (o, p) = w.name(), w.kinds()
    (s, t, _) = w.rng.choice(TIMES)
    did, do = w.rng.choice(DO)
    x, y, u, v, he = w.num(), w.num(), w.num(), w.num(), w.he()
    story = (f"{a} {did} {x} {o} and {y} {p} {s}. "
             + w.pick(f"{t.capitalize()} {he} {did} {v} {p} and {u} {o}.",
                      f"{he.capitalize()} then {did} {u} {o} and {v} {p} {t}."))  # fmt: skip
    return Group(story, [
        (f"How many {o} did {a} {do} in all?", f"{x} + {u}"),
        (f"How many {p} did {he} {do} altogether?", f"{y} + {v}"),
        (f"How many more {o} did {a} {do} {s} than {t}?", f"{x} - {u}"),
        (f"How many more {p} did {a} {do} {t} compared to {s}?", f"{v} - {y}"),
        (f"How many more {o} than {p} did {a} {do} {t}?", f"{u} - {v}"),
        (f"How many more {p} than {o} did {he} {do} {s}?", f"{y} - {x}"),
    ])  # fmt: skip


def more_than(w: World) -> Group:
    """One person did so many more (or fewer) than another; one of the two is known."""
    a, b = w.name(), w.name()
    did, do, unit = w.rng.choice(UNITS)
    x, y, q = w.large(), w.num(), w.num()
    c = w.name()
    y = min(y, x - 1)
    more = w.flip()
    word = "more" if more else w.pick("fewer", "less")
    rel = f"{a} {did} {y} {word} {unit} than {b}."
    given_a = w.flip()
    known = f"{a if given_a else b} {did} {x} {unit}."
    extra = w.maybe(f" {c} {did} {q} {unit}.", 0.35)
    story = w.pick(f"{rel} {known}{extra}", f"{known}{extra} {rel}", f"{known} {rel}{extra}")
    # A known, B asked: the relation is inverted.
    sign = ("-" if more else "+") if given_a else ("+" if more else "-")
    asked = b if given_a else a
    other = f"{x} {sign} {y}"
    questions = [
        (w.pick(f"How many {unit} did {asked} {do}?", f"How many {unit} did {asked} {do}?",
                f"How much did {asked} {do}?" if unit == "dollars" else
                f"How many {unit} was that for {asked}?"), other),
        (f"How many {unit} did {a} and {b} {do} altogether?", f"( {x} {sign} {y} ) + {x}"),
    ]  # fmt: skip
    if extra:
        questions.append((f"How many {unit} did {asked} and {c} {do} in all?",
                          f"( {x} {sign} {y} ) + {q}"))  # fmt: skip
    return Group(story, questions)


def more_than_owned(w: World) -> Group:
    """A has so many more things than B."""
    a, b, c, o = w.name(), w.name(), w.name(), w.thing()
    x, y, z = w.large(), w.num(), w.num()
    y, z = min(y, x - 1), min(z, x - 1)
    first, second = w.pick("more", "fewer"), w.pick("more", "fewer")
    story = f"{a} has {y} {first} {o} than {b} and {z} {second} {o} than {c}."
    s1, s2 = ("-" if first == "more" else "+"), ("-" if second == "more" else "+")
    i1, i2 = ("+" if first == "more" else "-"), ("+" if second == "more" else "-")
    mode = w.rng.randrange(3)
    if mode == 0:
        return Group(f"{story} {a} has {x} {o}.", [
            (f"How many {o} does {b} have?", f"{x} {s1} {y}"),
            (f"How many {o} does {c} have?", f"{x} {s2} {z}"),
            (f"How many {o} do {a} and {b} have together?", f"( {x} {s1} {y} ) + {x}"),
        ])  # fmt: skip
    if mode == 1:
        return Group(w.pick(f"{story} {b} has {x} {o}.", f"{b} has {x} {o}. {story}"), [
            (f"How many {o} does {a} have?", f"{x} {i1} {y}"),
            (f"How many {o} does {c} have?", f"( {x} {i1} {y} ) {s2} {z}"),
        ])  # fmt: skip
    return Group(w.pick(f"{story} {c} has {x} {o}.", f"{c} has {x} {o}. {story}"), [
        (f"How many {o} does {a} have?", f"{x} {i2} {z}"),
        (f"How many {o} does {b} have?", f"( {x} {i2} {z} ) {s1} {y}"),
    ])  # fmt: skip


def chain(w: World) -> Group:
    """Three people; each compared with another one."""
    a, b, c = w.name(), w.name(), w.name()
    did, do, unit = w.rng.choice(UNITS[:7])
    x, y, z = w.large() + 10, w.num(), w.num()
    y, z = min(y, x // 2), min(z, x // 2)
    up1, up2 = w.flip(), w.flip()
    w1, w2 = "more" if up1 else w.pick("fewer", "less"), "more" if up2 else w.pick("fewer", "less")
    p1, p2 = ("+" if up1 else "-"), ("+" if up2 else "-")
    inverse = w.flip(0.4)
    if inverse:  # A is compared with B, so B is found backwards.
        story = (f"{a} {did} {x} {unit}. {a} {did} {y} {w1} {unit} than {b} and {c} {did} {z} {w2} "
                 f"{unit} than {b}.")  # fmt: skip
        back = "-" if up1 else "+"
        second, third = f"{x} {back} {y}", f"( {x} {back} {y} ) {p2} {z}"
        questions = [(f"How many {unit} did {b} {do}?", second),
                     (f"How many {unit} did {c} {do}?", third)]  # fmt: skip
    else:
        story = (f"{a} {did} {x} {unit}. {b} {did} {y} {w1} {unit} than {a} and {c} {did} {z} {w2} "
                 f"{unit} than {b}.")  # fmt: skip
        questions = [
            (f"How many {unit} did {b} {do}?", f"{x} {p1} {y}"),
            (f"How many {unit} did {c} {do}?", f"( {x} {p1} {y} ) {p2} {z}"),
        ]
        if up1 and up2:
            questions.append((f"How many more {unit} did {c} {do} than {a}?", f"{y} + {z}"))
        elif up1:
            questions.append((f"How many more {unit} did {c} {do} than {a}?", f"{y} - {z}"))
        elif up2:
            questions.append((f"How many more {unit} did {a} {do} than {c}?", f"{y} - {z}"))
    if up2:
        questions.append((f"How many more {unit} did {c} {do} than {b}?", f"{z}"))
    return Group(story, questions)


def recipe(w: World) -> Group:
    """Needed amounts of several ingredients, some already in."""
    a = w.name()
    goods = ["butter", "milk", "cocoa", "oats", "rice", "water", "honey", "cream", "nuts", "salt"]
    f, s, t = w.rng.sample(goods, 3)
    unit, dish = (
        w.pick("cups", "spoons", "grams"),
        w.pick("cake", "soup", "bread", "pie", "pudding"),
    )
    x, y, z = w.large(), w.num(), w.num()
    u, he = w.less(x), w.he()
    third = w.flip()
    amounts = (
        f"{x} {unit} of {f}, {y} {unit} of {s} and {z} {unit} of {t}"
        if third
        else (
            w.pick(
                f"{x} {unit} of {f} and {y} {unit} of {s}",
                f"{y} {unit} of {s} and {x} {unit} of {f}",
            )
        )
    )
    story = f"{a} is making {w.pick('a', 'some')} {dish}. "
    story += w.pick(f"The recipe needs {amounts}.", f"It takes {amounts}.")
    if w.flip(0.65):
        added = w.pick("has stirred in", "has already added")
        story += f" {he.capitalize()} {added} {u} {unit} of {f}."
        questions = [
            (f"How many more {unit} of {f} does {he} need to add?", f"{x} - {u}"),
            (f"How many more {unit} of {f} than {s} does {he} need to add now?",
             f"( {x} - {u} ) - {y}"),
            (f"How many more {unit} of {s} than {f} does {he} need to add now?",
             f"{y} - ( {x} - {u} )"),
            (f"How many more {unit} of {s} than {f} does the recipe need?", f"{y} - {x}"),
        ]  # fmt: skip
    else:
        story += f" Some {f} is in the bowl but {u} more {unit} of {f} are missing."
        questions = [(f"How many {unit} of {f} are in the bowl?", f"{x} - {u}")]
    if third:
        questions.append((f"How many more {unit} of {s} than {t} are needed?", f"{y} - {z}"))
    return Group(story, questions)


def found_and_now(w: World) -> Group:
    """So many found, so many now, for two things: what was there before?"""
    a, (o, p) = w.name(), w.kinds()
    x, y = w.num(), w.num()
    u, v = x + w.num(), y + w.num()
    did, do = w.rng.choice((("found", "find"), ("bought", "buy"), ("got", "get"), ("won", "win")))
    he, kept = w.he(), w.pick("in the collection", "at home", "in the drawer")
    story = (f"{a} {w.pick('collects', 'keeps')} {o} and {p}. {he.capitalize()} {did} {x} {o} and "
             f"{y} {p}. Now {he} has {v} {p} and {u} {o} {kept}.")  # fmt: skip
    return Group(story, [
        (f"How many {o} did {a} have at first?", f"{u} - {x}"),
        (f"How many {p} did {he} have before that?", f"{v} - {y}"),
        (f"How many more {o} than {p} did {a} {do}?", f"{x} - {y}"),
        (f"How many more {p} than {o} does {a} have now?", f"{v} - {u}"),
        (f"How many more {o} does {a} have now than {p}?", f"{u} - {v}"),
    ])  # fmt: skip


def earned(w: World) -> Group:
    """Two people before and after: what did each earn?"""
    a, b = w.name(), w.name()
    x, y = w.num(), w.num()
    u, v = x + w.num(), y + w.num()
    j, k = w.rng.sample(["mowing lawns", "washing cars", "selling cakes", "walking dogs"], 2)
    story = (f"Last month {a} had {x} dollars and {b} had {y} dollars. {a} was {j} and now has {u} "
             f"dollars. {b} was {k} and now has {v} dollars.")  # fmt: skip
    return Group(story, [
        (f"How much did {a} earn?", f"{u} - {x}"), (f"How much was earned by {k}?", f"{v} - {y}"),
        (f"How much money did {b} make?", f"{v} - {y}"),
        ("How much do they have together now?", f"{u} + {v}"),
        ("How much did they have altogether last month?", f"{x} + {y}"),
        (f"How much more did {a} have than {b} last month?", f"{x} - {y}"),
    ])  # fmt: skip


SCHEMAS = (
    two_by_two, made_and_sold, three_kinds, three_times, two_times_two_things, more_than,
    more_than_owned, chain, recipe, found_and_now, earned,
)  # fmt: skip
