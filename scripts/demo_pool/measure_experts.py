"""Measures how good the demo pool's two generalists are at each kind of question.

    questions  ──each model, greedily──>  answers  ──metric "match"──>  table with intervals

This is how the kinds and the prompts were chosen: a kind is worth having when one expert clearly
knows it better. Prints a Markdown table; `--answers` also keeps every answer. Needs the two models
as folders that transformers can load.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from der_graph.data import Example, load_examples
from der_graph.nodes.values import extract_value
from der_graph.policies.quality import get_metric
from der_graph.state import Answer

QUESTIONS = Path(__file__).resolve().parents[2] / "der_graph" / "demo" / "questions"

GEMMA_FORMAT = (
    "Question: What is the capital of Germany?\nAnswer: Berlin\n\n"
    "Question: Who painted the Mona Lisa?\nAnswer: Leonardo da Vinci\n\n"
    "Question: What is the Italian word for milk?\nAnswer: latte\n\n"
    "Question: {text}\nAnswer:"
)
"""Short on purpose: every call reads it. None of its facts is asked anywhere."""


@dataclass(frozen=True)
class Generalist:
    """How one model is asked.

    Attributes:
        name: The expert.
        prompt_format: Plain text with `{text}`, or None for the model's chat template.
        stop: Text that ends an answer, and is no part of it.
        max_new_tokens: Longest answer.
    """

    name: str
    prompt_format: str | None = None
    stop: str | None = None
    max_new_tokens: int = 24


SMOLLM2 = Generalist("smollm2")
GEMMA = Generalist("gemma", GEMMA_FORMAT, "\n", max_new_tokens=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--smollm2", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--gemma", type=Path, help="folder of Gemma 3 270M (base)")
    parser.add_argument("--data", type=Path, nargs="+", default=[QUESTIONS / "dev.jsonl"])
    parser.add_argument("--tasks", nargs="+", help="only these kinds")
    parser.add_argument("--limit", type=int, help="at most so many questions of a kind")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--answers", type=Path, help="write all answers to this file (JSON Lines)")
    arguments = parser.parse_args()
    examples = choose(
        [example for path in arguments.data for example in load_examples(path)],
        arguments.tasks,
        arguments.limit,
    )
    given: dict[str, list[str]] = {}
    for expert, folder in ((SMOLLM2, arguments.smollm2), (GEMMA, arguments.gemma)):
        if folder is not None:
            ask = load(expert, folder, arguments.threads)
            given[expert.name] = ask([example.question for example in examples])
    if not given:
        parser.error("give --smollm2 or --gemma, or both")
    print(table(examples, {name: grade(texts, examples) for name, texts in given.items()}))
    if arguments.answers:
        with arguments.answers.open("w", encoding="utf-8") as file:
            for index, example in enumerate(examples):
                row = {"id": example.id, "question": example.question, "output": example.reference}
                row |= {name: texts[index] for name, texts in given.items()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def choose(
    examples: Sequence[Example], tasks: Sequence[str] | None, limit: int | None
) -> list[Example]:
    """The questions to ask: of these kinds, the first so many of each."""
    seen: dict[str, int] = defaultdict(int)
    chosen = []
    for example in examples:
        seen[example.task] += 1
        if (not tasks or example.task in tasks) and (not limit or seen[example.task] <= limit):
            chosen.append(example)
    return chosen


def load(expert: Generalist, folder: Path, threads: int) -> Callable[[Sequence[str]], list[str]]:
    """Load a model.

    Returns:
        A function from questions to its greedy answers.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    settings: dict[str, Any] = {"max_new_tokens": expert.max_new_tokens, "do_sample": False}
    if expert.stop is not None:
        settings |= {"stop_strings": [expert.stop], "tokenizer": tokenizer}

    def prompt(question: str) -> str:
        if expert.prompt_format is not None:
            return expert.prompt_format.replace("{text}", question)
        turn = [{"role": "user", "content": question}]
        text: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return text

    def ask(questions: Sequence[str], batch: int = 24) -> list[str]:
        prompts = [prompt(question) for question in questions]
        texts = [""] * len(prompts)
        # Questions of about the same length share a batch, so that little of it is padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            inputs = tokenizer(
                [prompts[index] for index in indices],
                return_tensors="pt",
                padding=True,
                # A chat template brings its own.
                add_special_tokens=expert.prompt_format is not None,
            )
            with torch.inference_mode():
                output = model.generate(**inputs, **settings)
            for index, ids in zip(indices, output[:, inputs["input_ids"].shape[1] :], strict=True):
                text = tokenizer.decode(ids, skip_special_tokens=True)
                texts[index] = (text.split(expert.stop)[0] if expert.stop else text).strip()
            print(f"{expert.name}: {start + len(indices)}/{len(order)}", file=sys.stderr)
        return texts

    return ask


def grade(texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
    """The quality of each answer, 1 or 0, by the metric that the agent is trained with."""
    answers = [
        Answer(
            expert="", text=text, value=extract_value(text), cost=0.0, input_tokens=0,
            output_tokens=0, seconds=0.0, logprob=None, error=None,
        )
        for text in texts
    ]  # fmt: skip
    return get_metric("match").score(answers, examples)


def wilson(right: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927)."""
    share, zz = right / n, z * z
    middle = (share + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(share * (1 - share) / n + zz / (4 * n * n))
    return middle - half, middle + half


def table(examples: Sequence[Example], quality: dict[str, list[float]]) -> str:
    """A Markdown table: a row for each kind and one for all, a column for each expert."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        kinds[example.task].append(index)
    kinds["all"] = list(range(len(examples)))
    lines = [
        "| kind | n | " + " | ".join(f"{name} | 95 % interval" for name in quality) + " |",
        "|---|---:" + "|---:|:---:" * len(quality) + "|",
    ]
    for kind, indices in kinds.items():
        cells = [kind, str(len(indices))]
        for values in quality.values():
            right = sum(values[index] for index in indices)
            low, high = wilson(right, len(indices))
            cells += [f"{right / len(indices):.2f}", f"{low:.2f} to {high:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
