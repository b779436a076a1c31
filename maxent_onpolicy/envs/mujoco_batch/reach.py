"""The tasks with observations of their own: the pendulums, Pusher and Reacher."""

from typing import Any

import numpy as np

from maxent_onpolicy.envs.mujoco_batch.simulation import Simulation
from maxent_onpolicy.envs.mujoco_batch.task import Outcome, Task, Weight, clip, sum_of_squares


class InvertedPendulum(Task):
    """``InvertedPendulum-v5``."""

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        return np.concatenate((self.qpos, self.qvel), axis=1)

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        observation = self.observe()
        terminated = ~np.isfinite(observation).all(axis=1) | (np.abs(observation[:, 1]) > 0.2)
        return Outcome(observation, (~terminated).astype(np.float64), terminated, (terminated,))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return {"reward_survive": int(not parts[0][index])}


class InvertedDoublePendulum(Task):
    """``InvertedDoublePendulum-v5``."""

    fields = ("qpos", "qvel", "ctrl", "site_xpos", "qfrc_constraint")

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._tip = simulation.field("site_xpos")[:, 0]
        self._constraint = simulation.field("qfrc_constraint")[:, :1]
        self._angles = self.qpos[:, 1:]

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Task`."""
        scale = self.options["reset_noise_scale"]
        qpos = self.init_qpos + rng.uniform(low=-scale, high=scale, size=len(self.init_qpos))
        return qpos, self.init_qvel + rng.standard_normal(len(self.init_qvel)) * scale

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        clipped = np.concatenate((self.qvel, self._constraint), axis=1)
        clip(clipped, -10, 10, out=clipped)
        # Row by row as in Gymnasium: numpy may compute sines of longer arrays with other instructions.
        return np.concatenate((self.qpos[:, :1], np.sin(self._angles), np.cos(self._angles), clipped), axis=1)

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        x, y = self._tip[:, 0], self._tip[:, 2]
        terminated = y <= 1
        distance = 0.01 * x**2 + (y - 2) ** 2
        speed = 1e-3 * self.qvel[:, 1] ** 2 + 5e-3 * self.qvel[:, 2] ** 2
        reward = self.options["healthy_reward"] * ~terminated - distance - speed
        return Outcome(self.observe(), reward, terminated, (terminated, distance, speed))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        terminated, distance, speed = parts
        return {
            "reward_survive": self.options["healthy_reward"] * int(not terminated[index]),
            "distance_penalty": -distance[index],
            "velocity_penalty": -speed[index],
        }


class Reacher(Task):
    """``Reacher-v5``."""

    fields = ("qpos", "qvel", "ctrl", "xpos")

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        xpos = simulation.field("xpos")
        self._ctrl_weight = Weight(self.options["reward_control_weight"])
        self._fingertip, self._target = (xpos[:, self.model.body(name).id] for name in ("fingertip", "target"))

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Task`."""
        qpos = rng.uniform(low=-0.1, high=0.1, size=len(self.init_qpos)) + self.init_qpos
        while True:
            goal = rng.uniform(low=-0.2, high=0.2, size=2)
            if np.linalg.norm(goal) < 0.2:
                break
        qpos[-2:] = goal
        qvel = self.init_qvel + rng.uniform(low=-0.005, high=0.005, size=len(self.init_qvel))
        qvel[-2:] = 0
        return qpos, qvel

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        return self._observe(self._fingertip - self._target)

    def _observe(self, gap: np.ndarray) -> np.ndarray:
        theta = self.qpos[:, :2]
        # Row by row as in Gymnasium: numpy may compute sines of longer arrays with other instructions.
        parts = (np.cos(theta), np.sin(theta), self.qpos[:, 2:], self.qvel[:, :2], gap[:, :2])
        return np.concatenate(parts, axis=1)

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        gap = self._fingertip - self._target
        distance = -_norm(gap) * self.options["reward_dist_weight"]
        cost = self._ctrl_weight(-sum_of_squares(action))
        return Outcome(self._observe(gap), distance + cost, None, (distance, cost))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        distance, cost = parts
        return {"reward_dist": distance[index], "reward_ctrl": cost[index]}


class Pusher(Task):
    """``Pusher-v5``."""

    fields = ("qpos", "qvel", "ctrl", "xpos")

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        xpos = simulation.field("xpos")
        self._ctrl_weight = Weight(self.options["reward_control_weight"])
        names = ("tips_arm", "object", "goal")
        self._arm, self._object, self._goal = (xpos[:, self.model.body(name).id] for name in names)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Task`."""
        qpos, goal = self.init_qpos.copy(), np.zeros(2)
        while True:
            cylinder = np.concatenate([rng.uniform(low=-0.3, high=0, size=1), rng.uniform(low=-0.2, high=0.2, size=1)])
            if np.linalg.norm(cylinder - goal) > 0.17:
                break
        qpos[-4:-2], qpos[-2:] = cylinder, goal
        qvel = self.init_qvel + rng.uniform(low=-0.005, high=0.005, size=len(self.init_qvel))
        qvel[-4:] = 0
        return qpos, qvel

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        parts = (self.qpos[:, :7], self.qvel[:, :7], self._arm, self._object, self._goal)
        return np.concatenate(parts, axis=1)

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        near = -_norm(self._object - self._arm) * self.options["reward_near_weight"]
        distance = -_norm(self._object - self._goal) * self.options["reward_dist_weight"]
        cost = self._ctrl_weight(-sum_of_squares(action))
        return Outcome(self.observe(), distance + cost + near, None, (distance, cost, near))

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        distance, cost, near = parts
        return {"reward_dist": distance[index], "reward_ctrl": cost[index], "reward_near": near[index]}


def _norm(vector: np.ndarray) -> np.ndarray:
    return np.sqrt(np.add.reduce(np.square(vector), axis=1))
