"""Continuous batches: a request joins the others at the next token, and leaves when it is done.

    submit(row) ──> ContinuousBatchingManager of transformers (a thread that generates)
                                    │ every token
    Future <── Row.take <── the thread of the engine

A static batch makes those who come meanwhile wait for its end. Here nobody waits, so this is what a GPU runs;
on a CPU static batches are faster (`benchmarks/batching.py`). What transformers' manager has no word for (a
seed, a penalty, a filter of a request's own) is done to the scores of that request alone (`RowProcessors`),
which CUDA graphs cannot hold: where the manager uses graphs, such requests are left to static batches.
Knows nothing of prompts or LangChain.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from random import SystemRandom
from typing import Any, Literal, Protocol

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.huggingface.loading import LoadedModel, ran_out_of_memory
from der_graph.nodes.huggingface.memory import (
    kv_bytes_per_token,
    step_bytes_per_token,
    step_tokens,
)
from der_graph.nodes.huggingface.rows import Row
from der_graph.nodes.huggingface.sampling import draw, penalties, warpers
from der_graph.nodes.huggingface.settings import GenerationSettings
from der_graph.nodes.reliability.copying import renew_in_children

Batching = Literal["auto", "continuous", "static"]

CONTINUOUS_REQUESTS = 256
"""Most requests in one step, where the pool file does not say more."""
IDLE_S = 120.0
"""Seconds without a request after which the cache of keys and values is given back."""

_LOOK = 0.005  # seconds between two looks at who has given up: under the time of a token
_PAGE = 32  # tokens of a page of the cache: prompts that begin alike share whole pages
_FLASH_PAGE = 256  # what flash attention can read
_CPU_CACHE = 1 << 30  # bytes of keys and values, where no GPU says how many there are
_LEAST_PAGES = 2
_HEADROOM = 0.8  # of the free memory; the rest is for activations and scores


@functools.cache
def _manager_is_known() -> bool:
    """Has transformers the manager that is used here? That of 5.17 and before is another one."""
    try:
        from transformers import ContinuousBatchingConfig
        from transformers.generation.continuous_batching import ContinuousBatchingManager
    except ImportError:
        return False
    known = {each.name for each in dataclasses.fields(ContinuousBatchingConfig)}
    return known >= {"page_size", "auto_switch_to_flash"} and hasattr(
        ContinuousBatchingManager, "pause"
    )


def can_be_continuous(loaded: LoadedModel) -> bool:
    """Can transformers' manager run this model? Not recurrent ones, nor such without a fast attention."""
    model = loaded.model
    attention = str(getattr(model.config, "_attn_implementation", None))
    return (
        _manager_is_known()
        and hasattr(model, "init_continuous_batching")
        and not getattr(model, "_is_stateful", False)
        and not getattr(model.config, "is_encoder_decoder", False)
        and (attention == "sdpa" or "flash" in attention)
    )


def is_continuous(loaded: LoadedModel, batching: Batching) -> bool:
    """Shall this model answer in continuous batches?

    Raises:
        PoolError: If that was asked for and cannot be.
    """
    if batching == "continuous" and not can_be_continuous(loaded):
        raise PoolError(
            "batching: continuous is not possible with this model (recurrent, or without SDPA or flash "
            "attention) or with this transformers (5.20 has what is needed); use auto or static"
        )
    if batching == "auto":
        return bool(loaded.model.device.type == "cuda") and can_be_continuous(loaded)
    return batching == "continuous"


class Engine(Protocol):
    """Answers the requests of one model, each as soon as it comes."""

    def takes(self, row: Row, settings: GenerationSettings, room: int) -> bool:
        """Can a request be answered here, or must it be left to static batches?"""

    def submit(self, row: Row, settings: GenerationSettings, room: int) -> Future[None]:
        """Answer a request; never blocks. The future is done once the row is closed."""

    def paused(self) -> AbstractContextManager[None]:
        """Stop between two tokens while somebody else uses the model."""


@dataclass(eq=False)
class _Open:
    """A request that is being answered.

    Attributes:
        row: What becomes of it.
        settings: How its tokens are chosen.
        room: Most tokens of its answer.
        future: Done once the row is closed.
        started: `time.monotonic()` of its first submission.
        ids: Tokens read so far, over all submissions.
        before: How many of them are part of the prompt of the running submission.
        drawn: Log-probabilities of tokens that `RowProcessors` drew.
        generator: Random numbers of its own.
    """

    row: Row
    settings: GenerationSettings
    room: int
    future: Future[None] = field(default_factory=Future)
    started: float = field(default_factory=time.monotonic)
    ids: list[int] = field(default_factory=list)
    before: int = 0
    drawn: list[float] = field(default_factory=list)
    generator: Any = None

    @property
    def plain(self) -> bool:
        """Is the likeliest token taken, and no score changed?"""
        return not self.settings.sampling and not penalties(self.settings)


class RowProcessors:
    """Stands where the manager expects its list of logits processors; changes the scores of some requests.

    Args:
        opened: The requests by id; the engine adds and removes them.
    """

    tensors_required = 0
    do_processing = True

    def __init__(self, opened: dict[str, _Open]) -> None:
        self._opened = opened
        self._states: Sequence[Any] = ()

    def fill_defaults(self, tensor: Any) -> None:
        """No argument of a request goes to the device."""

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Requests are known by their id, and bring no arguments."""

    def prepare_tensor_args(self, requests_in_batch: Sequence[Any], arg_storage: Any) -> Any:
        """Remember whose scores come next; the manager calls this before every step."""
        self._states = [each.state for each in requests_in_batch if each.has_new_token]
        return arg_storage

    def __call__(self, input_ids: Any, scores: Any, arguments: Any) -> Any:
        """Change the scores, (requests, vocabulary), so that the likeliest token is the wanted one."""
        special = [
            (index, state, opened)
            for index, state in enumerate(self._states)
            if (opened := self._opened.get(state.request_id)) is not None and not opened.plain
        ]
        if not special:
            return scores
        scores = scores.clone()
        alike: dict[GenerationSettings, list[tuple[int, _Open]]] = defaultdict(list)
        for index, state, opened in special:
            for penalty in penalties(opened.settings):
                ids = scores.new_tensor([state.initial_tokens + state.generated_tokens]).long()
                scores[index : index + 1] = penalty(ids, scores[index : index + 1])
            if opened.settings.sampling:
                alike[replace(opened.settings, seed=None, max_time=None)].append((index, opened))
        for settings, members in alike.items():
            rows = [index for index, _ in members]
            part = scores[rows]
            tokens = draw(part, warpers(settings), [opened.generator for _, opened in members])
            sure = part.gather(1, tokens)[:, 0] - part.logsumexp(-1)
            for (_, opened), logprob in zip(members, sure.tolist(), strict=True):
                opened.drawn.append(logprob)
            scores[rows] = part.new_full(part.shape, float("-inf")).scatter_(1, tokens, 0.0)
        return scores


class ContinuousEngine:
    """Answers the requests of one model in continuous batches.

    Args:
        loaded: The model.
        cache_bytes: Bytes of keys and values; None for what the device has to spare.
        max_requests: Most requests in one step; the others wait.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        cache_bytes: int | None = None,
        max_requests: int = CONTINUOUS_REQUESTS,
    ) -> None:
        self._loaded = loaded
        self._cache_bytes = cache_bytes
        self._idle = IDLE_S
        self.max_requests = max_requests
        """Halved whenever the device runs out of memory."""
        self._number = 0
        self._begin_without_threads()
        renew_in_children(self._begin_without_threads)

    def _begin_without_threads(self) -> None:
        self._opened: dict[str, _Open] = {}
        self._waiting: list[_Open] = []
        self._changed = threading.Condition()
        self._serving = False
        self._manager: Any = None

    @property
    def running(self) -> bool:
        """Is the cache in memory?"""
        return self._manager is not None

    @property
    def _flash(self) -> bool:
        return "flash" in str(self._loaded.model.config._attn_implementation)

    def takes(self, row: Row, settings: GenerationSettings, room: int) -> bool:
        """Can a request be answered here, or must it be left to static batches?"""
        plain = not settings.sampling and not penalties(settings)
        return len(row.prompt.ids) + room <= self._tokens() and (plain or not self._graphs())

    def _graphs(self) -> bool:
        return self._flash and self._loaded.model.device.type == "cuda"

    def submit(self, row: Row, settings: GenerationSettings, room: int) -> Future[None]:
        """Answer a request; never blocks.

        Args:
            row: It is filled in place, by the engine's thread.
            settings: How to answer it.
            room: Most tokens of its answer.

        Returns:
            Done once the row is closed; its error is an `ExpertError` where the device has too little memory.
        """
        import torch

        opened = _Open(row, settings, room)
        opened.future.set_running_or_notify_cancel()  # a caller that gives up sets the row's `cancel`
        if settings.sampling:
            seed = SystemRandom().getrandbits(31) if settings.seed is None else settings.seed
            generator: Any = torch.Generator(self._loaded.model.device)
            opened.generator = generator.manual_seed(seed)
        with self._changed:
            self._waiting.append(opened)
            self._changed.notify_all()
            if not self._serving:
                self._serving = True
                threading.Thread(target=self._serve, name="der-graph-engine", daemon=True).start()
        return opened.future

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop between two tokens while somebody else uses the model."""
        manager = self._manager
        with ExitStack() as stack:
            if manager is not None:
                with suppress(RuntimeError):  # it has ended, or ends before it comes to a pause
                    stack.enter_context(manager.pause())
            yield

    # The engine's thread ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while self._admit():
                self._hear()
        except Exception as cause:
            error = ExpertError(
                f"continuous batches do not work with this model ({type(cause).__name__}: {cause}); "
                "use batching: static"
            )
            self._stop()
            with self._changed:
                left = [*self._opened.values(), *self._waiting]
                self._opened.clear()
                self._waiting.clear()
                self._serving = False
            for opened in left:
                opened.future.set_exception(error)

    def _admit(self) -> bool:
        """Hand over who waits. Waits for somebody where all is done; gives whether there is work."""
        with self._changed:
            idle = not self._opened and not self._changed.wait_for(
                lambda: self._waiting, self._idle
            )
        if idle:
            self._stop()
        with self._changed:
            if idle and not self._waiting:
                self._serving = False  # the next request starts a thread of its own
                return False
            new = {f"der-{self._number + i}": opened for i, opened in enumerate(self._waiting)}
            self._number += len(new)
            self._waiting.clear()
            self._opened.update(
                new
            )  # all of them: whoever is known here is told of what goes wrong
        for key, opened in new.items():
            self._add(key, opened)
        return True

    def _add(self, key: str, opened: _Open) -> None:
        if opened.row.given_up:
            self._close(key, "length", cancel=False)
            return
        if len(opened.row.prompt.ids) + opened.room > self._tokens():
            del self._opened[key]  # taken when the cache was larger
            opened.future.set_exception(self._out_of_memory("no room for the whole conversation"))
            return
        if self._manager is None:
            self._start()
        opened.before = len(opened.ids)
        self._manager.add_request(
            [*opened.row.prompt.ids, *opened.ids],
            request_id=key,
            max_new_tokens=opened.room - len(opened.ids),
            streaming=True,
            eos_token_id=self._loaded.end_tokens or -1,
        )

    def _hear(self) -> None:
        """Read what the model said for a moment, and look at who has given up."""
        until = time.monotonic() + _LOOK
        while self._opened and (left := until - time.monotonic()) > 0:
            output = self._manager.get_result(timeout=left)
            if output is None:
                break
            opened = self._opened.get(output.request_id)
            if opened is not None and output.error is None:
                self._read(output.request_id, opened, output)
        if self._manager is None:
            return  # nobody who came wanted an answer any more
        if not self._manager.is_running():
            self._recover()
            return
        now = time.monotonic()
        for key, opened in list(self._opened.items()):
            row = opened.row
            late = row.max_time is not None and now - opened.started >= row.max_time
            if row.given_up or late:
                self._close(key, "length")

    def _read(self, key: str, opened: _Open, output: Any) -> None:
        row, ends = opened.row, frozenset(self._loaded.end_tokens)
        try:
            for index in range(len(opened.ids) - opened.before, len(output.generated_tokens)):
                token = output.generated_tokens[index]
                place = len(opened.ids)
                sure = opened.drawn[place] if opened.drawn else output.logprobs[index]
                opened.ids.append(token)
                row.take(token, sure, ends)
                if row.finish is None and row.given_up:
                    row.finish = "length"
                if row.finish is not None:
                    break
        except Exception as error:  # of whoever is shown the answer: it does no harm to the others
            del self._opened[key]
            self._manager.cancel_request(key)
            opened.future.set_exception(error)
            return
        if row.finish is not None or output.is_finished():
            self._close(key, "length", cancel=not output.is_finished())

    def _close(self, key: str, finish: str, *, cancel: bool = True) -> None:
        opened = self._opened.pop(key)
        if cancel:
            self._manager.cancel_request(key)
        self._end(opened, finish)

    @staticmethod
    def _end(opened: _Open, finish: str) -> None:
        try:
            opened.row.finish = opened.row.finish or finish
            opened.row.close()
        except Exception as error:
            opened.future.set_exception(error)
        else:
            opened.future.set_result(None)

    # The manager ------------------------------------------------------------------------------------------

    def _tokens(self) -> int:
        """Tokens that the cache holds, prompts and answers of all requests together."""
        return self._blocks() * self._page

    @property
    def _page(self) -> int:
        return _FLASH_PAGE if self._flash else _PAGE

    @functools.cached_property
    def _token_bytes(self) -> int:
        model = self._loaded.model
        return kv_bytes_per_token(model.config, model.dtype.itemsize)

    def _blocks(self) -> int:
        model, page, each = self._loaded.model, self._page, self._token_bytes
        context = self._loaded.context_length or 32_768
        wanted = self.max_requests * -(-context // page)
        if self._cache_bytes is None:
            step = step_bytes_per_token(model.config, model.dtype.itemsize, flash=self._flash)
            self._cache_bytes = self._spare_bytes() * each // (each + step)
        return max(_LEAST_PAGES, min(wanted, self._cache_bytes // (each * page)))

    def _prefill(self) -> int:
        """Tokens of one step: longer prompts are read in parts; fewer once memory was short."""
        tokens = step_tokens(flash=self._flash)
        return max(32, tokens * self.max_requests // CONTINUOUS_REQUESTS)

    def _spare_bytes(self) -> int:
        import torch

        device = self._loaded.model.device
        if device.type != "cuda":
            return _CPU_CACHE
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _HEADROOM)

    def _start(self) -> None:
        import transformers

        makers: Any = transformers
        _quiet()
        model = self._loaded.model
        config = makers.GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=1,
            pad_token_id=self._loaded.tokenizer.pad_token_id or 0,
            eos_token_id=self._loaded.end_tokens or -1,
        )
        manager = model.init_continuous_batching(
            generation_config=config,
            continuous_batching_config=makers.ContinuousBatchingConfig(
                page_size=self._page,
                num_blocks=self._blocks(),
                max_batch_tokens=max(self.max_requests, self._prefill()),
                max_requests_per_batch=self.max_requests,
                max_memory_percent=0.95,
                return_logprobs=True,
                auto_switch_to_flash=False,  # chosen when the model was loaded
                use_cuda_graph=None if self._graphs() else False,
            ),
        )
        if not self._graphs():
            manager.logit_processor = RowProcessors(self._opened)
        manager.start()
        self._manager = manager

    def _stop(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.stop(block=True, timeout=30, hard_stop=True)

    def _recover(self) -> None:
        """Go on after the manager's end: with half as many at a time, where memory was the cause."""
        cause = self._manager.background_thread_status.fatal_error
        message = str(cause)
        planned = isinstance(cause, MemoryError)  # by transformers, which has begun nothing
        memory = planned or ran_out_of_memory(cause)
        del cause  # its frames hold the tensors of the failed step
        while (output := self._manager.get_result(timeout=0)) is not None:
            opened = self._opened.get(output.request_id)
            if opened is not None and output.error is None:
                self._read(output.request_id, opened, output)
        self._manager.background_thread_status.fatal_error = None
        self._stop()
        left, keys = list(self._opened.values()), list(self._opened)
        for key in keys:
            del self._opened[key]
        smaller = self._blocks() > _LEAST_PAGES if planned else self.max_requests > 1
        if memory and smaller and self._cache_bytes is not None:
            self._cache_bytes = min(self._cache_bytes, self._tokens() * self._token_bytes) // 2
            if not planned:
                self.max_requests //= 2
            for opened in left:
                opened.before = len(opened.ids)
                del opened.drawn[len(opened.ids) :]
            with self._changed:
                self._waiting[:0] = left  # they go on where they were: nothing is said twice
            return
        error = (
            self._out_of_memory(message)
            if memory
            else ExpertError(f"the model failed in the middle of its answers: {message}")
        )
        for opened in left:
            opened.future.set_exception(error)

    def _out_of_memory(self, message: str) -> ExpertError:
        return ExpertError(
            f"the model ran out of memory on {self._loaded.model.device} ({message}); use a smaller "
            "max_new_tokens, quantization or another device"
        )


_ENGINES = threading.Lock()


def engine_of(loaded: LoadedModel, cache_bytes: int | None, max_requests: int) -> ContinuousEngine:
    """The engine of a model; all experts that share the model share it, and the first one's sizes count."""
    with _ENGINES:
        if loaded.engine is None:
            loaded.engine = ContinuousEngine(
                loaded, cache_bytes=cache_bytes, max_requests=max_requests
            )
        engine: ContinuousEngine = loaded.engine
        return engine


def _quiet() -> None:
    """The manager has a logger of its own, and speaks of tokens that are of no use."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
