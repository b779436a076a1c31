"""The toys' closed forms agree with simulation."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from maxent_onpolicy.envs.toys import ConstantRewardEnv, InvalidNumberEnv, TwoStateEnv


@pytest.mark.parametrize(
    "env",
    [
        ConstantRewardEnv(),
        ConstantRewardEnv(end="never"),
        ConstantRewardEnv(spaces.Box(-1, 1, (2,))),
        ConstantRewardEnv(spaces.MultiBinary(3), end="terminated"),
        TwoStateEnv(),
    ],
)
def test_follows_gymnasium(env):
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("elapsed", [0, 3])
def test_value_of_a_terminating_corridor_is_the_discounted_sum(elapsed):
    env = ConstantRewardEnv(reward=2.0, length=6, end="terminated")
    env.reset()
    rewards, terminated = [], False
    while not terminated:
        observation, reward, terminated, truncated, _ = env.step(0)
        rewards.append(reward)
        assert not truncated
    assert observation == 1.0
    expected = sum(reward * 0.9**k for k, reward in enumerate(rewards[elapsed:]))
    assert env.value(elapsed, 0.9) == pytest.approx(expected)
    assert env.value(elapsed, 0.9, per_step=1.0) == pytest.approx(expected / 2)


@pytest.mark.parametrize("end", ["truncated", "never"])
def test_value_without_termination_is_the_endless_series(end):
    env = ConstantRewardEnv(reward=2.0, length=4, end=end)
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(4)]
    assert ends[-1] == (False, end == "truncated")
    assert env.value(3, 0.9) == pytest.approx(20.0)


def test_two_state_values_are_the_mean_discounted_return():
    """The Bellman solution against matrix powers: V = Σ_t γ^t P^t (r + τH)."""
    env = TwoStateEnv(rewards=(0.5, 2.0))
    switch, gamma, tau = np.array([0.3, 0.8]), 0.9, 0.2
    transition = np.array([[0.7, 0.3], [0.8, 0.2]])
    entropy = -(switch * np.log(switch) + (1 - switch) * np.log(1 - switch))
    expected = sum(gamma**t * np.linalg.matrix_power(transition, t) @ (env.rewards + tau * entropy) for t in range(400))
    np.testing.assert_allclose(env.values(gamma, tuple(switch), tau), expected, rtol=1e-12)


def test_two_state_dynamics_match_the_transition_matrix():
    env = TwoStateEnv(rewards=(0.5, 2.0), length=3)
    env.reset(seed=0)
    env.state = 0
    steps = [env.step(action) for action in (1, 0, 1)]
    assert [step[1] for step in steps] == [0.5, 2.0, 2.0]
    np.testing.assert_array_equal([step[0] for step in steps], [[0, 1], [0, 1], [1, 0]])
    assert [step[2:4] for step in steps] == [(False, False), (False, False), (False, True)]


def test_optimal_soft_values_beat_every_policy_and_are_reached():
    env, gamma, tau = TwoStateEnv(), 0.8, 0.5
    best = env.optimal_values(gamma, tau)
    grid = np.linspace(0, 1, 21)
    assert all((env.values(gamma, (p, q), tau) <= best + 1e-9).all() for p in grid for q in grid)
    stay, switch = gamma * best / tau, gamma * best[::-1] / tau
    policy = np.exp(switch - np.logaddexp(stay, switch))
    np.testing.assert_allclose(env.values(gamma, tuple(policy), tau), best, rtol=1e-9)


@pytest.mark.parametrize("where", ["observation", "reward"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_invalid_numbers_come_exactly_when_asked(where, value):
    env = InvalidNumberEnv(at_step=3, where=where, value=value, length=5)
    env.reset()
    steps = [env.step(0) for _ in range(5)]
    finite = [bool(np.isfinite(step[0]).all() and np.isfinite(step[1])) for step in steps]
    assert finite == [True, True, False, True, True]
    np.testing.assert_array_equal(steps[2][0 if where == "observation" else 1], value)
