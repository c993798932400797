"""What is known of the experts before any route: projections of texts, and results on probe questions.

    training questions, every expert's first answers ──fit_profiles──> arrays, saved with the agent

| array | shape | what |
|---|---|---|
| `question_mean`, `question_axes` | (d,), (d, question dims) | projection of questions |
| `answer_mean`, `answer_axes` | (d,), (d, answer dims) | projection of answers |
| `probe_vectors` | (questions, d) | embeddings of the probe questions |
| `probe_quality` | (questions, experts) | quality of each expert's own first answer; NaN unknown |
| `length_profile` | (2, experts) | mean and deviation of the log of an answer's tokens |
| `question_length` | (2,) | the same of a question's characters |
| `wrong_pairs` | (questions, 2) | pairs of wrong answers with values, and how many of them have one value |
| `call_size` | (4, experts) | mean tokens in, cached, out, and seconds of a call charged by those; or NaN |
| `probe_cost` | (questions, experts) | cost of that first answer in means of its expert; NaN unknown |
| `description_vectors` | (experts, d) | embeddings of what the experts say they are good at; 0 for none |

A new expert is judged from few questions by item response theory. How many of the others are right on a
question says how easy it is. A logistic curve over that, fitted to the new expert's few results, says how
often it would be right on every other one; it starts from what the expert's price makes expect. On the
recorded pool, with each of eleven experts taken for the new one in turn, 30 chosen questions tell its skill
up to 0.042 (root mean square error), and 30 random ones, averaged, up to 0.088.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from der_graph.policies.observation.encoder import TextEncoder, Vectors
from der_graph.policies.observation.projection import principal_axes

_LEAST_DEVIATION = 0.1  # of a log length: an expert whose answers are all of one length


def fit_profiles(
    encoder: TextEncoder,
    questions: Sequence[str],
    answers: Sequence[str],
    dims: tuple[int, int],
    *,
    qualities: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.float32] | None = None,
    values: Sequence[Sequence[str | None]] | None = None,
    descriptions: Sequence[str] | None = None,
) -> dict[str, Vectors]:
    """Fit all arrays on training questions; see `Observer.fit` for the arguments.

    Args, besides those:
        dims: Dimensions of the projected question and answer.
    """
    vectors = encoder.encode(questions)
    question_mean, question_axes = principal_axes(vectors, dims[0])
    # Without answer dimensions no answer is encoded: that would be most of the work.
    answer_mean, answer_axes = principal_axes(
        encoder.encode(answers) if answers else vectors, dims[1]
    )
    characters = np.log1p([len(question) for question in questions])
    arrays = {
        "question_mean": question_mean,
        "question_axes": question_axes,
        "answer_mean": answer_mean,
        "answer_axes": answer_axes,
        "probe_vectors": vectors,
        "probe_quality": np.asarray(qualities, dtype=np.float32),
        "question_length": np.array(
            [characters.mean(), max(characters.std(), _LEAST_DEVIATION)], dtype=np.float32
        ),
    }
    if lengths is not None:
        arrays["length_profile"] = length_profile(lengths)
    if values is not None:
        arrays["wrong_pairs"] = wrong_pairs(qualities, values)
    if descriptions is not None and any(descriptions):
        arrays["description_vectors"] = describe_experts(encoder, descriptions)
    return arrays


def mean_skill(quality: Vectors) -> Vectors:
    """Mean quality of each expert on the probe questions: (experts,); 0.5 where unknown."""
    known = ~np.isnan(quality)
    count = known.sum(axis=0)
    mean = np.where(known, quality, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean, 0.5).astype(np.float32)


def chosen_experts(arrays: dict[str, Vectors], positions: Sequence[int]) -> dict[str, Vectors]:
    """The profiles of some of the experts, in another order or number.

    Args:
        arrays: All profiles.
        positions: Which experts, in the order wanted.
    """
    at, changed = list(positions), dict(arrays)
    changed["probe_quality"] = arrays["probe_quality"][:, at]
    if "length_profile" in arrays:
        changed["length_profile"] = arrays["length_profile"][:, at]
    if "quality_mean" in arrays:  # experts that joined later come last, and have no fit
        fitted = [position for position in at if position < len(arrays["quality_mean"])]
        changed["quality_mean"] = arrays["quality_mean"][fitted]
        changed["quality_axes"] = arrays["quality_axes"][:, fitted]
    for name in ("call_size", "probe_cost"):
        if name in arrays:
            changed[name] = arrays[name][:, at]
    if "description_vectors" in arrays:
        changed["description_vectors"] = arrays["description_vectors"][at]
    return changed


def with_expert(
    arrays: dict[str, Vectors],
    encoder: TextEncoder,
    questions: Sequence[str],
    qualities: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.float32],
    description: str = "",
    *,
    costs: Sequence[float],
    call_costs: dict[str, Vectors] | None = None,
) -> dict[str, Vectors]:
    """The profiles with one more expert, known by its results on some questions.

    Its results on the other probe questions are filled in by what the known experts did on them.

    Args:
        arrays: The profiles so far.
        encoder: The sentence encoder.
        questions: What the new expert was asked; new ones become probe questions of which only its result is
            known.
        qualities: (questions,) its quality on each.
        lengths: (questions,) tokens of its answers.
        description: What it is good at, in words.
        costs: Price of one call of each expert, the new one's last.
        call_costs: What `fit_call_costs` gave for the new one; empty where its calls all cost the same.
    """
    changed = dict(arrays)
    vectors, quality = arrays["probe_vectors"], arrays["probe_quality"]
    ratios = (call_costs or {}).get("probe_cost")
    asked = encoder.encode(questions)
    column = np.full((len(vectors), 1), np.nan, dtype=np.float32)
    dearness = np.full((len(vectors), 1), np.nan, dtype=np.float32)
    new: list[int] = []
    for i, probe in enumerate(_same_question(vectors, asked)):
        if probe is None:
            new.append(i)
        else:
            column[probe] = qualities[i]
            dearness[probe] = np.nan if ratios is None else ratios[i]
    column = completed(quality, column[:, 0], costs)[:, None]
    rows = np.full((len(new), quality.shape[1] + 1), np.nan, dtype=np.float32)
    rows[:, -1] = qualities[new]
    changed["probe_vectors"] = np.concatenate([vectors, asked[new]])
    changed["probe_quality"] = np.concatenate([np.concatenate([quality, column], axis=1), rows])
    if ratios is not None or "probe_cost" in arrays:
        no_size = np.full((4, quality.shape[1]), np.nan, dtype=np.float32)
        no_cost = np.full(quality.shape, np.nan, dtype=np.float32)
        size = (call_costs or {}).get("call_size", np.full((4, 1), np.nan, dtype=np.float32))
        changed["call_size"] = np.concatenate([arrays.get("call_size", no_size), size], axis=1)
        others = np.concatenate([arrays.get("probe_cost", no_cost), dearness], axis=1)
        fresh = np.full((len(new), others.shape[1]), np.nan, dtype=np.float32)
        if ratios is not None:
            fresh[:, -1] = ratios[new, 0]
        changed["probe_cost"] = np.concatenate([others, fresh])
    if "length_profile" in arrays:
        added = length_profile(np.asarray(lengths, dtype=np.float32)[:, None])
        changed["length_profile"] = np.concatenate([arrays["length_profile"], added], axis=1)
    if "wrong_pairs" in arrays:
        unknown = np.zeros((len(new), 2), dtype=np.float32)
        changed["wrong_pairs"] = np.concatenate([arrays["wrong_pairs"], unknown])
    if description or "description_vectors" in arrays:
        known = arrays.get("description_vectors")
        if known is None:
            known = np.zeros((quality.shape[1], vectors.shape[1]), dtype=np.float32)
        added = describe_experts(encoder, [description])
        changed["description_vectors"] = np.concatenate([known, added])
    return changed


def refreshed(
    arrays: dict[str, Vectors],
    encoder: TextEncoder,
    position: int,
    questions: Sequence[str],
    qualities: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.float32],
    *,
    costs: Sequence[float],
    call_costs: dict[str, Vectors],
) -> dict[str, Vectors]:
    """The profiles with one expert known by new results instead of its old ones.

    Args:
        arrays: The profiles so far.
        encoder: The sentence encoder.
        position: Of the expert.
        questions: What it was asked anew; those that are no probe questions count for its mean alone.
        qualities: (questions,) its quality on each.
        lengths: (questions,) tokens of its answers.
        costs: Price of one call of each expert.
        call_costs: What `fit_call_costs` gave for it; empty where its calls all cost the same.
    """
    changed = {name: array.copy() for name, array in arrays.items()}
    quality = changed["probe_quality"]
    before = mean_skill(quality)[position]
    others = [i for i in range(quality.shape[1]) if i != position]
    results = np.full(len(quality), np.nan, dtype=np.float32)
    for i, probe in enumerate(_same_question(arrays["probe_vectors"], encoder.encode(questions))):
        if probe is not None:
            results[probe] = qualities[i]
    if np.isnan(results).all():  # none of them is a probe question: only the mean is known
        results[:] = float(np.mean(qualities))
    order = [*others, position]
    column = (
        completed(quality[:, others], results, [costs[i] for i in order]) if others else results
    )
    quality[:, position] = column
    shift = mean_skill(quality)[position] - before
    if position < len(changed.get("quality_mean", ())):
        changed["quality_mean"][position] += shift
    if "length_profile" in changed:
        new = np.asarray(lengths, dtype=np.float32)[:, None]
        changed["length_profile"][:, position] = length_profile(new)[:, 0]
    if call_costs and "call_size" in changed:
        changed["call_size"][:, position] = call_costs["call_size"][:, 0]
    return changed


def with_results(
    arrays: dict[str, Vectors],
    encoder: TextEncoder,
    questions: Sequence[str],
    experts: Sequence[int],
    qualities: Sequence[float],
) -> dict[str, Vectors]:
    """The profiles with single results beside those on the probe questions.

    Args:
        arrays: The profiles so far.
        encoder: The sentence encoder.
        questions: One question a result.
        experts: Whose result it is, by position.
        qualities: How good the answer was, in [0, 1].
    """
    changed = dict(arrays)
    rows = np.full((len(questions), arrays["probe_quality"].shape[1]), np.nan, dtype=np.float32)
    rows[np.arange(len(questions)), list(experts)] = qualities
    changed["probe_vectors"] = np.concatenate([arrays["probe_vectors"], encoder.encode(questions)])
    changed["probe_quality"] = np.concatenate([arrays["probe_quality"], rows])
    if "wrong_pairs" in arrays:
        none = np.zeros((len(questions), 2), dtype=np.float32)
        changed["wrong_pairs"] = np.concatenate([arrays["wrong_pairs"], none])
    if "probe_cost" in arrays:
        changed["probe_cost"] = np.concatenate([arrays["probe_cost"], np.full_like(rows, np.nan)])
    return changed


def ease_of(
    arrays: dict[str, Vectors], encoder: TextEncoder, questions: Sequence[str]
) -> npt.NDArray[np.float64]:
    """How easy questions are for the known experts: (questions,); NaN for what is no probe question."""
    easy = ease(arrays["probe_quality"])
    at = _same_question(arrays["probe_vectors"], encoder.encode(questions))
    return np.array([np.nan if probe is None else easy[probe] for probe in at])


def _same_question(vectors: Vectors, asked: Vectors) -> list[int | None]:
    """Which probe question each text is; None where it is none of them."""
    if not len(vectors):
        return [None] * len(asked)
    similarity = asked @ vectors.T
    nearest = similarity.argmax(axis=1).tolist()
    return [probe if similarity[i, probe] > 1 - 1e-5 else None for i, probe in enumerate(nearest)]


def length_profile(lengths: npt.NDArray[np.float32]) -> Vectors:
    """Mean and deviation of the log of answers' lengths.

    Args:
        lengths: (questions, experts) in tokens; NaN where unknown.

    Returns:
        (2, experts).
    """
    logs = np.log(np.maximum(lengths, 1.0))
    known = ~np.isnan(logs)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, logs, 0.0).sum(axis=0) / count
    deviation = np.sqrt(np.where(known, (logs - mean) ** 2, 0.0).sum(axis=0) / count)
    return np.stack([mean, np.maximum(deviation, _LEAST_DEVIATION)]).astype(np.float32)


def wrong_pairs(
    qualities: npt.NDArray[np.float32], values: Sequence[Sequence[str | None]]
) -> Vectors:
    """How often wrong answers are the same.

    Args:
        qualities: (questions, experts); below one half is wrong, NaN unknown.
        values: The same shape: what each answer comes to; None for nothing.

    Returns:
        (questions, 2): pairs of wrong answers with values, and how many of them have one value.
    """
    pairs = np.zeros((len(values), 2), dtype=np.float32)
    for row, (quality, said) in enumerate(zip(qualities, values, strict=True)):
        counts = Counter(v for q, v in zip(quality, said, strict=True) if q < 0.5 and v is not None)
        wrong = counts.total()
        pairs[row] = wrong * (wrong - 1) / 2, sum(c * (c - 1) / 2 for c in counts.values())
    return pairs


def describe_experts(encoder: TextEncoder, descriptions: Sequence[str]) -> Vectors:
    """Embed descriptions: (experts, d); zeros where there is none."""
    vectors = encoder.encode([text or "-" for text in descriptions])
    vectors[[not text for text in descriptions]] = 0.0
    return vectors


_LEAST_RESULTS = 5  # fewer say nothing on how an expert's results go with the others'
_SPREAD = 0.5  # prior deviation of ability, besides what few experts leave open, and of the slope
_STEPS = 15  # of Newton's method; it converges in less than ten

_Doubles = npt.NDArray[np.float64]


def ease(quality: npt.NDArray[np.float32]) -> _Doubles:
    """How easy questions are for the experts known so far.

    Args:
        quality: (questions, experts); NaN unknown.

    Returns:
        (questions,) share of the experts that are right, pulled towards one half; NaN where none is known.
    """
    known = ~np.isnan(quality)
    count = known.sum(axis=1)
    share = (np.where(known, quality, 0.0).sum(axis=1) + 0.5) / (count + 1.0)
    return np.where(count > 0, share, np.nan).astype(np.float64)


def choose_questions(easy: _Doubles, count: int, rng: np.random.Generator) -> list[int]:
    """Draw questions, each as probably as it tells experts apart.

    Args:
        easy: (questions,) see `ease`; NaN counts as average.
        count: How many; all if there are fewer.
        rng: Of the draw.

    Returns:
        Positions in order.
    """
    telling = easy * (1.0 - easy)
    telling = np.where(
        np.isnan(telling), 0.25 if np.isnan(telling).all() else np.nanmean(telling), telling
    )
    drawn = rng.choice(len(easy), min(count, len(easy)), replace=False, p=telling / telling.sum())
    return sorted(drawn.tolist())


def completed(
    quality: npt.NDArray[np.float32],
    results: npt.NDArray[np.float32],
    costs: Sequence[float] | npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """One expert's results on all questions, of its results on some and of the others' on all.

    Args:
        quality: (questions, others); NaN unknown.
        results: (questions,); NaN where it was not asked.
        costs: (others + 1,) price of one call of each, its own last.

    Returns:
        (questions,) in [0, 1]; as given where it was asked, and NaN still where no other expert's result is
        known, or everywhere if the results are too few to say.
    """
    easy = ease(quality)
    usable = ~np.isnan(easy)
    asked = usable & ~np.isnan(results)
    if asked.sum() < _LEAST_RESULTS:
        return results
    logit = np.log(np.where(usable, easy, 0.5) / (1.0 - np.where(usable, easy, 0.5)))
    start = np.array([_expected_ability(quality[usable], logit[usable], np.asarray(costs)), 1.0])
    spread = np.array([_SPREAD + 1.0 / quality.shape[1], _SPREAD])
    curve = _fit(logit[asked], results[asked].astype(np.float64), start, spread)
    guess = np.where(usable, _right(curve, logit), np.nan)
    return np.where(np.isnan(results), guess, results).astype(np.float32)


def _right(curve: _Doubles, logit: _Doubles) -> _Doubles:
    """Probability of being right on questions: ability + slope * how easy each is."""
    result: _Doubles = 1.0 / (1.0 + np.exp(-(curve[0] + curve[1] * logit)))
    return result


def _fit(logit: _Doubles, results: _Doubles, start: _Doubles, spread: _Doubles) -> _Doubles:
    """Most probable ability and slope, from a normal prior."""
    at, curve, precision = np.stack([np.ones_like(logit), logit]), start, np.diag(spread**-2.0)
    for _ in range(_STEPS):
        right = _right(curve, logit)
        slope = at @ (results - right) - precision @ (curve - start)
        bend = (at * (right * (1.0 - right))) @ at.T + precision
        curve = curve + np.linalg.solve(bend, slope)
    return curve


def _expected_ability(
    quality: npt.NDArray[np.float32], logit: _Doubles, costs: npt.NDArray[np.floating[Any]]
) -> float:
    """What the price tells of an expert before it is asked: a line through the others' abilities."""
    logs = np.log(np.maximum(costs / max(float(costs.mean()), 1e-12), 1e-3))
    alike, alone = np.array([0.0, 1.0]), np.array([3.0, 1e-3])  # ability alone; the slope stays 1
    abilities = []
    for column in quality.T:
        known = ~np.isnan(column)
        abilities.append(_fit(logit[known], column[known].astype(np.float64), alike, alone)[0])
    beside = logs[:-1] - logs[:-1].mean()
    # One observation of "price says nothing": a line through two experts would say anything.
    line = float(beside @ np.array(abilities)) / (float(beside @ beside) + 1.0)
    return float(np.mean(abilities) + line * (logs[-1] - logs[:-1].mean()))
