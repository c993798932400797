"""Models that take turns on a GPU: those that are seldom asked wait in the machine's own memory.

    hold ──not there──> send home who was idle longest, until there is room ──> come ──> generate

The copy in the machine's memory is kept, since nothing changes weights: coming is one transfer, going home is
none. Knows nothing of prompts.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TRANSFER = 10e9
"""Bytes a second from the machine's memory to a GPU, until one has come: half of what PCIe 4 can do."""
_SPARE = 1_500_000_000  # bytes that are left for what a static batch needs


@dataclass
class _Guest:
    """A model that takes turns.

    Attributes:
        size: Bytes of its weights.
        home: Its tensors, with their content in the machine's memory.
        users: Calls that hold it.
        there: Is it on the device?
        used: When it was last held, as a running number.
    """

    size: int
    home: list[tuple[Any, Any]]
    users: int = 0
    there: bool = False
    used: int = 0


@dataclass
class Turns:
    """The models that take turns on one device.

    Attributes:
        device: The device.
        free: Gives its free bytes.
        seconds: Of the last transfer; None until one was made.
    """

    device: Any
    free: Callable[[], int]
    seconds: float | None = None
    _guests: weakref.WeakKeyDictionary[Any, _Guest] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _clock: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def hold(self, model: Any) -> Iterator[None]:
        """Have a model on the device; it is not sent home meanwhile."""
        with self._changed:
            guest = self._guests.get(model)
            if guest is None:
                guest = self._guests[model] = _guest(model)
            guest.users += 1
            try:
                self._come(guest)
            except BaseException:
                guest.users -= 1
                raise
        try:
            yield
        finally:
            with self._changed:
                guest.users -= 1
                self._changed.notify_all()

    def _come(self, guest: _Guest) -> None:
        while not guest.there and self.free() < guest.size + _SPARE:
            others = [each for each in self._guests.values() if each.there]
            idle = [each for each in others if not each.users]
            if idle:
                _send_home(min(idle, key=lambda each: each.used))
            elif others:
                self._changed.wait()
            else:
                break  # nobody can make room: the device says whether it is enough
        if not guest.there:
            began = time.perf_counter()
            try:
                for tensor, data in guest.home:
                    tensor.data = data.to(self.device, copy=True)
            except BaseException:
                _send_home(guest)
                raise
            self.seconds = time.perf_counter() - began
            guest.there = True
        guest.used = next(self._clock)


def _guest(model: Any) -> _Guest:
    import torch

    home = []
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if torch.cuda.is_available():
            tensor.data = tensor.data.pin_memory()  # twice as fast to transfer
        home.append((tensor, tensor.data))
    return _Guest(sum(data.numel() * data.element_size() for _, data in home), home)


def _send_home(guest: _Guest) -> None:
    import torch

    for tensor, data in guest.home:
        tensor.data = data
    guest.there = False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_TURNS: dict[str, Turns] = {}
_TURNS_LOCK = threading.Lock()


def turns_of(device: Any) -> Turns:
    """The models that take turns on a CUDA device."""
    import torch

    def free() -> int:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)

    with _TURNS_LOCK:
        return _TURNS.setdefault(str(device), Turns(device, free))
