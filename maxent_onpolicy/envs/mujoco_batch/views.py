"""Single environments of a batch, to look at: attributes, methods that read, rendering."""

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

from maxent_onpolicy.envs.mujoco_batch.simulation import Simulation

# What would change one environment behind the batch's back.
_CHANGES = frozenset(
    {"step", "reset", "reset_model", "set_state", "do_simulation", "_step_mujoco_simulation", "_initialize_simulation"}
)

# What only the environment that all are copies of has, and would be wrong of any other.
_NOT_KEPT = frozenset({"np_random_seed", "_np_random_seed"})

# The history that SB3's Monitor keeps; a batch has its lines in the infos only.
_HISTORY = frozenset(
    {
        *("get_episode_rewards", "get_episode_lengths", "get_episode_times", "get_total_steps"),
        *("episode_returns", "episode_lengths", "episode_times", "total_steps"),
    }
)


class EnvView:
    """Environment ``index`` as a Gymnasium environment that can be read and rendered, not stepped.

    Args:
        env: the environment that all of the batch are copies of, with its wrappers.
        simulation: holds the physics.
        index: which of the batch.
        arguments: the constructor's arguments of ``env``, by name, for the renderer.
    """

    def __init__(self, env: gym.Env, simulation: Simulation, index: int, arguments: Mapping[str, Any]) -> None:
        self._simulation = simulation
        self._index = index
        self._wrapped = env
        # A second constructor call would read the model again.
        template: Any = env.unwrapped
        self._env = object.__new__(type(template))
        self._env.__dict__.update(template.__dict__)
        self._env.data = simulation.data(index)
        self._env.mujoco_renderer = _make_renderer(simulation.model, self._env.data, arguments)
        self.changed: dict[str, Any] = {}

    def get(self, name: str, rng: np.random.Generator | None) -> Any:
        """Return the attribute ``name`` of this environment.

        Raises:
            AttributeError: if there is none, or it would change the environment.
        """
        if name in self.changed:
            return self.changed[name]
        if name in _CHANGES:
            raise AttributeError(
                f"`{name}` would change one environment of a batch; use the VecEnv's own methods, "
                "or make_vec_env(..., backend='gymnasium')"
            )
        if name in _NOT_KEPT:
            raise AttributeError(f"`{name}` is not kept; make_vec_env(..., backend='gymnasium') has it")
        if name in _HISTORY:
            raise AttributeError(
                f"`{name}` is not kept; read info['episode'] where episodes end, "
                "or use make_vec_env(..., backend='gymnasium')"
            )
        if name in ("np_random", "_np_random"):
            return rng
        self._refresh()
        if name == "unwrapped":
            return self._env
        if hasattr(self._env, name) and name != "spec":
            return getattr(self._env, name)
        return self._wrapped.get_wrapper_attr(name)

    def set(self, name: str, value: Any) -> None:
        """Add an attribute that ``get`` returns.

        Raises:
            AttributeError: if the environment has one of that name, which the batch would not follow.
        """
        if hasattr(self._env, name):
            raise AttributeError(
                f"`{name}` was fixed when the environments were made; pass it to make_vec_env, "
                "or use make_vec_env(..., backend='gymnasium')"
            )
        self.changed[name] = value

    def render(self) -> Any:
        """Return an image in the environment's render mode, or show it."""
        self._refresh()
        return self._env.render()

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()

    def _refresh(self) -> None:
        self._simulation.data(self._index)


def _make_renderer(model: mujoco.MjModel, data: mujoco.MjData, arguments: Mapping[str, Any]) -> MujocoRenderer:
    given = {"width": 480, "height": 480, **arguments}
    if "default_camera_config" in given:
        given["default_cam_config"] = given["default_camera_config"]
    known = set(inspect.signature(MujocoRenderer).parameters) - {"model", "data"}
    return MujocoRenderer(model, data, **{name: value for name, value in given.items() if name in known})
