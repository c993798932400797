"""Text-generation pipelines that are in memory already: transformers' own, or langchain-huggingface's.

    HuggingFacePipeline | ChatHuggingFace ──wrapped_pipeline──> settings for HuggingFaceChat
    pipeline, wrapped or not ──bare_pipeline──> transformers' pipeline

Why not `ChatHuggingFace(llm=HuggingFacePipeline(...))` of langchain-huggingface 1.2 as it is, with a
pipeline: the answer begins with the prompt, settings of a call (`max_new_tokens`, `temperature`, `stop`) are
ignored, `ainvoke` and `astream` raise, `batch` calls the model once per input, there is no token usage and
no model name in traces, a template's start token is doubled, and an error in the generating thread shows as
`queue.Empty` after 60 seconds.

Imports neither of the two libraries: they import torch. Knows nothing of chat models.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from der_graph.errors import PoolError
from der_graph.nodes.generation_settings import GenerationSettings

# Settings of a pipeline that say nothing about the answer.
_PIPELINE_ONLY = frozenset(
    {"return_full_text", "batch_size", "truncation", "padding", "return_tensors"}
)


def bare_pipeline(given: Any) -> Any:
    """Take a pipeline out of langchain-huggingface's wrapper, where it is in one.

    Raises:
        PoolError: If it is no text-generation pipeline with a model and a tokenizer.
    """
    pipeline = getattr(given, "pipeline", given)
    if getattr(pipeline, "tokenizer", None) is None or not hasattr(pipeline, "model"):
        raise PoolError("pipeline: a text-generation pipeline with model and tokenizer is needed")
    return pipeline


def generation_of(pipeline: Any) -> dict[str, Any]:
    """The generation settings that a pipeline was made with: `pipeline(..., max_new_tokens=20)`."""
    known = {field.name for field in dataclasses.fields(GenerationSettings)}
    given = getattr(pipeline, "_generate_kwargs", {})
    return {name: value for name, value in given.items() if name in known}


def wrapped_pipeline(model: Any) -> dict[str, Any] | None:
    """Unwrap `HuggingFacePipeline`, and `ChatHuggingFace` around one.

    Returns:
        Settings for a `HuggingFaceChat` that answers as the model did; None for anything else.
    """
    llm = model.llm if _is_a(model, "ChatHuggingFace") else model
    if not _is_a(llm, "HuggingFacePipeline"):
        return None
    given = {k: v for k, v in (llm.pipeline_kwargs or {}).items() if k not in _PIPELINE_ONLY}
    if llm is not model:
        for field in ("max_tokens", "temperature", "top_p", "stop", "seed"):
            value = getattr(model, field, None)
            if value is not None:
                given[field] = value
    plain = llm is model and not getattr(llm.pipeline.tokenizer, "chat_template", None)
    return {
        "pipeline": llm.pipeline,
        "generation": given,
        "prompt_format": "{text}" if plain else None,
    }


def _is_a(model: Any, name: str) -> bool:
    return name in {base.__name__ for base in type(model).__mro__}
