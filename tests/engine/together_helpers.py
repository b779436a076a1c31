"""Models that train together, each alone, and whether they end alike."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from maxent_onpolicy import PPO, make_vec_env
from maxent_onpolicy.algorithms.train_seeds import train_together
from maxent_onpolicy.engine.lockstep import Member
from maxent_onpolicy.envs.torch_vec_env import TorchVecEnv

Make = Callable[[int], PPO]


class Drift(TorchVecEnv):
    """A point that actions of any kind push; it is lost outside of a ball."""

    row_settings: ClassVar[tuple[str, ...]] = ()
    ACTIONS: ClassVar[dict[str, spaces.Space]] = {
        "gaussian": spaces.Box(-0.5, 0.5, (2,), np.float32),
        "discrete": spaces.Discrete(3),
        "multi_discrete": spaces.MultiDiscrete([3, 4]),
        "multi_binary": spaces.MultiBinary(3),
    }

    def __init__(self, actions: str, num_envs: int, seed: int) -> None:
        observations = spaces.Box(-9, 9, (3,), np.float32)
        super().__init__(num_envs, observations, self.ACTIONS[actions], 9, "cpu", seed)

    def initial_state(self) -> Tensor:
        return self.uniform(3)

    def transition(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        push = action.reshape(self.num_envs, -1).float().mean(1, keepdim=True)
        following = 1.1 * state + 0.3 * push
        return following, push[:, 0] - following[:, 0], following.square().sum(1) > 6

    def observe(self, state: Tensor) -> Tensor:
        return state.clone()


def make_env(name: str, seed: int, n_envs: int = 8, **options: Any) -> TorchVecEnv:
    if name in Drift.ACTIONS:
        return Drift(name, n_envs, seed)
    return make_vec_env(name, n_envs, seed, "torch", device="cpu", **options)


def maker(
    cls: type[PPO] = PPO, env: str = "CartPole-v1", env_options: Any = None, n_envs: int = 8, **kwargs: Any
) -> Make:
    def make(seed: int) -> PPO:
        settings = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "device": "cpu", **kwargs}
        return cls("MlpPolicy", make_env(env, seed, n_envs, **(env_options or {})), seed=seed, **settings)

    return make


def generators() -> tuple[list[int], list[int]]:
    return torch.get_rng_state().tolist(), np.random.get_state(legacy=False)["state"]["key"].tolist()


def train(makers: dict[int, Make], steps: int, callbacks: Any = None) -> list[Member]:
    """Train one model a seed together; a member's result is its model and its random state."""

    def training(seed: int, make: Make) -> Any:
        def run(join: Any) -> Any:
            models.append(model := make(seed))
            assert join(model) is None
            model.learn(steps, None if callbacks is None else callbacks(model))
            return model, generators()

        return run

    models: list[PPO] = []
    members = train_together([training(seed, make) for seed, make in makers.items()])
    for member, model in zip(members, models, strict=True):
        member.model = model
    return members


def train_alone(seed: int, make: Make, steps: int, callbacks: Any = None) -> tuple[PPO, Any]:
    model = make(seed)
    model.learn(steps, None if callbacks is None else callbacks(model))
    return model, generators()


def assert_same(result: tuple[PPO, Any], expected: tuple[PPO, Any], tolerance: float = 0.0) -> None:
    (model, random), (alone, own_random) = result, expected
    for name, value in alone.policy.state_dict().items():
        torch.testing.assert_close(model.policy.state_dict()[name], value, rtol=0, atol=tolerance)
    ours, theirs = model.rollout_buffer, alone.rollout_buffer
    for name in ("observation", "action", "reward", "value", "log_prob", "advantage", "episode_start"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=tolerance, atol=tolerance)
    assert torch.equal(ours.terminated, theirs.terminated)
    assert torch.equal(ours.truncated, theirs.truncated)
    assert ours.full
    finals, own_finals = ours.final_observations(), theirs.final_observations()
    assert (finals is None) == (own_finals is None)
    if finals is not None and own_finals is not None:
        for part, own_part in zip(finals, own_finals, strict=True):
            torch.testing.assert_close(part, own_part, rtol=tolerance, atol=tolerance)
    episodes, own_episodes = model.ep_info_buffer, alone.ep_info_buffer
    assert [each["l"] for each in episodes] == [each["l"] for each in own_episodes]
    assert [each["r"] for each in episodes] == pytest.approx([each["r"] for each in own_episodes], abs=10 * tolerance)
    for name, value in alone.device_episodes.get_state().items():
        np.testing.assert_allclose(model.device_episodes.get_state()[name], value, atol=10 * tolerance)
    for name, value in alone.env.get_state().items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(model.env.get_state()[name], value, atol=tolerance)
    np.testing.assert_allclose(model._last_obs, alone._last_obs, atol=tolerance)
    np.testing.assert_array_equal(model._last_episode_starts, alone._last_episode_starts)
    assert model.num_timesteps == alone.num_timesteps
    assert random == own_random
