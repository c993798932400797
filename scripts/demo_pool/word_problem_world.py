"""The things, people and numbers of generated word problems, and what a schema returns."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

NAMES = (
    "Ana Ben Carla Dev Emma Finn Gina Hassan Iris Jon Kim Liam Mia Noah Olga Paulo Rita Sven Tara "
    "Umar Viola Wes Yusuf Zoe Alice Bruno Chen Diego Ella Farah George Holly Ian Jasmine Karl "
    "Lucia Mark Nina Omar Pia Rosie Sam Tina Victor Wendy Adam Bella Clara Dennis Eva Grace Harry"
).split()
THINGS = (
    "apples, marbles, stickers, books, pencils, shells, coins, stamps, balloons, cookies, crayons, "
    "cards, pens, beads, bottles, cups, candles, flowers, seeds, eggs, toys, cupcakes, pears, "
    "tickets, badges, ribbons, photos, buttons, plates, bricks, plums, lemons, onions, "
    "tomatoes, potatoes, notebooks, magazines, puzzles, games, movies, songs, rocks, feathers, "
    "baseballs, bracelets, dolls, kites, hats, shirts, scarves, keys, lamps, boxes of tea, "
    "bags of rice, jars of jam, packs of gum, fridge magnets, comic books, toy cars, robots, "
    "sheets of paper, water bottles, candy bars, video games, paper cranes, granola bars, emails, "
    "letters, files, apps, messages, cans, muffins, pies, sandwiches, slices of pizza, oranges, "
    "bananas, carrots, roses, tulips, pizzas, erasers, markers, sea glass stones, jerseys, sweaters"
).split(", ")
LIVING = (
    "birds, ducks, swans, frogs, rabbits, fish, goldfish, cats, dogs, cows, sheep, horses, geese, "
    "pigeons, butterflies, monkeys, turtles, ants, bees, children, students, tourists, dancers, "
    "campers, singers, runners, visitors, players"
).split(", ")
PEOPLE = "children students friends guests boys girls kids players neighbors workers".split()
PAIRS = (
    ("red", "blue"), ("old", "new"), ("big", "small"), ("green", "yellow"), ("ripe", "unripe"),
    ("black", "white"), ("long", "short"), ("striped", "plain"), ("sweet", "sour"),
    ("wooden", "plastic"), ("cheap", "expensive"), ("used", "fresh"), ("pink", "purple"),
)  # fmt: skip
COLORS = "red blue green yellow black white pink purple orange brown silver".split()
GAIN = (
    ("bought", "buy"), ("found", "find"), ("received", "receive"), ("collected", "collect"),
    ("won", "win"), ("made", "make"), ("added", "add"), ("got", "get"), ("picked", "pick"),
)  # fmt: skip
LOSE = (
    ("sold", "sell"), ("gave away", "give away"), ("lost", "lose"), ("used", "use"),
    ("threw away", "throw away"), ("donated", "donate"), ("removed", "remove"),
    ("broke", "break"), ("ate", "eat"), ("deleted", "delete"),
)  # fmt: skip
DO = (
    ("bought", "buy"), ("made", "make"), ("sold", "sell"), ("found", "find"), ("saw", "see"),
    ("counted", "count"), ("brought", "bring"), ("packed", "pack"), ("painted", "paint"),
    ("received", "receive"), ("collected", "collect"), ("carried", "carry"), ("lost", "lose"),
)  # fmt: skip
TIMES = (
    ("in the morning", "in the afternoon", "in the evening"),
    ("on monday", "on tuesday", "on wednesday"),
    ("on thursday", "on friday", "on saturday"),
    ("in the first week", "in the second week", "in the third week"),
    ("last year", "this year", "two years ago"),
    ("yesterday", "today", "the day before yesterday"),
    ("in june", "in july", "in august"),
)
BAGS = (
    ("bag", "bags"), ("box", "boxes"), ("basket", "baskets"), ("pack", "packs"), ("tray", "trays"),
    ("shelf", "shelves"), ("jar", "jars"), ("crate", "crates"), ("row", "rows"), ("case", "cases"),
    ("package", "packages"), ("sack", "sacks"), ("group", "groups"), ("drawer", "drawers"),
)  # fmt: skip
UNITS = (
    ("jumped", "jump", "inches"), ("walked", "walk", "meters"), ("ran", "run", "miles"),
    ("swam", "swim", "laps"), ("drove", "drive", "kilometers"), ("read", "read", "pages"),
    ("scored", "score", "points"), ("cycled", "cycle", "miles"), ("earned", "earn", "dollars"),
    ("did", "do", "push-ups"), ("did", "do", "sit-ups"), ("saved", "save", "dollars"),
    ("wrote", "write", "pages"), ("threw the ball", "throw the ball", "feet"),
)  # fmt: skip
PLACES = (
    "at the market, at the park, at school, at the fair, on the farm, at the beach, in the garage, "
    "at the shop, in the garden, at a yard sale, at the party, at the museum"
).split(", ")
FLUFF = (
    "It was a sunny day.", "Everybody was excited.", "The holidays had just begun.",
    "They had been waiting for this for a long time.", "After lunch it was time to count.",
    "The weather was getting colder.", "There was still a lot to do.",
    "The next stop was the town hall.", "It was a very busy week.",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A story and questions about it.

    Attributes:
      story: The sentences before the question; may be empty.
      questions: Pairs of a question and the expression that answers it.
    """

    story: str
    questions: list[tuple[str, str]]


Schema = Callable[["World"], Group]


class World:
    """Draws the ingredients of one story; no name or thing comes twice, a number rarely."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._taken: set[str] = set()
        self._numbers: set[int] = {1}
        self._high = rng.choices((12, 20, 99, 400, 990), (3, 3, 4, 1, 0.7))[0]

    def pick(self, *options: str) -> str:
        """One of several phrasings."""
        return self.rng.choice(options)

    def maybe(self, text: str, chance: float = 0.5) -> str:
        """The text, or nothing."""
        return text if self.rng.random() < chance else ""

    def flip(self, chance: float = 0.5) -> bool:
        """A coin."""
        return self.rng.random() < chance

    def _new(self, options: tuple[str, ...] | list[str]) -> str:
        free = [o for o in options if o not in self._taken]
        word = self.rng.choice(free)
        self._taken.add(word)
        return word

    def name(self) -> str:
        """A first name."""
        return self._new(NAMES)

    def thing(self) -> str:
        """A plural noun."""
        return self._new(THINGS)

    def living(self) -> str:
        """A plural noun for animals or people."""
        return self._new(LIVING)

    def people(self) -> str:
        """A plural noun for people."""
        return self._new(PEOPLE)

    def color(self) -> str:
        """A color."""
        return self._new(COLORS)

    def kinds(self) -> tuple[str, str]:
        """Two kinds of one thing: "old games", "new games"; or two different things."""
        if self.flip(0.4):
            thing = self.thing()
            first, second = self.rng.choice(PAIRS)
            if self.flip():
                first, second = second, first
            return f"{first} {thing}", f"{second} {thing}"
        return self.thing(), self.thing()

    def num(self, low: int = 2, high: int | None = None) -> int:
        """A number that is new in this story."""
        high = max(high or self._high, low + 8)
        while True:
            value = self.rng.randint(low, high)
            if value not in self._numbers:
                self._numbers.add(value)
                return value
            high += 1

    def less(self, than: int) -> int:
        """A new number below another, where there is room; at least 1."""
        free = [n for n in range(2, than) if n not in self._numbers]
        value = self.rng.choice(free) if free else 1
        self._numbers.add(value)
        return value

    def large(self) -> int:
        """A number with room below it."""
        return self.num(8, self._high + 10)

    def multiple(self, of: int) -> int:
        """A multiple of a number, for an even division."""
        while True:
            value = of * self.rng.randint(2, 30)
            if value not in self._numbers:
                self._numbers.add(value)
                return value

    def he(self) -> str:
        """A pronoun."""
        return self.rng.choice(("he", "she"))
