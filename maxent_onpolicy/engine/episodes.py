"""Returns and lengths of episodes in environments that live on a device, counted there."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from maxent_onpolicy.envs.normalize import VecNormalize
from maxent_onpolicy.envs.tensor import TensorStep


class DeviceEpisodes:
    """What ``Monitor`` counts, for environments whose infos are empty; read back once a rollout.

    Args:
        n_envs: ``B``.
        device: where rewards are.
    """

    def __init__(self, n_envs: int, device: torch.device) -> None:
        self._return = torch.zeros(n_envs, device=device)
        self._length = torch.zeros(n_envs, dtype=torch.int64, device=device)
        # One step ``[B]``, or several ``[T, B]``.
        self._finished: list[tuple[Tensor, Tensor, Tensor]] = []
        self._start = time.time()

    def add(self, reward: Tensor, done: Tensor) -> None:
        """Count one step.

        Args:
            reward: ``[B]``, not normalised.
            done: ``[B]`` bool.
        """
        episode_return, length = self._return + reward, self._length + 1
        self._finished.append((done, episode_return, length))
        self._return, self._length = episode_return.masked_fill(done, 0.0), length.masked_fill(done, 0)

    @classmethod
    def together(cls, parts: "Sequence[DeviceEpisodes]") -> Self:
        """Return one that goes on counting for the environments of several, one after another."""
        whole = cls(0, parts[0]._return.device)
        whole._return = torch.cat([part._return for part in parts])
        whole._length = torch.cat([part._length for part in parts])
        return whole

    def hand_back(self, parts: "Sequence[DeviceEpisodes]") -> None:
        """Give those of which this was made by :meth:`together` what it has counted since."""
        count = len(parts)
        finished = [torch.stack(each).chunk(count, dim=1) for each in zip(*self._finished, strict=True)]
        running = zip(self._return.chunk(count), self._length.chunk(count), strict=True)
        for part, (episode_return, length), (done, returns, lengths) in zip(
            parts, running, zip(*finished, strict=True), strict=True
        ):
            part._return, part._length = episode_return.clone(), length.clone()
            part._finished.append((done.contiguous(), returns.contiguous(), lengths.contiguous()))

    def get_state(self) -> dict[str, np.ndarray]:
        """Return what the running episodes have come to."""
        return {"return": self._return.cpu().numpy(), "length": self._length.cpu().numpy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what ``get_state`` returned."""
        self._return = torch.tensor(state["return"], device=self._return.device)
        self._length = torch.tensor(state["length"], device=self._length.device)

    def report(self, buffer: deque[dict[str, Any]]) -> None:
        """Append the episodes that ended since the last report, in the order of their ends, as ``Monitor``'s infos."""
        if not self._finished:
            return
        n_envs = self._length.numel()
        done, returns, lengths = (
            torch.cat([part.view(-1, n_envs) for part in parts]) for parts in zip(*self._finished, strict=True)
        )
        self._finished.clear()
        seconds = round(time.time() - self._start, 6)
        # Only as many as the buffer holds: thousands of environments end thousands of episodes in a rollout.
        returns, lengths = returns[done], lengths[done]
        if buffer.maxlen is not None:
            returns, lengths = returns[-buffer.maxlen :], lengths[-buffer.maxlen :]
        for episode_return, length in zip(returns.tolist(), lengths.tolist(), strict=True):
            buffer.append({"r": round(episode_return, 6), "l": length, "t": seconds})


def raw_reward(env: VecEnv, step: TensorStep) -> Tensor:
    """Return the rewards ``[B]`` of a step before normalisation."""
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, VecNormalize):
            return layer.old_reward
        layer = layer.venv
    return step.reward
