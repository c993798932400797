"""Trains the demo pool's translator: a LoRA that turns a word problem into an expression.

    python scripts/demo_pool/train_translator.py --data ../shared/data/word_problems \
        --out runs/translator --minutes 60

It is made for a small CPU machine. Each worker is one process with one thread (threads that wait
for each other at every operation lose more than they gain when the machine is busy), and gradients
are averaged once a step. Stories are computed once for all their questions (see
translator_data.py), the vocabulary projection only where an expression is predicted.

The shipped adapter was trained in phases with `--resume`, as the generator grew: see the README
beside it. One run with the defaults does the same in substance; on two free cores an hour is
about 2,400 steps, and a busy machine takes longer for the same steps (`--steps`). Where bfloat16
is slow, `--dtype float32` takes half the time.

`--out` receives `adapter/` (the running average of the weights, what one ships), `training.jsonl`
and `state.pt`, from which `--resume` goes on; the data of step n depends on the seed and n alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import translator_data as data
from torch.multiprocessing.spawn import spawn
from translator_model import add_lora, load_base, load_tokenizer, save_adapter

EMA_DECAY = 0.995
WARMUP_STEPS = 30


def batch(rows: list[data.Row], length: int, pad: int) -> dict[str, torch.Tensor]:
    """Pads packed rows and builds the attention mask of their trees.

    Args:
      rows: The packed rows.
      length: Tokens in a row.
      pad: The padding token.

    Returns:
      input_ids, position_ids, attention_mask (rows, 1, length, length), and the flat indexes of the
      positions that predict an expression token, with those tokens (`at`, `labels`).
    """

    def padded(values: list[int], fill: int) -> list[int]:
        return values + [fill] * (length - len(values))

    ids = torch.tensor([padded(r.tokens, pad) for r in rows])
    tree = torch.tensor([padded(r.tree, -1) for r in rows])
    branch = torch.tensor([padded(r.branch, -1) for r in rows])
    target = torch.tensor([padded([int(t) for t in r.target], 0) for r in rows]).bool()
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same_tree = tree[:, :, None] == tree[:, None, :]
    visible = (branch[:, None, :] == -1) | (branch[:, :, None] == branch[:, None, :])
    # The first token of an expression is predicted by the token before it, the prompt's last.
    where = target.flatten().nonzero().squeeze(1)
    return {
        "input_ids": ids,
        "position_ids": torch.tensor([padded(r.positions, 0) for r in rows]),
        "attention_mask": (causal & same_tree & visible)[:, None],
        "at": where - 1,
        "labels": ids.flatten()[where],
    }


def loss_sum(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The summed cross entropy of the expression tokens."""
    causal_lm = model.get_base_model()
    visible = inputs["attention_mask"]
    dtype = causal_lm.lm_head.weight.dtype
    bias = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    hidden = causal_lm.model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        attention_mask=bias,
        use_cache=False,
    ).last_hidden_state
    logits = causal_lm.lm_head(hidden.flatten(0, 1)[inputs["at"]]).float()
    return torch.nn.functional.cross_entropy(logits, inputs["labels"], reduction="sum")


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Warm-up, half of the time constant, then linear to almost zero."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, 2.0 * (1.0 - progress) + 0.01)


class Flat:
    """All adapter weights as one float32 vector; the model computes with copies in its own dtype."""

    def __init__(self, model: Any) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.master = torch.cat([p.detach().float().flatten() for p in self.parameters])

    def to_model(self, values: torch.Tensor) -> None:
        """Writes values into the model."""
        start = 0
        for p in self.parameters:
            p.data.copy_(values[start : start + p.numel()].view_as(p))
            start += p.numel()

    def gradient(self) -> torch.Tensor:
        """Returns the gradient as one vector and clears it."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.float().flatten() for g in grads])
        for p in self.parameters:
            p.grad = None
        return flat


def train(rank: int, args: argparse.Namespace) -> None:
    """Runs one worker.

    Args:
      rank: The worker's number; 0 also writes the files.
      args: The command line.
    """
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(args.port))
    if args.workers > 1:
        dist.init_process_group("gloo", rank=rank, world_size=args.workers)
    tokenizer = load_tokenizer(args.base)
    stop = [*tokenizer.encode("\n", add_special_tokens=False), tokenizer.eos_token_id]
    model = add_lora(load_base(args.base, getattr(torch, args.dtype)), args.rank)
    model.train()
    flat = Flat(model)
    flat.master.requires_grad_(True)
    optimizer = torch.optim.AdamW([flat.master], lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)
    average = flat.master.detach().clone()
    step, trained, seconds = 0, 0, 0.0
    state_file = Path(args.out) / "state.pt"
    if args.resume and state_file.exists():
        state = torch.load(state_file, weights_only=True)
        flat.master.data.copy_(state["master"])
        average.copy_(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, trained, seconds = state["step"], state["trained"], state["seconds"]
        flat.to_model(flat.master.data)
    rows: list[dict[str, Any]] = []
    if args.synthetic_share < 1:  # on generated problems alone nothing else is read
        given = data.read_jsonl(Path(args.data) / "train.jsonl")
        rows = [row for row in given if not data.is_held_out(row)]

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def save() -> None:
        flat.to_model(average)
        save_adapter(model, Path(args.out) / "adapter")
        flat.to_model(flat.master.data)
        torch.save(
            {
                "master": flat.master.data,
                "average": average,
                "optimizer": optimizer.state_dict(),
                "step": step,
                "trained": trained,
                "seconds": seconds,
            },
            state_file.with_suffix(".tmp"),
        )
        state_file.with_suffix(".tmp").replace(state_file)

    recent, last_save = [], time.time()
    while True:
        began = time.time()
        progress = step / args.steps if args.steps else seconds / (60 * args.minutes)
        if args.workers > 1:  # Clocks differ; all workers must stop at the same step.
            shared = torch.tensor(progress, dtype=torch.float64)
            dist.broadcast(shared, 0)
            progress = float(shared)
        if progress >= 1:
            break
        rng = random.Random(f"{args.seed}/{rank}/{step}")
        source = data.trees(rows, args.synthetic_share, rng, encode, stop)
        packed = data.pack(source, args.rows, args.length)
        inputs = batch(packed, args.length, tokenizer.eos_token_id)
        loss = loss_sum(model, inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        count = len(inputs["labels"])
        branches = sum(r.problems() for r in packed)
        message = torch.cat(
            [flat.gradient(), torch.tensor([loss.detach().item(), count, branches])]
        )
        if args.workers > 1:
            dist.all_reduce(message)
        gradient = message[:-3] / message[-2]
        norm = gradient.norm()
        flat.master.grad = gradient * min(1.0, 1.0 / (norm.item() + 1e-9))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.lr, step, progress)
        optimizer.step()
        average.lerp_(flat.master.data, 1 - min(EMA_DECAY, (step + 1) / (step + 10)))
        flat.to_model(flat.master.data)
        step += 1
        trained += int(message[-1])
        seconds += time.time() - began
        recent.append((float(message[-3] / message[-2]), time.time() - began, int(message[-1])))
        if rank == 0 and step % args.log_every == 0:
            took = sum(t for _, t, _ in recent)
            left = seconds * (1 - progress) / max(progress, 1e-6)
            print(
                f"step {step} loss {sum(v for v, _, _ in recent) / len(recent):.4f} "
                f"grad {norm:.2f} lr {learning_rate(args.lr, step, progress):.1e} "
                f"{sum(n for _, _, n in recent) / took:.1f} examples/s trained {trained} "
                f"{took / len(recent):.2f} s/step left {left / 60:.1f} min",
                flush=True,
            )
            recent = []
            if time.time() - last_save > 60 * args.save_every:
                save()
                last_save = time.time()
    if rank == 0:
        save()
        report = {**vars(args), "steps_done": step, "examples": trained, "seconds": seconds}
        # One line a phase: a resumed run may have had other options.
        with (Path(args.out) / "training.jsonl").open("a", encoding="utf-8") as phases:
            phases.write(json.dumps(report) + "\n")
    if args.workers > 1:
        dist.destroy_process_group()


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = os.path.join(os.environ.get("DER_DATA", "../shared/data"), "word_problems")
    parser.add_argument("--data", default=default, help="folder with train.jsonl and dev.jsonl")
    parser.add_argument("--out", required=True, help="folder for the adapter and the state")
    parser.add_argument("--base", default=None, help="base weights: folder or hub id")
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps, or ...")
    parser.add_argument("--minutes", type=float, default=60.0, help="... after this much training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from state.pt in --out")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rows", type=int, default=2, help="packed rows per worker and step")
    parser.add_argument("--length", type=int, default=192, help="tokens in a packed row")
    parser.add_argument(
        "--synthetic-share", type=float, default=0.4, help="1: generated problems alone, no --data"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="what to compute in; float32 is twice as fast on CPUs without fast bfloat16",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=29511, help="for the workers on this machine")
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--save-every", type=float, default=4.0, help="minutes")
    return parser.parse_args()


def main() -> None:
    """Starts the workers."""
    args = parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    if args.workers > 1:
        spawn(train, args=(args,), nprocs=args.workers)  # type: ignore[no-untyped-call]
    else:
        train(0, args)


if __name__ == "__main__":
    main()
