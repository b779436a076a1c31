"""Observation, reward and termination of Gymnasium's v5 locomotion tasks, as functions of batched MJX data.

``options`` are the constructor arguments of Gymnasium's class, by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from jax import Array
from mujoco import mjx

Options = Mapping[str, Any]


class Task(NamedTuple):
    """What distinguishes one task from another; every function takes data of ``B`` environments.

    Attributes:
        entry_point: Gymnasium's class.
        normal_velocity: whether velocities of a start state are normal rather than uniform.
        position: ``(model, options, data) → [B, 2]``; forward progress is counted in its first component.
        observe: ``(options, data) → [B, D]``.
        healthy: ``(options, data) → [B]``; ``None`` if the task has no such thing.
        contact_cost: ``(options, data) → [B]``; ``None`` if there is none.
    """

    entry_point: str
    normal_velocity: bool
    position: Callable[[mujoco.MjModel, Options, mjx.Data], Array]
    observe: Callable[[Options, mjx.Data], Array]
    healthy: Callable[[Options, mjx.Data], Array] | None = None
    contact_cost: Callable[[Options, mjx.Data], Array] | None = None


def reward_of(task: Task, options: Options, data: mjx.Data, action: Array, x_velocity: Array) -> tuple[Array, Array]:
    """Return reward and termination, each ``[B]``.

    Args:
        task: which.
        options: Gymnasium's constructor arguments.
        data: after the step.
        action: ``[B, A]``.
        x_velocity: ``[B]`` mean forward velocity during the step, in m/s.
    """
    reward = options["forward_reward_weight"] * x_velocity
    terminated = jnp.zeros(x_velocity.shape, dtype=bool)
    if task.healthy is not None:
        healthy = task.healthy(options, data)
        reward = reward + healthy * options["healthy_reward"]
        terminated = ~healthy & options["terminate_when_unhealthy"]
    reward = reward - options["ctrl_cost_weight"] * jnp.square(action).sum(axis=1)
    if task.contact_cost is not None:
        reward = reward - task.contact_cost(options, data)
    return reward, terminated


def _inside(value: Array, limits: tuple[float, float]) -> Array:
    return (limits[0] < value) & (value < limits[1])


def _root_position(model: mujoco.MjModel, options: Options, data: mjx.Data) -> Array:
    return data.qpos[:, :2]


def _joints(options: Options, data: mjx.Data, skip: int, limit: float = jnp.inf) -> Array:
    start = skip if options["exclude_current_positions_from_observation"] else 0
    return jnp.concatenate((data.qpos[:, start:], jnp.clip(data.qvel, -limit, limit)), axis=1)


def _observe_cheetah(options: Options, data: mjx.Data) -> Array:
    return _joints(options, data, 1)


def _observe_biped(options: Options, data: mjx.Data) -> Array:
    return _joints(options, data, 1, limit=10.0)


def _healthy_walker(options: Options, data: mjx.Data) -> Array:
    upright = _inside(data.qpos[:, 2], options["healthy_angle_range"])
    return upright & _inside(data.qpos[:, 1], options["healthy_z_range"])


def _healthy_hopper(options: Options, data: mjx.Data) -> Array:
    state = jnp.concatenate((data.qpos, data.qvel), axis=1)[:, 2:]
    return _healthy_walker(options, data) & _inside(state, options["healthy_state_range"]).all(axis=1)


def _torso_position(model: mujoco.MjModel, options: Options, data: mjx.Data) -> Array:
    return data.xpos[:, model.body(options["main_body"]).id, :2]


def _ant_forces(options: Options, data: mjx.Data) -> Array:
    low, high = options["contact_force_range"]
    return jnp.clip(data._impl.cfrc_ext, low, high)


def _observe_ant(options: Options, data: mjx.Data) -> Array:
    joints = _joints(options, data, 2)
    if not options["include_cfrc_ext_in_observation"]:
        return joints
    return jnp.concatenate((joints, _flat(_ant_forces(options, data)[:, 1:])), axis=1)


def _healthy_ant(options: Options, data: mjx.Data) -> Array:
    low, high = options["healthy_z_range"]
    finite = jnp.isfinite(jnp.concatenate((data.qpos, data.qvel), axis=1)).all(axis=1)
    return finite & (low <= data.qpos[:, 2]) & (data.qpos[:, 2] <= high)


def _contact_cost_ant(options: Options, data: mjx.Data) -> Array:
    return options["contact_cost_weight"] * jnp.square(_ant_forces(options, data)).sum(axis=(1, 2))


def _centre_of_mass(model: mujoco.MjModel, options: Options, data: mjx.Data) -> Array:
    return jnp.einsum("b,nbj->nj", model.body_mass / model.body_mass.sum(), data.xipos)[:, :2]


def _observe_humanoid(options: Options, data: mjx.Data) -> Array:
    # In the order of Gymnasium's observation.
    parts = {
        "cinert": lambda: data._impl.cinert[:, 1:],
        "cvel": lambda: data.cvel[:, 1:],
        "qfrc_actuator": lambda: data.qfrc_actuator[:, 6:],
        "cfrc_ext": lambda: data._impl.cfrc_ext[:, 1:],
    }
    included = [_flat(part()) for name, part in parts.items() if options[f"include_{name}_in_observation"]]
    return jnp.concatenate((_joints(options, data, 2), *included), axis=1)


def _healthy_humanoid(options: Options, data: mjx.Data) -> Array:
    return _inside(data.qpos[:, 2], options["healthy_z_range"])


def _contact_cost_humanoid(options: Options, data: mjx.Data) -> Array:
    low, high = options["contact_cost_range"]
    cost = options["contact_cost_weight"] * jnp.square(data._impl.cfrc_ext).sum(axis=(1, 2))
    return jnp.clip(cost, low, high)


def _flat(value: Array) -> Array:
    return value.reshape(value.shape[0], -1)


TASKS = {
    "HalfCheetah-v5": Task(
        "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv", True, _root_position, _observe_cheetah
    ),
    "Hopper-v5": Task(
        "gymnasium.envs.mujoco.hopper_v5:HopperEnv", False, _root_position, _observe_biped, _healthy_hopper
    ),
    "Walker2d-v5": Task(
        "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv", False, _root_position, _observe_biped, _healthy_walker
    ),
    "Ant-v5": Task(
        "gymnasium.envs.mujoco.ant_v5:AntEnv", True, _torso_position, _observe_ant, _healthy_ant, _contact_cost_ant
    ),
    "Humanoid-v5": Task(
        "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv",
        False,
        _centre_of_mass,
        _observe_humanoid,
        _healthy_humanoid,
        _contact_cost_humanoid,
    ),
}


class SimState(NamedTuple):
    """What is carried from step to step; everything else is computed again.

    Attributes:
        qpos: ``[B, nq]``.
        qvel: ``[B, nv]``.
        warmstart: ``[B, nv]`` where the constraint solver starts.
        position: ``[B, 2]`` from which the progress of the next step counts.
        elapsed: ``[B]`` steps of this episode.
        key: of the random numbers for start states.
    """

    qpos: Array
    qvel: Array
    warmstart: Array
    position: Array
    elapsed: Array
    key: Array


class SimStep(NamedTuple):
    """What a step returns: ``observation`` and ``final`` ``[B, D]``, the rest ``[B]``."""

    observation: Array
    final: Array
    reward: Array
    terminated: Array
    truncated: Array


class Simulation:
    """Physics and task of ``B`` environments as pure functions, in the precision that JAX is configured for.

    Args:
        env_id: one of ``TASKS``.
        model: the task's model; its solver is replaced by Newton's if MJX lacks it.
        options: Gymnasium's constructor arguments.
        num_envs: ``B``.
        max_episode_steps: time limit; ``None`` for none.
    """

    def __init__(
        self,
        env_id: str,
        model: mujoco.MjModel,
        options: Options,
        num_envs: int,
        max_episode_steps: int | None,
    ) -> None:
        if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
            model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        self.task, self.options, self.num_envs = TASKS[env_id], options, num_envs
        self.max_episode_steps = max_episode_steps
        self.host_model = model
        self.model = mjx.put_model(model, impl="jax")
        self.blank = mjx.make_data(model, impl="jax")

    def begin(self, qpos: Array, qvel: Array) -> tuple[Array, Array]:
        """Return observation ``[B, D]`` and position ``[B, 2]`` of episodes that start here."""

        def place(qpos: Array, qvel: Array) -> mjx.Data:
            data = self.blank.replace(qpos=qpos, qvel=qvel)
            for stage in (mjx.kinematics, mjx.com_pos, mjx.com_vel):
                data = stage(self.model, data)
            return data

        data = jax.vmap(place)(qpos, qvel)
        return self.task.observe(self.options, data), self.task.position(self.host_model, self.options, data)

    def reset(self, key: Array) -> tuple[SimState, Array]:
        """Draw ``B`` start states from Gymnasium's distribution; return them with their observations."""
        key, position_key, velocity_key = jax.random.split(key, 3)
        scale, start = self.options["reset_noise_scale"], self.blank
        shape = (self.num_envs, self.host_model.nq)
        noise = jax.random.uniform(position_key, shape, start.qpos.dtype, -scale, scale)
        qpos = jnp.asarray(self.host_model.qpos0, start.qpos.dtype) + noise
        shape = (self.num_envs, self.host_model.nv)
        if self.task.normal_velocity:
            qvel = scale * jax.random.normal(velocity_key, shape, start.qvel.dtype)
        else:
            qvel = jax.random.uniform(velocity_key, shape, start.qvel.dtype, -scale, scale)
        observation, position = self.begin(qpos, qvel)
        elapsed = jnp.zeros(self.num_envs, jnp.int32)
        return SimState(qpos, qvel, jnp.zeros_like(qvel), position, elapsed, key), observation

    def advance(self, state: SimState, action: Array) -> mjx.Data:
        """Simulate the frames of one step with ``action`` ``[B, A]``."""

        def load(qpos: Array, qvel: Array, warmstart: Array, ctrl: Array) -> mjx.Data:
            return self.blank.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=ctrl)

        def frame(_: int, data: mjx.Data) -> mjx.Data:
            following = jax.vmap(mjx.step, in_axes=(None, 0))(self.model, data)
            # Some leaves change their type with 64 bits, which a loop does not allow.
            return jax.tree.map(lambda new, old: new.astype(old.dtype), following, data)

        ctrl = action.astype(self.blank.ctrl.dtype)
        data = jax.vmap(load)(state.qpos, state.qvel, state.warmstart, ctrl)
        data = jax.lax.fori_loop(0, self.options["frame_skip"], frame, data)
        if self.task.contact_cost is not None:
            # Only these tasks read cfrc_ext.
            data = jax.vmap(mjx.rne_postconstraint, in_axes=(None, 0))(self.model, data)
        return data

    def step(self, state: SimState, action: Array) -> tuple[SimState, SimStep]:
        """Step every environment, and start a new episode where one ended."""
        data = self.advance(state, action)
        position = self.task.position(self.host_model, self.options, data)
        seconds = self.host_model.opt.timestep * self.options["frame_skip"]
        x_velocity = (position - state.position)[:, 0] / seconds
        reward, terminated = reward_of(self.task, self.options, data, action, x_velocity)
        elapsed = state.elapsed + 1
        truncated = jnp.zeros_like(terminated)
        if self.max_episode_steps is not None:
            truncated = (elapsed >= self.max_episode_steps) & ~terminated
        done = (terminated | truncated)[:, None]

        fresh, first = self.reset(state.key)
        final = self.task.observe(self.options, data)
        following = SimState(
            jnp.where(done, fresh.qpos, data.qpos),
            jnp.where(done, fresh.qvel, data.qvel),
            jnp.where(done, fresh.warmstart, data.qacc_warmstart),
            jnp.where(done, fresh.position, position),
            jnp.where(done[:, 0], 0, elapsed),
            fresh.key,
        )
        return following, SimStep(jnp.where(done, first, final), final, reward, terminated, truncated)
