"""The environment: Gymnasium's own checks, rewards by hand, and going on from a saved state."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy import toy_observer, toy_rules, toy_source

pytest.importorskip("stable_baselines3")

from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from stable_baselines3.common.env_checker import check_env

from der_graph.errors import DataError
from der_graph.policies.answers import AnswerSource
from der_graph.policies.training.env import Episodes, RequestConfig, RoutingEnv, RoutingVecEnv
from der_graph.policies.training.reward import PRESETS

FIXED = RequestConfig(
    cost_weight=0.36, cost_weight_range=(0.36, 0.36), budget_share=0.0, short_share=0.0
)


def make_env(
    count: int = 8, envs: int = 2, requests: RequestConfig = FIXED, seed: int = 0
) -> RoutingVecEnv:
    source = toy_source(count)
    rules = toy_rules(source.experts)
    episodes = Episodes(count, requests, rules.costs, seed, rules.max_steps)
    return RoutingVecEnv(source, rules, toy_observer(source), PRESETS["default"], episodes, envs)


@pytest.mark.filterwarnings("ignore:.*Box.*:UserWarning")  # features have no bounds of their own
def test_gymnasium_and_sb3_accept_it() -> None:
    source = toy_source(6)
    rules = toy_rules(source.experts)
    env = RoutingEnv(source, rules, toy_observer(source), PRESETS["default"])
    check_env(env, warn=False)
    check_gymnasium_env(env, skip_render_check=True)


def test_an_episode_ends_with_its_own_last_observation() -> None:
    """Not with the next question, which only `reset` draws: each question comes once a pass."""
    source = toy_source(6)
    rules = toy_rules(source.experts)
    env = RoutingEnv(source, rules, toy_observer(source), PRESETS["default"], FIXED)
    env.reset(seed=3)
    asked = []
    for _ in range(6):
        route = env._env.lockstep.routes[0]
        asked.append(route.example)
        env.step(3)
        last, _, terminated, truncated, info = env.step(4)
        assert (terminated, truncated) == (True, False)
        assert info["experts"] == [3]
        situation = env._env.lockstep.situation(0)
        assert situation.question == source.examples[asked[-1]].question
        assert [answer["expert"] for answer in situation.answers] == ["parrot"]
        expected = env._env.observer.observe([situation], [0.36])[0]
        np.testing.assert_array_equal(last, expected)
        first, _ = env.reset()
        assert not np.array_equal(first, last)
    assert sorted(asked) == list(range(6))


def test_what_is_forbidden_ends_the_episode() -> None:
    source = toy_source(2)
    rules = toy_rules(source.experts)
    env = RoutingEnv(source, rules, toy_observer(source), PRESETS["default"], FIXED)
    first, _ = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(4)  # END before any answer
    np.testing.assert_array_equal(observation, first)
    assert (reward, terminated, truncated, info) == (-1.0, True, False, {"forbidden": True})


def test_rewards_by_hand() -> None:
    """Asking everyone costs 3.6, so at a price of 0.36 a cost of 1 is worth 0.1 of quality."""
    env = make_env(8, 1)
    env.reset()
    while env.lockstep.routes[0].example % 2 == 0:  # until it is a sum
        env.lockstep.start(0, *env.episodes.draw())
    rewards = []
    for action in (0, 1, 4):
        _, reward, done, infos = env.step(np.array([action]))
        rewards.append(float(reward[0]))
    assert rewards == pytest.approx([0.0 - 0.1, 1.0 - 0.01, 0.0], abs=1e-6)
    assert bool(done[0])
    assert infos[0]["experts"] == [0, 1]
    assert infos[0]["quality"] == 1.0
    assert infos[0]["episode"]["r"] == pytest.approx(0.89)


def test_reaching_the_longest_route_is_terminated_not_truncated() -> None:
    env = make_env(8, 1)
    env.reset()
    for action in (3, 2, 0):
        _, _, done, infos = env.step(np.array([action]))
    assert bool(done[0])
    assert infos[0]["TimeLimit.truncated"] is False


def test_every_question_once_a_pass() -> None:
    episodes = Episodes(5, FIXED, [1.0, 2.0], seed=1, max_steps=4)
    first = [episodes.draw()[0] for _ in range(5)]
    second = [episodes.draw()[0] for _ in range(5)]
    assert sorted(first) == sorted(second) == list(range(5))


def test_requests_cover_their_range() -> None:
    requests = RequestConfig(0.2, (0.02, 2.0), budget_share=0.5, short_share=0.5)
    drawn = [Episodes(3, requests, [0.1, 2.0], seed=s, max_steps=4).draw()[1] for s in range(300)]
    weights = [context.cost_weight for context in drawn if context.cost_weight is not None]
    budgets = [context.max_cost for context in drawn if context.max_cost is not None]
    assert min(weights) >= 0.02
    assert max(weights) <= 2.0
    assert np.median(weights) == pytest.approx(0.2, rel=0.5)  # the middle of a log-uniform range
    assert 100 < len(budgets) < 200
    assert min(budgets) >= 0.1
    assert max(budgets) <= 2.1
    shorter = [context.max_steps for context in drawn if context.max_steps is not None]
    assert 100 < len(shorter) < 200
    assert set(shorter) == {1, 2, 3}  # 4 is the longest anyway


def test_no_shorter_routes_where_one_call_is_the_longest() -> None:
    requests = RequestConfig(short_share=1.0)
    assert Episodes(3, requests, [0.1, 2.0], seed=0, max_steps=1).draw()[1].max_steps is None


def test_a_restored_environment_goes_on_alike() -> None:
    requests = RequestConfig(0.2, (0.02, 2.0), budget_share=0.3)
    env = make_env(8, 3, requests)
    env.reset()
    rng = np.random.default_rng(0)

    def walk(env: RoutingVecEnv, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        seen = []
        for _ in range(steps):
            actions = [rng.choice(np.flatnonzero(mask)) for mask in env.masks()]
            env.step_async(np.array(actions))
            observation, rewards, _, _ = env.step_wait()
            seen += [observation, rewards]
        return seen

    walk(env, 7, rng)
    saved, state = json.dumps(env.state()), rng.bit_generator.state
    expected = walk(env, 9, rng)
    other = make_env(8, 3, requests, seed=99)
    other.observer = env.observer  # fitted twice, it may differ in the last bits
    other.restore(json.loads(saved))
    rng.bit_generator.state = state
    for a, b in zip(expected, walk(other, 9, rng), strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_reach_the_algorithm() -> None:
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

    env = make_env()
    env.reset()
    assert is_masking_supported(env)
    assert get_action_masks(env).tolist() == [[True, True, True, True, False]] * 2


def test_no_questions_is_said_plainly() -> None:
    source = toy_source(2)
    empty = AnswerSource(source.experts, [], source.metric)
    rules = toy_rules(source.experts)
    with pytest.raises(DataError, match="no questions"):
        RoutingVecEnv(
            empty,
            rules,
            toy_observer(source),
            PRESETS["default"],
            Episodes(0, FIXED, rules.costs, 0, rules.max_steps),
            1,
        )
