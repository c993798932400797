"""How good a new expert is, from few answers and what the known experts did."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from der_graph.policies.observation.profiles import choose_questions, completed, ease


def pool_of(skills: list[float], questions: int = 2000) -> npt.NDArray[np.float32]:
    """Results of experts whose chance of being right falls alike with a question's difficulty."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0.0, 2.0, questions)
    chance = 1.0 / (1.0 + np.exp(hard[:, None] - np.array(skills)))
    right: npt.NDArray[np.float32] = (rng.random(chance.shape) < chance).astype(np.float32)
    return right


def test_ease_is_the_share_that_is_right_pulled_to_one_half() -> None:
    nan = np.nan
    quality = np.array([[1, 1, 1], [1, 0, nan], [nan, nan, nan]], dtype=np.float32)
    np.testing.assert_allclose(ease(quality), [3.5 / 4, 1.5 / 3, nan])


def test_questions_that_tell_nothing_are_rarely_drawn() -> None:
    easy = np.array([0.999] * 50 + [0.5] * 50)
    drawn = choose_questions(easy, 20, np.random.default_rng(0))
    assert drawn == sorted(set(drawn))
    assert sum(i >= 50 for i in drawn) >= 18
    assert choose_questions(np.full(3, np.nan), 9, np.random.default_rng(0)) == [0, 1, 2]
    assert len(choose_questions(np.array([0.5, np.nan, 0.1]), 2, np.random.default_rng(0))) == 2


def test_chosen_probes_tell_more_than_a_mean() -> None:
    """Over many draws: nearer to the truth than the mean of as many random questions."""
    quality = pool_of([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    new, others = quality[:, 4], quality[:, [0, 1, 2, 3, 5]]
    easy, costs = ease(others), [1.0, 2.0, 3.0, 4.0, 6.0, 5.0]
    ours, means = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        at = choose_questions(easy, 30, rng)
        results = np.full(len(new), np.nan, dtype=np.float32)
        results[at] = new[at]
        ours.append(completed(others, results, costs).mean() - new.mean())
        means.append(new[rng.permutation(len(new))[:30]].mean() - new.mean())
    assert np.sqrt(np.mean(np.square(ours))) < 0.7 * np.sqrt(np.mean(np.square(means)))
    assert abs(np.mean(ours)) < 0.03


def test_results_are_kept_and_unknown_questions_stay_unknown() -> None:
    quality = np.tile(np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], dtype=np.float32), (4, 1))
    quality[11] = np.nan
    results = np.full(12, np.nan, dtype=np.float32)
    results[:6] = [1, 0, 1, 1, 0, 0]
    filled = completed(quality, results, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(filled[:6], results[:6])
    assert filled[6] > filled[8] > filled[7]  # the more of the others are right, the likelier
    assert np.isnan(filled[11])
    assert ((filled[:11] >= 0) & (filled[:11] <= 1)).all()


def test_too_few_results_are_left_alone() -> None:
    quality = np.ones((6, 2), dtype=np.float32)
    results = np.array([1, 1, 0, 1, np.nan, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(completed(quality, results, [1, 1, 1]), results)
    alone = np.array([1, 1, 0, 1, 1, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(
        completed(np.zeros((6, 0), dtype=np.float32), alone, [1.0]), alone
    )


@pytest.mark.parametrize("costs", [[1.0, 4.0, 16.0, 16.0], [0.0, 0.0, 0.0, 0.0]])
def test_the_price_is_what_is_expected_before_the_answers(costs: list[float]) -> None:
    quality = pool_of([-1.0, 0.5, 2.0])
    results = np.full(len(quality), np.nan, dtype=np.float32)
    results[:6] = [0, 1, 0, 1, 0, 1]
    dear = completed(quality, results, costs).mean()
    cheap = completed(quality, results, [*costs[:-1], costs[0]]).mean()
    if costs[-1]:
        assert dear > cheap + 0.05
    else:  # all are free: the price says nothing
        assert dear == pytest.approx(cheap)
