"""Schemas of two steps of different kinds: full packs and a rest, daily use of a store."""

from __future__ import annotations

from word_problem_world import BAGS, PLACES, UNITS, Group, World


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


SCHEMAS = (seats, packs_and_extra, orchard, daily_use, needed, used_per_piece)
