"""Models that take turns on a device: who comes, who goes home, and with the same weights as before."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import QUESTIONS, save_tiny, tiny_model

from der_graph.errors import PoolError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.memory import GB, Footprint, plan, table
from der_graph.nodes.huggingface.turns import _SPARE, Turns

CPU = torch.device("cpu")  # as a device: who is there has a copy of its weights


def room_for(number: int) -> Turns:
    """A device that so many of the tiny models fit on."""
    size = sum(p.numel() * p.element_size() for p in tiny_model().parameters())
    size += sum(b.numel() * b.element_size() for b in tiny_model().buffers())

    def free() -> int:
        taken = sum(guest.there for guest in turns._guests.values())
        return int((number - taken) * size + _SPARE)

    turns = Turns(CPU, free)
    return turns


def there(turns: Turns, *models: Any) -> list[bool]:
    """Who is on the device, by where their weights are."""
    found = []
    for model in models:
        guest = turns._guests.get(model)
        homes = [] if guest is None else guest.home
        found.append(any(tensor.data_ptr() != data.data_ptr() for tensor, data in homes))
    return found


def test_who_was_idle_longest_goes_home_and_has_its_weights_again() -> None:
    turns, (a, b, c) = room_for(2), (tiny_model(seed=i) for i in range(3))
    before = {name: tensor.clone() for name, tensor in a.state_dict().items()}
    for model in (a, b):
        with turns.hold(model):
            assert there(turns, model) == [True]
    assert there(turns, a, b, c) == [True, True, False]  # they stay as long as there is room
    with turns.hold(c):
        assert there(turns, a, b, c) == [False, True, True]
    assert turns.seconds is not None
    after = a.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    with turns.hold(a):
        assert there(turns, a, b, c) == [True, False, True]


def test_who_is_at_work_is_not_sent_home() -> None:
    turns, (a, b) = room_for(1), (tiny_model(seed=i) for i in range(2))
    came = threading.Event()

    def ask() -> None:
        with turns.hold(b):
            came.set()

    with turns.hold(a):
        thread = threading.Thread(target=ask)
        thread.start()
        assert not came.wait(0.1)
        assert there(turns, a, b) == [True, False]
    assert came.wait(10)
    thread.join()
    assert there(turns, a, b) == [False, True]


def test_a_transfer_that_fails_leaves_the_model_at_home() -> None:
    turns, model = room_for(1), tiny_model()
    turns.device = torch.device("cuda:99")
    with pytest.raises((RuntimeError, AssertionError)), turns.hold(model):
        raise ValueError("it has not come")
    turns.device = CPU
    assert there(turns, model) == [False]
    with turns.hold(model):
        assert there(turns, model) == [True]


def test_models_that_are_dropped_are_forgotten() -> None:
    import gc

    turns = room_for(1)
    model = tiny_model()
    with turns.hold(model):
        pass
    del model
    gc.collect()
    assert not list(turns._guests)


def test_experts_answer_as_without_turns(folder: Path, tmp_path: Path) -> None:
    chats, alone = [], []
    for seed in range(2):
        path = str(save_tiny(tmp_path / str(seed), seed=seed))
        settings: dict[str, Any] = {"model": path, "generation": {"max_new_tokens": 8}}
        alone.append(HuggingFaceChat(**settings, device="cpu"))
        chats.append(HuggingFaceChat(**settings, device="cpu", offload=True))
    size = sum(guest.numel() * 4 for guest in chats[0].load().model.parameters())
    turns = Turns(CPU, lambda: 0)
    for chat in chats:
        chat.load().turns = turns
    for question in QUESTIONS[:3]:
        for chat, other in zip(chats, alone, strict=True):
            assert chat.invoke(question).content == other.invoke(question).content
            assert [guest.there for guest in turns._guests.values()].count(True) == 1
    assert all(guest.size >= size for guest in turns._guests.values())
    assert not any(guest.users for guest in turns._guests.values())


def test_a_model_that_takes_turns_is_loaded_at_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from der_graph.nodes.huggingface import loading

    monkeypatch.setattr(loading, "pick_device", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(loading, "half_dtype", lambda *_: torch.bfloat16)
    loaded = HuggingFaceChat(model=str(folder), offload=True).load()
    assert loaded.model.device.type == "cpu"
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.turns is not None
    assert loaded.turns.device.type == "cuda"


def test_what_does_not_go_together_is_refused(folder: Path) -> None:
    for settings in ({"quantization": "4bit"}, {"batching": "continuous"}):
        given: Any = settings
        with pytest.raises(PoolError, match="not quantised, and their batches are static"):
            HuggingFaceChat(model=str(folder), offload=True, **given)


def test_the_plan_has_one_of_them_on_the_device_at_a_time() -> None:
    stays = Footprint("a", 5 * GB, 1_000_000, 1_000, "a", 2)
    turns = [
        Footprint(name, size * GB, 1_000_000, 1_000, name, offload=True)
        for name, size in (("b", 8), ("c", 10))
    ]
    made = plan([stays, *turns], 24 * GB)
    # 0.92 * 24 - 5 - (10 + 1 of a conversation) - 2 * 0.6 = 4.88, of which a can use 2
    assert made.spare / GB == pytest.approx(2.88)
    lines = table(made)
    assert lines[2].split() == ["b", "8.00", *"while it has its turn".split()]
    assert "2.88 GB to spare" in lines[-1]
    assert not plan(
        [stays, Footprint("b", 20 * GB, 1_000_000, 1_000, "b", offload=True)], 24 * GB
    ).fits


def test_the_time_to_come_is_part_of_the_usual_seconds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from der_graph import load_pool
    from der_graph.nodes.huggingface.turns import TRANSFER

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    file = tmp_path / "pool.yaml"
    entry = "  - {{name: {}, backend: huggingface, model: {}, cost: 1, seconds: 2{}}}\n"
    file.write_text(
        "experts:\n"
        + entry.format("a", folder, "")
        + entry.format("b", folder, ", offload: true")
        + entry.format("c", folder, ", offload: true, device: cpu"),
        encoding="utf-8",
    )
    a, b, c = load_pool(file).experts
    weights = sum(p.numel() * 2 for p in tiny_model().parameters())
    assert (a.seconds, c.seconds) == (2, 2)
    assert b.seconds == pytest.approx(2 + weights / TRANSFER, abs=1e-9)
