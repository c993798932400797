"""What training questions tell of experts: skills by kind of question, steps, transfer, copies.

    questions, who was right, what they said, routes that were tried ──fit_knowledge──> Knowledge

A kind's mean result is shrunk to what the regression of `kinds` predicts for its questions, and where there
are few questions, a pool's to the prior by size or price.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.errors import DataError
from der_graph.policies.observation import TextEncoder
from der_graph.policies.observation.profiles import wrong_pairs
from der_graph.policies.planning.copies import copies_of
from der_graph.policies.planning.forms import (
    FORMS,
    Route,
    form_of,
    never_right,
)
from der_graph.policies.planning.kinds import Kinds, nearest_named
from der_graph.policies.planning.knowledge import REFUSES, Knowledge, no_transfer
from der_graph.policies.planning.skills import (
    PRICE_CURVE,
    SIZE_CURVE,
    SPREADS,
    Hint,
    chance_of,
    estimate,
    kinds_named,
    prior_skill,
    spread_of,
    with_hints,
)
from der_graph.policies.planning.tables import (
    SPREAD,
    Floats,
    Ints,
    at_zero,
    mean_skill,
    widened,
)
from der_graph.policies.planning.transfer import fit_transfer

_PER_KIND = 60  # training questions for one kind
_MANY = 200  # results of an expert from which they count as "learnt", not as "probes"
_SHRINK = 40.0  # results that the regression counts for, in the mean of a kind
_PAIRS = 40.0  # pairs of wrong answers that the pool's chance counts for, on one kind
_COMPARABLE = 0.5  # of the claims must have values


def fit_knowledge(
    names: Sequence[str],
    costs: Sequence[float],
    questions: Sequence[str],
    qualities: npt.ArrayLike,
    values: Sequence[Sequence[str | None]],
    *,
    texts: Sequence[Sequence[str]] | None = None,
    routes: Sequence[Route] = (),
    encoder: TextEncoder | None = None,
    sizes: Sequence[float | None] | None = None,
    hints: Sequence[Hint | None] | None = None,
    kinds: int | None = None,
    seed: int = 0,
) -> Knowledge:
    """Learn from questions, few or many; what they do not say is taken from the prior.

    Args:
        names: The experts.
        costs: (N,) price of one call of each.
        questions: (Q,) questions, as agents read them.
        qualities: (Q, N) quality of each expert's own answer, in [0, 1]; NaN unknown.
        values: [question][expert] what that answer comes to; None for nothing.
        texts: [question][expert] the answers, to see which refuse; None takes values for texts.
        routes: Answers after others' answers.
        encoder: For kinds of questions; None for one kind.
        sizes: As in `Knowledge.from_prior`.
        hints: As in `Knowledge.from_prior`. By kind they say how much better an expert is on one kind than on
            another, as long as there are too few questions to learn kinds from; without an encoder, and then,
            they count as their mean.
        kinds: How many kinds of questions; None decides by the number of questions.
        seed: Of the kinds.

    Raises:
        DataError: If shapes do not fit, or a quality is not from 0 to 1.
    """
    quality = _checked(names, questions, qualities, values)
    prior, told = with_hints(prior_skill(costs, sizes=sizes), hints or [None] * len(names), [])
    curve = SIZE_CURVE if sizes is not None and all(sizes) else PRICE_CURVE
    found = estimate(quality, at_zero(prior[0]), curve.spread * widened(SPREAD))
    counts = (~np.isnan(quality)).sum(axis=0)
    forms = _forms(quality, values, texts)
    skill, precision = mean_skill(found.logit)[None], found.precision[None]
    label, sorter = np.zeros(len(quality), dtype=np.int64), None
    wanted = len(quality) // _PER_KIND if kinds is None else kinds
    few = kinds is None and len(quality) < _MANY
    named = kinds_named(hints or ()) if encoder is not None and few else []
    if encoder is not None and named:
        by_kind, _ = with_hints(prior[0], hints or (), named)
        lead = at_zero(by_kind) - at_zero(prior[0])
        skill = np.stack([mean_skill(found.logit + each) for each in lead])
        precision = np.tile(found.precision, (len(named), 1))
        label = nearest_named(encoder, questions, named)
    elif encoder is not None and wanted > 1:
        seen = np.concatenate(
            [np.where(forms < 0, np.nan, forms == f) for f in range(len(FORMS) - 1)], axis=1
        )
        # Who is right, and who answers in what form: the latter tells where steps are of use.
        varied = ~np.isnan(seen).all(axis=0)
        varied[varied] = np.nanstd(seen[:, varied], axis=0) > 0.15
        targets = np.concatenate([quality, seen[:, varied]], axis=1)
        sorter, label, predicted = Kinds.fit(
            questions,
            encoder.encode(list(questions)),
            targets,
            wanted,
            seed,
            exactly=kinds is not None,
        )
        skill, precision = _by_kind(
            quality, label, predicted, len(sorter.centres), skill[0], found.precision
        )
    count = len(skill)
    never = never_right(forms, quality, label, routes, count)
    # What refuses in the same words does not agree.
    claims = (forms >= 0) & ~never[label[:, None], np.arange(len(names)), forms]
    said = [
        [value if claim else None for value, claim in zip(row, claimed, strict=True)]
        for row, claimed in zip(values, claims.tolist(), strict=True)
    ]
    pairs = wrong_pairs(quality.astype(np.float32), said).astype(np.float64)
    pool_chance = chance_of(pairs)
    chance = np.array([chance_of(pairs[label == g], pool_chance, _PAIRS) for g in range(count)])
    alone = _alone(forms, quality, label, never)
    spread = SPREAD
    if len(quality) >= _MANY:
        spread = spread_of(quality, label, [at_zero(skill, each) for each in SPREADS])
    logit = at_zero(skill, spread)
    sources = tuple(
        "hint"
        if told[0, i] and not n
        else "prior"
        if not n
        else "probes"
        if n < _MANY
        else "learnt"
        for i, n in enumerate(counts.tolist())
    )
    valued = np.array([[v is not None for v in row] for row in said], dtype=np.bool_)
    return Knowledge(
        names=tuple(names),
        logit=logit,
        precision=precision,
        source=(sources,) * count,
        chance=chance,
        never=never,
        transfer=fit_transfer(logit, chance, alone, never, label, routes, spread, quality)
        if routes
        else no_transfer(alone),
        copies=copies_of(quality, said, logit[label], pool_chance, spread),
        comparable=not claims.any() or float(valued[claims].mean()) >= _COMPARABLE,
        kinds=sorter,
        kind_names=tuple(named),
        spread=spread,
    )


def _checked(
    names: Sequence[str], questions: Sequence[str], qualities: npt.ArrayLike, values: Sequence[Any]
) -> Floats:
    quality = np.asarray(qualities, dtype=np.float64)
    if quality.shape != (len(questions), len(names)) or len(values) != len(questions):
        raise DataError(
            f"qualities of shape {quality.shape} and {len(values)} rows of values for "
            f"{len(questions)} questions and {len(names)} experts"
        )
    wrong = ~np.isnan(quality) & ~((quality >= 0.0) & (quality <= 1.0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise DataError(
            f"question {row}, expert '{names[column]}': quality {quality[row, column]}; it is from 0 "
            "to 1, or NaN where it is not known"
        )
    return quality


def _forms(
    quality: Floats, values: Sequence[Sequence[str | None]], texts: Sequence[Sequence[str]] | None
) -> Ints:
    """(Q, N) form of each answer; -1 where there is none."""
    found = np.full(quality.shape, -1, dtype=np.int64)
    for q, i in np.argwhere(~np.isnan(quality)).tolist():
        value = values[q][i]
        found[q, i] = form_of((value or "-") if texts is None else texts[q][i], value)
    return found


def _by_kind(
    quality: Floats, label: Ints, predicted: Floats, count: int, overall: Floats, trust: Floats
) -> tuple[Floats, Floats]:
    """(count, N) mean quality on each kind, shrunk to what is predicted; and its precision, in log-odds."""
    experts = quality.shape[1]
    skill, precision = np.tile(overall, (count, 1)), np.tile(trust, (count, 1))
    for g in range(count):
        there = label == g
        if not there.any():
            continue
        known = ~np.isnan(quality[there])
        n = known.sum(axis=0)
        expected = predicted[there][:, :experts].mean(axis=0)
        total = np.where(known, quality[there], 0.0).sum(axis=0)
        skill[g] = (total + _SHRINK * expected) / (n + _SHRINK)
        precision[g] = (n + _SHRINK) * skill[g] * (1.0 - skill[g]) + 1.0
    return skill, precision


def _alone(forms: Ints, quality: Floats, label: Ints, never: npt.NDArray[np.bool_]) -> Floats:
    """(G, N, F) probability of each form of step of an expert asked alone that is not right."""
    formed = np.stack([(forms == f) for f in range(len(FORMS))], axis=2).astype(np.float64)
    missed = np.where(np.isnan(quality), 0.0, 1.0 - quality)
    default = np.zeros(len(FORMS))
    default[0] = REFUSES
    overall = (missed[..., None] * formed).sum(axis=0) + 5.0 * default
    overall /= missed.sum(axis=0)[:, None] + 5.0
    found = np.zeros((len(never), *overall.shape))
    for g in range(len(never)):
        there = label == g
        counted = (missed[there][..., None] * formed[there]).sum(axis=0)
        found[g] = (counted + 5.0 * overall) / (missed[there].sum(axis=0)[:, None] + 5.0)
    result: Floats = np.minimum(found * never, 0.999)
    return result
