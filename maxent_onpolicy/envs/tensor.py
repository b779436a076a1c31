"""The seam between environments and the engine: one step, as tensors on one device.

An SB3 ``VecEnv`` may offer ``step_tensor(actions)`` and stay on the device.
Every other ``VecEnv`` is adapted here, once, so that nothing inside the engine
knows which kind it has.
"""

import warnings
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

Observation = Tensor | dict[str, Tensor]


class TensorStep(NamedTuple):
    """What ``B`` environments returned for one action each, on the engine's device.

    Attributes:
        observation: ``[B, ...]``, or a dict of such; after the automatic reset where an episode ended.
        reward: ``[B]`` float32.
        terminated: ``[B]`` bool; the state has no future, so its value is zero.
        truncated: ``[B]`` bool; cut off by a time limit. Never true together with ``terminated``.
        final_index: ``[K]`` int64; the truncated environments, in increasing order.
        final_observation: ``[K, ...]`` true last observations of those; ``None`` if ``K == 0``.
        infos: one info dict per environment, as SB3's callbacks expect them.
    """

    observation: Observation
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_index: Tensor
    final_observation: Observation | None
    infos: list[dict[str, Any]]

    def to(self, device: torch.device | str) -> "TensorStep":
        """Return the same step on ``device``."""
        final = self.final_observation
        return TensorStep(
            observation=to_device(self.observation, device),
            reward=self.reward.to(device),
            terminated=self.terminated.to(device),
            truncated=self.truncated.to(device),
            final_index=self.final_index.to(device),
            final_observation=None if final is None else to_device(final, device),
            infos=self.infos,
        )


@runtime_checkable
class TensorVecEnv(Protocol):
    """An SB3 ``VecEnv`` that also steps on device tensors."""

    num_envs: int

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, ...]``."""
        ...


def to_device(observation: Any, device: torch.device | str) -> Observation:
    """Move a (dict of) numpy or tensor observation to ``device``."""
    if isinstance(observation, dict):
        return {key: torch.as_tensor(value, device=device) for key, value in observation.items()}
    return torch.as_tensor(observation, device=device)


def from_numpy_step(
    observation: Any, reward: np.ndarray, done: np.ndarray, infos: list[dict[str, Any]], device: torch.device | str
) -> TensorStep:
    """Turn what ``VecEnv.step`` returned into a :class:`TensorStep`.

    A truncated episode whose info lacks ``terminal_observation`` cannot be
    bootstrapped; it is treated as terminated, with a warning.
    """
    done = np.asarray(done, dtype=bool)
    truncated = np.zeros_like(done)
    final: list[Any] = []
    for index in np.flatnonzero(done):
        if infos[index].get("TimeLimit.truncated", False):
            terminal = infos[index].get("terminal_observation")
            if terminal is None:
                warnings.warn(
                    "an environment was truncated without `terminal_observation` in its info, so its value cannot be "
                    "bootstrapped and the episode counts as terminated",
                    stacklevel=2,
                )
                continue
            truncated[index] = True
            final.append(terminal)
    return TensorStep(
        observation=to_device(observation, device),
        reward=torch.as_tensor(reward, dtype=torch.float32, device=device),
        terminated=torch.as_tensor(done & ~truncated, device=device),
        truncated=torch.as_tensor(truncated, device=device),
        final_index=torch.as_tensor(np.flatnonzero(truncated), device=device),
        final_observation=_stack(final, device) if final else None,
        infos=infos,
    )


def step_tensor(env: VecEnv, actions: np.ndarray | Tensor, device: torch.device | str) -> TensorStep:
    """Step any SB3 ``VecEnv`` and return device tensors.

    Args:
        env: a numpy ``VecEnv``, or one that offers ``step_tensor`` itself.
        actions: ``[B, ...]`` in the environment's own units.
        device: where the result lives.
    """
    # Not isinstance: a VecEnvWrapper lends out the methods of what it wraps, and would be bypassed.
    if hasattr(type(env), "step_tensor"):
        return cast(TensorVecEnv, env).step_tensor(torch.as_tensor(actions, device=device)).to(device)
    numpy_actions = actions.cpu().numpy() if isinstance(actions, Tensor) else actions
    return from_numpy_step(*env.step(numpy_actions), device=device)


def _stack(observations: list[Any], device: torch.device | str) -> Observation:
    if isinstance(observations[0], dict):
        return {key: to_device(np.stack([obs[key] for obs in observations]), device) for key in observations[0]}  # type: ignore[misc]
    return to_device(np.stack(observations), device)
