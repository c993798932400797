"""Schemas with equal groups, rates and prices."""

from __future__ import annotations

from word_problem_world import BAGS, TIMES, Group, World


def bags(w: World) -> Group:
    """So many bags with two kinds of things in each."""
    a, (o, p) = w.name(), w.kinds()
    one, many = w.rng.choice(BAGS)
    x, y, n, q = w.num(), w.num(), w.num(), w.num()
    story = w.pick(f"{a} has {n} {many}. Each {one} has {x} {o} and {y} {p}.",
                   f"Each {one} holds {x} {o} and {y} {p}. {a} has {n} such {many}.",
                   f"{a} put {o} and {p} into {n} {many} "
                   f"with {x} {o} and {y} {p} in each {one}.")  # fmt: skip
    story += w.maybe(f" {w.name()} has {q} {many}.", 0.25)
    return Group(story, [
        (f"How many {o} does {a} have?", f"{n} * {x}"),
        (f"How many {p} are there in all {n} {many}?", f"{n} * {y}"),
        (f"How many {p} are in the {many} altogether?", f"{n} * {y}"),
        (f"How many {o} and {p} does {a} have in total?", f"( {x} + {y} ) * {n}"),
        (f"How many more {o} than {p} are in each {one}?", f"{x} - {y}"),
        (f"How many more {o} than {p} does {a} have?", f"( {x} - {y} ) * {n}"),
    ])  # fmt: skip


def group_by(w: World) -> Group:
    """Collections arranged in groups: how many groups, or how big?"""
    a, o, p, r = w.name(), w.thing(), w.thing(), w.thing()
    one, many = w.rng.choice(BAGS)
    n, m = w.num(2, 30), w.num(2, 30)
    x, y, q, he = w.multiple(n), w.multiple(m), w.num(), w.he()
    mode = w.rng.randrange(4)
    if mode == 0:
        story = (f"{a} has {x} {o}{w.maybe(f', {q} {r}')} and {y} {p}. The {o} are arranged in {n} "
                 f"{many} and the {p} in {m} {many}.")  # fmt: skip
        return Group(story, [
            (f"How many {o} are in each {one} of {o}?", f"{x} / {n}"),
            (f"How big is each {one} of {p}?", f"{y} / {m}"),
            (f"How many more {many} of {o} than of {p} are there?",
             f"{n} - {m}"),
        ])  # fmt: skip
    if mode == 1:
        story = f"{a} has {x} {o}, {q} {r} and {y} {p}."
        return Group(story, [
            (f"If {he} puts the {o} into {many} of {n} how many {many} will there be?",
             f"{x} / {n}"),
            (f"If the {p} are split into {many} of {m} how many {many} of {p} are needed?",
             f"{y} / {m}"),
            (f"If {he} shares the {o} among {n} friends how many does each friend get?",
             f"{x} / {n}"),
        ])  # fmt: skip
    if mode == 2:
        story = w.pick(f"{a} packs {o} in {many} of {n}.", f"Each {one} can hold {n} {o}.")
        return Group(story, [
            (f"If {he} has {x} {o} and {q} {p} how many {many} does {he} need?", f"{x} / {n}"),
            (f"How many {o} fit into {q} {many}?", f"{n} * {q}"),
            (f"If there are {x} {o} in total how many {many} are there?", f"{x} / {n}"),
        ])  # fmt: skip
    total = x * n if x * n < 5000 else x
    size = x if total != x else n
    story = f"There are {total} {o} and {q} {p} in {size} {many} with the same number of {o} each."
    return Group(story, [(f"How many {o} are in each {one}?", f"{total} / {size}"),
                         (f"How many more {o} than {p} are there?", f"{total} - {q}")])  # fmt: skip


def share(w: World) -> Group:
    """Something is shared out, perhaps after some is kept."""
    a, o, p, who = w.name(), w.thing(), w.thing(), w.people()
    n, k = w.num(2, 25), w.num()
    each = w.num(2, 40)
    x, q, he = n * each, w.num(), w.he()
    mode = w.rng.randrange(4)
    if mode == 0:
        story = f"{a} has {x + k} {o}{w.maybe(f' and {q} {p}')}. {he.capitalize()} keeps {k} {o}"
        story += f" and gives the rest to {n} {who}, the same number to each."
        return Group(story, [
            (f"How many {o} does each of the {who} get?", f"( {x + k} - {k} ) / {n}"),
            (f"How many {o} did {a} give away?", f"{x + k} - {k}"),
        ])  # fmt: skip
    if mode == 1:
        story = w.pick(f"{a} gave {each} {o} to each of some {who}.",
                       f"{a} has some {who}. Each of them gets {each} {o}.")  # fmt: skip
        return Group(story, [
            (f"If {a} gave away {x} {o} in all how many {who} were there?", f"{x} / {each}"),
            (f"If there were {n} {who} how many {o} did {he} give away?", f"{each} * {n}"),
            (f"If {he} had {x} {o} and {q} {p} how many {who} got {o}?", f"{x} / {each}"),
        ])  # fmt: skip
    if mode == 2:
        story = f"{x} {o}{w.maybe(f' and {q} {p}')} were shared equally by {n} {who}."
        return Group(story, [(f"How many {o} did each of them get?", f"{x} / {n}")])
    story = f"{a} bought {x} {o} for {q} {who}. {he.capitalize()} used them to fill {n} gift bags."
    return Group(story, [
        (f"How many {o} are in each gift bag?", f"{x} / {n}"),
        (f"How many more {who} than gift bags are there?", f"{q} - {n}"),
    ])  # fmt: skip


def harvest(w: World) -> Group:
    """A rate per day, for two kinds or in containers."""
    one, many = w.rng.choice(BAGS[:6] + BAGS[9:12])
    o, p = w.kinds()
    day = w.pick("day", "week", "hour", "month")
    did, do = w.rng.choice((("fill", "fill"), ("pick", "pick"), ("pack", "pack"), ("load", "load")))
    who = w.pick("The workers", "Two friends", "The farmers", "They")
    low = who.lower() if who == "They" else "they"
    x, y, d, n = w.num(), w.num(), w.num(), w.num()
    if w.flip():
        head = w.maybe(f"There are {n} {w.people()}. ", 0.4)
        story = f"{head}{who} {did} {x} {many} of {o} and {y} {many} of {p} per {day}."
        return Group(story, [
            (f"How many {many} of {o} do {low} {do} in {d} {day}s?", f"{x} * {d}"),
            (f"How many {many} of {p} will there be after {d} {day}s?", f"{y} * {d}"),
            (f"How many {many} do {low} {do} per {day}?", f"{x} + {y}"),
            (f"How many more {many} of {o} than of {p} do {low} {do} every {day}?", f"{x} - {y}"),
            (f"How many {many} will {low} have after {d} {day}s?", f"( {x} + {y} ) * {d}"),
        ])  # fmt: skip
    story = f"{who} {did} {x} {many} per {day}. Each {one} has {y} {o}."
    return Group(story, [
        (f"How many {many} will {low} have after {d} {day}s?", f"{x} * {d}"),
        (f"How many {o} will {low} have after {d} {day}s?", f"( {x} * {y} ) * {d}"),
        (f"How many {o} do {low} {do} per {day}?", f"{x} * {y}"),
        (f"How many {o} are there if {low} have a total of {n} {many}?", f"{y} * {n}"),
        (f"How many {day}s does it take to {do} {x * d} {many}?", f"{x * d} / {x}"),
    ])  # fmt: skip


def shop(w: World) -> Group:
    """Two goods with prices and counts sold."""
    a, (o, p) = w.pick("The shop", "The club", w.name(), "The stand"), w.kinds()
    low = a[0].lower() + a[1:] if " " in a else a
    x, y, n, m = w.num(), w.num(), w.num(), w.num()
    story = w.pick(
        f"{a} makes {x} dollars on each of the {o} and {y} dollars on each of the {p}.",
        f"{a} sells {o} for $ {x} each and {p} for $ {y} each.",
        f"The {o} cost {x} dollars each and the {p} cost {y} dollars each.",
    )
    if w.flip(0.7):
        story += w.pick(f" {a} sold {n} {o} and {m} {p}.", f" {m} {p} and {n} {o} were sold.")
        return Group(story, [
            (f"How much money did {low} make from the {o}?", f"{x} * {n}"),
            (f"How much was made by selling the {p}?", f"{y} * {m}"),
            (f"How much more do the {o} cost than the {p} for one piece?", f"{x} - {y}"),
            (f"How much did {low} make in all?", f"( {x} * {n} ) + ( {y} * {m} )"),
            (f"How many more {o} than {p} were sold?", f"{n} - {m}"),
            (f"How many {o} and {p} were sold?", f"{n} + {m}"),
        ])  # fmt: skip
    return Group(story, [
        (f"How much do {n} {o} cost?", f"{x} * {n}"),
        (f"How much would it be for {m} {p}?", f"{y} * {m}"),
        (f"How much more does one of the {p} cost than one of the {o}?", f"{y} - {x}"),
        (f"How many {o} can you buy with {x * n} dollars?", f"{x * n} / {x}"),
    ])  # fmt: skip


def discount(w: World) -> Group:
    """A price, a discount, a number of packs."""
    o, a = w.thing(), w.name()
    one, _ = w.rng.choice((("pack", ""), ("box", ""), ("set", ""), ("bag", "")))
    many = "boxes" if one == "box" else f"{one}s"
    x = w.large() + 8
    y, n = w.less(x), w.num()
    story = w.pick(f"Each {one} of {o} costs {x} dollars.", f"A {one} of {o} costs $ {x}.",
                   f"{o.capitalize()} cost {x} dollars for each {one}.")  # fmt: skip
    cut = w.pick(f"If a coupon saves {y} dollars on each {one}",
                 f"If {y} dollars are taken off the price of each {one}",
                 f"If you get {y} dollars off on every {one}")  # fmt: skip
    return Group(story, [
        (f"{cut} how much do you pay for each {one}?", f"{x} - {y}"),
        (f"{cut} how much do {n} {many} cost?", f"( {x} - {y} ) * {n}"),
        (f"{cut} how many {many} can {a} buy with {(x - y) * n} dollars?",
         f"{(x - y) * n} / ( {x} - {y} )"),
        (f"How many {many} can {a} buy with {x * n} dollars?", f"{x * n} / {x}"),
        (f"If {a} pays {x + y} dollars for one {one} how much change is there?", f"{x + y} - {x}"),
    ])  # fmt: skip


def salary(w: World) -> Group:
    """Earnings and costs per week."""
    a, per = w.name(), w.pick("week", "month", "day")
    x = w.large() + 8
    r, n, t = w.less(x), w.num(), w.num()
    why = w.pick("of the harvest", "of work", "of the season", "on the job")
    cost = w.pick("rent", "food", "the bus", "tools")
    story = f"{a} earns $ {x} every {per} during the {n} {per}s {why}."
    return Group(story, [
        (f"How much does {a} earn in all?", f"{x} * {n}"),
        (f"If {a} pays $ {r} for {cost} every {per} how much is left at the end?",
         f"( {x} - {r} ) * {n}"),
        (f"If {a} pays $ {r} for {cost} each {per} how much does {a} spend on {cost}?",
         f"{r} * {n}"),
        (f"If {a} has to pay a tax of $ {t} once how much is left at the end?",
         f"( {x} * {n} ) - {t}"),
    ])  # fmt: skip


def games(w: World) -> Group:
    """Points per game or round."""
    a, per = w.name(), w.pick("game", "round", "match", "level")
    x, y, n = w.num(), w.num(), w.num()
    he, total = w.he(), n * x
    if w.flip():
        story = f"{a} scored {x} points in each {per}. "
        story += f"{he.capitalize()} also got {y} bonus points in each {per}."
        return Group(story, [
            (f"How many points did {a} get in {n} {per}s?".replace("matchs", "matches"),
             f"( {x} + {y} ) * {n}"),
            (f"How many bonus points were that in {n} {per}s?".replace("matchs", "matches"),
             f"{y} * {n}"),
            (f"How many points did {he} get in each {per}?", f"{x} + {y}"),
        ])  # fmt: skip
    pers = "matches" if per == "match" else f"{per}s"
    story = w.pick(f"{a} won {x} points in every {per}.", f"{a} gets {x} points for each {per}.")
    return Group(story, [
        (f"If {he} got {total} points in the end how many {pers} were played?", f"{total} / {x}"),
        (f"How many points are that after {n} {pers}?", f"{x} * {n}"),
        (f"If {a} got {total} points in {n} {pers} and lost {y} {pers} how many points were that "
         f"per {per}?", f"{total} / {n}"),
    ])  # fmt: skip


def reading(w: World) -> Group:
    """Pages, chapters and days."""
    a, he = w.name(), w.he()
    d, c, q = w.num(2, 40), w.num(2, 40), w.num()
    pages = d * c * w.rng.randint(1, 4)
    verb = w.pick("reading a book", "reading a long novel", "working through a textbook")
    story = (f"{a} was {verb}. It had {pages} pages in {c} chapters of the same length. "
             f"It took {d} days to finish it.")  # fmt: skip
    if w.flip(0.6):
        return Group(story, [
            (f"How many pages did {a} read per day?", f"{pages} / {d}"),
            ("How many pages are in each chapter?", f"{pages} / {c}"),
            (f"How many chapters did {he} read per day?", f"{c} / {d}"),
        ] if c % d == 0 else [
            (f"How many pages did {a} read per day?", f"{pages} / {d}"),
            ("How many pages are in each chapter?", f"{pages} / {c}"),
        ])  # fmt: skip
    story = f"{a} reads {d} pages every day. The book has {d * c} pages and {q} pictures."
    return Group(story, [
        ("How many days does it take to finish the book?", f"{d * c} / {d}"),
        (f"How many pages does {he} read in {q} days?", f"{d} * {q}"),
    ])  # fmt: skip


def takings(w: World) -> Group:
    """Income over two periods of different length."""
    who = w.pick("A booth at the fair", "The museum", "A boat ride", "The pool", "The circus")
    d, e = w.num(2, 30), w.num(2, 30)
    x, y = d * w.num(2, 60), e * w.num(2, 60)
    story = f"{who} took in {x} dollars during the {d} opening days "
    story += f"and {y} dollars over the {e} closing days."
    return Group(story, [
        ("How much was made per day in the opening days?", f"{x} / {d}"),
        (f"How much did it make per day in the {e} closing days?", f"{y} / {e}"),
        ("How much money was made altogether?", f"{x} + {y}"),
        ("How many days was it open?", f"{d} + {e}"),
        ("How much more was made in the opening days than in the closing days?", f"{x} - {y}"),
    ])  # fmt: skip


def machine(w: World) -> Group:
    """A machine with a rate, working on two days."""
    o, per = w.thing(), w.pick("minute", "hour")
    r, x, y = w.num(2, 30), w.num(), w.num()
    s, t, _ = w.rng.choice(TIMES)
    story = w.pick(f"A machine makes {r} {o} a {per}.", f"A machine can make {r} {o} per {per}.")
    if w.flip():
        u, v = r * x, r * y
        story += f" It made {u} {o} {s} and {v} {o} {t}."
        return Group(story, [
            (f"How many {per}s did it work {s}?", f"{u} / {r}"),
            (f"How many {per}s did the machine work {t}?", f"{v} / {r}"),
            (f"How many {o} did it make in all?", f"{u} + {v}"),
            (f"How many {per}s did it work in all?", f"( {u} + {v} ) / {r}"),
            (f"How many more {o} did it make {s} than {t}?", f"{u} - {v}"),
        ])  # fmt: skip
    story += f" It worked for {x} {per}s {s} and for {y} {per}s {t}."
    return Group(story, [
        (f"How many {o} did the machine make {s}?", f"{r} * {x}"),
        (f"How many {o} were made {t}?", f"{r} * {y}"),
        (f"How many {o} did it make altogether?", f"{r} * ( {x} + {y} )"),
        (f"How many {per}s did it work in all?", f"{x} + {y}"),
    ])  # fmt: skip


SCHEMAS = (
    bags, group_by, share, harvest, shop, discount, salary, games, reading, takings, machine,
)  # fmt: skip
