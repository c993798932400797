"""Tiny random language models for tests: real transformers checkpoints that load in milliseconds."""

from __future__ import annotations

import string
import threading
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from der_graph.nodes.huggingface import HuggingFaceChat

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

QUESTIONS = [
    "hello",
    "What is the capital of France?",
    "x",
    "2 + 2",
    "a b c d e f g",
    "why",
    "no",
    "1",
]

SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")


def tiny_tokenizer(*, template: str | None = TEMPLATE, pad: bool = True, bos: bool = False) -> Any:
    """One token per character, and a few special ones.

    Args:
        template: Chat template, or None.
        pad: Give it a padding token?
        bos: Does it put `<s>` before what it encodes?
    """
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *sorted(string.printable)))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(list(SPECIAL))
    if bos:
        from tokenizers.processors import TemplateProcessing

        core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>" if pad else None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(*, seed: int = 0, context: int = 256, vocabulary: int = 105) -> Any:
    """Two layers of random weights, large enough that answers depend on the whole prompt."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def save_tiny(folder: Path, **options: Any) -> Path:
    """Save a tiny model with its tokenizer; options go to the one that knows them."""
    of_tokenizer = {key: options.pop(key) for key in ("template", "pad", "bos") if key in options}
    tokenizer = tiny_tokenizer(**of_tokenizer)
    tiny_model(vocabulary=len(tokenizer), **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Spy:
    """Counts `generate` calls and remembers the shape of their input."""

    def __init__(self, chat: HuggingFaceChat) -> None:
        self.model = chat.load().model
        self.shapes: list[tuple[int, ...]] = []
        self.seen: list[dict[str, Any]] = []
        self.original = self.model.generate

    def __call__(self, **given: Any) -> Any:
        self.shapes.append(tuple(given["input_ids"].shape))
        self.seen.append(given)
        return self.original(**given)


def scripted(chat: HuggingFaceChat, text: str) -> HuggingFaceChat:
    """Make the model say a text, whatever it is asked, and then end."""
    loaded = chat.load()
    ids = [
        *loaded.tokenizer(text, add_special_tokens=False)["input_ids"],
        loaded.tokenizer.eos_token_id,
    ]
    start: list[int] = []

    def forward(*args: Any, **given: Any) -> Any:
        out = original(*args, **given)
        if given["input_ids"].shape[1] > 1 or not start:
            start.clear()
        at = len(start)
        start.append(1)
        logits = torch.full_like(out.logits, -50.0)
        logits[..., ids[min(at, len(ids) - 1)]] = 0.0
        out.logits = logits
        return out

    original = loaded.model.forward
    loaded.model.forward = forward
    return chat


def slow(chat: HuggingFaceChat, seconds: float = 0.02) -> list[float]:
    """Slow every step of the model down; gives the list of the times of its steps."""
    steps: list[float] = []
    model = chat.load().model
    original = model.forward

    def forward(*args: Any, **given: Any) -> Any:
        steps.append(time.monotonic())
        time.sleep(seconds)
        return original(*args, **given)

    model.forward = forward
    return steps


class Gate:
    """Lets a model go one step at a time, and counts its steps."""

    def __init__(self, chat: HuggingFaceChat) -> None:
        self.steps = 0
        self.closing = threading.Event()
        self.loaded = chat.load()
        self._forward = self.loaded.model.forward
        self.loaded.model.forward = self

    def __call__(self, *args: Any, **given: Any) -> Any:
        self.steps += 1
        if self.steps > 3:
            self.closing.wait(10)  # the fourth step runs when nobody listens any more, not before
        return self._forward(*args, **given)

    def settled(self) -> int:
        """Steps taken once the model is idle."""
        self.loaded.run(lambda: None)
        return self.steps
