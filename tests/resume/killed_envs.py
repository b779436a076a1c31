"""Environments for killed runs; imported by id, as ``killed_envs:Held-v0``."""

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Held(gym.Env):
    """Holds an open file, so that its state cannot be saved, and writes a byte there for every step.

    No episode ends before its time limit, so that the number of steps of an evaluation is known.
    """

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, steps: str) -> None:
        self.file = open(steps, "ab", buffering=0)  # noqa: SIM115

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        os.write(self.file.fileno(), b".")
        return self._observe(), float(action), False, False, {}

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


gym.register("Held-v0", Held, max_episode_steps=8)
