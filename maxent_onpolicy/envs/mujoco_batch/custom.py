"""Tasks of the user's own, on any MuJoCo model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from mujoco.batch import DATA_FIELDS

from maxent_onpolicy.envs.mujoco_batch.simulation import Simulation
from maxent_onpolicy.envs.mujoco_batch.task import Outcome, Task
from maxent_onpolicy.validation import check_choice, check_integer

_RENDER_MODES = ("human", "rgb_array", "depth_array", "rgbd_tuple")

Fields = SimpleNamespace
"""Arrays ``[B, ...]`` by the name they have in ``MjData``: ``now.qpos``, ``now.qvel``, …"""


@dataclass(frozen=True)
class MujocoTask:
    """A task on a MuJoCo model, as functions of arrays over all ``B`` environments.

    What they read are live arrays ``[B, ...]`` under their names in ``MjData``, to be read only: ``now.qpos[:, 0]``.
    As after ``mj_step``, ``qpos`` and ``qvel`` are new and what is derived from them (``xpos``, …) belongs to the last
    substep's beginning.

    Attributes:
        model: path of an MJCF file, or its text, or a compiled model.
        observation: ``observation(now)`` returns ``[B, D]``.
        reward: ``reward(now, before, action)`` returns ``[B]``; ``before`` holds the fields before the step, ``action``
            is ``[B, nu]``.
        terminated: ``terminated(now)`` returns ``[B]`` bool; without it, no episode terminates.
        reset: ``reset(rng, qpos, qvel)`` returns the initial ``qpos`` ``[nq]`` and ``qvel`` ``[nv]`` of one
            environment. It is given copies of the model's own, which are also what is taken without it.
        info: ``info(now)`` returns arrays ``[B, ...]`` by name, for the infos.
        frame_skip: physics steps in one environment step.
        fields: fields of ``MjData`` that the functions read.
        contact_forces: run ``mj_rnePostConstraint`` after each step, for ``cfrc_ext``, ``cfrc_int`` and ``cacc``.
        max_episode_steps: steps after which an episode is truncated; ``None`` for no limit.
        render_mode: ``"rgb_array"``, ``"human"``, ``"depth_array"`` or ``None``.
        renderer: arguments of Gymnasium's ``MujocoRenderer`` (``width``, ``height``, ``camera_id``, …).
    """

    model: str | Path | mujoco.MjModel
    observation: Callable[[Fields], np.ndarray]
    reward: Callable[[Fields, Fields, np.ndarray], np.ndarray]
    terminated: Callable[[Fields], np.ndarray] | None = None
    reset: Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    info: Callable[[Fields], Mapping[str, np.ndarray]] | None = None
    frame_skip: int = 1
    fields: tuple[str, ...] = ("qpos", "qvel")
    contact_forces: bool = False
    max_episode_steps: int | None = 1000
    render_mode: str | None = "rgb_array"
    renderer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integer("frame_skip", self.frame_skip, 1)
        if self.max_episode_steps is not None:
            check_integer("max_episode_steps", self.max_episode_steps, 1)
        for name in self.fields:
            check_choice("fields", name, sorted(DATA_FIELDS - {"time"}))

    def load(self) -> mujoco.MjModel:
        """Return the compiled model."""
        if isinstance(self.model, mujoco.MjModel):
            return self.model
        if isinstance(self.model, str) and self.model.lstrip().startswith("<"):
            return mujoco.MjModel.from_xml_string(self.model)
        if not Path(self.model).expanduser().is_file():
            raise ValueError(f"`model`: there is no file {str(self.model)!r}")
        return mujoco.MjModel.from_xml_path(str(Path(self.model).expanduser()))


class CustomTask(Task):
    """A :class:`MujocoTask` in the form that the ``VecEnv`` steps."""

    def __init__(self, definition: MujocoTask, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        super().__init__(model, data.qpos.copy(), data.qvel.copy(), model.opt.timestep * definition.frame_skip, {})
        self.definition = definition
        self.fields = tuple(dict.fromkeys(("qpos", "qvel", "ctrl", *definition.fields)))
        self.contact_forces = definition.contact_forces

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._now = Fields(**{name: simulation.field(name) for name in self.fields})

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Task`."""
        qpos, qvel = self.init_qpos.copy(), self.init_qvel.copy()
        return (qpos, qvel) if self.definition.reset is None else self.definition.reset(rng, qpos, qvel)

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        # A copy: what the user's function returns may be a live array.
        observation = np.array(self.definition.observation(self._now), dtype=np.float64)
        if observation.ndim != 2 or len(observation) != self.num_envs:
            raise ValueError(f"`observation` must return an array [{self.num_envs}, D], got shape {observation.shape}")
        return observation

    def position(self) -> dict[str, np.ndarray]:
        """Return copies of all fields."""
        return {name: array.copy() for name, array in vars(self._now).items()}

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        definition = self.definition
        reward = self._column("reward", definition.reward(self._now, Fields(**self.previous), action), np.float64)
        terminated = None
        if definition.terminated is not None:
            terminated = self._column("terminated", definition.terminated(self._now), np.bool_)
        self.previous = self.position()
        shown = {} if definition.info is None else definition.info(self._now)
        parts = {name: np.array(values) for name, values in shown.items()}
        return Outcome(self.observe(), reward, terminated, parts)

    def _column(self, name: str, values: np.ndarray, dtype: type) -> np.ndarray:
        array: np.ndarray = np.array(values, dtype=dtype)
        if array.shape != (self.num_envs,):
            raise ValueError(f"`{name}` must return an array [{self.num_envs}], got shape {array.shape}")
        return array

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return {name: values[index] for name, values in parts.items()}


class CustomEnv(gym.Env):
    """What single environments of a :class:`MujocoTask` look like from outside: spaces, model, data, images.

    Args:
        definition: the task.
    """

    def __init__(self, definition: MujocoTask) -> None:
        if definition.render_mode is not None:
            check_choice("render_mode", definition.render_mode, _RENDER_MODES)
        self.model = definition.load()
        self.data = mujoco.MjData(self.model)
        self.frame_skip = definition.frame_skip
        self.dt = self.model.opt.timestep * definition.frame_skip
        self.metadata = {"render_modes": list(_RENDER_MODES), "render_fps": round(1 / self.dt)}
        self.render_mode = definition.render_mode
        self.mujoco_renderer: Any = None
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        unlimited = ~self.model.actuator_ctrllimited.astype(bool)
        self.action_space = spaces.Box(np.where(unlimited, -np.inf, low), np.where(unlimited, np.inf, high))
        self.observation_space = spaces.Box(-np.inf, np.inf, (self._observation_size(definition),), np.float64)

    def _observation_size(self, definition: MujocoTask) -> int:
        mujoco.mj_forward(self.model, self.data)
        now = Fields(**{name: getattr(self.data, name)[None] for name in ("qpos", "qvel", "ctrl", *definition.fields)})
        shape = np.shape(definition.observation(now))
        mujoco.mj_resetData(self.model, self.data)
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(f"`observation` must return an array [B, D], got shape {shape} from B = 1")
        return shape[1]

    def render(self) -> Any:
        """Return an image in ``render_mode``, or show it."""
        return self.mujoco_renderer.render(self.render_mode)

    def close(self) -> None:
        """Free the renderer."""
        if self.mujoco_renderer is not None:
            self.mujoco_renderer.close()
