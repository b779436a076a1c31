"""Environments and comparisons for the tests of ``VecNormalize``."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env import VecNormalize as SB3VecNormalize

from maxent_onpolicy.envs import VecNormalize, make_vec_env
from maxent_onpolicy.envs.tensor import from_numpy_step


class DoubleEnv(gym.Env):
    """Float64 observations of any structure; ends at random, in both ways."""

    def __init__(self, structure="box"):
        vector = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        parts = {"vector": vector, "number": spaces.Discrete(4), "other": spaces.Box(-9, 9, (2, 2), np.float64)}
        self.structure = structure
        self.observation_space = vector if structure == "box" else spaces.Dict(parts)
        self.action_space = spaces.Discrete(2)

    def _observe(self):
        vector = self.np_random.normal([5.0, -3.0, 0.0], [1.0, 10.0, 0.01])
        if self.structure == "box":
            return vector
        other = self.np_random.uniform(-9, 9, (2, 2))
        return {"vector": vector, "number": int(self.np_random.integers(4)), "other": other}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        terminated, truncated = self.np_random.random(2) < 0.15
        return self._observe(), float(self.np_random.normal(2, 3)), bool(terminated), bool(truncated), {}


def raw_env(structure="box"):
    return make_vec_env(DoubleEnv, 4, seed=1, structure=structure)


class Transparent(VecEnvWrapper):
    """Changes nothing."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


class OnTensors(Transparent):
    """Makes any environments tensor environments."""

    def step_tensor(self, actions):
        return from_numpy_step(*self.venv.step(actions.numpy()), device="cpu")


def pair(structure="box", **kwargs):
    return SB3VecNormalize(raw_env(structure), **kwargs), VecNormalize(raw_env(structure), device="cpu", **kwargs)


def assert_close(left, right, tolerance=0.0):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_close(left[key], right[key], tolerance)
    else:
        left, right = np.asarray(left), np.asarray(right)
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def assert_same_statistics(left, right, tolerance=0.0):
    pairs = [(left.ret_rms, right.ret_rms)]
    if left.norm_obs:
        keys = left.obs_rms.keys() if isinstance(left.obs_rms, dict) else [None]
        pairs += [(rms if key is None else rms[key] for rms in (left.obs_rms, right.obs_rms)) for key in keys]
    for one, other in pairs:
        for part in ("mean", "var", "count"):
            np.testing.assert_allclose(getattr(one, part), getattr(other, part), rtol=tolerance)


CASES = [
    ("box", {}),
    ("box", {"norm_obs": False}),
    ("box", {"norm_reward": False, "clip_obs": 1.5}),
    ("box", {"clip_reward": 0.5, "gamma": 0.5, "epsilon": 0.1}),
    ("box", {"training": False}),
    ("box", {"clip_obs": float("inf")}),
    ("dict", {"norm_obs_keys": ["vector", "other"]}),
    ("dict", {"norm_obs_keys": ["other"]}),
]


def trained(structure="box", **kwargs):
    _, vec_env = pair(structure, **kwargs)
    vec_env.reset()
    for _ in range(20):
        vec_env.step([0] * 4)
    return vec_env
