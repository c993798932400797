"""A local model as a chat model: its answers, their metadata, and its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Spy, scripted

from der_graph.errors import PoolError
from der_graph.nodes.huggingface import HuggingFaceChat


def test_invoke_gives_the_answer_without_the_prompt(chat: HuggingFaceChat) -> None:
    message = chat.invoke("hello")
    loaded = chat.load()
    prompt = "<s><|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    ids = loaded.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    expected = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
    )
    text = loaded.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert message.content == text.strip()
    assert message.usage_metadata == {
        "input_tokens": ids.shape[1],
        "output_tokens": 12,
        "total_tokens": ids.shape[1] + 12,
    }
    assert message.response_metadata["finish_reason"] == "length"
    assert message.response_metadata["model_name"] == chat.shown_name == Path(chat.model).name


def test_mean_logprob_is_the_models_own(chat: HuggingFaceChat) -> None:
    message = chat.invoke("hello")
    loaded = chat.load()
    ids = loaded.tokenizer(
        "<s><|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
        add_special_tokens=False,
        return_tensors="pt",
    )["input_ids"]
    out = loaded.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logprobs = [
        torch.log_softmax(logits[0], -1)[token].item()
        for logits, token in zip(out.logits, out.sequences[0, ids.shape[1] :], strict=True)
    ]
    assert message.response_metadata["mean_logprob"] == pytest.approx(sum(logprobs) / 12, abs=1e-4)
    quiet = HuggingFaceChat(model=chat.model, logprobs=False, generation={"max_new_tokens": 2})
    assert "mean_logprob" not in quiet.invoke("hello").response_metadata


def test_all_ways_of_asking_agree(chat: HuggingFaceChat) -> None:
    async def asynchronous() -> tuple[Any, Any]:
        chunks = [chunk async for chunk in chat.astream("hello")]
        return await chat.ainvoke("hello"), sum(chunks[1:], chunks[0])

    single = chat.invoke("hello")
    chunks = list(chat.stream("hello"))
    streamed = sum(chunks[1:], chunks[0])
    later, later_streamed = asyncio.run(asynchronous())
    for other in (streamed, later, later_streamed):
        assert other.content == single.content
        assert other.usage_metadata == single.usage_metadata
        assert other.response_metadata == pytest.approx(single.response_metadata)
    assert len(chunks) > 5
    assert chunks[-1].usage_metadata is not None


def test_settings_hold_at_construction_and_per_call(chat: HuggingFaceChat, spy: Spy) -> None:
    assert chat.invoke("hello").usage_metadata["output_tokens"] == 12  # type: ignore[index]
    assert chat.invoke("hello", max_new_tokens=3).usage_metadata["output_tokens"] == 3  # type: ignore[index]
    assert chat.invoke("hello", max_tokens=4).usage_metadata["output_tokens"] == 4  # type: ignore[index]
    assert not any(seen["generation_config"].do_sample for seen in spy.seen)
    chat.invoke("hello", temperature=1.5)
    assert spy.seen[-1]["generation_config"].do_sample
    assert spy.seen[-1]["generation_config"].temperature == 1.5
    one = chat.invoke("hello", temperature=1.5, seed=3).content
    assert chat.invoke("hello", temperature=1.5, seed=3).content == one
    others = {chat.invoke("hello", temperature=1.5, seed=seed).content for seed in range(4, 8)}
    assert others != {one}


def test_one_answer_whatever_the_checkpoint_counts(
    chat: HuggingFaceChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("num_beams", "num_return_sequences"):
        monkeypatch.setattr(chat.load().model.generation_config, name, 2)
    assert chat.invoke("hello").content


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_new_token": 3}, "did you mean 'max_new_tokens'"),
        ({"num_beams": 4}, "unknown generation setting 'num_beams'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"top_p": 1.5}, "from 0 to 1"),
        ({"temperature": "hot"}, "must be a number"),
        ({"stop": [""]}, "not empty"),
        ({"do_sample": True, "temperature": 0}, "temperature is 0"),
        ({"do_sample": 1}, "true or false"),
    ],
)
def test_wrong_settings_are_refused_at_construction_and_per_call(
    folder: Path, chat: HuggingFaceChat, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(PoolError, match=says):
        HuggingFaceChat(model=str(folder), generation=given)
    with pytest.raises(PoolError, match=says):
        chat.invoke("hello", **given)


def test_stop_strings(chat: HuggingFaceChat) -> None:
    whole = str(chat.invoke("hello").content)
    cut = whole[4:6]
    message = chat.invoke("hello", stop=[cut])
    assert message.content == whole[: whole.index(cut)].strip()
    assert message.response_metadata["finish_reason"] == "stop"
    assert "".join(str(c.content) for c in chat.stream("hello", stop=[cut])) == message.content


def test_the_end_token_is_counted_once_and_padding_never(fresh: HuggingFaceChat) -> None:
    scripted(fresh, "yes")
    for message in [fresh.invoke("hello"), *fresh.batch(["a", "a much longer question"])]:
        assert message.content == "yes"
        assert message.usage_metadata["output_tokens"] == 4
        assert message.response_metadata["finish_reason"] == "stop"
    short, long = fresh.batch(["a", "a much longer question"])
    assert short.usage_metadata["input_tokens"] == fresh.invoke("a").usage_metadata["input_tokens"]  # type: ignore[index]
    assert long.usage_metadata["input_tokens"] > short.usage_metadata["input_tokens"]


def test_thoughts_are_hidden_and_kept(fresh: HuggingFaceChat) -> None:
    scripted(fresh, "<think>a\nb</think>\n\n42\nmore")
    message = fresh.invoke("hello", stop=["\n"])
    assert message.content == "42"
    assert message.additional_kwargs["reasoning_content"] == "a\nb"
    chunks = list(fresh.stream("hello", stop=["\n"]))
    assert "".join(str(chunk.content) for chunk in chunks) == "42"
    assert sum(chunks[1:], chunks[0]).additional_kwargs["reasoning_content"] == "a\nb"
    cut = fresh.invoke("hello", max_new_tokens=9)
    assert cut.content == ""
    assert cut.additional_kwargs["reasoning_content"] == "a"
