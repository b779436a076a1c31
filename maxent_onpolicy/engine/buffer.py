"""The rollout buffer: time-major tensors, allocated once, on the device where the update runs."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from torch import Tensor
from torch.utils._pytree import tree_map

from maxent_onpolicy.engine.deferred import Deferred
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
    """``N`` transitions of a rollout, in random order; the entropy fields are ``None`` without an entropy critic.

    ``policy_advantage`` is what the policy follows, where it has been computed already, because these are only some of
    the transitions over which it is normalised.
    """

    observation: Observation
    action: Tensor
    value: Tensor
    log_prob: Tensor
    advantage: Tensor
    value_target: Tensor
    entropy_advantage: Tensor | None = None
    entropy_value_target: Tensor | None = None
    policy_advantage: Tensor | None = None
    old_entropy: Tensor | None = None
    magnet: Tensor | None = None

    def rows(self, rows: slice) -> "Minibatch":
        """Return some of the transitions."""
        return Minibatch(*(_rows(field, rows) for field in self))


class NoiseRows(NamedTuple):
    """Where a buffer's environments are among all those whose noise is drawn together with theirs.

    Attributes:
        first: the row of its first environment.
        total: the number of rows.
    """

    first: int
    total: int


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
        old_entropy: ``[T, B]``, nats: of the policy that acted, while an update needs it, else ``None``; minibatches
            then hold it too.
        magnet: ``[T, B, P]``, parameters of the magnet's distributions, where an update has such a magnet, else
            ``None``; minibatches then hold them too.
        acting_player: ``[T, B]`` int64, 0 or 1: who acted, where two players take turns, else ``None``.
        noise_rows: ``None`` unless the environments of other processes count when noise is drawn.
    """

    noise_rows: NoiseRows | None = None

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
        self.old_entropy: Tensor | None = None
        self.magnet: Tensor | None = None
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
        self._dense: Observation | None = None
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
        self.terminated.zero_()
        self.truncated.zero_()
        self._has_dense = False
        self.acting_player: Tensor | None = None
        self._final: list[tuple[int, Tensor, Observation]] = []

    def make_room_for(self, observation: Any) -> None:
        """Store float32 where the space says integers but floats come: ``VecNormalize`` leaves the space as it is.

        Args:
            observation: arrays or tensors ``[B, ...]``, or a dictionary of such.
        """
        if isinstance(self.observation, dict):
            for key, storage in self.observation.items():
                self.observation[key] = _as_float_if(observation[key], storage)
        else:
            self.observation = _as_float_if(observation, self.observation)

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

    def note_players(self, players: Any) -> None:
        """Note who acts in the step that is added next: ``[B]`` integers, 0 or 1."""
        if self.acting_player is None:
            self.acting_player = torch.zeros(self.reward.shape, dtype=torch.int64, device=self.device)
        self.acting_player[self.pos] = torch.as_tensor(players, device=self.device)

    def add(
        self,
        observation: Observation,
        action: Tensor,
        value: Tensor | Deferred,
        log_prob: Tensor | Deferred,
        episode_start: Any,
        step: TensorStep,
    ) -> None:
        """Append what the policy saw and did, and what the environments answered.

        Args:
            observation: ``[B, ...]`` the policy acted on.
            action: ``[B, ...]`` as the policy sampled it, before clipping or rescaling.
            value: ``[B, 1]`` or ``[B]``; one that is deferred is not asked for, and filled in later.
            log_prob: ``[B]``; likewise.
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
        if isinstance(value, Tensor) and isinstance(log_prob, Tensor):
            self.value[position] = value.flatten()
            self.log_prob[position] = log_prob.flatten()
        self.episode_start[position] = torch.as_tensor(episode_start, dtype=torch.bool, device=self.device)
        self.reward[position] = step.reward
        self.add_ends(position, step)
        self.pos += 1

    def fill(self, fields: dict[str, Tensor], final_observation: Tensor | None) -> None:
        """Take over a whole rollout at once, in place of :meth:`add` for each step.

        Args:
            fields: ``[T, B, ...]`` each, by name; values and log-probabilities are left to be filled in later.
            final_observation: ``[T, B, ...]``, of which only those of truncated episodes count; ``None`` if none were.
        """
        for name, value in fields.items():
            storage = getattr(self, name)
            storage.copy_(value.reshape(storage.shape))
        if final_observation is not None:
            assert isinstance(self.observation, Tensor)
            if self._dense is None:
                self._dense = torch.zeros_like(self.observation)
            assert isinstance(self._dense, Tensor)
            self._dense.copy_(final_observation.reshape(self._dense.shape))
            self._has_dense = True
        self.pos = self.buffer_size

    def add_ends(self, position: int, step: TensorStep) -> None:
        """Note which episodes ended at a step, and how.

        Args:
            position: the step.
            step: the environments' answer.
        """
        self.terminated[position] = step.terminated
        self.truncated[position] = step.truncated
        if step.final_observation is None:
            return
        if step.final_index is None:
            self._dense_final(position, step.final_observation)
        else:
            self._final.append((position, step.final_index, step.final_observation))

    def _dense_final(self, position: int, observation: Observation) -> None:
        """Keep final observations of which only those of truncated episodes count; which, is asked once a rollout."""
        if self._dense is None:
            self._dense = tree_map(torch.zeros_like, self.observation)
        if isinstance(self._dense, dict):
            assert isinstance(observation, dict)
            for key, storage in self._dense.items():
                storage[position] = observation[key].reshape(storage.shape[1:])
        else:
            assert isinstance(observation, Tensor)
            self._dense[position] = observation.reshape(self._dense.shape[1:])
        self._has_dense = True

    def final_observations(self) -> tuple[Tensor, Tensor, Observation] | None:
        """Return ``(step [K], environment [K], observation [K, ...])`` of every truncated episode, or ``None``."""
        if self._has_dense:
            steps, indices = self.truncated.nonzero(as_tuple=True)
            assert self._dense is not None
            dense = self._dense
            if isinstance(dense, dict):
                return steps, indices, {key: value[steps, indices] for key, value in dense.items()}
            return steps, indices, dense[steps, indices]
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

    def chunks(self, chunk_size: int = 8192) -> Iterator[tuple[slice, Observation]]:
        """Yield the rollout's observations in time-major chunks ``[N, ...]``, with their places in ``[T·B]``."""
        observation = self.flat_observation()
        for start in range(0, self.buffer_size * self.n_envs, chunk_size):
            rows = slice(start, start + chunk_size)
            if isinstance(observation, dict):
                yield rows, {key: value[rows] for key, value in observation.items()}
            else:
                yield rows, observation[rows]

    def evaluate(self, function: Callable[[Observation], Tensor], chunk_size: int = 8192) -> Tensor:
        """Apply a function of observations ``[N, ...] → [N]`` (or ``[N, 1]``) to the whole rollout.

        Args:
            function: a critic, for instance.
            chunk_size: observations a call, which bounds the memory that image networks take.

        Returns:
            ``[T, B]``.
        """
        results = [function(part).flatten() for _, part in self.chunks(chunk_size)]
        return torch.cat(results).reshape(self.buffer_size, self.n_envs)

    def minibatch_fields(self) -> list[str]:
        """Return the fields that this rollout's minibatches hold beside the observation."""
        names = ["action", "value", "log_prob", "advantage", "value_target"]
        if self.entropy:
            names += ["entropy_advantage", "entropy_value_target"]
        return names + [name for name in ("old_entropy", "magnet") if getattr(self, name) is not None]

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
        indices = torch.as_tensor(random_order(self.buffer_size, self.n_envs), device=self.device)
        observation = self.flat_observation()
        names = self.minibatch_fields()
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


def _as_float_if(observation: np.ndarray | Tensor, storage: Tensor) -> Tensor:
    floats = observation.is_floating_point() if isinstance(observation, Tensor) else observation.dtype.kind == "f"
    return storage.float() if floats and not storage.is_floating_point() else storage


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, dict):
        return {key: part[rows] for key, part in value.items()}
    return None if value is None else value[rows]


def why_own_buffer(buffer: RolloutBuffer) -> str | None:
    """Return the method of a buffer's own that engines bypass when they handle a rollout as a whole, or ``None``."""
    kind = type(buffer)
    changed = next(
        (name for name in ("add", "add_ends", "get") if getattr(kind, name) is not vars(RolloutBuffer)[name]), None
    )
    return None if changed is None else f"{kind.__name__}'s own `{changed}`"


def random_order(n_steps: int, n_envs: int) -> np.ndarray:
    """Return all time-major indices ``[T·B]`` in random order.

    numpy's global generator permutes environment-major indices, as in SB3, so that the same seed gives the same
    minibatches.
    """
    permutation = np.random.permutation(n_steps * n_envs)  # noqa: NPY002 - SB3's generator
    return (permutation % n_steps) * n_envs + permutation // n_steps
