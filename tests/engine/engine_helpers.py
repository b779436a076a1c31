"""An environment of random numbers, and the same rollout for two engines."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

FIELDS = ("action", "reward", "value", "log_prob", "terminated", "truncated", "episode_start")


class Random(gym.Env):
    """Random observations; the reward is the action's sum; episodes terminate at random and are cut off after 20."""

    def __init__(self, action_space, shape=(5,)):
        self.action_space = action_space
        self.observation_space = spaces.Box(-1, 1, shape, np.float32)

    def _observe(self):
        return self.np_random.uniform(-1, 1, self.observation_space.shape).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        return self._observe(), float(np.sum(action)), self.np_random.random() < 0.05, self.steps >= 20, {}


def random_envs(action_space=None, n_envs=3, shape=(5,)):
    space = spaces.Box(-1, 1, (2,), np.float32) if action_space is None else action_space
    return DummyVecEnv([lambda: Random(space, shape) for _ in range(n_envs)])


def make(algorithm, engine, env=None, **kwargs):
    settings = {"n_steps": 40, "batch_size": 32, "n_epochs": 3, "seed": 5, "device": "cpu", "engine": engine}
    return algorithm("MlpPolicy", random_envs() if env is None else env, **settings | kwargs)


def parameters(model):
    return [parameter.detach().clone() for parameter in model.policy.parameters()]


def largest_difference(first, second):
    return max((a - b).abs().max().item() for a, b in zip(parameters(first), parameters(second), strict=True))


def share_rollout(source, target):
    """Let ``source`` collect a rollout, and put ``target`` where it would train on the same one.

    Both then estimate advantages of their own.
    """
    _, callback = source._setup_learn(10**6)
    target._setup_learn(10**6)
    source.collect_rollouts(source.env, callback, source.rollout_buffer, source.n_steps)
    theirs, ours = source.rollout_buffer, target.rollout_buffer
    ours.reset()
    for name in FIELDS:
        getattr(ours, name).copy_(getattr(theirs, name))
    ours.observation.copy_(theirs.observation)
    ours.pos = theirs.pos
    device = ours.reward.device
    ours._final = [(step, index.to(device), seen.to(device)) for step, index, seen in theirs._final]
    target._last_obs, target._last_episode_starts = source._last_obs, source._last_episode_starts


def train_both(source, target):
    """Train both on the rollout they share, with the same minibatches."""
    state = np.random.get_state()
    source.train()
    np.random.set_state(state)
    target.train()
