"""MJX simulations as a tensor ``VecEnv``."""

import importlib
import inspect
from collections.abc import Hashable, Sequence
from typing import Any, Self
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from maxent_onpolicy.envs.capture import StateNotRestorableError
from maxent_onpolicy.envs.mjx.tasks import TASKS, SimState, SimStep, Simulation
from maxent_onpolicy.envs.tensor import TensorStep
from maxent_onpolicy.envs.torch_vec_env import DeviceVecEnv, EnvStack
from maxent_onpolicy.validation import check_choice, check_integer, did_you_mean

# Of Gymnasium's constructors, but without meaning here.
_RENDERING = {"self", "kwargs", "default_camera_config"}


class MjxVecEnv(DeviceVecEnv):
    """Gymnasium's v5 locomotion tasks, simulated by MJX (Todorov, Erez & Tassa, 2012; MuJoCo's JAX implementation).

    Physics, observation, reward, termination and automatic reset are one compiled JAX function; PyTorch sees its
    results, and JAX the actions, through DLPack, without a copy. Compilation takes from seconds to minutes, in the
    first reset and the first step; environments with the same settings share it.

    What differs from Gymnasium's simulation of the same model: arithmetic in float32 (in float64 if JAX is configured
    so; observations and rewards that are returned are float32 always); Newton's solver for Humanoid, whose model asks
    for projected Gauss-Seidel; for MuJoCo 4, the fourth-order integration of free joints (Ant, Humanoid: about 1e-5
    a step); and the orientation of the friction pyramid under a capsule within 30° of the vertical. All parts of the
    observation are there, contact forces (``cfrc_ext``) included. Start states come from JAX's generator, with
    Gymnasium's distribution.

    Args:
        env_id: ``"HalfCheetah-v5"``, ``"Hopper-v5"``, ``"Walker2d-v5"``, ``"Ant-v5"`` or ``"Humanoid-v5"``.
        num_envs: ``B``.
        max_episode_steps: time limit; ``None`` for none.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; ``"auto"`` takes JAX's default.
        seed: of all start states; ``None`` draws one from numpy's global generator.
        monitor: whether the infos of ``step`` report the return and length of each episode.
        **options: constructor arguments of Gymnasium's task (``ctrl_cost_weight``, ``frame_skip``, ``xml_file``).

    Raises:
        ValueError: for an unknown task, keyword or device.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        max_episode_steps: int | None = 1000,
        device: str = "auto",
        seed: int | None = None,
        monitor: bool = True,
        **options: Any,
    ) -> None:
        self.env_id = check_choice("env_id", env_id, TASKS)
        check_integer("num_envs", num_envs, 1)
        if max_episode_steps is not None:
            check_integer("max_episode_steps", max_episode_steps, 1)
        self.max_episode_steps = max_episode_steps
        self.jax_device = _jax_device(device)
        template, self.options = _gymnasium_env(env_id, options)
        self._programs = self._shared_programs(template.model, num_envs)
        self.simulation = self._programs.simulation
        self._sim_state: SimState | None = None
        self._key: Any = None
        super().__init__(
            num_envs,
            spaces.Box(-np.inf, np.inf, template.observation_space.shape, np.float32),
            template.action_space,
            _torch_device(self.jax_device),
            monitor,
        )
        template.close()
        self.seed(seed)

    def _shared_programs(self, model: Any, num_envs: int) -> "_Programs":
        """Return the functions of environments like this one, which are compiled once for all of them."""
        content = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, content)
        precision = jax.config.read("jax_enable_x64")
        options = repr(sorted(self.options.items()))
        size = (num_envs, self.max_episode_steps)
        key = (self.env_id, options, size, self.jax_device, precision, content.tobytes())
        programs = _PROGRAMS.get(key)
        if programs is None:
            with jax.default_device(self.jax_device):
                simulation = Simulation(self.env_id, model, self.options, *size)
            programs = _PROGRAMS[key] = _Programs(simulation)
        return programs

    def reset_tensor(self) -> Tensor:
        """Start new episodes everywhere, from the seed if ``seed`` was called since the last reset."""
        if self._seeds[0] is not None:
            self._key = jax.device_put(jax.random.PRNGKey(self._seeds[0]), self.jax_device)
        elif self._sim_state is not None:
            self._key = self._sim_state.key
        self._reset_seeds()
        self._sim_state, observation = self._programs.reset(self._key)
        return to_torch(observation).to(torch.float32)

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step every environment with ``actions`` ``[B, A]``, and reset those whose episode ended.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._sim_state is None:
            raise RuntimeError("call reset() before the first step")
        action = to_jax(actions.detach().to(self.device, torch.float32))
        self._sim_state, result = self._programs.step(self._sim_state, action)
        return self._tensor_step(result, self.infos)

    def _tensor_step(self, result: SimStep, infos: list[dict[str, Any]]) -> TensorStep:
        return TensorStep(
            observation=to_torch(result.observation).to(torch.float32),
            reward=to_torch(result.reward).to(torch.float32),
            terminated=to_torch(result.terminated),
            truncated=to_torch(result.truncated),
            final_index=None,
            final_observation=None if self.max_episode_steps is None else to_torch(result.final).to(torch.float32),
            infos=infos,
        )

    def stack_kind(self) -> Hashable | None:
        """Return the compiled functions, which environments of one task, size and settings share."""
        if type(self) is not MjxVecEnv or self._sim_state is None:
            return None
        return self._programs

    @classmethod
    def stack(cls, envs: Sequence[Self]) -> EnvStack:
        """See :meth:`DeviceVecEnv.stack`; the first step of so many compiles anew."""
        return _MjxStack(envs)

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values."""
        state = self._sim_state
        return {
            "env_id": self.env_id,
            "num_envs": self.num_envs,
            "seed": self._seeds[0],
            "simulation": None if state is None else {k: np.array(v) for k, v in state._asdict().items()},
            "episode_return": self._episode_return.copy(),
            "episode_length": self._episode_length.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which ``get_state`` of the same task with as many environments returned.

        Raises:
            StateNotRestorableError: if it came from others.
        """
        for name, value in {"env_id": self.env_id, "num_envs": self.num_envs}.items():
            if state.get(name) != value:
                raise StateNotRestorableError(f"the state has {name} {state.get(name)!r}, this environment {value!r}")
        self._seeds = [None if state["seed"] is None else state["seed"] + index for index in range(self.num_envs)]
        saved = state["simulation"]
        if saved is not None:
            saved = SimState(**{name: jax.device_put(value, self.jax_device) for name, value in saved.items()})
        self._sim_state = saved
        self._episode_return = np.array(state["episode_return"])
        self._episode_length = np.array(state["episode_length"])


class _Programs:
    """What is compiled for a task, its settings and a number of environments: seconds to minutes at the first call."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.reset = jax.jit(simulation.reset)
        self.step = jax.jit(simulation.step)
        self.step_stack = jax.jit(self._step_stack)

    def _step_stack(self, state: SimState, action: jax.Array) -> tuple[SimState, SimStep]:
        """Step ``S`` times ``B`` environments: states ``[S, B, ...]``, actions and results ``[S·B, ...]``."""
        parts = action.reshape(-1, self.simulation.num_envs, *action.shape[1:])
        following, step = jax.vmap(self.simulation.step)(state, parts)
        return following, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), step)


# As long as an environment uses them.
_PROGRAMS: WeakValueDictionary[Hashable, _Programs] = WeakValueDictionary()


class _MjxStack:
    """Environments of one task and settings, mapped over: one compiled step, each with random numbers of its own."""

    def __init__(self, envs: "Sequence[MjxVecEnv]") -> None:
        self._envs = envs
        self._infos = [info for env in envs for info in env.infos]
        self._state: SimState = _joined([env._sim_state for env in envs])

    def step_tensor(self, actions: Tensor) -> TensorStep:
        """Step all rows."""
        first = self._envs[0]
        action = to_jax(actions.detach().to(first.device, torch.float32))
        self._state, result = first._programs.step_stack(self._state, action)
        return first._tensor_step(result, self._infos)

    def put_back(self) -> None:
        """Give each environment its state."""
        for env, state in zip(self._envs, _parted(self._state), strict=True):
            env._sim_state = state


@jax.jit
def _joined(states: list[SimState]) -> SimState:
    return jax.tree.map(lambda *parts: jnp.stack(parts), *states)


@jax.jit
def _parted(state: SimState) -> list[SimState]:
    return [jax.tree.map(lambda leaf, index=index: leaf[index], state) for index in range(len(state.elapsed))]


def to_torch(array: jax.Array) -> Tensor:
    """Return a tensor on the same memory; JAX never writes to it again, and nobody else may."""
    return torch.from_dlpack(array)


def to_jax(tensor: Tensor) -> jax.Array:
    """Return an array on the same memory, if it is aligned and contiguous as JAX needs it."""
    return jax.dlpack.from_dlpack(tensor.contiguous())


def _gymnasium_env(env_id: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return Gymnasium's environment, for its model and spaces, and all of its constructor arguments."""
    module, _, name = TASKS[env_id].entry_point.partition(":")
    cls = getattr(importlib.import_module(module), name)
    parameters = {key: item for key, item in inspect.signature(cls).parameters.items() if key not in _RENDERING}
    for key in options:
        if key not in parameters:
            known = ["device", "max_episode_steps", *parameters]
            raise ValueError(
                f"{env_id!r} with `backend='mjx'` takes no `{key}`{did_you_mean(key, known)}, only {', '.join(known)}"
            )
    return cls(**options), {key: options.get(key, item.default) for key, item in parameters.items()}


def _jax_device(device: str) -> jax.Device:
    if device == "auto":
        return jax.devices()[0]
    kind, _, index = str(device).partition(":")
    try:
        return jax.devices({"cuda": "gpu"}.get(kind, kind))[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        found = ", ".join(str(each) for each in jax.devices())
        raise ValueError(
            f"`device={device!r}`: JAX has only {found}; for NVIDIA's GPUs install jax[cuda13] or jax[cuda12]"
        ) from error


def _torch_device(device: jax.Device) -> torch.device:
    return torch.device("cuda", device.local_hardware_id or 0) if device.platform == "gpu" else torch.device("cpu")
