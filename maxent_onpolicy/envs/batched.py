"""What the ``VecEnv``s share that step all their environments in one library call."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices


class BatchedVecEnv(VecEnv):
    """Environments that are no objects of their own: attributes are looked up, or were added from outside.

    Args:
        n_envs: ``B``.
        observation_space: of each environment.
        action_space: of each environment.

    Attributes:
        monitor: whether infos are those of SB3's ``Monitor``; set before this class's constructor is called.
    """

    monitor: bool

    def __init__(self, n_envs: int, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self._added: list[dict[str, Any]] = [{} for _ in range(n_envs)]
        super().__init__(n_envs, observation_space, action_space)

    @abstractmethod
    def _attribute(self, name: str, index: int) -> Any:
        """Return an attribute of one environment.

        Raises:
            AttributeError: if it has none of that name.
        """

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment: its own, what all have in common, or what ``set_attr`` added."""
        return [
            self._added[index][attr_name] if attr_name in self._added[index] else self._attribute(attr_name, index)
            for index in self._get_indices(indices)
        ]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Add an attribute that ``get_attr`` returns; the games know nothing of it."""
        for index in self._get_indices(indices):
            self._added[index][attr_name] = value

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment that ``get_attr`` returns."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether the infos are those of ``Monitor``, if asked for it; there are no wrappers."""
        monitored = self.monitor and issubclass(Monitor, wrapper_class)
        return [monitored for _ in self._get_indices(indices)]


def remake(make: Callable[[], Any], state: dict[str, Any], reset_infos: list[Any]) -> Any:
    """Return a pickled ``VecEnv``: made again by ``make``, with the state and the infos it had."""
    vec_env = make()
    vec_env.set_state(state)
    vec_env.reset_infos = reset_infos
    return vec_env
