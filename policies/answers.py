"""Where answers come from in training and evaluation: asked in batches, scored in batches, never twice.

    requests ──memory──cache──one batch per expert──> answers ──one batch──> qualities

A greedy answer is a function of the expert and of the prompt that it gets, so every answer is generated once:
a dictionary serves repeats at memory speed and an optional `AnswerCache` keeps answers between runs and
shares them between processes. Experts are the same objects as in the graph, and so are the prompts, so a
recorded pool and a live one run through the same code. Failed calls are not remembered: they may work later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from der_graph.data import Example
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.policies.cache import AnswerCache
from der_graph.policies.quality import QualityMetric
from der_graph.state import Answer, good_answers


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


class AnswerSource:
    """Answers of a pool's experts to a set of questions, with their quality.

    Args:
        experts: The pool's experts, in order.
        examples: The questions with their references.
        metric: Scores answers, a batch at a time.
        ktp: The graph's template; experts with their own use that.
        cache: Durable store of answers, or None.
        max_batch: Most questions in one batch to an expert.
        on_asked: Called with the number of answers generated since the last call, for progress.
    """

    def __init__(
        self,
        experts: Sequence[Expert],
        examples: Sequence[Example],
        metric: QualityMetric,
        *,
        ktp: str | KTPTemplate | None = None,
        cache: AnswerCache | None = None,
        max_batch: int = 32,
        on_asked: Callable[[int], object] | None = None,
    ) -> None:
        self.experts = list(experts)
        self.examples = list(examples)
        self.metric = metric
        self.generated = 0
        self._ktp = ktp_template(ktp)
        self._cache = cache
        self._max_batch = max_batch
        self._on_asked = on_asked
        self._memory: dict[tuple[int, int, object], Outcome] = {}
        self._knowledge = [_knowledge_used(expert.ktp or self._ktp) for expert in self.experts]

    def ask(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer and score requests; equal ones are generated once.

        Args:
            requests: Any number, for any experts.

        Returns:
            One outcome per request, in order.
        """
        keys = [self._key(request) for request in requests]
        known: dict[tuple[int, int, object], Outcome] = {}
        missing: dict[tuple[int, int, object], Request] = {}
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

    def _key(self, request: Request) -> tuple[int, int, object]:
        used = self._knowledge[request.expert]
        good = good_answers(request.answers) if used else []
        if not good:
            return (request.example, request.expert, None)
        knowledge = good[-1]["text"] if used == "last" else tuple(a["text"] for a in good)
        return (request.example, request.expert, knowledge)

    def _find(
        self, missing: dict[tuple[int, int, object], Request]
    ) -> dict[tuple[int, int, object], Outcome]:
        answers: dict[tuple[int, int, object], Answer] = {}
        for position in range(len(self.experts)):
            mine = {key: request for key, request in missing.items() if request.expert == position}
            if mine:
                answers.update(self._ask_expert(self.experts[position], mine))
        keys = list(answers)
        good = [key for key in keys if answers[key]["error"] is None]
        scores = dict.fromkeys(keys, 0.0)
        if good:
            found = self.metric.score(
                [answers[key] for key in good], [self.examples[key[0]] for key in good]
            )
            scores.update(zip(good, map(float, found), strict=True))
        outcomes = {key: Outcome(answers[key], scores[key]) for key in keys}
        self._memory.update({key: outcomes[key] for key in good})
        return outcomes

    def _ask_expert(
        self, expert: Expert, wanted: dict[tuple[int, int, object], Request]
    ) -> dict[tuple[int, int, object], Answer]:
        prompts = {
            key: expert.prompt([], self.examples[key[0]].question, request.answers, self._ktp)
            for key, request in wanted.items()
        }
        digests = {key: expert.cache_key(prompt) for key, prompt in prompts.items()}
        cached = self._cache.get_many(list(digests.values())) if self._cache else {}
        answers = {
            key: _priced(expert, cached[digest])
            for key, digest in digests.items()
            if digest in cached
        }
        new = [key for key in prompts if key not in answers]
        # Similar lengths share a batch, so less is padded.
        new.sort(key=lambda key: len(prompts[key][-1].text))
        for start in range(0, len(new), self._max_batch):
            chunk = new[start : start + self._max_batch]
            replies = expert.ask([prompts[key] for key in chunk])
            answers.update(zip(chunk, replies, strict=True))
            if self._cache:
                # After every batch, so that a crash loses one batch at most.
                done = zip(chunk, replies, strict=True)
                self._cache.put_many({digests[k]: a for k, a in done if a["error"] is None})
            self.generated += len(chunk)
            if self._on_asked:
                self._on_asked(len(chunk))
        return answers


def _priced(expert: Expert, cached: Answer) -> Answer:
    """A cached answer at the price of today: the cache's keys know weights and prompts, not prices."""
    answer = cached.copy()
    tokens = answer["input_tokens"], answer["output_tokens"]
    answer["cost"] = expert.charge(*tokens) if any(tokens) else expert.cost
    return answer


def _knowledge_used(template: KTPTemplate) -> str | None:
    """What of the earlier answers a template shows: nothing, the last one, or all."""
    if "{answers}" in template.transfer:
        return "all"
    return "last" if "{answer}" in template.transfer else None
