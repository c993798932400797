"""A world: a pool of plain-function experts of which every chance is known.

    question ──topic, hard?──> chances of each kind of answer ──draw by hash──> text

What an expert says depends on the topic, on whether the question is hard (or a trick: whatever a world hides)
and on the kind of the answer that it is shown. The draw is a hash, so the same call gives the same text
everywhere. `optimum.py` plans with the chances. Knows nothing of der_graph.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from .topics import FIELDS, Topics

Option = TypeVar("Option")


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


class Call(NamedTuple):
    """What the chances of an answer depend on: who is asked, what, and shown which kind of answer."""

    model: str
    topic: str
    hard: bool
    shown: Kind | None


class Said(NamedTuple):
    """An answer to a question: its kind, and who alone says it."""

    kind: Kind
    by: str = ""


class Question(NamedTuple):
    """A question and its topic."""

    topic: str
    text: str


Chances = Mapping[Kind, float]
_SHOWN = re.compile(r"<earlier_answer>\n(.*)\n</earlier_answer>", re.DOTALL)
_ENDS = "ada eck ilo omi una ert oss ock ump yra enta odo isk alu emi".split()
_WORDS = [f"{start}{end}" for start in "b cor d fil g hus j lim m pex".split() for end in _ENDS]
_LENGTH = 10  # words of a text


@dataclass
class World:
    """Experts, their costs and their chances.

    Attributes:
        name: For the command line and the tables.
        costs: Of one call of each expert.
        chances: What an expert may say.
        topics: Templates of the questions.
        weights: How often each topic comes, where not equally often.
        hard: Share of the questions that are hard; the same for all topics, or by topic.
        alike: Experts whose chances are those of a common model, by expert; each draws for itself.
        noise: Chance that the training's judge turns right and wrong around.
        metric: How answers are judged.
        max_steps: Longest route.
    """

    name: str
    costs: Mapping[str, float]
    chances: Callable[[Call], Chances]
    topics: Topics = field(default_factory=lambda: FIELDS)
    weights: Mapping[str, float] = field(default_factory=dict)
    hard: float | Mapping[str, float] = 0.0
    alike: Mapping[str, str] = field(default_factory=dict)
    noise: float = 0.0
    metric: str = "match"
    max_steps: int = 4

    def __post_init__(self) -> None:
        self.names = tuple(self.costs)
        self.total = sum(self.costs.values())
        self.kinds = self._reachable()
        self._patterns = [
            (topic, re.compile(re.sub(r"\\{[abc]\\}", r"\\d+", re.escape(template))))
            for topic, templates in self.topics.items()
            for template in templates
        ]
        self._memory: dict[str, tuple[str, bool]] = {}

    def model(self, expert: str) -> str:
        """What an expert is like: itself, where no other is like it."""
        return self.alike.get(expert, expert)

    def share(self, topic: str) -> float:
        """How often a topic comes."""
        return self.weights.get(topic, 0.0) if self.weights else 1 / len(self.topics)

    def hidden(self, topic: str) -> dict[bool, float]:
        """How often a question of a topic is hard, and how often it is not."""
        hard = self.hard if isinstance(self.hard, float) else self.hard[topic]
        return {False: 1 - hard, True: hard}

    def outcomes(
        self, topic: str, hard: bool, expert: str, shown: Said | None
    ) -> dict[Said, float]:
        """What an expert may say, with its chances."""
        call = Call(self.model(expert), topic, hard, None if shown is None else shown.kind)
        found: dict[Said, float] = {}
        for kind, chance in self.chances(call).items():
            said = shown if kind == SAME and shown else Said(kind, expert if kind.own else "")
            found[said] = found.get(said, 0.0) + chance
        return {said: chance for said, chance in found.items() if chance > 0}

    def say(self, question: str, expert: str, shown: Said | None = None) -> Said:
        """What an expert does say: by one draw a question, whatever it is shown, for fair comparisons."""
        options = self.outcomes(*self._known(question), expert, shown)
        return _drawn(options, unit("draw", question, expert))

    def expert(self, name: str) -> Callable[[str], str]:
        """An expert as a plain function from prompt to text."""

        def answer(prompt: str) -> str:
            question, _, rest = prompt.partition("\n\n")
            shown = _SHOWN.search(rest)
            if rest and shown is None:
                raise ValueError(f"no earlier answer is found in the prompt {prompt!r}")
            earlier = None if shown is None else self._meaning(question, shown[1])
            return self.text(question, self.say(question, name, earlier))

        return answer

    def judged(self, question: str, said: Said) -> float:
        """Quality of an answer in the eyes of the training's judge."""
        quality = said.kind.quality
        wrong = self.noise and unit("judge", question, self.text(question, said)) < self.noise
        return 1.0 - quality if wrong else quality

    def questions(self, count: int, seed: int, without: Collection[str] = ()) -> list[Question]:
        """Draw questions, each once, and none of those `without`."""
        rng, drawn = random.Random(seed), dict[str, Question]()
        topics = list(self.topics)
        shares = [self.share(topic) for topic in topics]
        while len(drawn) < count:
            topic = rng.choices(topics, shares)[0]
            numbers = {part: rng.randint(2, 99) for part in "abc"}
            text = rng.choice(self.topics[topic]).format(**numbers)
            if text not in without:
                drawn[text] = Question(topic, text)
        return list(drawn.values())

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
            words, kept = self._words(question, by), round(kind.quality * _LENGTH)
            chosen = words[:kept] + words[_LENGTH : 2 * _LENGTH - kept]
            return " ".join(random.Random(question).sample(chosen, _LENGTH))
        return "I cannot tell."

    def reference(self, question: str) -> str:
        """The right answer; of texts one for each expert, whose first ten words for it are right."""
        if RIGHT in self.kinds:
            return self.text(question, Said(RIGHT))
        return " | ".join(" ".join(self._words(question, name)[:_LENGTH]) for name in self.names)

    def _words(self, question: str, by: str) -> list[str]:
        """Words that only this expert uses, in an order that depends on the question."""
        own = _WORDS[self.names.index(by) :: len(self.names)]
        return random.Random(f"{question} {by}").sample(own, 2 * _LENGTH)

    def _meaning(self, question: str, text: str) -> Said:
        """What an expert is shown, read off its text."""
        for kind in self.kinds:
            for by in self.names if kind.own else ("",):
                if self.text(question, Said(kind, by)) == text:
                    return Said(kind, by)
        raise ValueError(f"nobody in {self.name} answers {question!r} with {text!r}")

    def _known(self, question: str) -> tuple[str, bool]:
        """Topic of a question, and whether it is hard."""
        if question not in self._memory:
            topic = next(topic for topic, form in self._patterns if form.fullmatch(question))
            self._memory[question] = topic, _drawn(self.hidden(topic), unit("hard", question))
        return self._memory[question]

    def _reachable(self) -> tuple[Kind, ...]:
        """Every kind of answer that a route can come to."""
        found: dict[Kind, None] = {}
        new: list[Kind | None] = [None]
        models = {self.model(name) for name in self.names}
        cases = [
            (m, t, hard) for m in sorted(models) for t in self.topics for hard in (False, True)
        ]
        while new:
            shown = new.pop()
            for case in cases:
                chances = self.chances(Call(*case, shown))
                if abs(sum(chances.values()) - 1) > 1e-9 or min(chances.values()) < 0:
                    raise ValueError(f"{self.name}: {case}, shown {shown}: no chances: {chances}")
                said = [kind for kind, p in chances.items() if p > 0 and kind != SAME]
                new += [kind for kind in said if kind not in found]
                found |= dict.fromkeys(said)
        return tuple(found)


def unit(*key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b("\x00".join(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _drawn(chances: Mapping[Option, float], at: float) -> Option:
    ends = itertools.accumulate(chances.values())
    return next(
        (option for option, end in zip(chances, ends, strict=True) if at < end), [*chances][-1]
    )
