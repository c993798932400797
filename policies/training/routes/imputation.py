"""Answers that nobody was asked for, made up from those of similar situations: hot-deck imputation.

    known answers ──per expert──> donors: what it said after which answer
    (question, expert, answer before) ──nearest donors──> its own answer again, the one before, or another

New answers of chat models cost money, so only some routes are asked on some questions. What is missing is
filled in from a donor: the same expert, after an answer of the same kind (as good, of the same looks, by the
same expert, in agreement with its own or not), on a question that reads alike. How the donor reacted is
carried over, not its words: who repeated its own answer there repeats its own here. An expert that answers
the same whatever it is shown is thereby known on every route as soon as that has been seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from der_graph.nodes.values import extract_value
from der_graph.policies.answers import AnswerSource, Outcome, Request
from der_graph.policies.answers.source import Key, rank
from der_graph.policies.planning.forms import form_of
from der_graph.state import Answer, good_answers

Floats = npt.NDArray[np.float32]

_NEAREST = 3  # donors that are drawn from
_CHUNK = 2_048  # requests that are compared with all donors at once
_GOOD = 2 / 3  # quality from which on an answer counts as right
_ALIKE = 0.6  # share of words in common, from which on two texts without a value say the same
# How much it counts that a donor differs in something. The distance of questions is one minus their cosine,
# about 0.3 within a topic and 0.8 beyond.
_GRADE, _LOOKS, _WHO, _BEFORE, _QUESTION = 4.0, 2.0, 1.5, 1.0, 3.0


class _Shown(NamedTuple):
    """An answer that another expert reads: how good it is, by whom, and whom that one had read."""

    answer: Answer
    quality: float
    by: int
    before: int


class _Donors(NamedTuple):
    """What an expert said after others' answers."""

    traits: Floats  # (donors, what is compared)
    questions: npt.NDArray[np.int64]
    outcomes: list[Outcome]
    shown: list[_Shown]


class ImputedSource(AnswerSource):
    """A source that asks nobody: what is not known is imputed.

    Args:
        source: Of the same questions and experts; every first answer is known. What it gets to know later is
            not seen here.
        vectors: (questions, size) of the questions; rows of length 1.
    """

    def __init__(self, source: AnswerSource, vectors: npt.NDArray[np.floating]) -> None:
        super().__init__(source.experts, source.examples, source.metric, ktp=source._ktp)
        self._memory.update(source._memory)
        self._vectors = np.asarray(vectors, dtype=np.float32)
        self._own = self.first_answers()
        self._heard: dict[tuple[int, str], _Shown] = {}
        self._right: dict[int, str] = {}
        self._forms: dict[str, int] = {}
        # In an order that does not hang on who answered first.
        known = sorted(self._memory.items(), key=lambda each: rank(each[0]))
        self._note_all(known)
        self._donors = [self._donors_of(i, known) for i in range(len(self.experts))]

    def at_once(self, expert: int) -> int:
        """Nobody is waited for."""
        return 0

    def known(self, requests: Sequence[Request]) -> list[Outcome] | None:
        """Everything is."""
        return self.ask(requests)

    def _find(self, missing: dict[Key, Request]) -> dict[Key, Outcome]:
        found: dict[Key, Outcome] = {}
        by_expert: dict[int, list[Key]] = {}
        for key in missing:
            by_expert.setdefault(key[1], []).append(key)
        for expert, keys in by_expert.items():
            shown = [self._read(missing[key]) for key in keys]
            for key, read, outcome in zip(
                keys, shown, self._impute(expert, keys, shown), strict=True
            ):
                found[key] = outcome
                self._memory[key] = outcome
                self._note(key[0], expert, read, outcome)
        return found

    def _note_all(self, known: Sequence[tuple[Key, Outcome]]) -> None:
        """Note all answers; one that was read before those who read it."""
        waiting = list(known)
        while waiting:
            later = []
            for key, outcome in waiting:
                shown = self._shown(key[0], key[2])
                if key[2] is not None and shown is None:
                    later.append((key, outcome))
                else:
                    self._note(key[0], key[1], shown, outcome)
            if len(later) == len(waiting):
                return
            waiting = later

    def _shown(self, question: int, knowledge: object) -> _Shown | None:
        if knowledge is None:
            return None
        text = knowledge if isinstance(knowledge, str) else knowledge[-1]  # type: ignore[index]
        return self._heard.get((question, text))

    def _read(self, request: Request) -> _Shown:
        """What the expert of a request reads last."""
        last = good_answers(request.answers)[-1]
        return self._heard[request.example, last["text"]]

    def _note(self, question: int, expert: int, shown: _Shown | None, outcome: Outcome) -> None:
        answer, quality = outcome
        if answer["error"] is not None:
            return
        by = -1 if shown is None else shown.by
        self._heard.setdefault((question, answer["text"]), _Shown(answer, quality, expert, by))
        if quality > _GOOD and answer["value"] is not None:
            self._right.setdefault(question, answer["value"])

    def _form(self, answer: Answer) -> int:
        text = answer["text"]
        if text not in self._forms:
            self._forms[text] = form_of(text, answer["value"])
        return self._forms[text]

    def _traits_of(self, question: int, expert: int, shown: _Shown) -> list[float]:
        """Three numbers whose difference counts, and three names that are the same or not."""
        own = self._own[question][expert]
        return [
            _grade(shown.quality) * _GRADE,
            _grade(own.quality) * _GRADE,
            float(_same(own.answer, shown.answer)) * _LOOKS,
            shown.by,
            shown.before,
            self._form(shown.answer),
        ]

    def _donors_of(self, expert: int, known: Sequence[tuple[Key, Outcome]]) -> _Donors:
        traits, questions, outcomes, read = [], [], [], []
        for (question, who, knowledge), outcome in known:
            shown = self._shown(question, knowledge)
            if who != expert or shown is None:
                continue
            traits.append(self._traits_of(question, expert, shown))
            questions.append(question)
            outcomes.append(outcome)
            read.append(shown)
        return _Donors(
            np.array(traits, dtype=np.float32),
            np.array(questions, dtype=np.int64),
            outcomes,
            read,
        )

    def _impute(
        self,
        expert: int,
        keys: Sequence[Key],
        shown: Sequence[_Shown],
    ) -> list[Outcome]:
        donors = self._donors[expert]
        if not donors.outcomes:  # as far as is known, it does not react
            return [self._own[key[0]][expert] for key in keys]
        questions = np.array([key[0] for key in keys])
        wanted = np.array(
            [self._traits_of(q, expert, s) for q, s in zip(questions.tolist(), shown, strict=True)],
            dtype=np.float32,
        )
        chosen = np.zeros(len(keys), dtype=np.int64)
        order = np.argsort(questions, kind="stable")
        for start in range(0, len(keys), _CHUNK):
            part = order[start : start + _CHUNK]
            # Many are of one kind, or on one question, and compared once.
            kinds, kind = np.unique(wanted[part], axis=0, return_inverse=True)
            asked, at = np.unique(questions[part], return_inverse=True)
            # Rounded: which of two that are as near is drawn must not hang on the last bits.
            cosine = (self._vectors[asked] @ self._vectors[donors.questions].T).round(4)
            apart = _apart(kinds, donors.traits)[kind.ravel()]
            apart += (np.float32(_QUESTION) * (1 - cosine))[at]
            count = min(_NEAREST, apart.shape[1])
            nearest = np.argpartition(apart, count - 1, axis=1)[:, :count]
            nearest.sort(axis=1)
            turn = [zlib.crc32(repr(keys[i]).encode()) % count for i in part.tolist()]
            chosen[part] = nearest[np.arange(len(turn)), turn]
        return [
            self._carried_over(key[0], expert, s, donors, donor)
            for key, s, donor in zip(keys, shown, chosen.tolist(), strict=True)
        ]

    def _carried_over(
        self, question: int, expert: int, shown: _Shown, donors: _Donors, donor: int
    ) -> Outcome:
        """What the expert says here if it reacts as it did there.

        Its words are those of there, unless they are its own first ones or those that it was shown: whoever
        reads them next reacts to who said them after whom.
        """
        there, quality = donors.outcomes[donor]
        own_there = self._own[int(donors.questions[donor])][expert].answer
        own = self._own[question][expert]
        answer = there.copy()
        if there["error"] is not None:
            return donors.outcomes[donor]
        if _same(there, own_there) and own.answer["error"] is None:
            if own_there["cost"]:
                answer["cost"] = own.answer["cost"] * there["cost"] / own_there["cost"]
            return self._repeated(answer, own, _words_too(there, own_there))
        seen = donors.shown[donor].answer
        if _same(there, seen):
            return self._repeated(
                answer, Outcome(shown.answer, shown.quality), _words_too(there, seen)
            )
        if answer["value"] is not None:
            right = self._right_value(question)
            if quality > _GOOD:
                answer["value"] = right
            elif answer["value"] == right:  # of few values to choose from, and not right here
                answer["value"] = f"not {right}"
        return Outcome(answer, quality)

    def _repeated(self, answer: Answer, said: Outcome, words_too: bool) -> Outcome:
        """The same as another answer says."""
        answer["value"] = said.answer["value"]
        if words_too:
            answer["text"] = said.answer["text"]
        return Outcome(answer, said.quality)

    def _right_value(self, question: int) -> str:
        """What right answers to a question come to, so that two of them agree."""
        if question not in self._right:
            value = extract_value(self.examples[question].reference)
            self._right[question] = value or f"right answer to question {question}"
        return self._right[question]


def _apart(some: Floats, others: Floats) -> Floats:
    """(some, others): how much traits differ."""
    apart: Floats = np.abs(some[:, None, :3] - others[None, :, :3]).sum(axis=2)
    for column, weight in enumerate((_WHO, _BEFORE, _LOOKS), start=3):
        apart += np.float32(weight) * (some[:, None, column] != others[None, :, column])
    return apart


def _grade(quality: float) -> float:
    """0, 1 or 2: no good, something between, good."""
    return float(quality > 1 / 3) + float(quality > _GOOD)


def _words_too(one: Answer, other: Answer) -> bool:
    """Do two answers that say the same say it in the same words, or have no value that stands for them?"""
    return one["text"] == other["text"] or one["value"] is None


def _same(one: Answer, other: Answer) -> bool:
    """Do two answers to a question say the same?"""
    if one["value"] is not None or other["value"] is not None:
        return one["value"] == other["value"]
    if one["text"] == other["text"]:
        return True
    a, b = (set(each["text"].casefold().split()) for each in (one, other))
    return len(a & b) >= _ALIKE * max(len(a | b), 1)
