"""A world: a pool of plain-function experts of which every chance is known.

    question ──topic, hidden state──> chances of each kind of answer ──draw by hash──> text

What an expert says depends on the question's topic, on something hidden (such as how hard it is) and on the
kind of the answer that it is shown. The draw is a hash, so the same call gives the same text everywhere. A
subclass says which chances; `optimum.py` plans with them. Knows nothing of der_graph.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar, NamedTuple, TypeVar

from .topics import FIELDS, Topics


class Kind(NamedTuple):
    """A kind of answer.

    Attributes:
        name: Unique in its world.
        form: What anyone can see of it: `number`, `facts`, `expression`, `text` or `nothing`.
        quality: What it is worth, in [0, 1].
        own: Does each expert say another such thing? Else all say the same.
    """

    name: str
    form: str = "number"
    quality: float = 0.0
    own: bool = False


RIGHT = Kind("right", quality=1.0)
LURE = Kind("lure")
"""A mistake that many make."""
WRONG = Kind("wrong", own=True)
"""A mistake that nobody else makes."""
NOTHING = Kind("nothing", "nothing")
SAME = Kind("same")
"""What was shown, said again."""


class Said(NamedTuple):
    """An answer to a question: its kind, and who alone says it."""

    kind: Kind
    by: str = ""


class Question(NamedTuple):
    """A question and its topic."""

    topic: str
    text: str


class _Known(NamedTuple):
    topic: str
    hidden: str
    meaning: dict[str, Said]  # by text, of everything that an expert might say


Chances = Mapping[Kind, float]
Option = TypeVar("Option")
_SHOWN = re.compile(r"<earlier_answer>\n(.*)\n</earlier_answer>", re.DOTALL)
_WORDS = [a + b for a in "bal cor den fil gam hus jor lim mon pex".split() for b in
          "ada eck ilo omi una ert ist ock ump yra enta odo isk alu ine".split()]  # fmt: skip
_LENGTH = 10  # words of a text


class World:
    """Base of all worlds; a subclass describes one in the attributes and the two methods below.

    Attributes:
        name: For the command line and the tables.
        costs: Of one call of each expert.
        topics: Templates of the questions.
        weights: How often each topic comes, where not equally often.
        alike: Experts whose chances are those of a common model, by expert; each draws for itself.
        hard: Share of hard questions, for worlds that know hard from easy.
        noise: Chance that the training's judge turns right and wrong around.
        metric: How answers are judged.
        max_steps: Longest route.
    """

    name: ClassVar[str]
    costs: ClassVar[Mapping[str, float]]
    topics: ClassVar[Topics] = FIELDS
    weights: ClassVar[Mapping[str, float]] = {}
    alike: ClassVar[Mapping[str, str]] = {}
    hard: ClassVar[float] = 0.0
    noise: ClassVar[float] = 0.0
    metric: ClassVar[str] = "match"
    max_steps: ClassVar[int] = 4

    def __init__(self) -> None:
        self.names = tuple(self.costs)
        self.total = sum(self.costs.values())
        self.kinds = self._reachable()
        self._patterns = [
            (topic, re.compile(re.sub(r"\\{[abc]\\}", r"\\d+", re.escape(template))))
            for topic, templates in self.topics.items()
            for template in templates
        ]
        self._memory: dict[str, _Known] = {}

    def hidden(self, topic: str) -> Mapping[str, float]:
        """What a question may hide, with its chances."""
        return {"easy": 1 - self.hard, "hard": self.hard}

    def chances(self, topic: str, hidden: str, model: str, shown: Kind | None) -> Chances:
        """What an expert, or the model that it is like, may say.

        Args:
            topic: Of the question.
            hidden: What the question hides.
            model: The expert, or what it is like.
            shown: Kind of the answer that it is shown; None for the first call of a route.
        """
        raise NotImplementedError

    # What happens ---------------------------------------------------------------------------------

    def share(self, topic: str) -> float:
        """How often a topic comes."""
        return self.weights.get(topic, 0.0) if self.weights else 1 / len(self.topics)

    def outcomes(self, topic: str, hidden: str, expert: str, shown: Said | None) -> dict[Said, float]:
        """What an expert may say, with its chances."""
        kind = None if shown is None else shown.kind
        found: dict[Said, float] = {}
        for said, chance in self.chances(topic, hidden, self.alike.get(expert, expert), kind).items():
            if chance > 0:
                answer = shown if said == SAME and shown else Said(said, expert if said.own else "")
                found[answer] = found.get(answer, 0.0) + chance
        return found

    def say(self, question: str, expert: str, shown: Said | None = None) -> Said:
        """What an expert does say."""
        known = self._known(question)
        key = () if shown is None else (shown.kind.name, shown.by)
        options = self.outcomes(known.topic, known.hidden, expert, shown)
        return _drawn(options, unit("draw", question, expert, *key))

    def expert(self, name: str) -> Callable[[str], str]:
        """An expert as a plain function from prompt to text."""

        def answer(prompt: str) -> str:
            question, _, rest = prompt.partition("\n\n")
            shown = _SHOWN.search(rest)
            if rest and shown is None:
                raise ValueError(f"no earlier answer is found in the prompt {prompt!r}")
            earlier = None if shown is None else self._known(question).meaning[shown[1]]
            return self.text(question, self.say(question, name, earlier))

        return answer

    def judged(self, question: str, said: Said) -> float:
        """Quality of an answer in the eyes of the training's judge."""
        wrong = self.noise > unit("judge", question, self.text(question, said))
        return 1.0 - said.kind.quality if wrong else said.kind.quality

    # What is read ---------------------------------------------------------------------------------

    def questions(self, count: int, seed: int, without: Collection[str] = ()) -> list[Question]:
        """Draw questions, each once.

        Args:
            count: How many.
            seed: Other seeds, other questions.
            without: Texts that must not be among them.
        """
        rng, seen, drawn = random.Random(seed), set(without), list[Question]()
        topics = list(self.topics)
        shares = [self.share(topic) for topic in topics]
        while len(drawn) < count:
            topic = rng.choices(topics, shares)[0]
            numbers = {field: rng.randint(2, 99) for field in "abc"}
            text = rng.choice(self.topics[topic]).format(**numbers)
            if text not in seen:
                seen.add(text)
                drawn.append(Question(topic, text))
        return drawn

    def topic_of(self, question: str) -> str:
        """The topic, read off the words."""
        return self._known(question).topic

    def text(self, question: str, said: Said) -> str:
        """How an answer is written."""
        kind, by = said

        def number(part: str, below: int) -> int:
            return int(unit(kind.name, part, question, by) * below)

        if kind.form == "number":
            return str(10_000 + number("", 80_000))
        if kind.form == "facts":
            return f"facts: first {number('a', 97)}, second {number('b', 89)}"
        if kind.form == "expression":
            return f"( {number('a', 97)} * {number('b', 89)} ) + {number('c', 79)}"
        if kind.form == "text":
            wanted, other = self._words(question, by)
            kept = round(kind.quality * _LENGTH)
            words = wanted[:kept] + other[: _LENGTH - kept]
            return " ".join(sorted(words, key=lambda word: unit("place", question, word)))
        return "I cannot tell."

    def reference(self, question: str) -> str:
        """The right answer; of texts one for each expert, who all have a vocabulary of their own."""
        if RIGHT in self.kinds:
            return self.text(question, Said(RIGHT))
        return " | ".join(" ".join(self._words(question, name)[0]) for name in self.names)

    def _words(self, question: str, by: str) -> tuple[list[str], list[str]]:
        """An expert's words for a question, and words that are beside the point."""
        own = _WORDS[self.names.index(by) :: len(self.names)]
        mixed = sorted(own, key=lambda word: unit("word", question, word))
        return mixed[:_LENGTH], mixed[_LENGTH:]

    def _known(self, question: str) -> _Known:
        if question not in self._memory:
            topic = next(topic for topic, form in self._patterns if form.fullmatch(question))
            everything = [
                Said(kind, by) for kind in self.kinds for by in (self.names if kind.own else ("",))
            ]
            hidden = _drawn(self.hidden(topic), unit("hidden", question))
            meaning = {self.text(question, said): said for said in everything}
            self._memory[question] = _Known(topic, hidden, meaning)
        return self._memory[question]

    def _reachable(self) -> tuple[Kind, ...]:
        """Every kind of answer that a route can come to."""
        found: dict[Kind, None] = {}
        new: list[Kind | None] = [None]
        models = dict.fromkeys(self.alike.get(name, name) for name in self.names)
        while new:
            shown = new.pop()
            for topic in self.topics:
                for hidden in self.hidden(topic):
                    for model in models:
                        chances = self.chances(topic, hidden, model, shown)
                        if abs(sum(chances.values()) - 1) > 1e-9 or min(chances.values()) < 0:
                            raise ValueError(f"{self.name}, {model}, {shown}: no chances: {chances}")
                        said = [kind for kind, p in chances.items() if p > 0 and kind != SAME]
                        new += [kind for kind in said if kind not in found]
                        found |= dict.fromkeys(said)
        return tuple(found)


def unit(*key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b("\x00".join(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _drawn(chances: Mapping[Option, float], at: float) -> Option:
    for option, chance in chances.items():
        at -= chance
        if at < 0:
            return option
    return option
