"""What `der probe` found out about experts, as one JSON file.

    Probed (questions, who was right, what they said) ──write──> profile.json ──read_profile──> Probed

Holds results and not skills, so that whoever reads it learns from it in its own way: the planner, and
trainings, for which the questions are further data. Never a pickle. Knows nothing of models.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from der_graph.data import Example
from der_graph.data.saving import save_text
from der_graph.errors import DataError
from der_graph.nodes.expert import Expert
from der_graph.policies.planning.tables import Floats

FORMAT = 1
_LONGEST = 300  # characters of an answer that are kept


@dataclass(frozen=True, eq=False)
class Probed:
    """Results of N experts on Q questions.

    Attributes:
        names: (N,) the experts.
        fingerprints: (N,) of their models: of another model under the name nothing is known.
        examples: (Q,) the questions with their kinds (`task`) and references.
        quality: (Q, N) of each answer, in [0, 1]; NaN where there is none.
        values: [question][expert] what each answer comes to; None for nothing.
        texts: [question][expert] the answers, cut.
        seconds: (N,) mean time of a call; NaN where there was none.
        spent: What all calls cost.
        cost_unit: What that counts.
        metric: What a good answer was.
    """

    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    examples: tuple[Example, ...]
    quality: Floats
    values: list[list[str | None]]
    texts: list[list[str]]
    seconds: Floats
    spent: float
    cost_unit: str
    metric: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all.

        Raises:
            DataError: If it cannot be written.
        """
        content = {
            "format": FORMAT,
            "metric": self.metric,
            "cost_unit": self.cost_unit,
            "spent": self.spent,
            "experts": [
                {"name": name, "fingerprint": mark, "seconds": _plain(seconds)}
                for name, mark, seconds in zip(
                    self.names, self.fingerprints, self.seconds.tolist(), strict=True
                )
            ],
            "questions": [
                {"id": e.id, "kind": e.task, "question": e.question, "answer": e.reference}
                for e in self.examples
            ],
            "qualities": [[_plain(q) for q in row] for row in self.quality.tolist()],
            "values": self.values,
            "texts": [[text[:_LONGEST] for text in row] for row in self.texts],
        }
        save_text(path, json.dumps(content, ensure_ascii=False) + "\n", make=True)

    def of(self, experts: Sequence[Expert], where: str = "the profile") -> Probed:
        """The results of a pool's experts; all unknown for those that were not probed.

        Args:
            experts: The pool's experts, in order.
            where: Names the profile in messages.

        Raises:
            DataError: If none of them was probed.
        """
        at = {name: i for i, name in enumerate(self.names)}
        changed = [
            e.name
            for e in experts
            if e.name in at and self.fingerprints[at[e.name]] != e.fingerprint
        ]
        if changed:
            warnings.warn(
                f"{where}: {', '.join(changed)}: another model than the one that was probed, whose results "
                "are left out; run der probe again",
                stacklevel=3,
            )
        known = [at[e.name] if e.name in at and e.name not in changed else -1 for e in experts]
        if max(known, default=-1) < 0:
            raise DataError(
                f"{where} is of the experts {', '.join(self.names)}, and says nothing of "
                f"{', '.join(e.name for e in experts)}; run der probe with this pool"
            )
        none = np.full((len(self.examples), 1), np.nan)
        return Probed(
            tuple(e.name for e in experts),
            tuple(e.fingerprint for e in experts),
            self.examples,
            np.concatenate([self.quality, none], axis=1)[:, known],
            [[row[i] if i >= 0 else None for i in known] for row in self.values],
            [[row[i] if i >= 0 else "" for i in known] for row in self.texts],
            np.append(self.seconds, np.nan)[known],
            self.spent,
            self.cost_unit,
            self.metric,
        )


def read_profile(path: str | os.PathLike[str]) -> Probed:
    """Read what `Probed.write` wrote.

    Raises:
        DataError: If it is not there, or no profile.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        if content["format"] != FORMAT:
            raise DataError(f"{path}: format {content['format']}; this version reads {FORMAT}")
        experts, questions = content["experts"], content["questions"]
        quality = np.array(content["qualities"], dtype=np.float64)
        if quality.shape != (len(questions), len(experts)):
            raise ValueError(f"{quality.shape} results")
        return Probed(
            tuple(str(each["name"]) for each in experts),
            tuple(str(each["fingerprint"]) for each in experts),
            tuple(Example(q["id"], q["question"], q["answer"], q["kind"]) for q in questions),
            quality,
            content["values"],
            content["texts"],
            np.array([each["seconds"] for each in experts], dtype=np.float64),
            float(content["spent"]),
            str(content["cost_unit"]),
            str(content["metric"]),
        )
    except OSError as error:
        raise DataError(
            f"{path}: no such profile ({error.strerror}); der probe writes one"
        ) from None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no profile of der probe ({error})") from None


def _plain(number: float) -> float | None:
    return None if np.isnan(number) else number
