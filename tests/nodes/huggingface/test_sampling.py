"""Sampled answers with a seed: the same alone, in a batch, and amid strangers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.messages import HumanMessage
from tiny_models import QUESTIONS, Spy

from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.prompts import PromptWriter

SAMPLED: dict[str, Any] = {"temperature": 1.5, "seed": 3}


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.5},
        {"do_sample": True},
        {"temperature": 2},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 1.5, "repetition_penalty": 2},
    ],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_draws_are_those_of_transformers(
    chat: HuggingFaceChat, settings: dict[str, Any], seed: int
) -> None:
    loaded = chat.load()
    prompt = PromptWriter(loaded.tokenizer)([HumanMessage("hello")])
    ids = torch.tensor([prompt.ids])
    floats = {name: value if name == "top_k" else float(value) for name, value in settings.items()}
    torch.manual_seed(seed)
    expected = loaded.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        eos_token_id=loaded.end_tokens,
        **{"top_k": 0, "top_p": 1.0, "temperature": 1.0, **floats, "do_sample": True},
    )[0, ids.shape[1] :]
    message = chat.invoke("hello", seed=seed, **settings)
    assert message.content == loaded.tokenizer.decode(expected, skip_special_tokens=True).strip()
    unseeded = chat.invoke("hello", **settings)
    assert unseeded.response_metadata["finish_reason"] in ("stop", "length")


def test_the_answers_of_a_batch_are_those_of_single_calls(chat: HuggingFaceChat, spy: Spy) -> None:
    singles = [chat.invoke(question, **SAMPLED).content for question in QUESTIONS]
    assert singles != [message.content for message in chat.batch(QUESTIONS)]
    spy.shapes.clear()
    assert [message.content for message in chat.batch(QUESTIONS, **SAMPLED)] == singles
    assert [shape[0] for shape in spy.shapes] == [8]
    assert [message.content for message in chat.batch(QUESTIONS[::-1], **SAMPLED)] == singles[::-1]


def test_strangers_that_wait_for_the_model_as_well_change_nothing(
    chat: HuggingFaceChat, spy: Spy
) -> None:
    alone = {question: chat.invoke(question, **SAMPLED).content for question in QUESTIONS}
    generate, begun, free = spy.original, threading.Event(), threading.Event()

    def held(**given: Any) -> Any:
        begun.set()
        assert free.wait(30)
        return generate(**given)

    spy.original = held
    spy.shapes.clear()
    found: dict[str, Any] = {}

    def ask(question: str) -> None:
        found[question] = chat.invoke(question, **SAMPLED).content

    threads = [threading.Thread(target=ask, args=[question]) for question in QUESTIONS]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(chat._queue._queue) < 7:
        threading.Event().wait(0.001)
    free.set()
    for thread in threads:
        thread.join()
    assert found == alone
    assert [shape[0] for shape in spy.shapes] == [1, 7]


def test_random_numbers_that_others_draw_meanwhile_change_nothing(
    fresh: HuggingFaceChat,
) -> None:
    alone = fresh.invoke("hello", **SAMPLED).content
    model = fresh.load().model
    forward = model.forward

    def disturbed(*given: Any, **named: Any) -> Any:
        torch.rand(3)  # another model, in a thread of its own
        return forward(*given, **named)

    model.forward = disturbed
    assert fresh.invoke("hello", **SAMPLED).content == alone


def test_a_seed_does_not_change_how_sure_a_model_is(chat: HuggingFaceChat) -> None:
    """Its scores count, and not those that are left once a token is drawn."""
    assert chat.invoke("hello", **SAMPLED).response_metadata["mean_logprob"] < -0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(folder: Path) -> None:
    settings = {"max_new_tokens": 12, **SAMPLED}
    chat = HuggingFaceChat(model=str(folder), generation=settings, dtype="float32", device="cuda")
    singles = [chat.invoke(question).content for question in QUESTIONS]
    assert [message.content for message in chat.batch(QUESTIONS)] == singles
    torch.rand(1, device="cuda")
    assert chat.invoke(QUESTIONS[0]).content == singles[0]


def test_seeds_leave_other_random_numbers_alone(chat: HuggingFaceChat) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1).item()
    torch.manual_seed(7)
    chat.invoke("hello", temperature=1.0, seed=1)
    assert torch.rand(1).item() == expected
