"""Simulators that already speak PyTorch (Isaac Lab, ManiSkill, Isaac Gym's descendants) as tensor ``VecEnv``s."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from maxent_onpolicy.envs.tensor import Observation, TensorStep
from maxent_onpolicy.envs.torch_vec_env import DeviceVecEnv
from maxent_onpolicy.validation import check_choice, check_range

_FINAL_KEYS = ("final_observation", "final_obs")
_CHECK_EVERY = 64


class TorchEnvAdapter(DeviceVecEnv):
    """Makes an environment whose ``reset`` and ``step`` are batched over tensors a tensor ``VecEnv``.

    ``env.reset(seed=...)`` must return ``(observation, info)``, and ``env.step(actions)`` must return ``(observation,
    reward, terminated, truncated, info)``, each for ``B`` environments that reset themselves within the step in which
    an episode ends. That is what Isaac Lab's environments, ``ManiSkillVectorEnv`` and Gymnasium's vector environments
    in same-step mode do. Everything is copied on the device, since such simulators reuse their tensors.

    *Final observations.* A truncated episode is bootstrapped from ``info["final_observation"]`` (ManiSkill) or
    ``info["final_obs"]`` (Gymnasium), with a row for every environment. If the simulator reports neither, as Isaac
    Lab does, the last observation of the episode is lost. Then the value of the observation *before* the last step
    stands in for it, as in RSL-RL and rl_games, and a warning says so once: this is off by one simulation step,
    whereas to count the episode as terminated would be off by everything that would have followed.

    The state of a foreign simulator cannot be saved: a resumed run starts new episodes.

    Args:
        env: the simulator.
        observation_key: which entry of a dictionary is the observation; ``None`` takes ``"policy"`` if there is one,
            as in Isaac Lab, and otherwise the whole dictionary.
        action_bound: unbounded dimensions of the action space become ``[-action_bound, action_bound]``, because
            SB3 has no unbounded actions. 100 is that of Isaac Lab's own wrapper for SB3.
        monitor: whether the infos of ``step`` report the return and length of each episode.

    Raises:
        ValueError: if the environment does not say its spaces or the number of environments, has no entry
            ``observation_key``, or resets only in the step after an episode's last.
    """

    def __init__(
        self,
        env: Any,
        observation_key: str | None = None,
        action_bound: float = 100.0,
        monitor: bool = True,
    ) -> None:
        check_range("action_bound", action_bound, 0, low_open=True)
        self.env = env
        base = getattr(env, "unwrapped", env)
        mode = getattr(env, "metadata", {}).get("autoreset_mode")
        if mode is not None and mode != gym.vector.AutoresetMode.SAME_STEP:
            raise ValueError(f"`env` must reset itself within the last step of an episode, but its mode is {mode}")
        num_envs = _find(env, base, "num_envs")
        observation_space = _find(env, base, "single_observation_space", "observation_space")
        self.observation_key = _key(observation_space, observation_key)
        if self.observation_key is not None:
            observation_space = observation_space[self.observation_key]
        if isinstance(observation_space, dict):
            observation_space = spaces.Dict(observation_space)
        device = getattr(env, "device", None) or getattr(base, "device", None) or "cpu"
        action_space = _bounded(_find(env, base, "single_action_space", "action_space"), action_bound)
        super().__init__(int(num_envs), observation_space, action_space, torch.device(device), monitor)
        self._last: Observation | None = None
        self._final_known: bool | None = None  # not until an episode was truncated
        self._truncations = torch.zeros((), dtype=torch.bool, device=self.device)
        self._steps = 0

    def reset_tensor(self) -> Observation:
        """Start new episodes everywhere; pass on the seed if ``seed`` was called since the last reset."""
        seed = self._seeds[0]
        self._reset_seeds()
        observation, _ = self.env.reset() if seed is None else self.env.reset(seed=seed)
        self._last = self._pick(observation)
        return self._last

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, ...]``.

        Raises:
            RuntimeError: before the first reset.
            ValueError: if final observations lack a row for each environment.
        """
        if self._last is None:
            raise RuntimeError("call reset() before the first step")
        observation, reward, terminated, truncated, info = self.env.step(actions.to(self.device))
        terminated = terminated.to(self.device, torch.bool, copy=True).reshape(self.num_envs)
        truncated = truncated.to(self.device, torch.bool).reshape(self.num_envs) & ~terminated
        final = self._final(info, truncated)
        self._last = self._pick(observation)
        return TensorStep(
            observation=self._last,
            reward=reward.to(self.device, torch.float32, copy=True).reshape(self.num_envs),
            terminated=terminated,
            truncated=truncated,
            final_index=None,
            final_observation=final,
            infos=self.infos,
        )

    def close(self) -> None:
        """Close the simulator, if it can be."""
        if hasattr(self.env, "close"):
            self.env.close()

    def _knows_final_observations(self) -> bool:
        return self._final_known is True

    def _pick(self, observation: Any) -> Observation:
        """Return a copy of the part that the policy sees."""
        if self.observation_key is not None:
            observation = observation[self.observation_key]
        if isinstance(observation, dict):
            return {key: value.to(self.device, copy=True) for key, value in observation.items()}
        return observation.to(self.device, copy=True)

    def _final(self, info: dict[str, Any], truncated: Tensor) -> Observation:
        """Return a row for each environment: the true one, or what stands in for it."""
        for key in _FINAL_KEYS:
            if info.get(key) is not None:
                self._final_known = True
                final = self._pick(info[key])
                for value in final.values() if isinstance(final, dict) else (final,):
                    if value.shape[0] != self.num_envs:
                        raise ValueError(
                            f"`info[{key!r}]` must have a row for each of {self.num_envs} environments, "
                            f"got shape {tuple(value.shape)}"
                        )
                return final
        if self._final_known is None:
            self._warn_at_first_truncation(truncated)
        assert self._last is not None
        return self._last

    def _warn_at_first_truncation(self, truncated: Tensor) -> None:
        # The flag is read back rarely: it is a wait for the device.
        self._truncations = self._truncations | truncated.any()
        self._steps += 1
        if self._steps % _CHECK_EVERY == 0 and bool(self._truncations):
            self._final_known = False
            warnings.warn(
                f"{type(self.env).__name__} reports no final observations (`info['final_observation']`): truncated "
                "episodes are bootstrapped from the observation before their last step",
                stacklevel=4,
            )


def _find(env: Any, base: Any, *names: str) -> Any:
    for name in names:
        for owner in (env, base):
            if getattr(owner, name, None) is not None:
                return getattr(owner, name)
    raise ValueError(f"`env`: {type(env).__name__} has no attribute {' or '.join(map(repr, names))}")


def _key(space: Any, key: str | None) -> str | None:
    names = list(space.keys()) if isinstance(space, dict | spaces.Dict) else []
    if key is not None:
        return str(check_choice("observation_key", key, names))
    return "policy" if "policy" in names else None


def _bounded(space: spaces.Space, bound: float) -> spaces.Space:
    if not isinstance(space, spaces.Box):
        return space
    low, high = (np.where(np.isfinite(end), end, sign * bound) for end, sign in ((space.low, -1), (space.high, 1)))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
