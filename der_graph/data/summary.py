"""What is in a data file, before anything is spent on it.

list[Example], ignored fields ──summarize──> DataSummary ──lines──> text
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from der_graph.data.files import Example
from der_graph.data.leaks import duplicates
from der_graph.errors import MissingDependencyError, require

_SAMPLE = 2000  # questions whose language is looked at
_SURE = 0.5  # least probability of a language that is named
_MOST = 12  # entries of a list that is shown
_SHOWN = 60  # characters of a text that is shown


class Lengths(NamedTuple):
    """Lengths of texts, in characters."""

    shortest: int
    mean: float
    longest: int


@dataclass(frozen=True)
class DataSummary:
    """What a data file holds.

    Attributes:
        questions: How many.
        references: How many of them have a reference.
        tasks: Questions of each kind.
        question: Lengths of questions.
        reference: Lengths of references; None where there are none.
        histories: Questions with a conversation before them.
        models: Answers that each model has given, in order of appearance.
        scores: How often each score was recorded.
        costs: How many answers carry their cost.
        languages: Share of the questions in each language, by its code; `?` where that is not clear. None
            where nobody can tell.
        again: Questions that came before, with the same reference.
        conflicts: Pairs of one question with different references.
        ignored: How often each field came that nobody reads.
        warnings: What is wrong, one line each.
    """

    questions: int
    references: int
    tasks: dict[str, int]
    question: Lengths
    reference: Lengths | None
    histories: int
    models: dict[str, int]
    scores: dict[str, int]
    costs: int
    languages: dict[str, float] | None
    again: int
    conflicts: int
    ignored: dict[str, int]
    warnings: list[str]

    def lines(self) -> list[str]:
        """The summary, a line a fact."""
        n = self.questions
        found = [f"{n:,} questions, {self.references:,} with a reference"]
        if self.tasks:
            found.append(f"kinds       {_counts(self.tasks)}")
        found.append(f"question    {_span(self.question)}")
        if self.reference is not None:
            found.append(f"reference   {_span(self.reference)}")
        if self.languages is None:
            found.append("languages   not told: pip install 'der-graph[data]'")
        else:
            shares = sorted(self.languages.items(), key=lambda item: -item[1])[:_MOST]
            found.append(
                "languages   " + ", ".join(f"{_language(k)} {share:.0%}" for k, share in shares)
            )
        if self.histories:
            found.append(f"history     {self.histories:,} follow a conversation")
        if self.models:
            everyone = {name for name, count in self.models.items() if count == n}
            some = {name: count for name, count in self.models.items() if name not in everyone}
            words = [f"{len(self.models)} models"]
            if everyone:
                words.append(f"{len(everyone)} answered every question")
            if some:
                words.append(f"not all: {_counts(some)}")
            scores = f"; scores: {_counts(self.scores)}" if self.scores else "; no scores"
            costs = f"; {self.costs:,} with their cost" if self.costs else ""
            found.append(f"candidates  {'; '.join(words)}{scores}{costs}")
        if self.ignored:
            found.append(f"ignored     {_counts(self.ignored, quoted=True)}")
        return [*found, *(f"warning: {line}" for line in self.warnings)]


def summarize(
    examples: Sequence[Example],
    ignored: Mapping[str, int] = {},
    *,
    language_of: Callable[[str], str] | None = None,
) -> DataSummary:
    """Look at the questions of a data file.

    Args:
        examples: The questions, at least one.
        ignored: How often each field came that nobody reads; see `load_examples`.
        language_of: Tells the language of a text, `?` where that is not clear; py3langid where left out, if
            it is installed.
    """
    again, conflicts = duplicates(examples)
    models = Counter(name for e in examples for name in e.candidates)
    texts = [(name, c.text) for e in examples for name, c in e.candidates.items()]
    warnings = []
    if conflicts:
        one, two = (examples[i] for i in conflicts[0])
        warnings.append(
            f"{len(conflicts)} questions come twice with different references (first: {one.id} and {two.id}, "
            f"{one.question[:_SHOWN]!r}: {one.reference[:_SHOWN]!r} and {two.reference[:_SHOWN]!r}); one of "
            "each is wrong"
        )
    if len(again) > len(conflicts):
        later = {two for _, two in conflicts}
        first = examples[next(i for i in again if i not in later)]
        warnings.append(
            f"{len(again) - len(conflicts)} questions come twice (first: {first.id}, "
            f"{first.question[:_SHOWN]!r})"
        )
    references = [e.reference for e in examples if e.reference.strip()]
    if not references and not models:
        warnings.append(
            "no question has a reference: train and evaluate with a metric that needs none, such as "
            "--metric judge:MODEL or --metric agreement"
        )
    elif references and len(set(references)) == 1 and len(references) > 1:
        warnings.append(f"every reference is {references[0][:_SHOWN]!r}; is that the right column?")
    silent = Counter(name for name, text in texts if not text.strip())
    if silent:
        warnings.append(f"empty answers of {_counts(silent)}")
    languages = _languages(examples, language_of)
    foreign = sum(share for code, share in (languages or {}).items() if code not in ("en", "?"))
    if foreign >= 0.1:
        warnings.append(
            f"{foreign:.0%} of the questions are not English, which the default encoder reads best; give der "
            "train --embeddings a multilingual one, such as "
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
        )
    return DataSummary(
        questions=len(examples),
        references=len(references),
        tasks=dict(Counter(e.task for e in examples if e.task).most_common()),
        question=_lengths([e.question for e in examples]),
        reference=_lengths(references) if references else None,
        histories=sum(bool(e.history) for e in examples),
        models=dict(models),
        scores=dict(Counter(s for e in examples for c in e.candidates.values() for s in c.scores)),
        costs=sum(c.cost is not None for e in examples for c in e.candidates.values()),
        languages=languages,
        again=len(again) - len(conflicts),
        conflicts=len(conflicts),
        ignored=dict(ignored),
        warnings=warnings,
    )


def _languages(
    examples: Sequence[Example], language_of: Callable[[str], str] | None
) -> dict[str, float] | None:
    if language_of is None:
        try:
            language_of = _reader()
        except MissingDependencyError:
            return None
    sample = list(examples)
    if len(sample) > _SAMPLE:
        sample = random.Random(0).sample(sample, _SAMPLE)
    found = Counter(language_of(example.question) for example in sample)
    return {code: count / len(sample) for code, count in found.items()}


def _reader() -> Callable[[str], str]:
    langid = require("py3langid.langid", extra="data", why="telling languages")
    known = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def language_of(text: str) -> str:
        code, probability = known.classify(text)
        return str(code) if probability >= _SURE else "?"

    return language_of


def _language(code: str) -> str:
    return "unclear" if code == "?" else code


def _lengths(texts: Sequence[str]) -> Lengths:
    sizes = [len(text) for text in texts]
    return Lengths(min(sizes), sum(sizes) / len(sizes), max(sizes))


def _span(lengths: Lengths) -> str:
    return f"{lengths.shortest:,} to {lengths.longest:,} characters, mean {lengths.mean:,.0f}"


def _counts(given: Mapping[str, int], *, quoted: bool = False) -> str:
    names = [f"{name!r}" if quoted else name for name in list(given)[:_MOST]]
    shown = [f"{name} {count:,}" for name, count in zip(names, given.values(), strict=False)]
    more = len(given) - len(names)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
