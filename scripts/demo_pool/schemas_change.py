"""Schemas in which a quantity changes: it grows, shrinks, or moves to somebody else."""

from __future__ import annotations

from word_problem_world import BAGS, GAIN, LOSE, PLACES, TIMES, Group, World


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


def transfer(w: World) -> Group:
    """One person gives something to another one."""
    a, b, o, p = w.name(), w.name(), w.thing(), w.thing()
    x, y, q = w.large(), w.num(), w.num()
    z = w.less(x)
    story = f"{a} has {x} {o}. {b} has {y} {o}{w.maybe(f' and {q} {p}', 0.4)}. "
    story += w.pick(f"{a} gives {z} {o} to {b}.", f"{b} gets {z} {o} from {a}.",
                    f"{a} shares {z} of them with {b}.")  # fmt: skip
    return Group(story, [
        (w.pick(f"How many {o} does {a} have now?", f"How many {o} does {a} have left?"),
         f"{x} - {z}"),
        (f"How many {o} does {b} have now?", f"{y} + {z}"),
        (f"How many {o} do they have together?", f"{x} + {y}"),
        (f"How many more {o} did {a} have than {b} at first?", f"{x} - {y}"),
    ])  # fmt: skip


def joined(w: World) -> Group:
    """Two kinds sit somewhere, more of one kind join."""
    o, p = w.living(), w.living()
    place = w.pick("on the fence", "in the pond", "in the field", "in the yard", "on the hill",
                   "near the lake", "in the hall")  # fmt: skip
    x, y, z, u = w.num(), w.num(), w.num(), w.num()
    join = w.pick("arrived after that", "joined them", "came later")
    second = w.flip(0.4)
    news = f"{z} more {o} and {u} more {p}" if second else f"{z} more {o}"
    q = f"( {y} + {u} )" if second else f"{y}"
    story = w.pick(f"{x} {o} and {y} {p} were {place}.", f"{y} {p} and {x} {o} were {place}.",
                   f"There are {x} {o} and {y} {p} {place}.") + f" {news} {join}."  # fmt: skip
    alone = f"{y} + {u}" if second else f"{y}"
    return Group(story, [
        (f"How many {o} are {place}?", f"{x} + {z}"),
        (f"How many {o} are {place} now?", f"{x} + {z}"),
        (f"How many {p} are {place}?", alone),
        (f"How many more {o} than {p} are {place}?", f"( {x} + {z} ) - {q}"),
        (f"How many more {p} than {o} are {place}?", f"{q} - ( {x} + {z} )"),
        (f"How many more {p} than {o} were {place} at first?", f"{y} - {x}"),
    ])  # fmt: skip


def wallet(w: World) -> Group:
    """Money comes in and goes out, the spending unknown or known."""
    a, he = w.name(), w.he()
    x, y = w.large(), w.num()
    source = w.pick("got from the bank", "earned at work", "received from an aunt", "won")
    place = w.pick("the bakery", "the cinema", "the toy shop", "the market", "a restaurant")
    if w.flip():
        z = w.less(x + y)
        story = (f"{a} had {x} dollars. {he.capitalize()} {source} {y} dollars. "
                 f"After going to {place} {he} had {z} dollars left.")  # fmt: skip
        return Group(story, [
            (f"How much did {a} spend?", f"( {x} + {y} ) - {z}"),
            (f"How many dollars did {he} have before going to {place}?", f"{x} + {y}"),
        ])  # fmt: skip
    x = x + 20
    u, v = w.less(x // 2), w.less(x // 2)
    o, p = w.thing(), w.thing()
    story = f"{a} had $ {x}. {he.capitalize()} spent $ {u} on {o} and $ {v} on {p}."
    return Group(story, [
        (w.pick(f"How much money does {a} have left?", "How much money is left?"),
         f"{x} - ( {u} + {v} )"),
        (f"How much did {a} spend in all?", f"{u} + {v}"),
        (f"How much more did {a} spend on {o} than on {p}?", f"{u} - {v}"),
        (f"How much did {a} have after buying the {o}?", f"{x} - {u}"),
    ])  # fmt: skip


def measure_change(w: World) -> Group:
    """A length, weight or height changes."""
    a, he = w.name(), w.he()
    x = w.large()
    what, was, unit, did, do, back = w.rng.choice((
        ("hair", "long", "inches", "cut off", "cut off", False),
        ("rope", "long", "meters", "cut off", "cut off", False),
        ("dog", "heavy", "pounds", "lost", "lose", False),
        ("plant", "tall", "inches", "grew", "grow", True),
        ("candle", "tall", "centimeters", "burned down", "burn down", False),
        ("beard", "long", "inches", "grew", "grow", True),
    ))  # fmt: skip
    y = w.num() if back else w.less(x)
    sign, undo = ("+", "-") if back else ("-", "+")
    some = f"{did} some {unit}" if do != "grow" else f"grew some {unit}"
    now = x + y if back else x - y
    q = w.num()
    if w.flip():
        story = f"{a}'s {what} was {x} {unit} {was}."
        return Group(story, [
            (f"If {y} {unit} were {did if did != 'grew' else 'added'} how {was} is it now?",
             f"{x} {sign} {y}"),
            (f"It {some} and is now {now} {unit} {was}. By how many {unit} did it change?",
             f"{now} - {x}" if back else f"{x} - {now}"),
        ])  # fmt: skip
    story = (f"{a} is {q} years old. " if w.flip(0.3) else "") + (
        f"{a}'s {what} is now {x} {unit} {was} after it {did} {y} {unit}."
        if back or do != "cut off"
        else f"{a}'s {what} is now {x} {unit} {was} because {he} cut off {y} {unit}."
    )
    return Group(story, [(f"How {was} was it before?", f"{x} {undo} {y}"),
                         (f"How {was} was the {what} at first?", f"{x} {undo} {y}")])  # fmt: skip


def lost_in_two_ways(w: World) -> Group:
    """Two losses; a sum, a difference, or what is left."""
    a, b, o = w.name(), w.name(), w.thing()
    x = w.large() + 20
    u, v = w.less(x // 2), w.less(x // 2)
    he = w.he()
    story = (
        f"{a} had {w.pick(f'{x} {o}', f'a box of {x} {o}', f'a collection of {x} {o}')}. "
        + w.pick(
            f"{he.capitalize()} gave {u} of them to {b} and lost {v}.",
            f"{he.capitalize()} lost {v} {o} and gave {u} to {b}.",
            f"During the year {he} gave {u} {o} to {b} while {he} lost {v} {o}.",
        )
    )
    return Group(story, [
        (f"How many {o} were lost or given away?", f"{u} + {v}"),
        (f"How many {o} does {a} have left?", f"{x} - ( {u} + {v} )"),
        (f"How many more {o} did {a} give away than {he} lost?", f"{u} - {v}"),
        (f"How many more {o} did {a} lose than {he} gave away?", f"{v} - {u}"),
    ])  # fmt: skip


def over_time(w: World) -> Group:
    """A shelf, fridge or page count at three times of a day or week."""
    a, o = w.name(), w.thing()
    first, second, _ = w.rng.choice(TIMES[:4])
    _, many = w.rng.choice(BAGS)
    x, u, v, n = w.large(), w.num(), w.num(), w.num()
    u = min(u, x - 1)
    place = w.rng.choice(PLACES)
    story = (f"{a} had {x} {o} in {n} {many} {place}. {first.capitalize()} {u} {o} were sold and "
             f"{second} {v} {o} were added.")  # fmt: skip
    return Group(story, [
        (f"How many {o} does {a} have now?", f"( {x} - {u} ) + {v}"),
        (f"How many {o} were left after the sale?", f"{x} - {u}"),
        (f"How many more {o} were sold than added?", f"{u} - {v}"),
        (f"How many more {o} were added than sold?", f"{v} - {u}"),
    ])  # fmt: skip


SCHEMAS = (
    gain_and_lose, lose_result, change_unknown, start_unknown, middle_unknown, transfer, joined,
    wallet, measure_change, lost_in_two_ways, over_time,
)  # fmt: skip
