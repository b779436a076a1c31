"""Vectorised environments whose states are tensors: what they share with SB3, and how episodes end and begin."""

import copy
import time
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Protocol, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from maxent_onpolicy.envs.capture import StateNotRestorableError
from maxent_onpolicy.envs.tensor import Observation, TensorStep
from maxent_onpolicy.validation import check_integer


class EnvStack(Protocol):
    """Several environments' rows as one batch, for as long as they are not used by themselves."""

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step all rows, those of the first environments first, with ``actions`` ``[S·B, ...]``; in the dense form."""
        ...

    def put_back(self) -> None:
        """Bring each environment to where its own steps would have; until then they are as they were."""
        ...


class DeviceVecEnv(VecEnv):
    """An SB3 ``VecEnv`` that lives on one device; subclasses implement ``reset_tensor`` and ``step_tensor``.

    Code that knows only numpy (``step``, ``reset``) works too: results are copied to the host there, with the infos
    that SB3 expects, ``episode`` among them. Those count what was stepped through ``step``, not ``step_tensor``.

    Args:
        num_envs: ``B``.
        observation_space: of one environment.
        action_space: of one environment.
        device: where observations, rewards and flags are.
        monitor: whether the infos of ``step`` report the return and length of each episode.

    Attributes:
        device: where everything is.
        infos: what every ``step_tensor`` returns as its infos: ``B`` empty dicts, not to be written to.

    Raises:
        ValueError: if there is no such device.
    """

    render_mode: str | None = None

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        monitor: bool = True,
    ) -> None:
        check_integer("num_envs", num_envs, 1)
        super().__init__(num_envs, observation_space, action_space)
        self.device = get_device(device)
        if str(device) != "auto" and self.device.type != torch.device(device).type:
            raise ValueError(f"`device={str(device)!r}`: PyTorch finds no such device here; 'auto' takes what there is")
        self.monitor = monitor
        self.infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self._start_time = time.time()
        self._episode_return = np.zeros(num_envs)
        self._episode_length = np.zeros(num_envs, dtype=np.int64)

    @abstractmethod
    def reset_tensor(self) -> Observation:
        """Start new episodes everywhere; return their first observations ``[B, ...]``."""

    @abstractmethod
    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, ...]``, and reset those whose episode ended.

        Tensors that were returned are never written to again.
        """

    def stack_kind(self) -> Hashable | None:
        """Return what environments must have in common for :meth:`stack`; ``None`` if these cannot be stacked."""
        return None

    @classmethod
    def stack(cls, envs: "Sequence[Self]") -> EnvStack:
        """Return environments of one :meth:`stack_kind` as one batch: the same episodes, in one step for all.

        Args:
            envs: ``S`` of them; used by themselves again only after :meth:`EnvStack.put_back`.
        """
        raise NotImplementedError(f"{cls.__name__} cannot be stacked")

    def reset(self) -> VecEnvObs:
        """Start new episodes everywhere; return their first observations ``[B, ...]`` as numpy arrays."""
        self._episode_return[:] = 0
        self._episode_length[:] = 0
        return _to_numpy(self.reset_tensor())

    def step_async(self, actions: np.ndarray) -> None:
        """Keep ``actions`` ``[B, ...]`` for ``step_wait``."""
        self._actions = torch.as_tensor(np.asarray(actions), device=self.device)

    def step_wait(self) -> VecEnvStepReturn:
        """Step with the actions given to ``step_async``; return numpy arrays and infos as SB3's ``VecEnv`` does."""
        step = self.step_tensor(self._actions)
        reward = _to_numpy(step.reward)
        truncated = step.truncated.cpu().numpy()
        done = (step.terminated | step.truncated).cpu().numpy()
        infos: list[dict[str, Any]] = [
            {**info, "TimeLimit.truncated": flag} for info, flag in zip(step.infos, truncated.tolist(), strict=True)
        ]
        final = None if step.final_observation is None else _to_numpy(step.final_observation)
        for index in np.flatnonzero(done if self._knows_final_observations() else truncated).tolist():
            if final is not None:
                infos[index]["terminal_observation"] = _row(final, index)
        self._report_episodes(reward, done, infos)
        return _to_numpy(step.observation), reward, done, infos

    def _knows_final_observations(self) -> bool:
        """Whether the rows of terminated episodes in a dense final observation are true ones, too."""
        return True

    def _report_episodes(self, reward: np.ndarray, done: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self._episode_return += reward
        self._episode_length += 1
        ended = np.flatnonzero(done).tolist()
        if self.monitor:
            seconds = round(time.time() - self._start_time, 6)
            for index in ended:
                score = round(float(self._episode_return[index]), 6)
                infos[index]["episode"] = {"r": score, "l": int(self._episode_length[index]), "t": seconds}
        self._episode_return[ended] = 0
        self._episode_length[ended] = 0

    def close(self) -> None:
        """Do nothing: tensors are freed with their owner."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of this object once for each environment."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of all environments.

        Raises:
            ValueError: if ``indices`` leaves some out.
        """
        self._require_all("set_attr", indices)
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of this object, for all environments; the answer is repeated for each.

        Raises:
            ValueError: if ``indices`` leaves some out.
        """
        self._require_all("env_method", indices)
        return [getattr(self, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether the infos of ``step`` are those of ``Monitor``, if asked for it; there are no wrappers."""
        monitored = self.monitor and issubclass(Monitor, wrapper_class)
        return [monitored] * len(list(self._get_indices(indices)))

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Accept no options for the next reset.

        Raises:
            ValueError: if there are any.
        """
        if options and (isinstance(options, dict) or any(options)):
            raise ValueError(f"`options`: {type(self).__name__} takes none, got {options!r}")

    def _require_all(self, name: str, indices: VecEnvIndices) -> None:
        if len(set(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"`indices`: {name} of {type(self).__name__} is for all environments, got {indices!r}")


class TorchVecEnv(DeviceVecEnv):
    """Environments written in PyTorch: a start state, a transition and an observation, each for all ``B`` at once.

    Subclasses implement :meth:`initial_state`, :meth:`transition` and :meth:`observe`. Nothing here reads a tensor
    back to the host, so that a step costs its kernels and no more. All environments draw from one generator on the
    device: a seed gives the same episodes on the same kind of device, but not those of Gymnasium's generator.

    Args:
        num_envs: ``B``.
        observation_space: of one environment.
        action_space: of one environment.
        max_episode_steps: time limit; ``None`` for none.
        device: where the states are.
        seed: of the generator; ``None`` draws one from numpy's global generator.
        monitor: whether the infos of ``step`` report the return and length of each episode.

    Attributes:
        row_settings: a class that sets this lets the environments of several models be stepped as one batch. It names
            the attributes that the three methods read, hashable ones, and promises three things: they read no others
            but ``device`` and ``num_envs``, which is the number of rows, whatever that is; what becomes of a row
            depends on that row alone; and ``initial_state`` draws with :meth:`uniform` only. A subclass has to say so
            again. ``None`` promises nothing.
        generator: of the start states.
    """

    row_settings: ClassVar[tuple[str, ...] | None] = None
    # Of a stack: those of all its parts.
    _generators: Sequence[torch.Generator] | None = None

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | None = None,
        device: torch.device | str = "auto",
        seed: int | None = None,
        monitor: bool = True,
    ) -> None:
        super().__init__(num_envs, observation_space, action_space, device, monitor)
        if max_episode_steps is not None:
            check_integer("max_episode_steps", max_episode_steps, 1)
        self.max_episode_steps = max_episode_steps
        self.generator = torch.Generator(self.device)
        self._state: Tensor | None = None
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.seed(seed)

    @abstractmethod
    def initial_state(self) -> Tensor:
        """Draw start states ``[B, S]`` from ``self.generator``."""

    def uniform(self, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers ``[B, columns]`` from [0, 1), for start states; in a stack each part from its own generator."""
        numbers = torch.empty(self.num_envs, columns, dtype=dtype, device=self.device)
        generators = self._generators or (self.generator,)
        for part, generator in zip(numbers.chunk(len(generators)), generators, strict=True):
            part.uniform_(generator=generator)
        return numbers

    @abstractmethod
    def transition(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next state ``[B, S]``, the reward ``[B]`` and whether the episode terminated ``[B]``."""

    @abstractmethod
    def observe(self, state: Tensor) -> Observation:
        """Return the observation ``[B, ...]`` of ``state``."""

    @torch.no_grad()
    def reset_tensor(self) -> Observation:
        """Start new episodes everywhere, from the seed if ``seed`` was called since the last reset."""
        if self._seeds[0] is not None:
            self.generator.manual_seed(self._seeds[0])
        self._reset_seeds()
        self._state = self.initial_state()
        self._elapsed = torch.zeros_like(self._elapsed)
        return self.observe(self._state)

    @torch.no_grad()
    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, ...]``, and reset those whose episode ended.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._state is None:
            raise RuntimeError("call reset() before the first step")
        state, reward, terminated = self.transition(self._state, actions.to(self.device))
        elapsed = self._elapsed + 1
        if self.max_episode_steps is None:
            truncated, done, final = torch.zeros_like(terminated), terminated, None
        else:
            truncated = (elapsed >= self.max_episode_steps) & ~terminated
            done, final = terminated | truncated, self.observe(state)
        # Drawn for all: how many are needed is known only on the device.
        self._state = torch.where(done.unsqueeze(1), self.initial_state(), state)
        self._elapsed = elapsed.masked_fill(done, 0)
        return TensorStep(
            observation=self.observe(self._state),
            reward=reward.to(torch.float32),
            terminated=terminated,
            truncated=truncated,
            final_index=None,
            final_observation=final,
            infos=self.infos,
        )

    def stack_kind(self) -> Hashable | None:
        """Return class, size and settings, if the class names these itself and there is a state to step."""
        names = vars(type(self)).get("row_settings")
        if names is None or self._state is None:
            return None
        settings = tuple(getattr(self, name) for name in names)
        return (type(self), self.num_envs, str(self.device), self.max_episode_steps, settings)

    @classmethod
    def stack(cls, envs: Sequence[Self]) -> EnvStack:
        """See :meth:`DeviceVecEnv.stack`."""
        return _TorchStack(envs)

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values."""
        return {
            "class": type(self).__qualname__,
            "num_envs": self.num_envs,
            "device": self.device.type,
            "seed": self._seeds[0],
            "generator": self.generator.get_state().numpy(),
            "state": None if self._state is None else self._state.cpu().numpy().copy(),
            "elapsed": self._elapsed.cpu().numpy().copy(),
            "episode_return": self._episode_return.copy(),
            "episode_length": self._episode_length.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which ``get_state`` of the same kind of environments returned.

        Raises:
            StateNotRestorableError: if it came from others, or from another kind of device, whose generator differs.
        """
        own = {"class": type(self).__qualname__, "num_envs": self.num_envs, "device": self.device.type}
        for name, value in own.items():
            if state.get(name) != value:
                raise StateNotRestorableError(f"the state has {name} {state.get(name)!r}, this environment {value!r}")
        self._seeds = [None if state["seed"] is None else state["seed"] + index for index in range(self.num_envs)]
        self.generator.set_state(torch.from_numpy(np.array(state["generator"], dtype=np.uint8)))
        saved = state["state"]
        self._state = None if saved is None else torch.tensor(saved, device=self.device)
        self._elapsed = torch.tensor(state["elapsed"], device=self.device)
        self._episode_return = np.array(state["episode_return"])
        self._episode_length = np.array(state["episode_length"])


class _TorchStack:
    """Environments of one class and settings as a single one with all their rows, which draws from all generators."""

    def __init__(self, envs: Sequence[TorchVecEnv]) -> None:
        self._envs = envs
        states = [env._state for env in envs if env._state is not None]
        self._whole = whole = copy.copy(envs[0])
        whole.num_envs = sum(env.num_envs for env in envs)
        whole.infos = [info for env in envs for info in env.infos]
        # Of their own until all is done: a step that fails leaves the environments as they were.
        whole._generators = [env.generator.clone_state() for env in envs]
        del whole.generator  # whoever draws from one alone would not see the others' episodes
        whole._state = torch.cat(states)
        whole._elapsed = torch.cat([env._elapsed for env in envs])

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step all rows."""
        return self._whole.step_tensor(actions)

    def put_back(self) -> None:
        """Give each environment its rows, and its generator's state."""
        whole, count = self._whole, len(self._envs)
        assert whole._state is not None
        assert whole._generators is not None
        parts = zip(self._envs, whole._generators, whole._state.chunk(count), whole._elapsed.chunk(count), strict=True)
        for env, generator, state, elapsed in parts:
            env.generator.set_state(generator.get_state())
            env._state, env._elapsed = state.clone(), elapsed.clone()


def _to_numpy(value: Observation) -> Any:
    """Return arrays that own their memory: a wrapper may keep them, and its state is then captured with them."""
    if isinstance(value, dict):
        return {key: item.cpu().numpy().copy() for key, item in value.items()}
    return value.cpu().numpy().copy()


def _row(observation: Any, index: int) -> Any:
    if isinstance(observation, dict):
        return {key: value[index].copy() for key, value in observation.items()}
    return observation[index].copy()
