"""Where answers come from in training and evaluation: asked in batches, scored in batches, never twice.

    requests ──memory, then cache, then one batch per expert──> answers ──one batch──> qualities

A greedy answer is a function of the expert and of its prompt, so every answer is generated once: a
dictionary serves repeats, and an optional `AnswerCache` keeps answers between runs and shares them between
processes. Experts and prompts are those of the graph, so a recorded pool and a live one run through the
same code. A failed call is remembered as long as the source lives, so that a run tries it once; one that came
too fast for its provider is made again after a while. The cache keeps no failures, as a call may work later.
Experts on remote engines, and local ones in continuous batches, are asked at the same time, each within its
own bound; other local ones one after another.
"""

from __future__ import annotations

import copy
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from typing import NamedTuple

from langchain_core.messages import BaseMessage

from der_graph.data import Example
from der_graph.errors import DataError, MetricError
from der_graph.nodes.conversation import conversation_text, history_for_experts, messages_of
from der_graph.nodes.expert import Expert, asked_alone
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.nodes.recorded import RecordedChat
from der_graph.nodes.reliability import at_once, is_remote
from der_graph.policies.answers.cache import AnswerCache
from der_graph.policies.answers.patience import patiently
from der_graph.policies.quality import QualityMetric
from der_graph.state import Answer, good_answers

MAX_BATCH = 32
"""Most prompts that an expert gets at once."""
Key = tuple[int, int, object]
"""What a request comes to: example, expert, and what that one is shown of the answers so far."""


def rank(key: Key) -> tuple[bool, int, int, str]:
    """An order of keys that does not depend on who answered first: first answers, then the others."""
    question, expert, shown = key
    return shown is not None, question, expert, repr(shown)


class Request(NamedTuple):
    """One question to one expert.

    Attributes:
        example: Position of the question in the source's examples.
        expert: Position of the expert in the pool.
        answers: The route's answers so far.
    """

    example: int
    expert: int
    answers: list[Answer]


class Outcome(NamedTuple):
    """An answer and how good it is.

    Attributes:
        answer: What the expert said.
        quality: In [0, 1]; 0 for a failed call.
    """

    answer: Answer
    quality: float


class Repeated(NamedTuple):
    """Questions that an expert was asked again.

    Attributes:
        expert: Its name.
        old: Its cached answers.
        new: Those of now.
        since: When the oldest of the cached ones was given, in seconds since 1970; None where it is unknown.
    """

    expert: str
    old: list[Outcome]
    new: list[Outcome]
    since: float | None

    @property
    def different(self) -> int:
        """Answers that come to something else, or have another text where they come to nothing."""
        return sum(
            (one.answer["value"] or one.answer["text"])
            != (two.answer["value"] or two.answer["text"])
            for one, two in zip(self.old, self.new, strict=True)
        )

    def qualities(self) -> tuple[float, float]:
        """Mean quality then and now."""
        then, now = ([outcome.quality for outcome in each] for each in (self.old, self.new))
        return sum(then) / len(then), sum(now) / len(now)

    def versions(self) -> tuple[str, str]:
        """What the provider said of its model then and now; empty where it said nothing."""
        then, now = (
            next((o.answer.get("version", "") for o in each if o.answer.get("version")), "")
            for each in (self.old, self.new)
        )
        return then, now

    def line(self) -> str:
        """What to say of it."""
        then, now = self.qualities()
        old, new = self.versions()
        age = (
            ""
            if self.since is None
            else f" (the oldest {max(0.0, time.time() - self.since) / 86_400:.1f} days old)"
        )
        text = (
            f"{self.expert}: {len(self.old)} cached answers asked again{age}: {self.different} differ, "
            f"quality {then:.3f} then, {now:.3f} now"
        )
        if old and new and old != new:
            text += f", and the provider's model is {new!r}, was {old!r}"
        if not self.changed:
            return text
        return (
            f"warning: {text}. The cache hides what has become of it: der pool refresh {self.expert}, or "
            f"without an agent der cache clear --expert {self.expert}"
        )

    @property
    def changed(self) -> bool:
        """Is it another model by now, as far as this sample tells?

        A model that draws its answers becomes right here and wrong there; one that has changed goes mostly
        one way (sign test).
        """
        old, new = self.versions()
        if old and new and old != new:
            return True
        gaps = [b.quality - a.quality for a, b in zip(self.old, self.new, strict=True)]
        up, down = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
        n = up + down
        one_side = sum(math.comb(n, k) for k in range(max(up, down), n + 1)) / 2**n
        return n > 0 and 2 * one_side < _CHANCE


# That as many answers become better, or worse, at a model that has not changed.
_CHANCE = 0.1
# As many are asked again where one of the first is different.
_MORE_TIMES = 4
_ROUNDING = 1e-6  # that far outside of [0, 1] a quality is a rounding error


class AnswerSource:
    """Answers of a pool's experts to a set of questions, with their quality.

    Args:
        experts: The pool's experts, in order.
        examples: The questions with their references.
        metric: Scores answers, a batch at a time.
        ktp: The graph's template; experts with their own use that.
        cache: Durable store of answers, or None.
        on_asked: Called with the number of answers generated since the last call, for progress.

    Attributes:
        questions: The questions as agents read them: with their history, where examples have one.
        histories: What experts read before each question.
        on_asked: As given; another phase of a run may have a bar of its own.
    """

    def __init__(
        self,
        experts: Sequence[Expert],
        examples: Sequence[Example],
        metric: QualityMetric,
        *,
        ktp: str | KTPTemplate | None = None,
        cache: AnswerCache | None = None,
        on_asked: Callable[[int], object] | None = None,
    ) -> None:
        self.experts = list(experts)
        self.examples = list(examples)
        self.histories = [history_for_experts(messages_of(e.history)) for e in self.examples]
        self.questions = [
            conversation_text(history, example.question)
            for history, example in zip(self.histories, self.examples, strict=True)
        ]
        self.metric = metric
        keep = getattr(metric, "keep_marks_in", None)
        if keep is not None and cache is not None:
            keep(cache)
        self.generated = 0
        self._ktp = ktp_template(ktp)
        self._cache = cache
        self.on_asked = on_asked
        self._memory: dict[Key, Outcome] = {}
        # A question that comes twice is asked once: answers to these by their prompt.
        counted = Counter(self.questions)
        self._twins = {i for i, text in enumerate(self.questions) if counted[text] > 1}
        self._by_prompt: dict[str, Answer] = {}
        self._from_cache: dict[tuple[int, int], str] = {}  # first answers that were not asked now
        self._counting = threading.Lock()
        self._note_knowledge()

    def _note_knowledge(self) -> None:
        self._knowledge = [(expert.ktp or self._ktp).shows for expert in self.experts]

    def asking_alone(self, names: Collection[str]) -> AnswerSource:
        """The same source with some experts that are never shown an earlier answer.

        Both know what either was told.

        Args:
            names: Those experts; whoever has a template of its own keeps it.
        """
        experts = asked_alone(self.experts, names, self._ktp)
        if all(new is old for new, old in zip(experts, self.experts, strict=True)):
            return self
        other = copy.copy(self)
        other.experts = experts
        other._note_knowledge()
        return other

    def ask(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer and score requests; equal ones are generated once.

        Args:
            requests: Any number, for any experts.

        Returns:
            One outcome per request, in order.
        """
        keys = [self._key(request) for request in requests]
        known: dict[Key, Outcome] = {}
        missing: dict[Key, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            found = self._memory.get(key)
            if found is not None:
                known[key] = found
            else:
                missing.setdefault(key, request)
        if missing:
            known.update(self._find(missing))
        return [known[key] for key in keys]

    def first_answers(self) -> list[list[Outcome]]:
        """Every expert's own first answer to every question: [example][expert]."""
        n = len(self.experts)
        requests = [Request(e, i, []) for e in range(len(self.examples)) for i in range(n)]
        outcomes = self.ask(requests)
        return [outcomes[start : start + n] for start in range(0, len(outcomes), n)]

    def known(self, requests: Sequence[Request]) -> list[Outcome] | None:
        """What is known of some requests without asking anyone; None where one of them is not."""
        found = [self._memory.get(self._key(request)) for request in requests]
        outcomes = [outcome for outcome in found if outcome is not None]
        return outcomes if len(outcomes) == len(found) else None

    def after_others(self, expert: int) -> list[Answer]:
        """What an expert, by position, said after others' answers so far."""
        return [
            outcome.answer
            for (_, who, shown), outcome in self._memory.items()
            if who == expert and shown is not None
        ]

    def asked_after_others(self) -> set[Key]:
        """What was asked beyond first answers so far, as `keys` names it."""
        return {key for key in self._memory if key[2] is not None}

    def keys(self, requests: Sequence[Request]) -> list[Key]:
        """What each request comes to: two that are the same are answered once."""
        return [self._key(request) for request in requests]

    def at_once(self, expert: int) -> int:
        """Prompts that an expert, by position, takes at the same time; 0 where one batch after another."""
        return at_once(self.experts[expert].model)

    def reads_answers(self, expert: int) -> bool:
        """Does an expert, by position, see earlier answers, so that its own may depend on them?"""
        return self._knowledge[expert] is not None

    def ask_again(self, count: int, seed: int = 0) -> list[Repeated]:
        """Ask remote experts some questions again whose answers came from the cache.

        A model behind a name may change, and its old answers would hide it. What is answered now is not kept:
        old and new answers in one cache would be of nobody.

        Args:
            count: How many questions an expert; where one of the answers is different, four times as many, so
                that a change can be told from chance.
            seed: Of the draw.

        Returns:
            One entry an expert that was asked.
        """
        draw = random.Random(seed)
        remote = [i for i, expert in enumerate(self.experts) if is_remote(expert.model)]
        found = [self._again(position, count, draw) for position in remote]
        return [repeated for repeated in found if repeated is not None]

    def _again(self, position: int, count: int, draw: random.Random) -> Repeated | None:
        cached = sorted(e for e, i in self._from_cache if i == position)
        order = draw.sample(cached, len(cached))
        first = self._repeat(position, order[:count])
        if first is None or not first.different:
            return first
        return self._repeat(position, order[count : _MORE_TIMES * count], first)

    def _repeat(
        self, position: int, chosen: Sequence[int], before: Repeated | None = None
    ) -> Repeated | None:
        """Ask an expert some questions again; with those before, or None where it answered none of all."""
        expert, asked = self.experts[position], sorted(chosen)
        prompts = [self._prompt(Request(e, position, [])) for e in asked]
        replies = expert.ask(prompts) if prompts else []
        # A failed call says nothing of the model behind the name.
        answers: dict[Key, Answer] = {
            (e, position, None): a for e, a in zip(asked, replies, strict=True) if not a["error"]
        }
        if not answers:
            return before
        sample = [key[0] for key in answers]
        old = self.ask([Request(e, position, []) for e in sample])
        scores = self._score(answers)
        new = [Outcome(answer, scores[key]) for key, answer in answers.items()]
        keys = [self._from_cache[e, position] for e in sample]
        made = self._cache.made(keys) if self._cache else {}
        dates = [date for date in made.values() if date is not None]
        if before is not None:
            old, new = [*before.old, *old], [*before.new, *new]
            dates += [] if before.since is None else [before.since]
        return Repeated(expert.name, old, new, min(dates, default=None))

    def _prompt(self, request: Request) -> list[BaseMessage]:
        history, example = self.histories[request.example], self.examples[request.example]
        expert = self.experts[request.expert]
        return expert.prompt(history, example.question, request.answers, self._ktp)

    def asked_now(self, requests: Sequence[Request]) -> dict[str, Answer]:
        """The answers to some requests as a cache keeps them; without those that none keeps."""
        found: dict[str, Answer] = {}
        for request, outcome in zip(requests, self.ask(requests), strict=True):
            expert = self.experts[request.expert]
            if expert.fingerprint:
                found[expert.cache_key(self._prompt(request))] = outcome.answer
        return found

    def _key(self, request: Request) -> Key:
        used = self._knowledge[request.expert]
        good = good_answers(request.answers) if used else []
        if not good:
            return (request.example, request.expert, None)
        knowledge = good[-1]["text"] if used == "last" else tuple(a["text"] for a in good)
        return (request.example, request.expert, knowledge)

    def kept(self, wanted: dict[Key, Request]) -> dict[Key, Answer]:
        """What is known of some requests to one expert, now or in the cache, by what each comes to."""
        found = {key: self._memory[key].answer for key in wanted if key in self._memory}
        rest = {key: request for key, request in wanted.items() if key not in found}
        if rest:
            expert, prompts = self._prompts(rest)
            digests = {key: expert.cache_key(prompt) for key, prompt in prompts.items()}
            found |= self._kept(expert, digests)
        return found

    def asked_as(self, key: Key, request: Request) -> object:
        """Something that is the same for requests that ask the same, also of questions that come twice."""
        if key[0] not in self._twins:
            return key
        expert, prompts = self._prompts({key: request})
        return request.expert, expert.cache_key(prompts[key])

    def answers_to(
        self,
        wanted: dict[Key, Request],
        stopped: threading.Event,
        kept: dict[Key, Answer] | None = None,
    ) -> dict[Key, Answer]:
        """Ask one expert; its answers are not scored, and known only once they are `learn`t.

        Args:
            wanted: Requests by what each comes to.
            stopped: Once it is set nothing more is asked, and `CancelledError` is raised.
            kept: Answers that are there already; looked for where left out.
        """
        expert, prompts = self._prompts(wanted)
        digests = {key: expert.cache_key(prompt) for key, prompt in prompts.items()}
        answers = dict(self._kept(expert, digests) if kept is None else kept)
        cache = self._cache_of(expert)
        same: dict[str, list[Key]] = {}  # by prompt
        for key, digest in digests.items():
            if key not in answers:
                same.setdefault(digest, []).append(key)
        new = [keys[0] for keys in same.values()]
        # Similar lengths share a batch, so less is padded.
        new.sort(key=lambda key: len(prompts[key][-1].text))

        def ask(some: list[Key]) -> Iterator[tuple[list[Key], list[Answer]]]:
            chunks = [some[i : i + MAX_BATCH] for i in range(0, len(some), MAX_BATCH)]
            return _replies_to(expert, chunks, prompts, stopped)

        for chunk, replies in patiently(ask, new, stopped):
            said = {digests[key]: reply for key, reply in zip(chunk, replies, strict=True)}
            for key in chunk:
                if key[0] in self._twins:
                    self._by_prompt[digests[key]] = said[digests[key]]
            answers.update({key: reply for d, reply in said.items() for key in same[d]})
            if cache:
                # After every batch, so that a crash loses one batch at most.
                cache.put_many({d: a for d, a in said.items() if a["error"] is None})
            with self._counting:
                self.generated += len(chunk)
                if self.on_asked:
                    self.on_asked(len(chunk))
        return answers

    def learn(self, answers: dict[Key, Answer]) -> dict[Key, Outcome]:
        """Score answers and remember them; in the order given, on which metrics in batches may depend.

        What is known already keeps its quality: a judge is paid once.
        """
        new = {key: answer for key, answer in answers.items() if key not in self._memory}
        scores = self._score({k: a for k, a in new.items() if a["error"] is None})
        self._memory.update({k: Outcome(answer, scores.get(k, 0.0)) for k, answer in new.items()})
        return {key: self._memory[key] for key in answers}

    def _find(self, missing: dict[Key, Request]) -> dict[Key, Outcome]:
        shares: dict[int, dict[Key, Request]] = {}
        for key, request in missing.items():
            shares.setdefault(request.expert, {})[key] = request
        remote = [i for i in shares if at_once(self.experts[i].model)]
        answers: dict[Key, Answer] = {}
        stopped = threading.Event()
        threads = ThreadPoolExecutor(max(1, len(remote)), "der-remote")
        try:
            away = [threads.submit(self.answers_to, shares[i], stopped) for i in remote]
            for position in sorted(shares.keys() - set(remote)):
                answers.update(self.answers_to(shares[position], stopped))
            for future in away:
                answers.update(future.result())
        finally:
            # Ctrl-C must not wait for all that was still to be asked.
            stopped.set()
            threads.shutdown(cancel_futures=True)
        return self.learn({key: answers[key] for key in missing})  # whoever answered first

    def _score(self, answers: dict[Key, Answer]) -> dict[Key, float]:
        if not answers:
            return {}
        examples = [self.examples[key[0]] for key in answers]
        scores = list(map(float, self.metric.score(list(answers.values()), examples)))
        if len(scores) != len(answers):
            raise MetricError(
                f"metric '{self.metric.name}' gave {len(scores)} qualities for {len(answers)} answers"
            )
        for score, example, answer in zip(scores, examples, answers.values(), strict=True):
            if not -_ROUNDING <= score <= 1.0 + _ROUNDING:  # NaN fails every comparison
                raise MetricError(
                    f"question {example.id!r}, expert '{answer['expert']}': the metric "
                    f"'{self.metric.name}' gave {score}; a quality is a number from 0 to 1"
                )
        return {key: min(1.0, max(0.0, s)) for key, s in zip(answers, scores, strict=True)}

    def _prompts(self, wanted: dict[Key, Request]) -> tuple[Expert, dict[Key, list[BaseMessage]]]:
        """One expert, and what it is asked."""
        expert = self.experts[next(iter(wanted.values())).expert]
        return expert, {key: self._prompt(request) for key, request in wanted.items()}

    def _cache_of(self, expert: Expert) -> AnswerCache | None:
        return self._cache if expert.fingerprint else None  # nobody knows when an answer ages

    def _kept(self, expert: Expert, digests: dict[Key, str]) -> dict[Key, Answer]:
        """What an expert said to the same prompt, of another question or in an earlier run."""
        answers = {key: self._by_prompt[d] for key, d in digests.items() if d in self._by_prompt}
        cache = self._cache_of(expert)
        if cache is not None:
            cached = cache.get_many([d for key, d in digests.items() if key not in answers])
            found = {key: _priced(expert, cached[d]) for key, d in digests.items() if d in cached}
            self._from_cache.update({key[:2]: digests[key] for key in found if key[2] is None})
            answers |= found
        return answers


def _replies_to(
    expert: Expert,
    chunks: Sequence[list[Key]],
    prompts: dict[Key, list[BaseMessage]],
    stopped: threading.Event,
) -> Iterator[tuple[list[Key], list[Answer]]]:
    """Each chunk with the answers to it.

    A remote expert, or a local one in continuous batches, gets some chunks at a time, within its own bound:
    while the slow calls of one are waited for, those of the next go on.
    """

    def ask(chunk: list[Key]) -> list[Answer]:
        if stopped.is_set():
            raise CancelledError
        return expert.ask([prompts[key] for key in chunk])

    if not at_once(expert.model) or len(chunks) < 2:
        yield from ((chunk, ask(chunk)) for chunk in chunks)
        return
    side_by_side = -(-at_once(expert.model) // MAX_BATCH) + 1
    threads = ThreadPoolExecutor(side_by_side, "der-chunk")
    try:
        asked = {threads.submit(ask, chunk): chunk for chunk in chunks}
        for done in as_completed(asked):
            yield asked[done], done.result()
    finally:
        threads.shutdown(cancel_futures=True)


def check_recorded(experts: Sequence[Expert], examples: Sequence[Example]) -> None:
    """Check that experts which replay recorded answers have one to every question.

    Without this a missing answer would pass for a failed call, and its quality for 0.

    Raises:
        DataError: If one is missing; names the question, the expert and its file.
    """
    for expert in experts:
        if not isinstance(expert.model, RecordedChat):
            continue
        missing = [e for e in examples if not expert.model.has_answer(e.question)]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(
                f"question {missing[0].id!r}{others}: no recorded answer of '{expert.name}' (model "
                f"'{expert.model.model}') in {expert.model.where}. Every question needs a candidate of "
                "each expert that replays answers; leave out these questions or the expert"
            )


def _priced(expert: Expert, cached: Answer) -> Answer:
    """A cached answer at the price of today: the cache's keys know weights and prompts, not prices."""
    answer = cached.copy()
    answer["cost"] = expert.cost_of(answer)
    return answer
