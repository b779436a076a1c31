"""Which Gymnasium environments are served, and how their arguments are read."""

import inspect
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from maxent_onpolicy.envs.mujoco_batch import contact, planar, reach
from maxent_onpolicy.envs.mujoco_batch.task import Task

TASKS: dict[str, type[Task]] = {
    "gymnasium.envs.mujoco.ant_v5:AntEnv": contact.Ant,
    "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv": planar.HalfCheetah,
    "gymnasium.envs.mujoco.hopper_v5:HopperEnv": planar.Hopper,
    "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv": contact.Humanoid,
    "gymnasium.envs.mujoco.humanoidstandup_v5:HumanoidStandupEnv": contact.HumanoidStandup,
    "gymnasium.envs.mujoco.inverted_double_pendulum_v5:InvertedDoublePendulumEnv": reach.InvertedDoublePendulum,
    "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv": reach.InvertedPendulum,
    "gymnasium.envs.mujoco.pusher_v5:PusherEnv": reach.Pusher,
    "gymnasium.envs.mujoco.reacher_v5:ReacherEnv": reach.Reacher,
    "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv": planar.Swimmer,
    "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv": planar.Walker2d,
}
# Gymnasium's own: rl_zoo3 puts a subclass in its place for the whole process, when it is imported.
_TIME_LIMIT: type[gym.Wrapper] = next(base for base in reversed(TimeLimit.__mro__) if base.__name__ == "TimeLimit")
_RENDER_MODES = (None, "human", "rgb_array", "depth_array", "rgbd_tuple")


def serves(spec: EnvSpec, kwargs: dict[str, Any]) -> bool:
    """Return whether an environment that Gymnasium makes of ``spec`` and ``kwargs`` can be stepped in a batch."""
    render_mode = kwargs.get("render_mode", spec.kwargs.get("render_mode"))
    return spec.entry_point in TASKS and not spec.additional_wrappers and render_mode in _RENDER_MODES


def task_of(env: gym.Env) -> Task:
    """Return the vectorised task that is the same as ``env``.

    Raises:
        ValueError: if there is none.
    """
    base = env.unwrapped
    name = f"{type(base).__module__}:{type(base).__qualname__}"
    if name not in TASKS or env.spec is None:
        known = ", ".join(sorted(entry.rpartition(":")[2] for entry in TASKS))
        raise ValueError(f"`task` must be a MujocoTask or one of Gymnasium's MuJoCo -v5 tasks ({known}), got {env!r}")
    for layer in layers(env):
        if isinstance(layer, gym.Wrapper) and not isinstance(layer, OrderEnforcing | PassiveEnvChecker | _TIME_LIMIT):
            raise ValueError(f"`task` must not be wrapped: {type(layer).__name__} steps one environment at a time")
    model, init_qpos, init_qvel, dt = (getattr(base, name) for name in ("model", "init_qpos", "init_qvel", "dt"))
    return TASKS[name](model, init_qpos.copy(), init_qvel.copy(), dt, constructor_arguments(env))


def constructor_arguments(env: gym.Env) -> dict[str, Any]:
    """Return what ``env`` was constructed with, defaults included, by name."""
    assert env.spec is not None
    parameters = inspect.signature(type(env.unwrapped)).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return defaults | env.spec.kwargs


def time_limit(env: gym.Env) -> int | None:
    """Return the number of steps after which Gymnasium truncates ``env``."""
    return next((layer._max_episode_steps for layer in layers(env) if isinstance(layer, _TIME_LIMIT)), None)  # type: ignore[attr-defined]


def layers(env: gym.Env) -> list[gym.Env]:
    """Return ``env`` and what it wraps, outermost first."""
    result = [env]
    while isinstance(result[-1], gym.Wrapper):
        result.append(result[-1].env)
    return result
