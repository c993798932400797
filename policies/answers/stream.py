"""Answers as they come, for routes whose next request needs the answer before.

    ask(request, then) ──each expert within its own bound──> then(answer), whichever is there first

A round of requests that are waited for together is as slow as its slowest call, and the places of all other
experts stand empty meanwhile. Here every answer can be followed up at once. Answers are scored once, at the
end and in an order that does not depend on who was quick: metrics in batches may depend on it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count

from der_graph.nodes.reliability.bulkhead import SIZE
from der_graph.policies.answers.source import MAX_BATCH, AnswerSource, Key, Request, rank
from der_graph.state import Answer

Then = Callable[[Answer], None]
"""What to do with an answer; it may ask for more."""


class AnswerStream:
    """Asks for answers without waiting for those asked for before.

    Experts that take several requests at the same time are asked in threads; the others one batch after
    another, whenever no answer of those is there.

    Args:
        source: Where answers come from; it knows those of the stream once that has run.

    Examples:
        ```python
        stream = AnswerStream(source)
        stream.ask(first, then=lambda answer: stream.ask(second_after(answer), then=print))
        stream.run()
        ```
    """

    def __init__(self, source: AnswerSource) -> None:
        self._source = source
        self._answers: dict[Key, Answer] = {}
        self._then: dict[Key, list[Then]] = {}
        self._first: dict[object, Key] = {}  # by what is asked: of questions that come twice
        self._same: dict[Key, list[Key]] = {}
        self._ready: deque[tuple[Then, Answer]] = deque()
        self._new: dict[int, dict[Key, Request]] = {}  # by expert
        # Heaps by length, for experts that take a batch at a time: what is alike long is padded less.
        self._waiting: dict[int, list[tuple[int, int, Key, Request]]] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._called: queue.SimpleQueue[Future[dict[Key, Answer]]] = queue.SimpleQueue()
        self._calls = 0  # not read yet
        self._turn = count()
        self._stopped = threading.Event()

    def ask(self, request: Request, then: Then) -> Key:
        """Ask; what comes to the same is asked once.

        Args:
            request: Whom and what.
            then: Called with the answer while the stream runs.

        Returns:
            What the request comes to.
        """
        (key,) = self._source.keys([request])
        if key in self._answers:
            self._ready.append((then, self._answers[key]))
        elif key in self._then:
            self._then[key].append(then)
        else:
            self._then[key] = [then]
            first = self._first.setdefault(self._source.asked_as(key, request), key)
            if first == key:
                self._new.setdefault(request.expert, {})[key] = request
            elif first in self._answers:
                self._take({key: self._answers[first]})
            else:
                self._same.setdefault(first, []).append(key)
        return key

    def run(self) -> None:
        """Go on until all is answered."""
        try:
            while self._go_on():
                pass
        finally:
            self._stopped.set()  # Ctrl-C must not wait for all that was still to be asked
            for threads in self._threads.values():
                threads.shutdown(cancel_futures=True)
        self._source.learn({key: self._answers[key] for key in sorted(self._answers, key=rank)})

    def _go_on(self) -> bool:
        """Do what is to be done next; False where there is nothing."""
        if self._ready:
            then, answer = self._ready.popleft()
            then(answer)
        elif self._new:
            self._send()
        elif self._calls and (not self._waiting or not self._called.empty()):
            self._calls -= 1
            self._take(self._called.get().result())
        elif self._waiting:
            self._ask_a_batch()
        else:
            return False
        return True

    def _send(self) -> None:
        new, self._new = self._new, {}
        for expert, wanted in new.items():
            known = self._source.kept(wanted)
            self._take(known)
            missing = {key: request for key, request in wanted.items() if key not in known}
            bound = self._source.at_once(expert)
            if bound:
                self._call(expert, bound, list(missing.items()))
                continue
            for key, request in missing.items():
                length = len(key[2]) if isinstance(key[2], str) else len(request.answers)
                heap = self._waiting.setdefault(expert, [])
                heappush(heap, (length, next(self._turn), key, request))

    def _call(self, expert: int, bound: int, wanted: list[tuple[Key, Request]]) -> None:
        """In threads, as many as an expert has: beyond those, some requests go together."""
        if expert not in self._threads:
            self._threads[expert] = ThreadPoolExecutor(min(bound, SIZE), "der-stream")
        size = -(-bound // SIZE)
        for start in range(0, len(wanted), size):
            self._calls += 1
            part = dict(wanted[start : start + size])
            call = self._threads[expert].submit(self._ask, part)
            call.add_done_callback(self._called.put)

    def _ask(self, wanted: dict[Key, Request]) -> dict[Key, Answer]:
        return self._source.answers_to(wanted, self._stopped, kept={})

    def _ask_a_batch(self) -> None:
        """Of the expert for which most is waiting."""
        expert = max(self._waiting, key=lambda i: (len(self._waiting[i]), -i))
        heap = self._waiting[expert]
        batch = [heappop(heap) for _ in range(min(MAX_BATCH, len(heap)))]
        if not heap:
            del self._waiting[expert]
        self._take(self._ask({key: request for _, _, key, request in batch}))

    def _take(self, answers: dict[Key, Answer]) -> None:
        self._answers.update(answers)
        for key, answer in answers.items():
            self._ready.extend((then, answer) for then in self._then.pop(key))
            self._take(dict.fromkeys(self._same.pop(key, ()), answer))
