"""Past transitions of off-policy algorithms, on the device where they are used."""

from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from maxent_onpolicy.envs.tensor import TensorStep
from maxent_onpolicy.validation import check_choice, check_integer


class ReplayBuffer(SB3ReplayBuffer):
    """SB3's replay buffer as tensors ``[capacity, B, ...]`` on the device, allocated once.

    With the same seed it draws SB3's samples. Floating-point observations are stored in float32, the precision in
    which networks see them. A transition that a time limit cut off keeps its true final observation, and is sampled
    as not done: its value goes on.

    Args:
        buffer_size: transitions of all environments together.
        observation_space: ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``.
        action_space: of the environments.
        device: where the tensors live.
        n_envs: environments ``B``.
        optimize_memory_usage: must be false; SB3's own class offers it.
        handle_timeout_termination: whether time limits are told from terminations; as SB3.

    Attributes:
        observations: ``[capacity, B, ...]``, not normalised.
        next_observations: the same of each successor.
        actions: ``[capacity, B, A]`` in ``[-1, 1]``.
        rewards: ``[capacity, B]``, not normalised.
        dones: ``[capacity, B]``, 1 where an episode ended.
        timeouts: ``[capacity, B]``, 1 where that was for a time limit.

    Raises:
        ValueError: for an argument outside its range, or ``Dict`` observations.
    """

    # SB3 declares these as arrays.
    observations: Any
    next_observations: Any
    actions: Any
    rewards: Any
    dones: Any
    timeouts: Any

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        check_integer("buffer_size", buffer_size, 1)
        check_choice("handle_timeout_termination", handle_timeout_termination, (True, False))
        if optimize_memory_usage:
            raise ValueError(
                "`optimize_memory_usage=True` needs SB3's own buffer: "
                "`replay_buffer_class=stable_baselines3.common.buffers.ReplayBuffer`"
            )
        if isinstance(observation_space, spaces.Dict):
            raise ValueError("`observation_space` must not be a Dict; SB3's DictReplayBuffer stores those")
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        assert observation_space.dtype is not None
        observation = (*self.obs_shape, _stored(observation_space.dtype))
        action = (self.action_dim, _stored(action_space.dtype))
        self.observations, self.next_observations = self._empty(*observation), self._empty(*observation)
        self.actions = self._empty(*action)
        self.rewards, self.dones, self.timeouts = (self._empty(np.dtype(np.float32)) for _ in range(3))

    def _empty(self, *shape_and_dtype: Any) -> Tensor:
        *shape, dtype = shape_and_dtype
        # numpy's zeros take no memory before they are written to; torch's do.
        sample = torch.from_numpy(np.zeros((self.buffer_size, self.n_envs, *shape), dtype=dtype))
        return sample if self.device.type == "cpu" else torch.zeros_like(sample, device=self.device)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition of each environment.

        Args:
            obs: ``[B, ...]``.
            next_obs: ``[B, ...]``; the true final observation where an episode ended.
            action: ``[B, A]``.
            reward: ``[B]``.
            done: ``[B]``.
            infos: looked at where an episode ended: ``"TimeLimit.truncated"``.
        """
        at = self.pos
        self._write(self.observations[at], obs)
        self._write(self.next_observations[at], next_obs)
        self._write(self.actions[at], action)
        self._write(self.rewards[at], reward)
        self._write(self.dones[at], done)
        if self.handle_timeout_termination:
            self.timeouts[at] = 0.0
            for index in np.flatnonzero(done):
                self.timeouts[at, index] = float(infos[index].get("TimeLimit.truncated", False))
        self._advance()

    def add_step(self, observation: Tensor, action: Tensor, step: TensorStep) -> None:
        """Store one transition of each environment from tensors, reading none of them back.

        Args:
            observation: ``[B, ...]``, in which ``action`` was chosen.
            action: ``[B, A]`` in ``[-1, 1]``.
            step: what the environments returned for it; not normalised.
        """
        at = self.pos
        successor = step.observation
        assert isinstance(successor, Tensor)
        final = step.final_observation
        if isinstance(final, Tensor) and step.final_index is not None:
            successor = successor.index_copy(0, step.final_index, final)
        elif isinstance(final, Tensor):
            # The successor of a terminated one has no value, whatever stands there.
            successor = torch.where(step.truncated.reshape(-1, *[1] * (final.ndim - 1)), final, successor)
        self._write(self.observations[at], observation)
        self._write(self.next_observations[at], successor)
        self._write(self.actions[at], action)
        self._write(self.rewards[at], step.reward)
        self._write(self.dones[at], step.terminated | step.truncated)
        if self.handle_timeout_termination:
            self._write(self.timeouts[at], step.truncated)
        self._advance()

    def _advance(self) -> None:
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0

    def _write(self, target: Tensor, value: Any) -> None:
        target.copy_(torch.as_tensor(value).reshape(target.shape))

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        # The second draw, as in SB3: which environment each transition is taken from.
        env_inds = np.random.randint(0, self.n_envs, size=len(batch_inds))  # noqa: NPY002
        rows = torch.from_numpy(batch_inds * self.n_envs + env_inds).to(self.device)
        dones, rewards = self._rows(self.dones, rows), self._rows(self.rewards, rows)
        if self.handle_timeout_termination:
            dones = dones * (1 - self._rows(self.timeouts, rows))
        if env is not None:
            rewards = self._normalized(rewards, env.normalize_reward)
        return ReplayBufferSamples(
            self._observation(self.observations, rows, env),
            self._rows(self.actions, rows),
            self._observation(self.next_observations, rows, env),
            dones.reshape(-1, 1),
            rewards.reshape(-1, 1),
        )

    def _rows(self, field: Tensor, rows: Tensor) -> Tensor:
        return field.flatten(0, 1).index_select(0, rows)

    def _observation(self, field: Tensor, rows: Tensor, env: VecNormalize | None) -> Tensor:
        values = self._rows(field, rows)
        return values if env is None else self._normalized(values, env.normalize_obs)

    def _normalized(self, values: Tensor, normalize: Any) -> Tensor:
        """Apply one of ``VecNormalize``'s functions, with the statistics of now; they take and return arrays."""
        return torch.as_tensor(normalize(values.cpu().numpy()), dtype=torch.float32, device=self.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        copy.__dict__.update({name: v.clone() if isinstance(v, Tensor) else v for name, v in self.__dict__.items()})
        return copy


def _stored(dtype: Any) -> np.dtype:
    return np.dtype(np.float32) if np.issubdtype(dtype, np.floating) else np.dtype(dtype)
