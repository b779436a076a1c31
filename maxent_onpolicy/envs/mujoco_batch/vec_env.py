"""The ``VecEnv`` on a batch of MuJoCo simulations."""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.utils import seeding
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from maxent_onpolicy.cores import share_of_cores
from maxent_onpolicy.envs.batched import remake
from maxent_onpolicy.envs.discretize import DiscretizeActions
from maxent_onpolicy.envs.headless import prepare_rendering
from maxent_onpolicy.envs.mujoco_batch.custom import CustomEnv, CustomTask, MujocoTask
from maxent_onpolicy.envs.mujoco_batch.episodes import Episodes
from maxent_onpolicy.envs.mujoco_batch.gymnasium_tasks import constructor_arguments, layers, task_of, time_limit
from maxent_onpolicy.envs.mujoco_batch.infos import LazyInfos
from maxent_onpolicy.envs.mujoco_batch.simulation import make_simulation
from maxent_onpolicy.envs.mujoco_batch.task import Task
from maxent_onpolicy.envs.mujoco_batch.views import EnvView
from maxent_onpolicy.envs.state import StateNotRestorableError
from maxent_onpolicy.validation import check_integer


class MujocoBatchVecEnv(VecEnv):
    """``n_envs`` copies of one MuJoCo task, stepped on a thread pool, with everything else vectorised.

    From the same seed and actions, episodes equal those of SB3's ``DummyVecEnv`` over ``gym.make``: observations bit
    for bit, rewards to rounding in the last digit, the same ends of episodes and infos. What is returned is never
    written to again. Results do not depend on the number of threads.

    Args:
        task: what all of them are copies of: one of Gymnasium's MuJoCo ``-v5`` tasks as ``gym.make`` returns it (which
            is not stepped itself), or a :class:`MujocoTask` of your own.
        n_envs: ``B``.
        discretize_bins: turn bounded actions into this many choices per dimension, see :class:`DiscretizeActions`.
        monitor: report return and length of each episode in ``info["episode"]``, as SB3's ``Monitor``.
        num_threads: at most so many threads step; default: as many as cores are available to this process.

    Raises:
        ValueError: if ``task`` is no such task, or a number is out of range.
    """

    def __init__(
        self,
        task: gym.Env | MujocoTask,
        n_envs: int = 1,
        *,
        discretize_bins: int | None = None,
        monitor: bool = True,
        num_threads: int | None = None,
    ) -> None:
        check_integer("n_envs", n_envs, 1)
        threads = share_of_cores() if num_threads is None else check_integer("num_threads", num_threads, 1)
        self._made_of = partial(
            MujocoBatchVecEnv, task, n_envs, discretize_bins=discretize_bins, monitor=monitor, num_threads=num_threads
        )
        env, self.task, self._renderer = _open(task)
        base: Any = env.unwrapped
        self._env = env
        self._choices: np.ndarray | None = None
        if discretize_bins is not None:
            self._env = discrete = DiscretizeActions(env, discretize_bins)
            self._choices, self._dimensions = discrete._choices, discrete._dimensions
        self.simulation = make_simulation(
            base.model, base.data, n_envs, base.frame_skip, threads, self.task.contact_forces, self.task.fields
        )
        self.task.bind(self.simulation)
        self.episodes = Episodes(n_envs, time_limit(env), monitor)
        self._rngs: list[np.random.Generator | None] = [None] * n_envs
        self._views: dict[int, EnvView] = {}
        self._blank: list[None] = [None] * n_envs
        # Each with a generator of its own, as if they were n_envs objects.
        self._action_spaces = [self._env.action_space, *(deepcopy(self._env.action_space) for _ in range(n_envs - 1))]
        self._action_shape = (n_envs, base.model.nu)
        self._started = False
        self._shows = base.render_mode == "human"
        super().__init__(n_envs, self._env.observation_space, self._env.action_space)
        self.metadata = base.metadata

    def reset(self) -> np.ndarray:
        """Start a new episode in every environment; return the observation ``[B, D]``.

        Seeds given by ``seed`` are used once. Options are accepted, as by Gymnasium's tasks, which have none.
        """
        for index, seed in enumerate(self._seeds):
            if seed is not None or self._rngs[index] is None:
                self._rngs[index] = seeding.np_random(seed)[0]
        self._reset_seeds()
        self._reset_options()
        self._started = True
        observation = self._begin_episodes(np.arange(self.num_envs))
        if self._shows:
            self.env_method("render")
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep ``actions`` for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step that ``step_async`` asked for; see :meth:`step`."""
        return self.step(self._actions)

    def step(self, actions: np.ndarray) -> VecEnvStepReturn:
        """Step every environment; reset those whose episode ends.

        Args:
            actions: ``[B, A]``, of any type; values outside the bounds are passed on, as Gymnasium does.

        Returns:
            Observation ``[B, D]`` float64 (of the new episode where one ended), reward ``[B]`` float32, done ``[B]``
            and infos, which are built when they are read. Where ``done``, ``info["terminal_observation"]`` is the true
            last observation and ``info["TimeLimit.truncated"]`` says whether the episode was cut off.

        Raises:
            ValueError: if ``actions`` has another shape.
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        if self._choices is not None:
            actions = self._choices[self._dimensions, np.asarray(actions)]
        if not isinstance(actions, np.ndarray):
            actions = np.asarray(actions)
        if actions.shape != self._action_shape:
            raise ValueError(f"Action dimension mismatch. Expected {self._action_shape}, found {actions.shape}")
        if not self._started:
            raise gym.error.ResetNeeded("Cannot call env.step() before calling env.reset()")
        self.simulation.step(actions)
        observation, reward, terminated, parts = self.task.after_step(actions)
        self.episodes.add(reward)
        if self._shows:
            self.env_method("render")
        truncated = self.episodes.truncated()
        if terminated is None:
            done = np.zeros(self.num_envs, dtype=bool) if truncated is None else truncated
        else:
            done = terminated.copy() if truncated is None else terminated | truncated
        ended: dict[int, dict[str, Any]] = {}
        if np.count_nonzero(done):
            indices = np.flatnonzero(done)
            ended = self._end_episodes(indices, observation, terminated, truncated)
            observation = self._begin_episodes(indices)
        infos = LazyInfos(partial(_build_info, self.task, parts, ended), self._blank)
        return observation, reward.astype(np.float32), done, infos

    def _end_episodes(
        self, indices: np.ndarray, observation: np.ndarray, terminated: np.ndarray | None, truncated: np.ndarray | None
    ) -> dict[int, dict[str, Any]]:
        """Return what the infos of the environments ``indices`` say in addition."""
        ended: dict[int, dict[str, Any]] = {}
        for index, summary in zip(indices.tolist(), self.episodes.summaries(indices), strict=True):
            cut_off = truncated is not None and bool(truncated[index])
            extra: dict[str, Any] = {} if summary is None else {"episode": summary}
            extra["TimeLimit.truncated"] = cut_off and not (terminated is not None and bool(terminated[index]))
            extra["terminal_observation"] = observation[index].copy()
            ended[index] = extra
        return ended

    def _begin_episodes(self, indices: np.ndarray) -> np.ndarray:
        """Reset the environments ``indices``; return the observation of all, a new array."""
        numbers = indices.tolist()
        self.simulation.reset(numbers, [self.task.sample(self._rngs[index]) for index in numbers])
        self.episodes.begin(indices)
        observation = self.task.after_reset()
        for index in numbers:
            self.reset_infos[index] = self.task.reset_info(index)
        return observation

    def close(self) -> None:
        """Free the renderers."""
        for view in self._views.values():
            view.close()
        self._views.clear()
        self._env.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as how it was made and its state; what ``set_attr`` added is left out."""
        return remake, (self._made_of, self.get_state(), self.reset_infos)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute of each environment: of the task, its wrappers, ``model``, ``data``, ``np_random``.

        These are to be read: the batch does not follow changes to them.
        """
        if attr_name == "render_mode":
            return [self._env.render_mode for _ in self._get_indices(indices)]
        if attr_name == "action_space":
            return [self._action_spaces[index] for index in self._get_indices(indices)]
        if attr_name == "_elapsed_steps" and self.episodes.limit is not None:
            return self.episodes.lengths[list(self._get_indices(indices))].tolist()
        return [self._view(index).get(attr_name, self._rngs[index]) for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Add an attribute that ``get_attr`` returns; those of the task itself are fixed."""
        for index in self._get_indices(indices):
            self._view(index).set(attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """Call a method that reads, such as ``render`` or ``state_vector``, of each environment."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether episodes look as if each environment were wrapped: in ``Monitor``, ``TimeLimit``, …."""
        monitored = self.episodes.monitor and issubclass(Monitor, wrapper_class)
        wrapped = monitored or any(isinstance(layer, wrapper_class) for layer in layers(self._env)[:-1])
        return [wrapped for _ in self._get_indices(indices)]

    def get_images(self, indices: VecEnvIndices = None) -> Sequence[np.ndarray | None]:
        """Return an image ``[height, width, 3]`` of each environment, or of those asked for.

        In another render mode than ``"rgb_array"`` it is ``None``.
        """
        chosen = self._get_indices(indices)
        if self.render_mode != "rgb_array":
            warnings.warn(f"images need render_mode='rgb_array', not {self.render_mode!r}", stacklevel=2)
            return [None for _ in chosen]
        prepare_rendering()
        return [self._view(index).render() for index in chosen]

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as numpy arrays and JSON values."""
        return {
            "kind": type(self).__name__,
            "task": type(self.task).__name__,
            "mujoco": mujoco.mj_versionString(),
            "num_envs": self.num_envs,
            "started": self._started,
            "physics": self.simulation.get_state(),
            "previous": self.task.previous,
            "episodes": self.episodes.get_state(),
            "generators": [_generator_state(rng) for rng in self._rngs],
            "action_spaces": [_generator_state(space._np_random) for space in self._action_spaces],
            "seeds": list(self._seeds),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which ``get_state`` of a ``MujocoBatchVecEnv`` made the same way returned.

        Raises:
            StateNotRestorableError: if it comes from other environments or another MuJoCo version.
        """
        self._check_state(state)
        self.simulation.set_state(state["physics"])
        self.task.previous = state["previous"]
        self.episodes.set_state(state["episodes"])
        self._rngs = [_generator(saved) for saved in state["generators"]]
        for space, saved in zip(self._action_spaces, state["action_spaces"], strict=True):
            space._np_random = _generator(saved)  # type: ignore[assignment]
        self._seeds = list(state["seeds"])
        self._started = state["started"]

    def _check_state(self, state: dict[str, Any]) -> None:
        if state.get("kind") != type(self).__name__:
            raise StateNotRestorableError(
                "the state was saved by another kind of VecEnv; make this one with backend='gymnasium' to continue it"
            )
        if state["task"] != type(self.task).__name__:
            raise StateNotRestorableError(
                f"the state was saved from {state['task']}, but the environments are {type(self.task).__name__} now"
            )
        if state["num_envs"] != self.num_envs:
            raise StateNotRestorableError(
                f"the state was saved from {state['num_envs']} environments, but there are {self.num_envs} now"
            )
        if state["mujoco"] != mujoco.mj_versionString():
            raise StateNotRestorableError(
                f"the state was saved with MuJoCo {state['mujoco']}, this is {mujoco.mj_versionString()}: "
                "the same state would continue differently"
            )
        if state["physics"].shape != self.simulation.get_state().shape:
            raise StateNotRestorableError("the state comes from another model")
        if self.episodes.monitor and not state["episodes"]["monitor"]:
            raise StateNotRestorableError(
                "the state was saved with monitor=False: the rewards of the running episodes are not known"
            )

    def _view(self, index: int) -> EnvView:
        if index not in self._views:
            self._views[index] = EnvView(self._env, self.simulation, index, self._renderer)
        return self._views[index]


def _open(task: gym.Env | MujocoTask) -> tuple[gym.Env, Task, Mapping[str, Any]]:
    """Return the environment that all are copies of, the task, and the arguments of the renderer."""
    if not isinstance(task, MujocoTask):
        return task, task_of(task), constructor_arguments(task)
    base = CustomEnv(task)
    env = base if task.max_episode_steps is None else TimeLimit(base, task.max_episode_steps)
    return env, CustomTask(task, base.model, base.data), task.renderer


def _generator_state(rng: np.random.Generator | None) -> Any:
    return None if rng is None else rng.bit_generator.state


def _generator(state: Any) -> np.random.Generator | None:
    if state is None:
        return None
    rng = seeding.np_random(0)[0]
    rng.bit_generator.state = state
    return rng


def _build_info(task: Task, parts: Any, ended: dict[int, dict[str, Any]], index: int) -> dict[str, Any]:
    info = task.info(parts, index)
    return info | ended[index] if index in ended else info | {"TimeLimit.truncated": False}
