"""A small environment whose every number is random, and models trained in it compared."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv


class Noise(gym.Env):
    """Random observations and rewards, cut off after ``limit`` steps; optionally broken at one step."""

    def __init__(self, limit=7, broken=None, at=5, action_space=None, dictionary=False):
        self.limit, self.broken, self.at = limit, broken, at
        box = spaces.Box(-5, 5, (3,), np.float32)
        self.observation_space = spaces.Dict({"a": box, "b": spaces.Discrete(3)}) if dictionary else box
        self.action_space = action_space or spaces.Box(-1, 1, (2,), np.float32)
        self.total = 0

    def _observe(self):
        values = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        if self.broken == "observation" and self.total == self.at:
            values[1] = np.nan
        if isinstance(self.observation_space, spaces.Dict):
            return {"a": values, "b": int(self.np_random.integers(3))}
        return values

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        self.total += 1
        reward = float(self.np_random.normal())
        if self.broken == "reward" and self.total == self.at:
            reward = float("inf")
        return self._observe(), reward, False, self.limit is not None and self.steps >= self.limit, {}


def endless(n_envs=1, **kwargs):
    """Environments without time limits."""
    return DummyVecEnv([lambda: Noise(limit=None, **kwargs) for _ in range(n_envs)])


def assert_same_parameters(theirs, ours):
    """Compare bit for bit; ours may have parameters of their own."""
    got = ours.policy.state_dict()
    for name, value in theirs.policy.state_dict().items():
        assert torch.equal(got[name], value), f"{name} differs by {(got[name] - value).abs().max()}"
