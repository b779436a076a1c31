"""The tasks whose reward is forward speed and that observe positions and velocities only."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maxent_onpolicy.envs.mujoco_batch.simulation import Simulation
from maxent_onpolicy.envs.mujoco_batch.task import Outcome, Task, Weight, clip, sum_of_squares, within

# An array: numpy takes longer with a number of Python's.
_FASTEST = np.array(10.0)


class Locomotion(Task):
    """Forward speed minus control cost; ``qpos`` without the first entries and ``qvel`` observed."""

    normal_velocities = False
    clipped_velocities = False

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        skipped = self.hidden * bool(self.options["exclude_current_positions_from_observation"])
        self._visible = self.qpos[:, skipped:]
        self._split = self._visible.shape[1]
        self._width = self._split + self.qvel.shape[1]
        self._x = self.qpos[:, 0]
        self._forward_weight = self.options["forward_reward_weight"]
        self._ctrl_weight = Weight(self.options["ctrl_cost_weight"])

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Task`."""
        if not self.normal_velocities:
            return super().sample(rng)
        scale = self.options["reset_noise_scale"]
        qpos = self.init_qpos + rng.uniform(-scale, scale, len(self.init_qpos))
        return qpos, self.init_qvel + scale * rng.standard_normal(len(self.init_qvel))

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        observation = np.empty((self.num_envs, self._width))
        observation[:, : self._split] = self._visible
        if self.clipped_velocities:
            clip(self.qvel, -_FASTEST, _FASTEST, out=observation[:, self._split :])
        else:
            observation[:, self._split :] = self.qvel
        return observation

    def position(self) -> Any:
        """See :class:`Task`."""
        return self._x.copy()

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return x, its velocity, the forward reward and the control cost, ``[B]`` each."""
        x = self._x.copy()
        velocity = (x - self.previous) / self.dt
        self.previous = x
        return x, velocity, self._forward_weight * velocity, self._ctrl_weight(sum_of_squares(action))


class HalfCheetah(Locomotion):
    """``HalfCheetah-v5``."""

    hidden = 1
    normal_velocities = True

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        x, velocity, forward, cost = self._advance(action)
        return Outcome(self.observe(), forward - cost, None, (x, velocity, forward, cost))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        x, velocity, forward, cost = parts
        return {
            "x_position": x[index],
            "x_velocity": velocity[index],
            "reward_forward": forward[index],
            "reward_ctrl": -cost[index],
        }

    def reset_info(self, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return {"x_position": self.qpos[index, 0]}


class Swimmer(Locomotion):
    """``Swimmer-v5``."""

    hidden = 2

    def position(self) -> Any:
        """See :class:`Task`."""
        return self.qpos[:, :2].copy()

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        xy = self.qpos[:, :2].copy()
        velocity = (xy - self.previous) / self.dt
        self.previous = xy
        forward = self._forward_weight * velocity[:, 0]
        cost = self._ctrl_weight(sum_of_squares(action))
        return Outcome(self.observe(), forward - cost, None, (xy, velocity, forward, cost))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        xy, velocity, forward, cost = parts
        return planar_info(xy, velocity, index) | {
            "reward_forward": forward[index],
            "reward_ctrl": -cost[index],
        }

    def reset_info(self, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return plane_position(self.qpos[index, :2])


class Walker2d(Locomotion):
    """``Walker2d-v5``."""

    hidden = 1
    clipped_velocities = True

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._z, self._z_and_angle = self.qpos[:, 1], self.qpos[:, 1:3]
        self._healthy_reward = self.options["healthy_reward"]
        self._terminates = self.options["terminate_when_unhealthy"]
        ranges = (self.options["healthy_z_range"], self.options["healthy_angle_range"])
        self._low, self._high = self._limits(ranges)

    def _limits(self, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return the lower and the upper ends of ``K`` ``ranges``, ``[2, B, K]``, for :func:`within`."""
        return np.tile(np.array(ranges, dtype=np.float64).T[:, None], (1, self.num_envs, 1))

    def _is_healthy(self) -> np.ndarray:
        return within(self._z_and_angle, self._low, self._high)

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        x, velocity, forward, cost = self._advance(action)
        healthy = self._is_healthy()
        reward = forward + healthy * self._healthy_reward - cost
        terminated = ~healthy if self._terminates else None
        return Outcome(self.observe(), reward, terminated, (x, self._z.copy(), velocity, forward, cost, healthy))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        x, z, velocity, forward, cost, healthy = parts
        return {
            "x_position": x[index],
            "z_distance_from_origin": z[index] - self.init_qpos[1],
            "x_velocity": velocity[index],
            "reward_forward": forward[index],
            "reward_ctrl": -cost[index],
            "reward_survive": healthy[index] * self._healthy_reward,
        }

    def reset_info(self, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return {
            "x_position": self.qpos[index, 0],
            "z_distance_from_origin": self.qpos[index, 1] - self.init_qpos[1],
        }


class Hopper(Walker2d):
    """``Hopper-v5``."""

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._checked = self.qpos[:, 1:], self.qvel
        # Everything but x and z must lie in the range of states, the angle also in its own.
        low, high = self.options["healthy_state_range"]
        ranges = [(low, high)] * sum(each.shape[1] for each in self._checked)
        ranges[0] = self._low[0, 0], self._high[0, 0]
        # Unlike Python's max and min, numpy's keep a NaN, with which nothing is healthy.
        ranges[1] = np.maximum(low, self._low[0, 1]), np.minimum(high, self._high[0, 1])
        self._low, self._high = self._limits(ranges)

    def _is_healthy(self) -> np.ndarray:
        return within(np.concatenate(self._checked, axis=1), self._low, self._high)

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return super().info(parts, index) | {"reward_survive": bool(parts[-1][index]) * self._healthy_reward}


def distance(xy: np.ndarray) -> np.float64:
    """Return the norm of ``[2]`` by the steps that ``np.linalg.norm`` takes after looking at its arguments."""
    return np.sqrt(xy.dot(xy))


def plane_position(xy: np.ndarray) -> dict[str, Any]:
    """Return the entries that say where in the plane a body ``[2]`` is."""
    return {"x_position": xy[0], "y_position": xy[1], "distance_from_origin": distance(xy)}


def planar_info(xy: np.ndarray, velocity: np.ndarray, index: int) -> dict[str, Any]:
    """Return the entries that say where environment ``index`` is and how it moves, from ``[B, 2]`` each."""
    return plane_position(xy[index]) | {"x_velocity": velocity[index, 0], "y_velocity": velocity[index, 1]}
