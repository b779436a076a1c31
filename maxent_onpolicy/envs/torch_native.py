"""Pendulum and CartPole for thousands of environments at once, in PyTorch."""

import inspect
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from maxent_onpolicy.envs.torch_vec_env import TorchVecEnv
from maxent_onpolicy.validation import check_choice, check_range, did_you_mean

if TYPE_CHECKING:
    from maxent_onpolicy.envs.make import EnvRequest

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def pendulum_transition(state: Tensor, torque: Tensor, g: float = 10.0) -> tuple[Tensor, Tensor]:
    """Step Gymnasium's ``Pendulum-v1``.

    Args:
        state: ``[B, 2]`` angle from upright in rad, not wrapped, and angular velocity in rad/s.
        torque: ``[B]`` in N·m; clipped to [-2, 2].
        g: gravity in m/s².

    Returns:
        The next state ``[B, 2]`` and the reward ``[B]``.
    """
    angle, velocity = state.unbind(1)
    torque = torque.clamp(-2.0, 2.0)
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    cost = wrapped.square() + 0.1 * velocity.square() + 0.001 * torque.square()
    velocity = (velocity + (1.5 * g * angle.sin() + 3.0 * torque) * 0.05).clamp(-8.0, 8.0)
    return torch.stack((angle + velocity * 0.05, velocity), dim=1), -cost


def cartpole_transition(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Step Gymnasium's ``CartPole-v1`` (Barto, Sutton & Anderson, 1983, with Euler's method).

    Args:
        state: ``[B, 4]`` position in m, velocity in m/s, angle in rad and angular velocity in rad/s.
        action: ``[B]`` 0 pushes left, 1 right.

    Returns:
        The next state ``[B, 4]`` and whether the pole fell or the cart left the track ``[B]``.
    """
    position, velocity, angle, angular_velocity = state.unbind(1)
    mass_pole, half_length, tau = 0.1, 0.5, 0.02
    total_mass, pole_moment = 1.0 + mass_pole, mass_pole * half_length
    force = torch.where(action == 1, 10.0, -10.0)
    cos, sin = angle.cos(), angle.sin()
    push = (force + pole_moment * angular_velocity.square() * sin) / total_mass
    angular_acceleration = (9.8 * sin - cos * push) / (
        half_length * (4.0 / 3.0 - mass_pole * cos.square() / total_mass)
    )
    acceleration = push - pole_moment * angular_acceleration * cos / total_mass
    following = torch.stack(
        (
            position + tau * velocity,
            velocity + tau * acceleration,
            angle + tau * angular_velocity,
            angular_velocity + tau * angular_acceleration,
        ),
        dim=1,
    )
    return following, (following[:, 0].abs() > 2.4) | (following[:, 2].abs() > 12 * 2 * math.pi / 360)


class TorchPendulum(TorchVecEnv):
    """``Pendulum-v1``: dynamics, reward, start distribution and time limit of Gymnasium's.

    Start states come from a generator of PyTorch, not from Gymnasium's.

    Args:
        num_envs: ``B``.
        g: gravity in m/s².
        max_episode_steps: time limit; ``None`` for none.
        dtype: of the state: ``"float32"``, or ``"float64"`` as in Gymnasium. Observations and rewards are float32.
        device: where the states are.
        seed: of the generator.
        monitor: whether the infos of ``step`` report the return and length of each episode.
    """

    row_settings: ClassVar[tuple[str, ...]] = ("g", "dtype")

    def __init__(
        self,
        num_envs: int,
        g: float = 10.0,
        max_episode_steps: int | None = 200,
        dtype: str = "float32",
        device: torch.device | str = "auto",
        seed: int | None = None,
        monitor: bool = True,
    ) -> None:
        self.g = check_range("g", g)
        self.dtype = _DTYPES[check_choice("dtype", dtype, _DTYPES)]
        high = np.array([1.0, 1.0, 8.0], dtype=np.float32)
        super().__init__(
            num_envs,
            spaces.Box(-high, high, dtype=np.float32),
            spaces.Box(-2.0, 2.0, (1,), np.float32),
            max_episode_steps,
            device,
            seed,
            monitor,
        )

    def initial_state(self) -> Tensor:
        """Draw angles from [-π, π] and velocities from [-1, 1], ``[B, 2]``."""
        # In pieces, because a tensor of the factors would have to be copied to the device.
        angle, velocity = (self.uniform(2, self.dtype) * 2 - 1).unbind(1)
        return torch.stack((angle * math.pi, velocity), dim=1)

    def transition(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Apply the torques ``[B, 1]``; the task has no end."""
        following, reward = pendulum_transition(state, action.reshape(self.num_envs), self.g)
        return following, reward, torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def observe(self, state: Tensor) -> Tensor:
        """Return cosine and sine of the angle, and the velocity, ``[B, 3]``."""
        angle, velocity = state.unbind(1)
        return torch.stack((angle.cos(), angle.sin(), velocity), dim=1).to(torch.float32)


class TorchCartPole(TorchVecEnv):
    """``CartPole-v1``: dynamics, reward, termination, start distribution and time limit of Gymnasium's.

    Start states come from a generator of PyTorch, not from Gymnasium's. Actions other than 1 push left; they are not
    checked, as that would wait for the device.

    Args:
        num_envs: ``B``.
        sutton_barto_reward: reward 0, and -1 when the pole falls, rather than 1 for each step.
        max_episode_steps: time limit; ``None`` for none.
        dtype: of the state: ``"float32"``, or ``"float64"`` as in Gymnasium. Observations and rewards are float32.
        device: where the states are.
        seed: of the generator.
        monitor: whether the infos of ``step`` report the return and length of each episode.
    """

    row_settings: ClassVar[tuple[str, ...]] = ("sutton_barto_reward", "dtype")

    def __init__(
        self,
        num_envs: int,
        sutton_barto_reward: bool = False,
        max_episode_steps: int | None = 500,
        dtype: str = "float32",
        device: torch.device | str = "auto",
        seed: int | None = None,
        monitor: bool = True,
    ) -> None:
        self.sutton_barto_reward = sutton_barto_reward
        self.dtype = _DTYPES[check_choice("dtype", dtype, _DTYPES)]
        high = np.array([4.8, np.inf, 24 * 2 * math.pi / 360, np.inf], dtype=np.float32)
        super().__init__(
            num_envs,
            spaces.Box(-high, high, dtype=np.float32),
            spaces.Discrete(2),
            max_episode_steps,
            device,
            seed,
            monitor,
        )

    def initial_state(self) -> Tensor:
        """Draw all components from [-0.05, 0.05], ``[B, 4]``."""
        return self.uniform(4, self.dtype) * 0.1 - 0.05

    def transition(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Push in the directions ``[B]``."""
        following, terminated = cartpole_transition(state, action.reshape(self.num_envs))
        reward = -terminated.to(self.dtype) if self.sutton_barto_reward else torch.ones_like(following[:, 0])
        return following, reward, terminated

    def observe(self, state: Tensor) -> Tensor:
        """Return the state as float32, ``[B, 4]``."""
        return state.to(torch.float32)


TORCH_ENVS: dict[Any, type[TorchVecEnv]] = {"Pendulum-v1": TorchPendulum, "CartPole-v1": TorchCartPole}


def make_torch_vec_env(request: "EnvRequest") -> TorchVecEnv:
    """Make the requested environments; keywords are those of their class.

    Raises:
        ValueError: for an unknown keyword or an invalid value.
    """
    cls = TORCH_ENVS[request.env_id]
    known = [name for name in inspect.signature(cls).parameters if name not in ("num_envs", "seed", "monitor")]
    for name in request.env_kwargs:
        if name not in known:
            raise ValueError(
                f"`{name}`: {request.env_id!r} with `backend='torch'` takes {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
    vec_env = cls(request.n_envs, seed=request.seed, monitor=request.monitor, **request.env_kwargs)
    vec_env.action_space.seed(request.seed)
    return vec_env


def serves_torch(request: "EnvRequest") -> bool:
    """Return whether there is such an environment, and no wrapper of single environments is asked for."""
    plain = request.wrapper is None and request.discretize_bins is None
    return plain and isinstance(request.env_id, str) and request.env_id in TORCH_ENVS
