"""Continuous actions as a few evenly spaced choices per dimension."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.core import ObsType


class DiscretizeActions(
    gym.ActionWrapper[ObsType, np.ndarray, np.ndarray],
    gym.utils.RecordConstructorArgs,
):
    """Turn a bounded ``Box`` of ``A`` action dimensions into ``MultiDiscrete([bins] * A)``.

    Choice ``k`` of dimension ``i`` is ``low[i] + k·(high[i] − low[i])/(bins − 1)``, so both bounds can be chosen.
    Tang & Agrawal (2020), "Discretizing continuous action space for on-policy optimization"; the EAPO paper's
    MuJoCo configurations use seven bins.

    Args:
        env: environment with a bounded ``Box`` action space of any shape.
        bins: choices per dimension, at least 2.

    Raises:
        ValueError: if the action space is no ``Box``, is unbounded, or ``bins`` is below 2.
    """

    def __init__(self, env: gym.Env, bins: int = 7) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, bins=bins)
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box):
            raise ValueError(f"DiscretizeActions needs a Box action space, got {space}")
        if not space.is_bounded():
            raise ValueError(f"DiscretizeActions needs an action space with finite bounds, got {space}")
        if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 2:
            raise ValueError(f"`bins` must be an integer of at least 2, got {bins!r}")
        self._shape = space.shape
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        self._choices = np.linspace(low, high, bins, axis=-1).astype(space.dtype)  # [A, bins]
        self._dimensions = np.arange(len(low))
        self.action_space = spaces.MultiDiscrete(np.full(len(low), bins))

    def action(self, action: np.ndarray) -> np.ndarray:
        """Return the continuous action, in the shape of the ``Box``, for the choices ``[A]``."""
        return self._choices[self._dimensions, np.asarray(action)].reshape(self._shape)
