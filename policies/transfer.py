"""The same experts with another way of receiving knowledge: none, another template, everything.

    experts ──without_transfer──> experts that read the bare question, whatever was said before

For comparisons: votes count only if they are independent, and what the Knowledge Transfer Prompt is worth is
seen by taking it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate, ktp_template


def without_transfer(
    experts: Sequence[Expert], ktp: str | KTPTemplate | None = None
) -> list[Expert]:
    """Experts that get the question as they would get it first, and never an earlier answer.

    Args:
        experts: The experts.
        ktp: The graph's template, used where an expert has none of its own.
    """
    changed = []
    for expert in experts:
        own = expert.ktp or ktp_template(ktp)
        alone = replace(own, name=f"{own.name}-alone", transfer=own.first)
        changed.append(replace(expert, ktp=alone))
    return changed


def with_template(
    experts: Sequence[Expert], ktp: str | KTPTemplate, *, only: Sequence[str] | None = None
) -> list[Expert]:
    """Experts that receive earlier answers by a template.

    Args:
        experts: The experts.
        ktp: The template, or its name.
        only: Names of those that change; where left out, those without a template of their own: an
            expert's own template is how it must be spoken to (a calculator reads expressions only).
    """
    template = ktp_template(ktp)
    wanted = {e.name for e in experts if e.ktp is None} if only is None else set(only)
    return [replace(e, ktp=template) if e.name in wanted else e for e in experts]


def transfers(expert: Expert, ktp: str | KTPTemplate | None = None) -> bool:
    """Does the expert see anything of the answers before it?"""
    text = (expert.ktp or ktp_template(ktp)).transfer
    return "{answer}" in text or "{answers}" in text
