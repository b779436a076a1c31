"""Time limits, returns and lengths of the running episodes."""

import time
from typing import Any

import numpy as np


class Episodes:
    """What Gymnasium's ``TimeLimit`` and SB3's ``Monitor`` keep, for all environments at once.

    Rewards of the running episodes are kept as rows, because ``Monitor`` adds them up only at the end (and Python's
    ``sum`` of floats compensates rounding errors since 3.12: a running total would differ in the last digit).

    Args:
        num_envs: ``B``.
        limit: steps after which an episode is truncated; ``None`` for no limit.
        monitor: whether returns are wanted.
    """

    def __init__(self, num_envs: int, limit: int | None, monitor: bool) -> None:
        self.limit = limit
        self.monitor = monitor
        self.clock = 0
        self.starts = np.zeros(num_envs, dtype=np.int64)
        # The first clock at which some environment reaches its limit: most steps need only this comparison.
        self.deadline: float = np.inf
        self.started_at = time.time()
        self._rewards = np.empty((1024 if monitor else 0, num_envs))

    def begin(self, indices: Any) -> None:
        """Start new episodes in the environments ``indices``."""
        self.starts[indices] = self.clock
        if self.limit is not None:
            self.deadline = int(self.starts.min()) + self.limit

    def add(self, reward: np.ndarray) -> None:
        """Count one step with ``reward`` ``[B]`` (float64, as the task computed it)."""
        if self.monitor:
            if self.clock == len(self._rewards):
                self._make_room()
            self._rewards[self.clock] = reward
        self.clock += 1

    def truncated(self) -> np.ndarray | None:
        """Return which environments ``[B]`` have reached the limit, or ``None`` if none has."""
        if self.clock < self.deadline:
            return None
        return (self.clock - self.starts) >= (self.limit or np.inf)

    def summaries(self, indices: np.ndarray) -> list[dict[str, Any] | None]:
        """Return ``{"r", "l", "t"}`` of the episodes that end now, as ``Monitor`` reports them."""
        if not self.monitor:
            return [None] * len(indices)
        elapsed = round(time.time() - self.started_at, 6)
        result: list[dict[str, Any] | None] = []
        for index in indices:
            rewards = self._rewards[self.starts[index] : self.clock, index].tolist()
            result.append({"r": round(sum(rewards), 6), "l": len(rewards), "t": elapsed})
        return result

    @property
    def lengths(self) -> np.ndarray:
        """Return how many steps each running episode has taken, ``[B]``."""
        return self.clock - self.starts

    def get_state(self) -> dict[str, Any]:
        """Return everything but the limit, as arrays and numbers."""
        first = int(self.starts.min())
        return {
            "lengths": self.lengths,
            "monitor": self.monitor,
            "rewards": self._rewards[first : self.clock].copy(),
            "seconds": time.time() - self.started_at,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        lengths, rewards = state["lengths"], state["rewards"]
        self.clock = int(lengths.max())
        self.starts[:] = self.clock - lengths
        self.begin([])
        self.started_at = time.time() - state["seconds"]
        if self.monitor:
            self._rewards = np.empty((max(1024, 2 * len(rewards)), len(lengths)))
            self._rewards[: len(rewards)] = rewards

    def _make_room(self) -> None:
        """Drop rewards that no running episode needs; double the memory if that frees less than half."""
        first = int(self.starts.min())
        kept = self._rewards[first : self.clock]
        if len(kept) > len(self._rewards) // 2:
            self._rewards = np.concatenate([kept, np.empty_like(self._rewards)])
        else:
            self._rewards[: len(kept)] = kept
        self.clock -= first
        self.starts -= first
        self.begin([])
