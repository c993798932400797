"""Schemas in which things move: to somebody else, to others of their kind, in and out of a wallet."""

from __future__ import annotations

from word_problem_world import BAGS, PLACES, TIMES, Group, World


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


SCHEMAS = (transfer, joined, wallet, measure_change, lost_in_two_ways, over_time)
