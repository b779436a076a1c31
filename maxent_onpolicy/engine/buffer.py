"""The rollout buffer: time-major tensors, allocated once, on the device where the update runs."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from torch import Tensor

from maxent_onpolicy.envs.tensor import Observation, TensorStep

SCALAR_FIELDS = ("reward", "value", "log_prob", "advantage", "value_target")
FLAG_FIELDS = ("terminated", "truncated", "episode_start")
# SB3's names for what callbacks read from `model.rollout_buffer`.
SB3_NAMES = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "values": "value",
    "log_probs": "log_prob",
    "advantages": "advantage",
    "returns": "value_target",
    "episode_starts": "episode_start",
}


class Minibatch(NamedTuple):
    """``N`` transitions of a rollout, in random order; the entropy fields are ``None`` without an entropy critic."""

    observation: Observation
    action: Tensor
    value: Tensor
    log_prob: Tensor
    advantage: Tensor
    value_target: Tensor
    entropy_advantage: Tensor | None = None
    entropy_value_target: Tensor | None = None


class RolloutBuffer:
    """One rollout of ``T`` steps in ``B`` environments.

    Every field is a tensor ``[T, B, ...]`` under its singular name (``reward``,
    ``value``, ``entropy_advantage``). The plural names that SB3's callbacks read
    (``rewards``, ``returns``, ...) are numpy views of them.

    Args:
        buffer_size: ``T``.
        observation_space: flat or dictionary.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        device: where the tensors live.
        n_envs: ``B``.

    Attributes:
        entropy: whether this rollout carries the entropy critic's fields (``entropy_reward``, ``entropy_value``,
            ``entropy_advantage``, ``entropy_value_target``); minibatches then hold them too.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "cpu",
        n_envs: int = 1,
    ) -> None:
        self.buffer_size = buffer_size
        self.n_envs = n_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self.device = torch.device(device)
        self.entropy = False
        shape = (buffer_size, n_envs)
        self.observation = self._allocate_observation(shape)
        discrete = isinstance(action_space, spaces.Discrete)
        action_shape = shape if discrete else (*shape, get_action_dim(action_space))
        # SB3 hands multi-dimensional actions to the policy as float32, whatever their space.
        self.action = torch.zeros(action_shape, dtype=torch.int64 if discrete else torch.float32, device=self.device)
        for name in SCALAR_FIELDS:
            setattr(self, name, torch.zeros(shape, device=self.device))
        for name in FLAG_FIELDS:
            setattr(self, name, torch.zeros(shape, dtype=torch.bool, device=self.device))
        self.reset()

    reward: Tensor
    value: Tensor
    log_prob: Tensor
    advantage: Tensor
    value_target: Tensor
    entropy_reward: Tensor
    entropy_value: Tensor
    entropy_advantage: Tensor
    entropy_value_target: Tensor
    terminated: Tensor
    truncated: Tensor
    episode_start: Tensor

    def _allocate_observation(self, shape: tuple[int, int]) -> Observation:
        def allocate(space: spaces.Space) -> Tensor:
            # Policies compute in float32: storing float64 observations would only double the traffic.
            dtype = np.dtype(np.float32) if space.dtype == np.float64 else space.dtype
            obs_shape = get_obs_shape(space)
            assert isinstance(obs_shape, tuple)
            return torch.as_tensor(np.zeros((*shape, *obs_shape), dtype=dtype), device=self.device)

        if isinstance(self.observation_space, spaces.Dict):
            return {key: allocate(space) for key, space in self.observation_space.spaces.items()}
        return allocate(self.observation_space)

    def reset(self) -> None:
        """Start a new rollout; the tensors are reused."""
        self.pos = 0
        self._final: list[tuple[int, Tensor, Observation]] = []

    @property
    def full(self) -> bool:
        """Whether ``T`` steps have been added."""
        return self.pos == self.buffer_size

    def size(self) -> int:
        """Return the number of steps added so far."""
        return self.pos

    @property
    def done(self) -> Tensor:
        """``[T, B]``; terminated or truncated."""
        return self.terminated | self.truncated

    def add(
        self,
        observation: Observation,
        action: Tensor,
        value: Tensor,
        log_prob: Tensor,
        episode_start: Any,
        step: TensorStep,
    ) -> None:
        """Append what the policy saw and did, and what the environments answered.

        Args:
            observation: ``[B, ...]`` the policy acted on.
            action: ``[B, ...]`` as the policy sampled it, before clipping or rescaling.
            value: ``[B, 1]`` or ``[B]``.
            log_prob: ``[B]``.
            episode_start: ``[B]`` bool; the observation is the first of its episode.
            step: the environments' answer.

        Raises:
            RuntimeError: if the rollout is full.
        """
        if self.full:
            raise RuntimeError(f"the rollout buffer already holds its {self.buffer_size} steps; call reset() first")
        position = self.pos
        if isinstance(self.observation, dict):
            assert isinstance(observation, dict)
            for key, storage in self.observation.items():
                storage[position] = observation[key].reshape(storage.shape[1:])
        else:
            assert isinstance(observation, Tensor)
            self.observation[position] = observation.reshape(self.observation.shape[1:])
        self.action[position] = action.reshape(self.action.shape[1:])
        self.value[position] = value.flatten()
        self.log_prob[position] = log_prob.flatten()
        self.episode_start[position] = torch.as_tensor(episode_start, dtype=torch.bool, device=self.device)
        self.reward[position] = step.reward
        self.terminated[position] = step.terminated
        self.truncated[position] = step.truncated
        if step.final_observation is not None:
            self._final.append((position, step.final_index, step.final_observation))
        self.pos += 1

    def final_observations(self) -> tuple[Tensor, Tensor, Observation] | None:
        """Return ``(step [K], environment [K], observation [K, ...])`` of every truncated episode, or ``None``."""
        if not self._final:
            return None
        steps = torch.cat([torch.full_like(index, position) for position, index, _ in self._final])
        indices = torch.cat([index for _, index, _ in self._final])
        observations = [observation for _, _, observation in self._final]
        if isinstance(observations[0], dict):
            keys = observations[0].keys()
            stacked: Observation = {key: torch.cat([obs[key] for obs in observations]) for key in keys}  # type: ignore[index]
        else:
            stacked = torch.cat(observations)  # type: ignore[arg-type]
        return steps, indices, stacked

    def flat_observation(self) -> Observation:
        """Return all observations as ``[T·B, ...]`` views, time-major."""
        if isinstance(self.observation, dict):
            return {key: value.flatten(0, 1) for key, value in self.observation.items()}
        return self.observation.flatten(0, 1)

    def evaluate(self, function: Callable[[Observation], Tensor], chunk_size: int = 8192) -> Tensor:
        """Apply a function of observations ``[N, ...] → [N]`` (or ``[N, 1]``) to the whole rollout.

        Args:
            function: a critic, for instance.
            chunk_size: observations a call, which bounds the memory that image networks take.

        Returns:
            ``[T, B]``.
        """
        observation = self.flat_observation()
        results = []
        for start in range(0, self.buffer_size * self.n_envs, chunk_size):
            rows = slice(start, start + chunk_size)
            part = {k: v[rows] for k, v in observation.items()} if isinstance(observation, dict) else observation[rows]
            results.append(function(part).flatten())
        return torch.cat(results).reshape(self.buffer_size, self.n_envs)

    def get(self, batch_size: int | None = None) -> Iterator[Minibatch]:
        """Yield the rollout once in random minibatches; the last may be smaller, no sample is dropped.

        The order is drawn from numpy's global generator over environment-major
        indices, as SB3 does, so that the same seed gives the same minibatches.

        Args:
            batch_size: ``N``; ``None`` yields everything at once.

        Raises:
            RuntimeError: if the rollout is not complete.
        """
        if not self.full:
            raise RuntimeError(f"the rollout holds {self.pos} of {self.buffer_size} steps; collect it first")
        n_samples = self.buffer_size * self.n_envs
        permutation = np.random.permutation(n_samples)  # noqa: NPY002 - SB3's generator
        time_major = (permutation % self.buffer_size) * self.n_envs + permutation // self.buffer_size
        indices = torch.as_tensor(time_major, device=self.device)
        observation = self.flat_observation()
        names = ["action", "value", "log_prob", "advantage", "value_target"]
        if self.entropy:
            names += ["entropy_advantage", "entropy_value_target"]
        fields = {name: getattr(self, name).flatten(0, 1) for name in names}
        for chunk in indices.split(batch_size or n_samples):
            yield Minibatch(
                observation={key: value[chunk] for key, value in observation.items()}
                if isinstance(observation, dict)
                else observation[chunk],
                **{name: field[chunk] for name, field in fields.items()},
            )

    def __getattr__(self, name: str) -> Any:
        if name not in SB3_NAMES:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        value = getattr(self, SB3_NAMES[name])
        if isinstance(value, dict):
            return {key: tensor.cpu().numpy() for key, tensor in value.items()}
        if name == "actions":
            value = value.reshape(self.buffer_size, self.n_envs, -1)  # SB3 gives single discrete actions a dimension
        return value.cpu().numpy()
