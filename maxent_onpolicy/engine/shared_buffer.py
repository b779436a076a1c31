"""The rollout of all ranks, on every rank."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor

from maxent_onpolicy.engine.buffer import NoiseRows, RolloutBuffer
from maxent_onpolicy.engine.distributed import World, gather
from maxent_onpolicy.envs.tensor import Observation

_COLLECTED = ("action", "reward", "value", "log_prob", "terminated", "truncated", "episode_start")


def has_images(space: spaces.Space) -> bool:
    """Whether an observation, or a part of it, is an image."""
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else (space,)
    return any(is_image_space(part) for part in parts)


class SharedRolloutBuffer(RolloutBuffer):
    """``[T, n]``, where each rank collects ``n/N`` columns, its :attr:`local` buffer, and then all exchange theirs.

    So every rank draws the minibatches of a single process and can split each of
    them evenly, and whatever is computed from the whole rollout (advantage and
    PopArt statistics, entropy's mean, temperature, explained variance) is the same
    everywhere without further communication. Parts of equal size leave nobody
    waiting; the price is memory for the whole rollout on every rank.

    Args:
        local: the buffer of this rank's environments, ``[T, n/N]``.
        world: the ranks.
    """

    def __init__(self, local: RolloutBuffer, world: World) -> None:
        self.local = local
        self.world = world
        n_envs = local.n_envs * world.size
        super().__init__(local.buffer_size, local.observation_space, local.action_space, local.device, n_envs)

    def share(self) -> None:
        """Exchange what the ranks collected."""
        local = self.local
        self.reset()
        for name in _COLLECTED:
            setattr(self, name, self.gather(getattr(local, name)))
        self.acting_player = None if local.acting_player is None else self.gather(local.acting_player)
        self.observation = self._gather_observation(local.observation)
        self.pos = local.pos

    def noise_rows_of_all(self) -> NoiseRows:
        """Return where this rank's environments are among those of all ranks."""
        return NoiseRows(self.world.rank * self.local.n_envs, self.n_envs)

    def gather(self, local: Tensor) -> Tensor:
        """Return ``[T, n, ...]`` of every rank's ``[T, n/N, ...]``."""
        return gather(local, dim=1)

    def own(self, whole: Tensor) -> Tensor:
        """Return this rank's columns ``[T, n/N, ...]`` of ``[T, n, ...]``."""
        first = self.world.rank * self.local.n_envs
        return whole[:, first : first + self.local.n_envs]

    def evaluate(self, function: Any, chunk_size: int = 8192) -> Tensor:
        """Apply a function of observations to the whole rollout, each rank to its own part; ``[T, n]``."""
        return self.gather(self.local.evaluate(function, chunk_size))

    def _gather_observation(self, local: Observation) -> Observation:
        if isinstance(local, dict):
            return {key: self.gather(value) for key, value in local.items()}
        return self.gather(local)
