"""LangSmith's datasets and experiments: questions in and out, results of an evaluation up.

    dataset ──langsmith_examples──> questions ──der eval──> episodes ──upload_experiment──> experiments
    questions ──upload_dataset──> dataset

Nothing is sent unless one of these is called. Knows nothing of traces.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from der_graph.data import Example
from der_graph.errors import DataError

if TYPE_CHECKING:
    from langsmith import Client

    from der_graph.policies.evaluation.evaluate import Evaluation

QUESTION_KEYS = ("question", "input", "query", "prompt")
ANSWER_KEYS = ("answer", "output", "expected", "reference")


def langsmith_examples(client: Client, dataset: str, *, limit: int | None = None) -> list[Example]:
    """Read the questions of a dataset.

    Args:
        client: Where the dataset is.
        dataset: Its name.
        limit: Read only the first so many.

    Returns:
        One question an example. Its text is the input `question`, `input`, `query` or `prompt`, or the only
        input; its reference is the output `answer`, `output`, `expected` or `reference`, or the only one.
        `task` is taken from the metadata.

    Raises:
        DataError: If there is no such dataset, it is empty, or an example has no question or no answer.
    """
    from langsmith.utils import LangSmithNotFoundError

    try:
        rows = list(client.list_examples(dataset_name=dataset, limit=limit))
    except LangSmithNotFoundError as error:
        raise DataError(f"LangSmith has no dataset '{dataset}'") from error
    if not rows:
        raise DataError(f"LangSmith's dataset '{dataset}' has no examples")
    return [
        Example(
            str(row.id),
            _text(row.inputs, QUESTION_KEYS, f"example {row.id}: inputs"),
            _text(row.outputs, ANSWER_KEYS, f"example {row.id}: outputs"),
            str((row.metadata or {}).get("task") or ""),
        )
        for row in rows
    ]


def _text(fields: Mapping[str, Any] | None, keys: Sequence[str], where: str) -> str:
    given = dict(fields or {})
    named = [key for key in keys if key in given] or (list(given) if len(given) == 1 else [])
    value = given.get(named[0]) if named else None
    if (
        isinstance(value, bool)
        or not isinstance(value, str | int | float)
        or not str(value).strip()
    ):
        raise DataError(
            f"{where} are {sorted(given)}; a text is needed under one of: {', '.join(keys)}"
        )
    return str(value).strip()


def upload_dataset(client: Client, dataset: str, examples: Sequence[Example]) -> None:
    """Make a dataset of questions.

    Args:
        client: Where to.
        dataset: Its name; there must be none of that name.
        examples: The questions. Recorded answers stay here.

    Raises:
        DataError: If there is a dataset of that name.
    """
    if client.has_dataset(dataset_name=dataset):
        raise DataError(f"LangSmith has a dataset '{dataset}' already; choose another name")
    made = client.create_dataset(dataset)
    client.create_examples(
        dataset_id=made.id,
        examples=[
            {
                "inputs": {"question": example.question},
                "reference_outputs": {"answer": example.reference},
                "metadata": {"task": example.task, "id": example.id},
            }
            for example in examples
        ],
    )


def upload_experiment(
    client: Client, dataset: str, found: Evaluation, *, prefix: str, dollars: bool = False
) -> list[str]:
    """Make LangSmith experiments of an evaluation on one of its datasets, one for each method.

    Args:
        client: Where to.
        dataset: The dataset whose questions `langsmith_examples` gave.
        found: The evaluation.
        prefix: An experiment is named `<prefix>-<method>`.
        dollars: Are costs in US dollars? LangSmith then shows them as such.

    Returns:
        The experiments' names.
    """
    from langsmith.run_trees import RunTree

    reference = client.read_dataset(dataset_name=dataset)
    names = []
    for method in found.methods:
        episodes = found.episodes[method.name]
        name = f"{prefix}-{method.name}"
        project = client.create_project(
            name,
            reference_dataset_id=reference.id,
            description=method.label,
            metadata={"der_method": method.name, "der_family": method.family},
            num_examples=len(episodes),
        )
        for episode in episodes:
            example = found.examples[episode.example]
            usage: dict[str, Any] = {
                "input_tokens": sum(answer["input_tokens"] for answer in episode.answers),
                "output_tokens": sum(answer["output_tokens"] for answer in episode.answers),
            }
            usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
            if dollars:
                usage["total_cost"] = episode.cost
            run = RunTree(
                id=uuid.uuid4(),
                name=method.name,
                run_type="chain",
                inputs={"question": example.question},
                project_name=name,
                reference_example_id=uuid.UUID(example.id),
                extra={"metadata": {"usage_metadata": usage, "der_cost": episode.cost}},
                ls_client=client,
            )
            run.end(
                outputs={
                    "answer": episode.answers[episode.final]["text"],
                    "der_experts": [answer["expert"] for answer in episode.answers],
                }
            )
            run.post()
            scores = {"quality": episode.quality, "cost": episode.cost, "calls": episode.calls}
            for key, score in scores.items():
                client.create_feedback(
                    run.id, key, score=score, trace_id=run.id, session_id=project.id
                )
        names.append(name)
    client.flush()
    return names
