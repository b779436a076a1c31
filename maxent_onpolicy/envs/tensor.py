"""The seam between environments and the engine: one step, as tensors on one device.

An SB3 ``VecEnv`` may offer ``step_tensor(actions)`` and stay on the device.
Every other ``VecEnv`` is adapted here, once, so that nothing inside the engine
knows which kind it has.
"""

import warnings
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from maxent_onpolicy.envs.staging import HostStaging

Observation = Tensor | dict[str, Tensor]


class TensorStep(NamedTuple):
    """What ``B`` environments returned for one action each, on the engine's device.

    The true last observations of truncated episodes come in one of two forms. *Compact*: ``final_index`` names the
    ``K`` truncated environments, and ``final_observation`` has ``K`` rows. *Dense*: ``final_index`` is ``None`` and
    ``final_observation`` has ``B`` rows, of which only those with ``truncated`` mean anything. An environment that
    lives on a device uses the dense form, because ``K`` would have to be read back in every step.

    Attributes:
        observation: ``[B, ...]``, or a dict of such; after the automatic reset where an episode ended.
        reward: ``[B]`` float32.
        terminated: ``[B]`` bool; the state has no future, so its value is zero.
        truncated: ``[B]`` bool; cut off by a time limit. Never true together with ``terminated``.
        final_index: ``[K]`` int64; the truncated environments, in increasing order. ``None``: the dense form.
        final_observation: ``[K, ...]``, or ``[B, ...]`` in the dense form. ``None`` if nothing was truncated.
        infos: one info dict per environment, as SB3's callbacks expect them. With the dense form they carry no
            observations, and are usually empty: the same list of the same empty dicts in every step, not to be
            written to.
    """

    observation: Observation
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_index: Tensor | None
    final_observation: Observation | None
    infos: list[dict[str, Any]]

    def to(self, device: torch.device | str) -> "TensorStep":
        """Return the same step on ``device``."""
        final = self.final_observation
        return TensorStep(
            observation=to_device(self.observation, device),
            reward=self.reward.to(device),
            terminated=self.terminated.to(device),
            truncated=self.truncated.to(device),
            final_index=None if self.final_index is None else self.final_index.to(device),
            final_observation=None if final is None else to_device(final, device),
            infos=self.infos,
        )


@runtime_checkable
class TensorVecEnv(Protocol):
    """An SB3 ``VecEnv`` that also steps on device tensors."""

    num_envs: int

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, ...]``."""
        ...


def to_device(observation: Any, device: torch.device | str) -> Observation:
    """Move a (dict of) numpy or tensor observation to ``device``."""
    if isinstance(observation, dict):
        return {key: torch.as_tensor(value, device=device) for key, value in observation.items()}
    return torch.as_tensor(observation, device=device)


def from_numpy_step(
    observation: Any,
    reward: np.ndarray,
    done: np.ndarray,
    infos: list[dict[str, Any]],
    device: torch.device | str,
    staging: HostStaging | None = None,
) -> TensorStep:
    """Turn what ``VecEnv.step`` returned into a :class:`TensorStep`, in the compact form.

    A truncated episode whose info lacks ``terminal_observation`` cannot be
    bootstrapped; it is treated as terminated, with a warning.

    Args:
        observation: ``[B, ...]``, or a dict of such.
        reward: ``[B]``.
        done: ``[B]``.
        infos: one per environment.
        device: where the result lives.
        staging: carries everything there in one copy; without it each array is moved, or shared on the CPU.
    """
    done = np.asarray(done, dtype=bool)
    truncated, final = _truncations(done, infos)
    observations = [observation, _stack(final, observation)] if final else [observation]
    arrays = [leaf for each in observations for leaf in _leaves(each)]
    arrays += [np.asarray(reward, dtype=np.float32), done & ~truncated, truncated, np.flatnonzero(truncated)]
    tensors = [torch.as_tensor(array, device=device) for array in arrays] if staging is None else staging.send(arrays)
    *leaves, reward_tensor, terminated, truncated_tensor, index = tensors
    count = len(leaves) // len(observations)
    return TensorStep(
        observation=_tree(observation, leaves[:count]),
        reward=reward_tensor,
        terminated=terminated,
        truncated=truncated_tensor,
        final_index=index,
        final_observation=_tree(observation, leaves[count:]) if final else None,
        infos=infos,
    )


def step_tensor(env: VecEnv, actions: np.ndarray | Tensor, device: torch.device | str) -> TensorStep:
    """Step any SB3 ``VecEnv`` and return device tensors.

    Args:
        env: a numpy ``VecEnv``, or one that offers ``step_tensor`` itself.
        actions: ``[B, ...]`` in the environment's own units.
        device: where the result lives.
    """
    if is_tensor_vec_env(env):
        return cast(TensorVecEnv, env).step_tensor(torch.as_tensor(actions, device=device)).to(device)
    numpy_actions = actions.cpu().numpy() if isinstance(actions, Tensor) else actions
    return from_numpy_step(*env.step(numpy_actions), device=device)


def is_tensor_vec_env(env: VecEnv) -> bool:
    """Return whether ``env`` itself offers ``step_tensor``."""
    # Not isinstance: a VecEnvWrapper lends out the methods of what it wraps, and would be bypassed.
    return hasattr(type(env), "step_tensor")


def as_tensor_vec_env(env: VecEnv, device: torch.device | str = "auto") -> VecEnv:
    """Return ``env`` if it steps on tensors, else the same environments in a :class:`TensorAdapter`.

    Args:
        env: any SB3 ``VecEnv``.
        device: where tensors are to live, if ``env`` does not say.
    """
    return env if is_tensor_vec_env(env) else TensorAdapter(env, device)


class TensorAdapter(VecEnvWrapper):
    """Makes any numpy ``VecEnv`` a tensor ``VecEnv``.

    With a GPU, one page-locked copy carries the actions to the host, and another everything that a step returned to
    the device. On the CPU tensors and arrays share their memory.

    Args:
        venv: any SB3 ``VecEnv``.
        device: where tensors live; ``"auto"`` is CUDA, if there is any.
    """

    def __init__(self, venv: VecEnv, device: torch.device | str = "auto") -> None:
        super().__init__(venv)
        self.device = get_device(device)
        self._staging = None if self.device.type == "cpu" else HostStaging(self.device)

    def reset(self) -> VecEnvObs:
        """Start new episodes everywhere; return their first observations ``[B, ...]`` as numpy arrays."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Return what the environments returned, as numpy arrays."""
        return self.venv.step_wait()

    def reset_tensor(self) -> Observation:
        """Start new episodes everywhere; return their first observations ``[B, ...]``."""
        return to_device(self.venv.reset(), self.device)

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, ...]``."""
        array = actions.detach().cpu().numpy() if self._staging is None else self._staging.receive(actions)
        return from_numpy_step(*self.venv.step(array), device=self.device, staging=self._staging)

    def get_env_state(self) -> dict[str, Any]:
        """Return nothing: what is between the environments and the device outlasts no step."""
        return {}

    def set_env_state(self, state: dict[str, Any]) -> None:
        """Accept what ``get_env_state`` returned."""


def _truncations(done: np.ndarray, infos: list[dict[str, Any]]) -> tuple[np.ndarray, list[Any]]:
    """Return which episodes were cut off ``[B]``, and the last observation of each of those."""
    truncated = np.zeros_like(done)
    final: list[Any] = []
    for index in np.flatnonzero(done):
        if infos[index].get("TimeLimit.truncated", False):
            terminal = infos[index].get("terminal_observation")
            if terminal is None:
                warnings.warn(
                    "an environment was truncated without `terminal_observation` in its info, so its value cannot be "
                    "bootstrapped and the episode counts as terminated",
                    stacklevel=3,
                )
                continue
            truncated[index] = True
            final.append(terminal)
    return truncated, final


def _leaves(observation: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in (observation.values() if isinstance(observation, dict) else (observation,))]


def _tree(like: Any, leaves: list[Tensor]) -> Observation:
    return dict(zip(like, leaves, strict=True)) if isinstance(like, dict) else leaves[0]


def _stack(observations: list[Any], like: Any) -> Any:
    if isinstance(like, dict):  # whose order of keys may be another
        return {key: np.stack([obs[key] for obs in observations]) for key in like}
    return np.stack(observations)
