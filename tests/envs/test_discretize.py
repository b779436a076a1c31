"""Discretised actions cover the box evenly, bounds included."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maxent_onpolicy.envs import DiscretizeActions, make_vec_env
from maxent_onpolicy.envs.toys import ConstantRewardEnv


def toy(low, high, dtype=np.float32):
    low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    return ConstantRewardEnv(action_space=spaces.Box(low, high, dtype=dtype))


def test_golden_values():
    env = DiscretizeActions(toy([-1.0, 0.0], [1.0, 4.0]), bins=5)
    assert env.action_space == spaces.MultiDiscrete([5, 5])
    np.testing.assert_array_equal(env.action(np.array([0, 0])), np.float32([-1.0, 0.0]))
    np.testing.assert_array_equal(env.action(np.array([2, 1])), np.float32([0.0, 1.0]))
    np.testing.assert_array_equal(env.action(np.array([4, 4])), np.float32([1.0, 4.0]))


@given(
    low=hnp.arrays(np.float32, st.sampled_from([(1,), (3,), (2, 3)]), elements=st.floats(-8, 0, width=32)),
    width=st.floats(0.125, 100, width=32),
    bins=st.integers(2, 11),
)
def test_bounds_are_exact_and_spacing_even(low, width, bins):
    env = DiscretizeActions(toy(low, low + np.float32(width)), bins)
    choices = np.stack([env.action(np.full(low.size, k)) for k in range(bins)])
    space = env.env.action_space
    np.testing.assert_array_equal(choices[0], space.low)
    np.testing.assert_array_equal(choices[-1], space.high)
    assert all(space.contains(choice) for choice in choices)
    np.testing.assert_allclose(np.diff(choices, axis=0), (width / (bins - 1)), rtol=1e-2)


def test_the_environment_gets_the_continuous_action():
    received = []

    class Recorder(gym.ActionWrapper):
        def action(self, action):
            received.append(action)
            return action

    vec_env = make_vec_env(
        lambda: DiscretizeActions(Recorder(toy(np.full((2, 2), -1), np.ones((2, 2)))), bins=3), 1, seed=0
    )
    vec_env.reset()
    vec_env.step(np.array([[0, 1, 2, 0]]))
    np.testing.assert_array_equal(received[0], np.float32([[-1, 0], [1, -1]]))


@pytest.mark.parametrize("bins", [1, 0, -3, 2.5, True])
def test_too_few_bins_are_refused(bins):
    with pytest.raises(ValueError, match=r"`bins`.*at least 2"):
        DiscretizeActions(toy([-1], [1]), bins)


def test_unbounded_and_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="finite bounds"):
        DiscretizeActions(toy([-1], [np.inf]))
    with pytest.raises(ValueError, match="Box"):
        DiscretizeActions(ConstantRewardEnv())
