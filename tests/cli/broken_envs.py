"""Environments that fail the way real ones do; imported by id, as ``broken_envs:Exploding-v0``."""

from pathlib import Path

import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv


class Exploding(CartPoleEnv):
    """Raises after ``steps`` steps, every time or, with ``marker``, once in a lifetime of that file."""

    def __init__(self, steps: int = 200, marker: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.steps_left = steps
        self.marker = marker

    def step(self, action):
        self.steps_left -= 1
        if self.steps_left < 0 and (self.marker is None or not Path(self.marker).exists()):
            if self.marker is not None:
                Path(self.marker).touch()
            raise RuntimeError("the simulator exploded")
        return super().step(action)


gym.register("Exploding-v0", Exploding, max_episode_steps=500)
gym.register("Flaky-v0", Exploding, max_episode_steps=500)
