"""Schemas about parts and wholes, and about two steps of different kinds."""

from __future__ import annotations

from word_problem_world import BAGS, PLACES, TIMES, UNITS, Group, World


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


def seats(w: World) -> Group:
    """Seats, tables or boats and the people on them."""
    one, many, thing = w.rng.choice((
        ("seat", "seats", "the ride"), ("table", "tables", "the hall"),
        ("boat", "boats", "the harbor"), ("bench", "benches", "the park"),
        ("cabin", "cabins", "the camp"), ("van", "vans", "the school"),
    ))  # fmt: skip
    n, k, b, p, m = w.num(), w.num(), w.num(), w.num(), w.num()
    mode = w.rng.randrange(4)
    if mode == 0:
        story = f"{thing.capitalize()} has {n} small {many} and {m} large {many}. "
        story += f"Each small {one} holds {k} people and each large {one} holds {p} people."
        return Group(story, [
            (f"How many people fit on the small {many}?", f"{n} * {k}"),
            (f"How many people fit on the large {many}?", f"{m} * {p}"),
            ("How many people fit in all?", f"( {n} * {k} ) + ( {m} * {p} )"),
            (f"How many {many} are there?", f"{n} + {m}"),
            (f"How many more people fit on a large {one} than on a small {one}?", f"{p} - {k}"),
        ])  # fmt: skip
    if mode == 1:
        n = max(n, b + 1)
        story = f"{thing.capitalize()} has {n} {many}. Each {one} holds {k} people. "
        story += f"{b} {many} are broken."
        return Group(story, [
            (f"How many people fit on the {many} that work?", f"( {n} - {b} ) * {k}"),
            (f"How many people would fit if all {many} worked?", f"{n} * {k}"),
            (f"How many people can not sit because {many} are broken?", f"{b} * {k}"),
        ])  # fmt: skip
    if mode == 2:
        story = f"{n * k} people can use {thing} at the same time."
        return Group(story, [
            (f"If each {one} holds {k} people how many {many} are there?", f"{n * k} / {k}"),
            (f"If there are {n} {many} and {b} children how many people can each {one} hold?",
             f"{n * k} / {n}"),
        ])  # fmt: skip
    story = f"There are {n} sets of tables with {k} chairs each."
    return Group(story, [
        ("How many chairs are there?", f"{n} * {k}"),
        (f"If {n * k + b} people come how many more chairs are needed?",
         f"{n * k + b} - ( {n} * {k} )"),
        ("How many more chairs than tables are there?", f"( {n} * {k} ) - {n}"),
    ])  # fmt: skip


def packs_and_extra(w: World) -> Group:
    """Full packs and some loose pieces, of one thing or two."""
    a, o, p, he = w.name(), w.thing(), w.thing(), w.he()
    one, many = w.rng.choice(BAGS[:7])
    n, m, k, e = w.num(), w.num(), w.num(), w.num()
    if w.flip():
        story = (
            f"{a} has {n} {many} of {o} and {m} {many} of {p}. There are {k} pieces in each {one}."
        )
        return Group(story, [
            (f"How many {o} does {a} have?", f"{n} * {k}"),
            (f"How many {p} does {he} have?", f"{m} * {k}"),
            (f"How many pieces does {a} have in all?", f"( {n} + {m} ) * {k}"),
            (f"How many {many} does {a} have?", f"{n} + {m}"),
            (f"How many more {many} of {o} than of {p} are there?", f"{n} - {m}"),
        ])  # fmt: skip
    story = f"{a} has {n} {many} of {o} with {k} in each {one} and {e} extra {o}."
    return Group(story, [
        (f"How many {o} does {a} have?", f"( {n} * {k} ) + {e}"),
        (f"How many {o} does {he} have in the {many}?", f"{n} * {k}"),
        (f"How many {o} does {he} have if {min(e, n * k - 1)} of those in the {many} are broken and"
         " the extra ones are not counted?", f"( {n} * {k} ) - {min(e, n * k - 1)}"),
    ])  # fmt: skip


def orchard(w: World) -> Group:
    """So many from each of several trees, some still on them."""
    a, o, he = w.name(), w.pick("apples", "pears", "plums", "lemons", "cherries"), w.he()
    n, k, left = w.num(), w.num(), w.num()
    story = f"{a} has {n} trees in the garden. {he.capitalize()} picked {k} {o} from each tree."
    story += w.pick(f" Now there are {left} {o} still on the trees.",
                    f" The trees still have {left} {o} on them.")  # fmt: skip
    return Group(story, [
        (f"How many {o} did {a} pick in all?", f"{n} * {k}"),
        (f"How many {o} were on the trees at first?", f"( {n} * {k} ) + {left}"),
        (f"How many {o} are left on the trees?", f"{left}"),
    ])  # fmt: skip


def daily_use(w: World) -> Group:
    """A store that is used up day by day."""
    a, o, he = w.name(), w.thing(), w.he()
    did, do = w.rng.choice((("used", "use"), ("ate", "eat"), ("sold", "sell"), ("packed", "pack")))
    k, d = w.num(2, 30), w.num(2, 30)
    total = k * d + w.num()
    story = w.pick(f"{a} bought {total} {o}.", f"{a} had {total} {o}.")
    even = w.flip(0.4)
    if even:
        return Group(f"{a} bought {k * d} {o} {w.rng.choice(PLACES)}.", [
            (f"If {he} {did} {k} {o} a day how many days did they last?", f"{k * d} / {k}"),
            (f"If they lasted {d} days how many {o} did {he} {do} a day?", f"{k * d} / {d}"),
            (f"If {he} {did} {k} {o} on the first day how many {o} were left?",
             f"{k * d} - {k}"),
        ])  # fmt: skip
    story += f" {he.capitalize()} {did} {k} {o} a day for {d} days."
    return Group(story, [
        (f"How many {o} are left?", f"{total} - ( {k} * {d} )"),
        (f"How many {o} did {a} {do}?", f"{k} * {d}"),
        (f"How many {o} were left after the first day?", f"{total} - {k}"),
    ])  # fmt: skip


def needed(w: World) -> Group:
    """A goal, the present state, and the difference."""
    a, he = w.name(), w.he()
    did, do, unit = w.rng.choice(UNITS)
    x = w.large() + 5
    u, q, b = w.less(x), w.num(), w.name()
    story = w.pick(f"{a} wants to {do} {x} {unit}.", f"{a} plans to {do} {x} {unit} this week.")
    story += f" {he.capitalize()} already {did} {u} {unit}{w.maybe(f' and {b} {did} {q}', 0.4)}."
    return Group(story, [
        (f"How many more {unit} does {a} need to {do}?", f"{x} - {u}"),
        (f"How many {unit} did {he} {do} so far?", f"{u}"),
    ])  # fmt: skip


def used_per_piece(w: World) -> Group:
    """Material per piece made."""
    a, o, p, he, who = w.name(), w.thing(), w.thing(), w.he(), w.people()
    k, n, q = w.num(2, 20), w.num(), w.num()
    mode = w.flip()
    if mode:
        story = (f"{a} makes {o} for {q} {who}. {he.capitalize()} used {k * n} {p} for {n} {o}, "
                 "the same number for each.")  # fmt: skip
        return Group(story, [
            (f"How many {p} were used for each of the {o}?", f"{k * n} / {n}"),
            (f"How many more {o} are needed if each of the {who} gets one?", f"{q} - {n}"),
        ])  # fmt: skip
    story = f"{a} needs {k} {p} to make each of the {o}. "
    story += f"{he.capitalize()} has {k * n} {p} and {q} {who} help."
    return Group(story, [
        (f"How many {o} can {he} make?", f"{k * n} / {k}"),
        (f"How many {p} does {he} need for {q} {o}?", f"{k} * {q}"),
    ])  # fmt: skip


SCHEMAS = (
    rest, chapters, old_and_new, survey, stay_or_leave, read_and_watched, seats, packs_and_extra,
    orchard, daily_use, needed, used_per_piece,
)  # fmt: skip
