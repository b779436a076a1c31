"""Tiny environments whose values are known in closed form, to test learners against."""

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

End = Literal["terminated", "truncated", "never"]


class ConstantRewardEnv(gym.Env[np.ndarray, Any]):
    """A corridor in which nothing depends on the action, for any action space.

    Every step gives the same reward, and under a policy that ignores the observation the same entropy too. So the
    value of either is a geometric series: :meth:`value`. The observation is the elapsed fraction of the episode,
    ``[1]``.

    Args:
        action_space: any space; ``None`` is ``Discrete(2)``.
        reward: of every step.
        length: steps in an episode.
        end: how it ends: ``"terminated"`` (no future), ``"truncated"`` (the future is cut off, but counts) or
            ``"never"`` (the observation then stays at 0).
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's protocol

    def __init__(
        self,
        action_space: spaces.Space | None = None,
        reward: float = 1.0,
        length: int = 10,
        end: End = "truncated",
    ) -> None:
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.reward, self.length, self.end = reward, length, end
        self.elapsed = 0

    def value(self, elapsed: int, gamma: float, per_step: float | None = None) -> float:
        """Return the discounted sum of ``per_step`` (default: the reward) over all steps to come.

        ``x/(1 − γ)``, and where the episode terminates after ``n`` more steps ``x·(1 − γⁿ)/(1 − γ)``.

        Args:
            elapsed: steps already taken in this episode.
            gamma: discount, below 1.
            per_step: what each step yields, such as the policy's entropy.
        """
        amount = self.reward if per_step is None else per_step
        share = 1.0 - gamma ** (self.length - elapsed) if self.end == "terminated" else 1.0
        return amount * share / (1.0 - gamma)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        self.elapsed = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go one step, whatever the action."""
        self.elapsed += self.end != "never"
        last = self.elapsed >= self.length
        return self._observation(), self.reward, last and self.end == "terminated", last and self.end == "truncated", {}

    def _observation(self) -> np.ndarray:
        return np.array([self.elapsed / self.length], np.float32)


class TwoStateEnv(gym.Env[np.ndarray, Any]):
    """Two states; action 1 switches between them, action 0 stays. Never terminates.

    The reward is that of the state that was left, the observation is one-hot, ``[2]``.

    Args:
        rewards: of a step from state 0 and from state 1.
        length: steps until truncation.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's protocol

    def __init__(self, rewards: tuple[float, float] = (0.0, 1.0), length: int = 100) -> None:
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.rewards, self.length = rewards, length
        self.state = 0
        self.elapsed = 0

    def values(self, gamma: float, switch_probability: tuple[float, float], tau: float = 0.0) -> np.ndarray:
        """Return the soft value of both states, ``[2]``, under a policy.

        Solves the Bellman equation ``V = r + τ·H(π) + γ·P·V``.

        Args:
            gamma: discount, below 1.
            switch_probability: of action 1 in state 0 and in state 1.
            tau: weight of the policy's entropy in nats, counted in every state that is acted in.
        """
        switch = np.array(switch_probability)
        policy = np.stack([1.0 - switch, switch], axis=1)
        entropy = -np.sum(policy * np.log(np.where(policy > 0, policy, 1.0)), axis=1)
        transition = np.array([policy[0], policy[1, ::-1]])
        return np.linalg.solve(np.eye(2) - gamma * transition, np.array(self.rewards) + tau * entropy)

    def optimal_values(self, gamma: float, tau: float, tolerance: float = 1e-12) -> np.ndarray:
        """Return the best soft value of both states, ``[2]``: the fixed point of ``V = r + τ·log Σ_a exp(γ·V'/τ)``.

        Args:
            gamma: discount, below 1.
            tau: temperature, above 0.
            tolerance: largest change of the last iteration.
        """
        value = np.zeros(2)
        while True:
            stay, switch = gamma * value / tau, gamma * value[::-1] / tau
            better = np.array(self.rewards) + tau * np.logaddexp(stay, switch)
            if np.abs(better - value).max() < tolerance:
                return better
            value = better

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start in one of the states, each with probability one half."""
        super().reset(seed=seed)
        self.state, self.elapsed = int(self.np_random.integers(2)), 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Stay (0) or switch (1)."""
        reward = self.rewards[self.state]
        self.state = (self.state + int(action)) % 2
        self.elapsed += 1
        return self._observation(), reward, False, self.elapsed >= self.length, {}

    def _observation(self) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.state]


class InvalidNumberEnv(ConstantRewardEnv):
    """A :class:`ConstantRewardEnv` that once emits a number that is not finite.

    Args:
        at_step: the step of an episode, from 1, that goes wrong.
        where: ``"observation"`` or ``"reward"``.
        value: what is emitted, such as NaN or infinity.
        **kwargs: see :class:`ConstantRewardEnv`.
    """

    def __init__(
        self,
        at_step: int = 5,
        where: Literal["observation", "reward"] = "observation",
        value: float = float("nan"),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.at_step, self.where, self.value_emitted = at_step, where, value

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go one step; at ``at_step`` the observation or the reward is invalid."""
        observation, reward, terminated, truncated, info = super().step(action)
        if self.elapsed == self.at_step:
            if self.where == "observation":
                observation = np.full_like(observation, self.value_emitted)
            else:
                reward = self.value_emitted
        return observation, reward, terminated, truncated, info
