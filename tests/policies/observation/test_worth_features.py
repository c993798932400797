"""What asking an expert is worth, as agents for any pool see it: by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fakes import said
from toy import profile_observer

from der_graph.policies.agent.network import ProfileHead, Shape, SharedHead
from der_graph.policies.observation import Observer
from der_graph.policies.observation.encoder import Vectors
from der_graph.policies.observation.evidence import gather
from der_graph.policies.observation.features import PROFILE_FEATURES, UNIT
from der_graph.policies.observation.projection import ProjectedTexts
from der_graph.state import Answer, Situation


def belief(*answers: Answer, right: Sequence[float] = (0.8, 0.6, 0.5)) -> float:
    """That the last answer is right, of experts a, b and c that are right so often."""
    seen = gather([Situation("q", list(answers), [True] * 4)], {"a": 0, "b": 1, "c": 2})
    odds = np.array(right) / (1 - np.array(right))
    return float(seen.belief(np.log(odds)[None].astype(np.float32))[0])


def test_belief_in_the_last_answer() -> None:
    """Odds of a, b, c are 4, 1.5 and 1; "none of the values" has 1."""
    assert belief() == 0.0
    assert belief(said("a", "7")) == pytest.approx(0.8)
    assert belief(said("a", "7"), said("b", "7")) == pytest.approx(6 / 7)
    assert belief(said("a", "7"), said("b", "8")) == pytest.approx(1.5 / (1 + 4 + 1.5))
    assert belief(said("a", "7"), said("b", "8"), said("c", "7")) == pytest.approx(
        4 / (1 + 4 + 1.5)
    )


def test_what_has_no_value_agrees_with_nobody() -> None:
    assert belief(said("a", None), said("b", None)) == pytest.approx(1.5 / (1 + 4 + 1.5))
    assert belief(said("a", "7"), said("b", None, error="down")) == pytest.approx(0.8)


class Angles:
    """Texts that say their angle in degrees."""

    name = "angles"

    def encode(self, texts: Sequence[str]) -> Vectors:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        # Both right where 0.5 was to be expected: the question is easy, by 0.5 / (1 + 2).
        ([1.0, 1.0], [0.5 + 0.5 / 3, 0.5 + 0.5 / 3]),
        # One of them: no easier than others, and each differs by 0.5 / (1 + 60).
        ([1.0, 0.0], [0.5 + 0.5 / 61, 0.5 - 0.5 / 61]),
    ],
)
def test_how_probably_an_expert_is_right(results: list[float], expected: list[float]) -> None:
    """By one probe question near by: what experts have in common counts more than how they differ."""
    questions, _ = probed({"40": results}).look_up(["35"], [])
    np.testing.assert_allclose(questions["35"].expected, expected, atol=1e-6)


def test_a_probe_question_is_not_looked_up() -> None:
    """It was answered well, the one beside it was not: what is near says no."""
    questions, _ = probed({"40": [1.0, 1.0], "60": [0.0, 0.0]}).look_up(["40"], [])
    np.testing.assert_allclose(questions["40"].expected, 0.5 - 0.5 / 3, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_many_questions_are_looked_up_in_blocks(
    sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions at a time, one at a time, or all at once: the same neighbours."""
    draw = np.random.default_rng(0)
    results = {str(i): draw.integers(0, 2, 2).astype(float).tolist() for i in range(40)}
    if sparse:
        results |= {str(i): [results[str(i)][0], np.nan] for i in range(0, 40, 2)}
    texts = [f"{i / 2}" for i in range(21)]
    whole, _ = probed(results).look_up(texts, [])
    monkeypatch.setattr("der_graph.policies.observation.projection._SIMILARITIES", 2 * len(results))
    blocks, _ = probed(results).look_up(texts, [])
    for text in texts:
        single, _ = probed(results).look_up([text], [])
        for found in (blocks[text], single[text]):
            np.testing.assert_allclose(found.skill, whole[text].skill, atol=1e-5)
            np.testing.assert_allclose(found.expected, whole[text].expected, atol=1e-5)
            assert found.chance == pytest.approx(whole[text].chance, abs=1e-5)
    assert len({tuple(near.skill.tolist()) for near in whole.values()}) > 5


def test_features_of_their_own_are_never_crowded_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("der_graph.policies.observation.projection._REMEMBERED", 1)
    texts = probed({"40": [1.0, 1.0], "60": [0.0, 0.0]})
    own = np.arange(3, dtype=np.float32)[:, None]
    texts.remember(["10", "20", "30"], own, np.repeat(own, 2, axis=1))
    for _ in range(2):
        found, _ = texts.look_up(["30", "50", "10", "60", "20"], [])
        assert [found[text].projected.tolist() for text in ("10", "20", "30")] == own.tolist()
        assert found["30"].expected.tolist() == [2.0, 2.0]


def probed(results: dict[str, list[float]]) -> ProjectedTexts:
    """Two experts, each right half of the time, and what they did on some probe questions."""
    arrays = {
        "probe_vectors": Angles().encode(list(results)),
        "probe_quality": np.array(list(results.values()), dtype=np.float32),
        "question_mean": np.zeros(2, dtype=np.float32),
        "question_axes": np.zeros((2, 1), dtype=np.float32),
    }
    skill = np.array([0.5, 0.5], dtype=np.float32)
    return ProjectedTexts(Angles(), arrays, skill, neighbours=True)


@pytest.fixture(scope="module")
def observer() -> Observer:
    return profile_observer()


def test_worth_is_probability_less_charge_compared(observer: Observer) -> None:
    """Price 0.36, asking everyone costs 3.6: a call is charged a tenth of its price."""
    mask = [True, False, True, True, True]
    seen = Situation("What is the colour of thing 7?", [said("counter", "5")], mask, max_steps=3)
    row = observer.observe([seen], [0.36])[0]
    state = dict(zip(PROFILE_FEATURES.state, row.tolist(), strict=False))
    blocks = row[observer.context_size :].reshape(4, observer.expert_size)
    table = {name: blocks[:, i] for i, name in enumerate(PROFILE_FEATURES.expert)}
    net = table["expected"] - [0.1, 0.01, 0.2, 0.05]
    np.testing.assert_allclose(table["net"], net, atol=1e-6)
    assert state["right_now"] == pytest.approx(table["expected"][1], abs=1e-6)
    gain = (net - table["expected"][1]) / UNIT
    np.testing.assert_allclose(table["gain"], np.clip(gain, -5, 5), atol=1e-5)
    assert state["best_gain"] == pytest.approx(max(gain[0], gain[2], gain[3]), abs=1e-5)
    best = int(np.argmax(np.where(mask[:4], net, -9)))
    others = [i for i in (0, 2, 3) if i != best]
    assert table["lead"][best] == pytest.approx((net[best] - net[others].max()) / UNIT, abs=1e-5)
    for i in (1, *others):  # who may not be asked is compared, too
        assert table["lead"][i] == pytest.approx((net[i] - net[best]) / UNIT, abs=1e-5)


def test_nobody_left_is_no_gain(observer: Observer) -> None:
    seen = Situation("q", [said("counter", "5")], [False] * 4 + [True], max_steps=3)
    row = observer.observe([seen], [0.1])[0]
    assert row[PROFILE_FEATURES.state.index("best_gain")] == 0.0
    assert np.isfinite(row).all()


def test_the_direct_path_is_linear_in_the_features_of_an_expert() -> None:
    torch.manual_seed(0)
    head = ProfileHead(Shape(3, 2, 4, 8, "profile"))
    plain = SharedHead(Shape(3, 2, 4, 8))
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if k != "direct.weight"})
    observations = torch.randn(5, 2 + 3 * 4)
    torch.testing.assert_close(head(observations)[0], plain(observations)[0])  # it begins at zero
    with torch.no_grad():
        head.direct.weight.copy_(torch.tensor([[2.0, 0.0, 0.0, -1.0]]))
    experts = observations[:, 2:].reshape(5, 3, 4)
    added = head(observations)[0] - plain(observations)[0]
    torch.testing.assert_close(added[:, :3], 2 * experts[:, :, 0] - experts[:, :, 3])
    torch.testing.assert_close(added[:, 3], torch.zeros(5))
