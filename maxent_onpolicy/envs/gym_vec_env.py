"""Any Gymnasium environments, stepped one after another in this process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs

from maxent_onpolicy.envs.headless import prepare_rendering
from maxent_onpolicy.envs.state import get_dummy_state, set_dummy_state


class GymVecEnv(DummyVecEnv):
    """SB3's ``DummyVecEnv`` without its deep copies, and with a state that can be saved.

    Observations, rewards, dones and infos equal those of ``DummyVecEnv``. What is
    returned is never written to again: observations and the true final observation
    are copied, info dicts are copied at the top level.

    Args:
        env_fns: functions that return a new Gymnasium environment each.
    """

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment with the actions given to ``step_async``; reset those that end.

        Returns:
            Observation ``[B, ...]`` (of the new episode where one ended), reward ``[B]``, done ``[B]``
            and infos. Where ``done``, ``info["terminal_observation"]`` is the true last observation and
            ``info["TimeLimit.truncated"]`` says whether the episode was cut off rather than terminated.
        """
        for index, env in enumerate(self.envs):
            observation, reward, terminated, truncated, env_info = env.step(self.actions[index])
            info = dict(env_info)
            info["TimeLimit.truncated"] = truncated and not terminated
            self.buf_rews[index] = reward
            self.buf_dones[index] = terminated or truncated
            if self.buf_dones[index]:
                # reset() may reuse the array.
                info["terminal_observation"] = _copy(observation)
                observation, self.reset_infos[index] = env.reset()
            self.buf_infos[index] = info
            self._save_obs(index, observation)
        return self._obs_from_buf(), self.buf_rews.copy(), self.buf_dones.copy(), self.buf_infos.copy()

    def _obs_from_buf(self) -> VecEnvObs:
        return dict_to_obs(self.observation_space, {key: value.copy() for key, value in self.buf_obs.items()})

    def get_images(self, indices: VecEnvIndices = None) -> Sequence[np.ndarray | None]:
        """Return an image ``[height, width, 3]`` of each environment, or of those asked for."""
        if self.render_mode != "rgb_array":
            return super().get_images()
        prepare_rendering()
        return [self.envs[index].render() for index in self._get_indices(indices)]  # type: ignore[misc]

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values.

        Raises:
            StateNotRestorableError: naming the layer and the attribute that cannot be read.
        """
        return get_dummy_state(self)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which ``get_state`` of a ``GymVecEnv`` built the same way returned.

        Raises:
            StateNotRestorableError: if this one was built differently.
        """
        set_dummy_state(self, state)


def _copy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _copy(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(value) for value in observation)
    return np.copy(observation) if isinstance(observation, np.ndarray) else observation
