"""Schemas that mix families: a change and then a comparison, unknown counts, ways to go."""

from __future__ import annotations

from word_problem_world import BAGS, LOSE, Group, World


def then_compare(w: World) -> Group:
    """Two people; one of them gets more; then they are compared."""
    a, b, o, p = w.name(), w.name(), w.thing(), w.thing()
    x, y, z, q = w.num(), w.num(), w.num(), w.num()
    did, do = w.rng.choice((("brought", "bring"), ("had", "have"), ("picked", "pick")))
    extra = w.maybe(f" and {q} {p}", 0.4)
    story = f"{a} {did} {x} {o} and {b} {did} {y} {o}{extra}."
    up = w.flip(0.7)
    more = w.pick("found", "bought", "got")
    lost, _ = w.rng.choice(LOSE)
    story += f" Then {a} {more} {z} more {o}." if up else f" Then {a} {lost} {z} {o}."
    sign = "+" if up else "-"
    return Group(story, [
        (f"How many more {o} does {a} have than {b} now?", f"( {x} {sign} {z} ) - {y}"),
        (f"How many more {o} did {b} have than {a} in the end?", f"{y} - ( {x} {sign} {z} )"),
        (f"How many more {o} did {b} have than {a} at first?", f"{y} - {x}"),
        (f"How many {o} does {a} have now?", f"{x} {sign} {z}"),
        (f"How many {o} do {a} and {b} have in all?", f"( {x} {sign} {z} ) + {y}"),
        (f"How many {o} did {a} and {b} {do} at the beginning?", f"{x} + {y}"),
    ])  # fmt: skip


def tasks(w: World) -> Group:
    """Work of several subjects, with a misleading 'more' in the story."""
    a, he = w.name(), w.he()
    subjects = "history chemistry spelling art music geography physics grammar".split()
    s, t, r = w.rng.sample(subjects, 3)
    unit = w.pick("pages", "exercises", "problems", "questions")
    did = w.pick("had to do", "had", "has to finish", "must complete")
    x, y, z = w.num(), w.num(), w.num()
    mode = w.rng.randrange(3)
    if mode == 0:
        more = w.maybe("more ", 0.6)
        story = f"{a} {did} {x} {unit} of {s}, {y} {unit} of {t} and {z} {more}{unit} of {r}."
        return Group(story, [
            (f"How many more {unit} of {s} than of {t} are there?", f"{x} - {y}"),
            (f"How many more {unit} of {s} than {r} does {he} have to do?", f"{x} - {z}"),
            (f"How many more {unit} of {r} than {t} does {he} have?", f"{z} - {y}"),
            (f"How many {unit} of {t} and {r} are there?", f"{y} + {z}"),
            (f"How many {unit} are there in all?", f"( {x} + {y} ) + {z}"),
        ])  # fmt: skip
    if mode == 1:
        word = w.pick("more", "fewer")
        if word == "fewer":
            y = min(y, x - 1)
        sign = "+" if word == "more" else "-"
        story = f"{a} {did} {x} {unit} of {s} and {y} {word} {unit} of {t} than of {s}."
        return Group(story, [
            (f"How many {unit} of {t} does {he} have to do?", f"{x} {sign} {y}"),
            (f"How many {unit} does {a} have to do in all?", f"( {x} {sign} {y} ) + {x}"),
        ])  # fmt: skip
    story = f"{a} {did} {x} {unit} of {s} and some more {unit} of {t}."
    return Group(story, [
        (f"If there are {x + y} {unit} in all how many {unit} of {t} are there?", f"{x + y} - {x}"),
        (f"If {he} has {y} more {unit} of {t} than of {s} how many are of {t}?", f"{x} + {y}"),
        (f"If there are {z} {unit} of {t} how many {unit} are there in all?", f"{x} + {z}"),
    ])  # fmt: skip


def some_bags(w: World) -> Group:
    """The number of bags is asked for, or only one kind in them counts."""
    a, (o, p) = w.name(), w.kinds()
    one, many = w.rng.choice(BAGS)
    x, y, n, q = w.num(2, 30), w.num(2, 30), w.num(2, 40), w.num()
    total = (x + y) * n
    mode = w.rng.randrange(3)
    if mode == 0:
        story = w.pick(f"{a} has some {many}. Each {one} has {x} {o} and {y} {p}.",
                       f"There are some {many} with {x} {o} and {y} {p} in each {one}."
        )  # fmt: skip
        return Group(story, [
            (f"If there are {total} {o} and {p} in all how many {many} are there?",
             f"{total} / ( {x} + {y} )"),
            (f"If there are {x * n} {o} in all how many {many} are there?", f"{x * n} / {x}"),
            (f"If {a} has {q} {many} how many {p} are there?", f"{y} * {q}"),
            (f"How many {o} and {p} are in each {one}?", f"{x} + {y}"),
        ])  # fmt: skip
    if mode == 1:
        story = w.pick(f"{a} had {n} {many} with the same number of {o} in each.",
                       f"{n} {many} hold equally many {o}.")  # fmt: skip
        return Group(story, [
            (f"If there are {x * n} {o} and {q} {p} in total how many {o} are in each {one}?",
             f"{x * n} / {n}"),
            (f"If there are {x} {o} in each {one} how many {o} are there?", f"{n} * {x}"),
            (f"If {a} has {q} {p} and {x * n} {o} how many more {o} than {p} are there?",
             f"{x * n} - {q}"),
        ])  # fmt: skip
    story = f"{a} has {q} {o} and wants to keep {min(q - 1, x)} of them."
    k = min(q - 1, x)
    story = w.pick(f"{n} friends visit {a}. {story}", f"{a} has {n} friends. {story}")
    return Group(story, [
        (f"How many {o} can {a} give away?", f"{q} - {k}"),
        (f"If the rest is shared how many {o} does each of the friends get?",
         f"( {q} - {k} ) / {n}"),
    ] if (q - k) % n == 0 else [(f"How many {o} can {a} give away?", f"{q} - {k}")])  # fmt: skip


def way_to_go(w: World) -> Group:
    """A length, a depth or a weight, how much is done, how much is missing."""
    whole, was, unit, do = w.rng.choice((
        ("tunnel", "long", "meters", "dig"), ("mountain", "high", "meters", "climb"),
        ("lake", "deep", "feet", "dive"), ("trail", "long", "miles", "walk"),
        ("well", "deep", "feet", "dig"), ("road", "long", "kilometers", "drive"),
    ))  # fmt: skip
    x = w.large() + 5
    u, q = w.less(x), w.num()
    who = w.pick("they", "the workers", "the friends")
    story = f"The {whole} is {x} {unit} {was}{w.maybe(f' and {q} years old', 0.35)}."
    done = f"{who} are already at {u} {unit}"
    if w.flip(0.4):
        ask = f"If {done} and the {whole} is {x} {unit} {was} how much farther is it to the end?"
        return Group("", [(ask, f"{x} - {u}")])
    return Group(f"{story} {done.capitalize()}.", [
        (f"How many more {unit} do they need to {do}?", f"{x} - {u}"),
        ("How much farther is it to the end?", f"{x} - {u}"),
        (f"How many {unit} are left?", f"{x} - {u}"),
    ])  # fmt: skip


def contest(w: World) -> Group:
    """Three compete; each result is given by its distance from another one."""
    a, b, c = w.rng.sample(["the rabbit", "the fox", "the bear", "the goat", "the cat", "the wolf",
                            "the owl", "the deer"], 3)  # fmt: skip
    did, do, unit, far = w.rng.choice((
        ("jumped", "jump", "inches", "farther"), ("ran", "run", "meters", "farther"),
        ("climbed", "climb", "feet", "higher"),
        ("threw the ball", "throw the ball", "feet", "farther"),
        ("swam", "swim", "meters", "farther"),
    ))  # fmt: skip
    x, y, z = w.large() + 6, w.num(), w.num()
    near = w.pick("less", "lesser", "fewer")
    up1, up2 = w.flip(), w.flip(0.45)
    y = min(y, x - 1)
    words = {True: far, False: near}
    how = f"How many {unit} did"
    n1 = f"{y} {unit} {words[up1]}"
    n2 = f"{z} {unit} {words[up2]}"
    s1, s2 = ("+" if up1 else "-"), ("+" if up2 else "-")
    i1 = "-" if up1 else "+"
    head = f"{a.capitalize()}, {b} and {c} had a contest. {a.capitalize()} {did} {x} {unit}."
    mode = w.rng.randrange(3)
    if mode == 0:  # B and C both measured against A.
        story = f"{head} {b.capitalize()} {did} {n1} than {a} and {c} {did} {n2} than {a}."
        questions = [(f"{how} {b} {do}?", f"{x} {s1} {y}"), (f"{how} {c} {do}?", f"{x} {s2} {z}")]
        if up1 and up2:
            questions.append((f"How much {far} did {b} {do} than {c}?", f"{y} - {z}"))
        if up1 and not up2:
            questions.append((f"How much {far} did {b} {do} than {c}?", f"{y} + {z}"))
    elif mode == 1:  # A is measured against B, C against B.
        story = f"{head} {a.capitalize()} {did} {n1} than {b} and {c} {did} {n2} than {b}."
        questions = [
            (f"{how} {b} {do}?", f"{x} {i1} {y}"),
            (f"{how} {c} {do}?", f"( {x} {i1} {y} ) {s2} {z}"),
        ]
        if up1 and not up2:
            questions.append((f"How much {far} did {a} {do} than {c}?", f"{y} + {z}"))
    else:  # B against A, C against B.
        story = f"{head} {b.capitalize()} {did} {n1} than {a} and {c} {did} {n2} than {b}."
        questions = [
            (f"{how} {b} {do}?", f"{x} {s1} {y}"),
            (f"{how} {c} {do}?", f"( {x} {s1} {y} ) {s2} {z}"),
        ]
        if up1 and up2:
            questions.append((f"How much {far} did {c} {do} than {a}?", f"{y} + {z}"))
    if up1 and mode != 1:
        questions.append((f"How much {far} did {b} {do} than {a}?", f"{y}"))
    return Group(story, questions)


def some_and_rest(w: World) -> Group:
    """Taken from a known garden or shop: how many were taken, how many are left there?"""
    a, o, p, he = w.name(), w.thing(), w.thing(), w.he()
    x, z = w.num(), w.num()
    total = z + w.num() + x
    place, store = w.rng.choice((
        ("in the bowl", "in the kitchen"), ("in the vase", "in the garden"),
        ("on the desk", "in the cupboard"), ("on the stall", "in the store room"),
    ))  # fmt: skip
    q = w.num()
    took = w.pick("put some more there", "added some more", "put in some")
    story = f"There were {x} {o} {place}. {a} {took} from the {total} {o} {store}. "
    if w.flip(0.4):
        story = f"There were {x} {o} and {q} {p} {place}. {a} {took} of the {total} {o} {store}. "
    now = x + z
    story += f"Now there are {now} {o} {place}."
    return Group(story, [
        (f"How many {o} did {he} add?", f"{now} - {x}"),
        (f"How many {o} did {a} take?", f"{now} - {x}"),
        (f"How many {o} are left {store}?", f"{total} - ( {now} - {x} )"),
    ])  # fmt: skip


def used_twice(w: World) -> Group:
    """Two uses of one stock: what is left after one, after both, which is bigger?"""
    a, o, he = w.name(), w.thing(), w.he()
    x, u, v = w.large() + 12, w.num(), w.num()
    u, v = min(u, x // 2 - 1), min(v, x // 2 - 1)
    d1, d2 = w.rng.sample(["to buy some toys", "to buy a cap", "for a game", "for a friend",
                           "to decorate the room", "for school"], 2)  # fmt: skip
    got = w.pick("won", "had", "found")
    if w.flip():
        ask = f"If {he} used {u} {d1} and {v} more {d2} how many {o} does {a} have left?"
        return Group(f"{a} {got} {x} {o}.", [
            (ask, f"{x} - ( {u} + {v} )"),
            (f"If {he} used {u} {d1} and {v} {d2} how many {o} did {a} use?", f"{u} + {v}"),
            (f"If {he} used {u} {d1} how many {o} are left?", f"{x} - {u}"),
            (f"If {he} used {u} of them how many more {o} did {a} keep than {he} used?",
             f"( {x} - {u} ) - {u}"),
        ])  # fmt: skip
    return Group(f"{a} {got} {x} {o}. {he.capitalize()} used {u} {d1} and {v} more {d2}.", [
        (f"How many {o} does {a} have left?", f"{x} - ( {u} + {v} )"),
        (f"How many {o} did {a} use?", f"{u} + {v}"),
        (f"How many more {o} did {he} use {d1} than {d2}?", f"{u} - {v}"),
        (f"How many {o} did {he} have before using the {v}?", f"{x} - {u}"),
    ])  # fmt: skip


SCHEMAS = (then_compare, tasks, some_bags, way_to_go, contest, some_and_rest, used_twice)
