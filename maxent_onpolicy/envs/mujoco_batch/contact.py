"""The tasks that pay for contact forces: Ant, Humanoid, HumanoidStandup."""

from typing import Any

import numpy as np

from maxent_onpolicy.envs.mujoco_batch.planar import Locomotion, distance, planar_info, plane_position
from maxent_onpolicy.envs.mujoco_batch.simulation import Simulation
from maxent_onpolicy.envs.mujoco_batch.task import Outcome, clip, sum_of_squares, within


class Ant(Locomotion):
    """``Ant-v5``."""

    fields = ("qpos", "qvel", "ctrl", "xpos", "cfrc_ext")
    hidden = 2
    normal_velocities = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        weight, observed = self.options["contact_cost_weight"], self.options["include_cfrc_ext_in_observation"]
        self.contact_forces = bool(observed or weight != 0)

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._body_xy = simulation.field("xpos")[:, self.model.body(self.options["main_body"]).id, :2]
        self._forces = _contact_forces(simulation, self.contact_forces)
        self._observes_forces = bool(self.options["include_cfrc_ext_in_observation"])
        self._contact_weight = self.options["contact_cost_weight"]
        self._force_range = self.options["contact_force_range"]
        self._healthy_reward = self.options["healthy_reward"]
        self._terminates = self.options["terminate_when_unhealthy"]
        # Open intervals: everything must be finite, and z in a closed range.
        self._low = np.full((self.num_envs, self.qpos.shape[1] + self.qvel.shape[1]), -np.inf)
        self._high = -self._low
        low, high = self.options["healthy_z_range"]
        self._low[:, 2], self._high[:, 2] = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)

    def position(self) -> Any:
        """See :class:`Task`."""
        return self._body_xy.copy()

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        return self._observe(clip(self._forces, *self._force_range))

    def _observe(self, forces: np.ndarray) -> np.ndarray:
        state = super().observe()
        # The first body is the world.
        return np.concatenate((state, forces[:, 6:]), axis=1) if self._observes_forces else state

    def _is_healthy(self) -> np.ndarray:
        return within(np.concatenate((self.qpos, self.qvel), axis=1), self._low, self._high)

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        xy = self._body_xy.copy()
        velocity = (xy - self.previous) / self.dt
        self.previous = xy
        forces = clip(self._forces, *self._force_range)
        forward = velocity[:, 0] * self._forward_weight
        healthy = self._is_healthy()
        cost = self._ctrl_weight(sum_of_squares(action))
        contact = self._contact_weight * sum_of_squares(forces)
        reward = forward + healthy * self._healthy_reward - (cost + contact)
        parts = (self.qpos[:, :2].copy(), velocity, forward, cost, contact, healthy)
        return Outcome(self._observe(forces), reward, ~healthy if self._terminates else None, parts)

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        xy, velocity, forward, cost, contact, healthy = parts
        return planar_info(xy, velocity, index) | {
            "reward_forward": forward[index],
            "reward_ctrl": -cost[index],
            "reward_contact": -contact[index],
            "reward_survive": healthy[index] * self._healthy_reward,
        }

    def reset_info(self, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        return plane_position(self.qpos[index, :2])


class HumanoidStandup(Locomotion):
    """``HumanoidStandup-v5``, and what the two humanoids share."""

    fields = (
        *("qpos", "qvel", "ctrl", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
        *("xipos", "ten_length", "ten_velocity"),
    )
    hidden = 2
    contact_weight = "impact_cost_weight"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.options = {"forward_reward_weight": None} | self.options
        observed = self.options["include_cfrc_ext_in_observation"]
        self.contact_forces = bool(observed or self.options[self.contact_weight] != 0)

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._forces = _contact_forces(simulation, self.contact_forces)
        self._tendons = simulation.field("ten_length"), simulation.field("ten_velocity")
        # Without the world (of cinert, cvel, cfrc_ext) and the root joint (of qfrc_actuator).
        first = {"cinert": 10, "cvel": 6, "qfrc_actuator": 6, "cfrc_ext": 6}
        shown = [name for name in first if self.options[f"include_{name}_in_observation"] is True]
        self._parts = [simulation.field(name).reshape(self.num_envs, -1)[:, first[name] :] for name in shown]

    def observe(self) -> np.ndarray:
        """See :class:`Task`."""
        return np.concatenate((self._visible, self.qvel, *self._parts), axis=1)

    def position(self) -> Any:
        """See :class:`Task`."""
        return None

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        up = (self.qpos[:, 2] - 0) / self.model.opt.timestep
        cost = self._ctrl_weight(sum_of_squares(self.ctrl))
        impact = self.options["impact_cost_weight"] * sum_of_squares(self._forces)
        impact = clip(impact, *self.options["impact_cost_range"])
        parts = (self.qpos[:, :3].copy(), up, cost, impact, *(field.copy() for field in self._tendons))
        return Outcome(self.observe(), up - cost - impact + 1, None, parts)

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        xyz, up, cost, impact, length, velocity = parts
        return {
            "x_position": xyz[index, 0],
            "y_position": xyz[index, 1],
            "z_distance_from_origin": xyz[index, 2] - self.init_qpos[2],
            "tendon_length": length[index].copy(),
            "tendon_velocity": velocity[index].copy(),
            "reward_linup": up[index],
            "reward_quadctrl": -cost[index],
            "reward_impact": -impact[index],
        }

    def reset_info(self, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        length, velocity = self._tendons
        return {
            "x_position": self.qpos[index, 0],
            "y_position": self.qpos[index, 1],
            "z_distance_from_origin": self.qpos[index, 2] - self.init_qpos[2],
            "tendon_length": length[index].copy(),
            "tendon_velocity": velocity[index].copy(),
        }


class Humanoid(HumanoidStandup):
    """``Humanoid-v5``."""

    contact_weight = "contact_cost_weight"

    def bind(self, simulation: Simulation) -> None:
        """See :class:`Task`."""
        super().bind(simulation)
        self._centres = simulation.field("xipos")
        self._masses, self._mass = self.model.body_mass, self.model.body_mass.sum()

    def position(self) -> np.ndarray:
        """Return the centre of mass in the plane."""
        return (np.einsum("b,nbj->nj", self._masses, self._centres) / self._mass)[:, :2]

    def after_step(self, action: np.ndarray) -> Outcome:
        """See :class:`Task`."""
        options = self.options
        centre = self.position()
        velocity = (centre - self.previous) / self.dt
        self.previous = centre
        forward = self._forward_weight * velocity[:, 0]
        low, high = options["healthy_z_range"]
        healthy = (low < self.qpos[:, 2]) & (self.qpos[:, 2] < high)
        cost = self._ctrl_weight(sum_of_squares(self.ctrl))
        contact = options["contact_cost_weight"] * sum_of_squares(self._forces)
        contact = clip(contact, *options["contact_cost_range"])
        reward = forward + healthy * options["healthy_reward"] - (cost + contact)
        tendons = (field.copy() for field in self._tendons)
        parts = (self.qpos[:, :2].copy(), velocity, forward, cost, contact, healthy, *tendons)
        return Outcome(self.observe(), reward, ~healthy if options["terminate_when_unhealthy"] else None, parts)

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        xy, velocity, forward, cost, contact, healthy, tendon_length, tendon_velocity = parts
        place = plane_position(xy[index])
        return {
            "x_position": place["x_position"],
            "y_position": place["y_position"],
            "tendon_length": tendon_length[index].copy(),
            "tendon_velocity": tendon_velocity[index].copy(),
            "distance_from_origin": place["distance_from_origin"],
            "x_velocity": velocity[index, 0],
            "y_velocity": velocity[index, 1],
            "reward_survive": healthy[index] * self.options["healthy_reward"],
            "reward_forward": forward[index],
            "reward_ctrl": -cost[index],
            "reward_contact": -contact[index],
        }

    def reset_info(self, index: int) -> dict[str, Any]:
        """See :class:`Task`."""
        info = super().reset_info(index)
        del info["z_distance_from_origin"]
        return info | {"distance_from_origin": distance(self.qpos[index, :2])}


def _contact_forces(simulation: Simulation, computed: bool) -> np.ndarray:
    """Return ``[B, 6·nbody]``: zeros where nobody asks for them, because their weight is zero."""
    if computed:
        return simulation.field("cfrc_ext").reshape(simulation.num_envs, -1)
    return np.zeros((simulation.num_envs, 6 * simulation.model.nbody))
