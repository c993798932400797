"""Schemas about parts and wholes: one part is asked for, or what they are together."""

from __future__ import annotations

from word_problem_world import TIMES, UNITS, Group, World


def rest(w: World) -> Group:
    """A whole and one part: the rest is asked for; often one part is 'some'."""
    a = w.pick("A school", "A village", "The camp", "A shop", "The library", "A farm")
    (o, p) = w.kinds()
    x = w.large() + 6
    u = w.less(x)
    both = f"{o} and {p}"
    does = w.pick("does it", "do they")
    mode = w.rng.randrange(5)
    if mode == 0:
        story = f"{a} has {x} {both} in total. {u} of them are {o} and the rest are {p}."
        return Group(story, [
            (f"How many {p} {does} have?", f"{x} - {u}"),
            (f"How many more {o} than {p} are there?", f"{u} - ( {x} - {u} )"),
        ])  # fmt: skip
    if mode == 1:
        story = f"There are {u} {o} and some {p} {w.pick('in the box', 'on the table')}."
        return Group(story, [
            (f"If there are {x} {both} in all how many {p} are there?", f"{x} - {u}"),
            (f"If there are {x} more {p} than {o} how many {p} are there?", f"{u} + {x}"),
        ])  # fmt: skip
    if mode == 2:
        story = f"{a} has {u} {o} and {x} more {p} than {o}."
        return Group(story, [
            (f"How many {p} are there?", f"{u} + {x}"),
            (f"How many {both} are there in all?", f"( {u} + {x} ) + {u}"),
        ])  # fmt: skip
    name, he = w.name(), w.he()
    did, do, unit = w.rng.choice(UNITS)
    if mode == 3:
        s, t, _ = w.rng.choice(TIMES)
        story = w.pick(f"{name} {did} {u} {unit} {s} and some more {t}.",
                       f"{s.capitalize()} {name} {did} {u} {unit}. {t.capitalize()} {he} {did} "
                       "some more.")  # fmt: skip
        return Group(story, [
            (f"If that was {x} {unit} in total how many {unit} did {name} {do} {t}?",
             f"{x} - {u}"),
            (f"If {name} {did} {x} {unit} more {t} than {s} how many {unit} was that {t}?",
             f"{u} + {x}"),
        ])  # fmt: skip
    s, t, r = w.rng.choice(TIMES)
    v = w.num()
    story = f"{name} {did} {u} {unit} {s}, {v} {unit} {t} and some more {r}."
    return Group(story, [
        (f"If {he} {did} {x + v + u} {unit} in all how many {unit} did {he} {do} {r}?",
         f"{x + v + u} - ( {u} + {v} )"),
        (f"How many {unit} did {name} {do} {s} and {t}?", f"{u} + {v}"),
        (f"How many more {unit} did {he} {do} {s} than {t}?", f"{u} - {v}"),
    ])  # fmt: skip


def chapters(w: World) -> Group:
    """A thing with numbered parts: chapters, floors, carriages."""
    whole, part, unit = w.rng.choice((
        ("book", "chapter", "pages"), ("train", "carriage", "passengers"),
        ("building", "floor", "rooms"), ("concert", "part", "songs"), ("trip", "day", "miles"),
        ("film", "part", "minutes"), ("class", "group", "students"),
    ))  # fmt: skip
    x, y, z = w.num(), w.num(), w.num()
    if w.flip():
        n = w.pick("2", "")
        known, other = w.rng.choice((("first", "second"), ("second", "first")))
        story = f"A {whole} has {n or 'two'} {part}s. The {known} {part} has {x} {unit}."
        total = x + y
        return Group(f"{story} {w.pick('There are', 'It has')} {total} {unit} in all.", [
            (f"How many {unit} does the {other} {part} have?", f"{total} - {x}"),
        ])  # fmt: skip
    story = (f"A {whole} has 3 {part}s. The first {part} has {x} {unit}, the second {part} has {y} "
             f"{unit} and the third {part} has {z} {unit}.")  # fmt: skip
    return Group(story, [
        (f"How many more {unit} does the first {part} have than the second {part}?", f"{x} - {y}"),
        (f"How many more {unit} does the third {part} have than the first {part}?", f"{z} - {x}"),
        (f"How many {unit} do the second and the third {part} have?", f"{y} + {z}"),
        (f"How many {unit} does the {whole} have in total?", f"( {x} + {y} ) + {z}"),
    ])  # fmt: skip


def old_and_new(w: World) -> Group:
    """Two kinds of a thing, mine and my friends'."""
    a, o = w.name(), w.thing()
    k, j = w.pick("new", "big", "red"), w.pick("old", "small", "green")
    x, y, u, v = w.num(), w.num(), w.num(), w.num()
    story = f"{a} has {x} {k} {o} and {y} {j} {o}."
    if w.flip(0.7):
        story += w.pick(f" The friends of {a} have {u} {k} {o} and {v} {j} {o}.",
                        f" Her friends have {u} {k} {o} and {v} {j} {o}.")  # fmt: skip
        return Group(story, [
            (f"How many {k} {o} do they have together?", f"{x} + {u}"),
            (f"How many {j} {o} do they have in total?", f"{y} + {v}"),
            (f"How many {o} does {a} have?", f"{x} + {y}"),
            (f"How many more {k} {o} than {j} {o} does {a} have?", f"{x} - {y}"),
            (f"How many {o} do the friends have?", f"{u} + {v}"),
            (f"How many more {o} do the friends have than {a}?",
             f"( {u} + {v} ) - ( {x} + {y} )"),
        ])  # fmt: skip
    low = min(u, x - 1)
    return Group(story, [
        (f"How many {k} {o} does {a} need to give away to have {low} {k} {o} left?",
         f"{x} - {low}"),
        (f"How many more {j} {o} does {a} need to get {y + v} {j} {o}?", f"{y + v} - {y}"),
        (f"How many {o} are there in all?", f"{x} + {y}"),
    ])  # fmt: skip


def survey(w: World) -> Group:
    """Votes for things."""
    who, did = w.people(), w.pick("voted for", "chose", "asked for", "suggested")
    goods = "soup, pancakes, noodles, salad, pasta, a picnic, a walk, a film, curry, ice cream"
    o, p, r = w.rng.sample(goods.split(", "), 3)
    x, y, z = w.num(), w.num(), w.num()
    if w.flip(0.6):
        story = f"{x} {who} {did} {o}, {y} {did} {p} and {z} {did} {r}."
        return Group(story, [
            (f"How many more {who} {did} {o} than {p}?", f"{x} - {y}"),
            (f"How many more {who} {did} {r} than {o}?", f"{z} - {x}"),
            (f"How many {who} {did} {p} or {r}?", f"{y} + {z}"),
            (f"How many {who} {did} something?", f"( {x} + {y} ) + {z}"),
            (f"How many fewer {who} {did} {p} than {r}?", f"{z} - {y}"),
        ])  # fmt: skip
    total = x + y
    story = f"{total} {who} were asked. {x} of them {did} {o} while the others {did} {p}."
    return Group(story, [(f"How many {who} {did} {p}?", f"{total} - {x}"),
                         (f"How many {who} {did} {o}?", f"{x}")])  # fmt: skip


def stay_or_leave(w: World) -> Group:
    """A whole that splits in two: who leaves and who stays."""
    o = w.pick("families", "birds", "students", "children", "guests", "whales", "workers")
    went, stayed = w.rng.choice((
        ("flew away", "stayed"), ("went to the lake", "stayed at home"),
        ("left early", "stayed until the end"), ("moved south", "stayed behind"),
    ))  # fmt: skip
    x, u = w.large() + 10, w.num()
    u = min(u, x - 2)
    q, place = w.num(), w.pick("in the valley", "in the town", "near the river")
    base = w.pick("go", "leave") if went != "flew away" else "fly away"
    mode = w.rng.randrange(4)
    if mode == 0:
        story = f"There were {x} {o} {place}. {u} of them {went} and the rest {stayed}."
        return Group(story, [
            (f"How many {o} {stayed}?", f"{x} - {u}"),
            (f"How many more {o} {went} than {stayed}?", f"{u} - ( {x} - {u} )"),
            (f"How many more {o} {stayed} than {went}?", f"( {x} - {u} ) - {u}"),
        ])  # fmt: skip
    if mode == 1:
        story = f"{u} {o} {went} and {x} {o} {stayed} {place}."
        return Group(story, [
            (f"How many {o} were there at first?", f"{u} + {x}"),
            (f"How many more {o} {stayed} than {went}?", f"{x} - {u}"),
            (f"How many more {o} {went} than {stayed}?", f"{u} - {x}"),
        ])  # fmt: skip
    if mode == 2:
        story = (
            f"{x} {o} live {place} and {q} {o} live on the island. {u} {o} from {place[3:]} {went}."
        )
        return Group(story, [
            (f"How many {o} are left {place}?", f"{x} - {u}"),
            (f"How many {o} were there in all at first?", f"{x} + {q}"),
        ])  # fmt: skip
    story = f"Some {o} lived {place}. {u} of them {went} and now {x} are left."
    return Group(story, [(f"How many {o} were there before they began to {base}?", f"{u} + {x}")])


def read_and_watched(w: World) -> Group:
    """A series with so many items of two kinds, some of them done."""
    o, p, did, do, seen, see = w.rng.choice((
        ("poems", "plays", "read", "read", "saw", "see"),
        ("songs", "films", "heard", "hear", "saw", "see"),
        ("puzzles", "games", "solved", "solve", "played", "play"),
        ("letters", "parcels", "wrote", "write", "sent", "send"),
    ))  # fmt: skip
    a, he = w.name(), w.he()
    x, y, u, v = w.large(), w.large(), w.num(), w.num()
    story = w.pick(f"There are {x} {o} and {y} {p} in the list.",
                   f"The club has {y} different {p} and {x} different {o}.")  # fmt: skip
    story += f" {a} {did} {u} of the {o} and {seen} {v} of the {p}."
    return Group(story, [
        (f"How many more {o} does {a} still have to {do}?", f"{x} - {u}"),
        (f"How many {p} does {he} have left to {see}?", f"{y} - {v}"),
        (f"How many more {o} than {p} are there?", f"{x} - {y}"),
        (f"How many more {p} than {o} are there?", f"{y} - {x}"),
        (f"How many more {o} than {p} did {a} finish?", f"{u} - {v}"),
        (f"How many more {p} than {o} did {he} finish?", f"{v} - {u}"),
        (f"How many {o} and {p} did {he} finish?", f"{u} + {v}"),
    ])  # fmt: skip


SCHEMAS = (rest, chapters, old_and_new, survey, stay_or_leave, read_and_watched)
