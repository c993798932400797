"""Trains the calculator expert from scratch on one CPU core.

    python scripts/demo_pool/train_calculator.py --minutes 60 --out der_graph/demo/experts/calculator

The data are generated while training (see ``arithmetic_data.py``) and the schedule follows the
time budget: a short warm-up, a constant learning rate, a decay over the last part. A run that was
stopped goes on with ``--resume``. The trained model is an ordinary Llama model: the prompt is
``"{text}="`` and the completion ``<think>working</think>answer``.
"""

from __future__ import annotations

import argparse
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from arithmetic import CLOSE, OPEN, UNTRAINED
from arithmetic_data import KINDS, Example, example, training_example
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 1024
SPECIALS = ("<pad>", "<eos>", "<unk>")
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n\t×÷−"
IGNORE = -100


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the character tokenizer, whose decoding gives the exact text back."""
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *CHARACTERS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    # Not "special": serving code reads the tags in the decoded text to cut the reasoning out.
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in (OPEN, CLOSE)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


class Encoder:
    """Turns examples into token ids and labels, faster than the tokenizer would one by one."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._ids = tokenizer.get_vocab()
        self._unknown = self._ids["<unk>"]
        self._eos = self._ids["<eos>"]

    def __call__(self, item: Example) -> tuple[list[int], list[int]]:
        """Encodes prompt and completion; only the completion is labelled."""
        ids = [self._ids.get(character, self._unknown) for character in item.text + "="]
        labels = [IGNORE] * len(ids)
        working, _, answer = item.completion.removeprefix(OPEN).partition(CLOSE)
        trained = True
        for token in (OPEN, *working, CLOSE, *answer):
            if token == UNTRAINED:
                trained = False
                continue
            ids.append(self._ids[token])
            labels.append(ids[-1] if trained else IGNORE)
            trained = True
        return [*ids, self._eos], [*labels, self._eos]


def collate(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads on the right, where the causal mask hides the padding by itself."""
    # Few different widths: the matrix library keeps memory for every shape it has met.
    width = -(-max(len(ids) for ids, _ in rows) // 16) * 16
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE)
    for row, (tokens, targets) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(targets)] = torch.tensor(targets)
    return ids, labels


def batches(
    rng: random.Random, encode: Encoder, tokens: int, pool: int = 1024
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields batches of about ``tokens`` padded tokens, of examples of like length."""
    while True:
        rows = sorted((encode(training_example(rng)) for _ in range(pool)), key=lambda r: len(r[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Computes the cross-entropy of the labelled tokens only."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    keep = targets != IGNORE
    logits = model.lm_head(hidden[keep])
    return torch.nn.functional.cross_entropy(logits.float(), targets[keep])


@torch.no_grad()
def exact_rates(
    model: LlamaForCausalLM, encode: Encoder, held_out: dict[str, list[Example]]
) -> dict[str, float]:
    """Measures the share of held-out completions whose every next token comes first."""
    rates = {}
    for kind, items in held_out.items():
        rows = sorted((encode(item) for item in items), key=lambda r: len(r[0]))
        right = 0
        for start in range(0, len(rows), 64):
            ids, labels = collate(rows[start : start + 64])
            guess = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1)
            wrong = (guess != labels[:, 1:]) & (labels[:, 1:] != IGNORE)
            right += int((~wrong.any(1)).sum())
        rates[kind] = right / len(items)
    return rates


def rate_factor(step: int, progress: float, warmup: int = 150, decay_from: float = 0.7) -> float:
    """Gives the learning rate's factor: warm-up by steps, then constant and decay by time."""
    cooling = min(1.0, (1.0 - progress) / (1.0 - decay_from))
    return min(1.0, (step + 1) / warmup) * max(cooling, 0.005)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the model so that transformers loads it offline like any other."""
    model.generation_config.max_new_tokens = 400
    model.generation_config.do_sample = False
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


class Average:
    """A moving average of the weights: a usable model while the learning rate is still high."""

    def __init__(self, model: LlamaForCausalLM, decay: float = 0.995) -> None:
        self._model = model
        self._decay = decay
        self.weights = [p.detach().clone() for p in model.parameters()]

    def update(self) -> None:
        """Takes in the model's weights after a step."""
        current = [p.detach() for p in self._model.parameters()]
        torch._foreach_lerp_(self.weights, current, 1.0 - self._decay)

    def swap(self) -> None:
        """Exchanges the model's weights and the average."""
        for mine, parameter in zip(self.weights, self._model.parameters(), strict=True):
            kept = parameter.detach().clone()
            parameter.data.copy_(mine)
            mine.copy_(kept)


def main() -> None:
    """Trains, reports and exports."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=Path("calculator.pt"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--inner", type=int, default=416)
    parser.add_argument("--export-every", type=int, default=0, help="steps; 0: at the end only")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    encode = Encoder(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=args.inner,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # On a CPU and at these lengths plain matrix products train 1.5 times as fast as the fused
    # attention; the choice is not saved with the model.
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    rng = random.Random(args.seed)
    # Another seed than any training run's, so that these examples are drawn apart from them.
    held_rng = random.Random(987_654_321)
    held_out = {kind: [example(held_rng, kind) for _ in range(160)] for kind in KINDS}
    state: dict[str, Any] = {"step": 0, "elapsed": 0.0}
    if args.resume:
        state = torch.load(args.checkpoint, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rng.setstate(state["rng"])
        torch.set_rng_state(state["torch_rng"])
    step, elapsed, budget = state["step"], state["elapsed"], args.minutes * 60
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    average = Average(model)
    if args.resume:
        average.weights = state["average"]

    def save() -> None:
        temporary = args.checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": rng.getstate(),
                "torch_rng": torch.get_rng_state(),
                "average": average.weights,
                "step": step,
                "elapsed": elapsed,
            },
            temporary,
        )
        temporary.replace(args.checkpoint)

    seen, losses, mark = 0, 0.0, time.monotonic()
    for ids, labels in batches(rng, encode, args.batch_tokens):
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate_factor(step, elapsed / budget)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update()
        step += 1
        seen += ids.numel()
        losses += float(loss.detach())
        elapsed += time.monotonic() - began
        if step % 100 == 0:
            took = time.monotonic() - mark
            print(
                f"step {step} loss {losses / 100:.4f} {seen / took:,.0f} tokens/s "
                f"{max(0.0, budget - elapsed) / 60:.1f} minutes left",
                flush=True,
            )
            seen, losses, mark = 0, 0.0, time.monotonic()
        done = elapsed >= budget
        if step % 500 == 0 or done:
            began = time.monotonic()
            rates = exact_rates(model, encode, held_out)
            print("exact", {kind: round(rate, 3) for kind, rate in rates.items()}, flush=True)
            save()
            if args.export_every and step % args.export_every == 0 and not done:
                average.swap()
                export(model, tokenizer, args.out)
                rates = exact_rates(model, encode, held_out)
                print("average", {k: round(rate, 3) for k, rate in rates.items()}, flush=True)
                average.swap()
            elapsed += time.monotonic() - began
        if done:
            break
    export(model, tokenizer, args.out)
    print(f"exported to {args.out} after {step} steps", flush=True)


if __name__ == "__main__":
    main()
