"""A data file with recorded answers as a pool: its models are the experts.

    train.jsonl, whose lines carry `candidates` ──experts_of_answers──> one expert a model, its price

A call costs what the model's answers cost in that file on average (`cost` of a candidate, in US dollars).
Where no answer says, it is the size in billions of parameters if all names tell it, else every call costs 1.
Other prices need a pool file: `data: train.jsonl`, and name and cost of each expert.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from der_graph.data.untrusted import parse_json, read_text
from der_graph.errors import PoolError
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.recorded import RecordedChat, expert_name_of
from der_graph.policies.planning.probing.sizes import size_in_name
from der_graph.pool.backends import CostUnit, costs_in

_ENDINGS = (".jsonl", ".gz", ".eval", ".parquet", ".csv", ".tsv")


def is_data_file(path: Path) -> bool:
    """Is this a data file, and no pool file?"""
    if path.name.endswith(".json"):  # YAML may be written as JSON
        with contextlib.suppress(OSError, ValueError):
            content = parse_json(read_text(path))
            return not (isinstance(content, dict) and "experts" in content)
    return path.name.endswith((*_ENDINGS, ".json"))


def experts_of_answers(
    data: Path, more: Sequence[str | Path] = ()
) -> tuple[list[Expert], CostUnit]:
    """The models that answered in a data file, as experts, in order of appearance.

    Args:
        data: The data file.
        more: Further files whose recorded answers they replay; prices come from `data` alone.

    Raises:
        DataError: If the file cannot be read.
        PoolError: If it holds no recorded answers, or some models say what answers cost and others do not.
    """
    costs = costs_in([str(data)])
    if not costs:
        raise PoolError(
            f"{data}: a data file is a pool only if its lines carry 'candidates', answers of models, and "
            "this one has none. Give a pool file (.yaml)"
        )
    prices, unit = _prices(data, costs)
    files = dict.fromkeys(str(Path(file).absolute()) for file in (data, *more))
    model_names = {model: expert_name_of(model) for model in costs}
    experts = []
    for model, name in model_names.items():
        chat = RecordedChat(data=list(files), model=model)
        experts.append(
            Expert(
                name=name,
                model=chat,
                cost=prices[model],
                ktp=TEMPLATES["none"],  # they answered without knowing of each other
                fingerprint=chat.fingerprint,
            )
        )
    return experts, unit


def _prices(data: Path, costs: dict[str, list[float]]) -> tuple[dict[str, float], CostUnit]:
    silent = [model for model, known in costs.items() if not known]
    if len(silent) < len(costs):
        if silent:
            raise PoolError(
                f"{data}: answers of '{silent[0]}' do not say their cost, and others do; add it, or write a "
                "pool file with 'data:', and name and cost of each expert"
            )
        return {model: sum(known) / len(known) for model, known in costs.items()}, "usd"
    sizes = {model: size_in_name(model) for model in costs}
    if all(sizes.values()):
        return {model: float(size or 0.0) for model, size in sizes.items()}, "parameters_b"
    return dict.fromkeys(costs, 1.0), "calls"
