"""What makes a simulation a reinforcement-learning task, for all environments at once."""

from typing import Any, ClassVar, NamedTuple

import mujoco
import numpy as np

from maxent_onpolicy.envs.mujoco_batch.simulation import Simulation


class Outcome(NamedTuple):
    """What one step of ``B`` environments led to. No array is ever written to again.

    Attributes:
        observation: ``[B, D]`` float64.
        reward: ``[B]`` float64.
        terminated: ``[B]`` bool, or ``None`` if no environment can have terminated.
        parts: what infos are built from.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray | None
    parts: Any


class Task:
    """Observation, reward, termination and initial states, vectorised.

    A subclass says which fields of ``MjData`` it reads, and defines ``observe``, ``after_step``, infos, and ``sample``
    unless initial states are uniform.

    Args:
        model: the physics.
        init_qpos: ``[nq]``, the model's own position.
        init_qvel: ``[nv]``.
        dt: seconds in one environment step.
        options: the constructor's arguments, by name.
    """

    # Fields of MjData that are read.
    fields: tuple[str, ...] = ("qpos", "qvel", "ctrl")
    # Whether mj_rnePostConstraint must follow each step.
    contact_forces: bool = False
    # Entries of qpos that options may leave out of the observation.
    hidden: ClassVar[int] = 0

    def __init__(
        self, model: mujoco.MjModel, init_qpos: np.ndarray, init_qvel: np.ndarray, dt: float, options: dict[str, Any]
    ) -> None:
        self.model = model
        self.init_qpos = init_qpos
        self.init_qvel = init_qvel
        self.dt = dt
        self.options = options
        self.previous: Any = None

    def bind(self, simulation: Simulation) -> None:
        """Take the live arrays of ``simulation``."""
        self.num_envs = simulation.num_envs
        self.qpos, self.qvel, self.ctrl = (simulation.field(name) for name in ("qpos", "qvel", "ctrl"))

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the initial ``qpos`` and ``qvel`` of one environment: uniformly around the model's own."""
        scale, nq = self.options["reset_noise_scale"], len(self.init_qpos)
        # The same numbers as from one call for each of the two.
        noise = rng.uniform(-scale, scale, nq + len(self.init_qvel))
        return self.init_qpos + noise[:nq], self.init_qvel + noise[nq:]

    def observe(self) -> np.ndarray:
        """Return the observation ``[B, D]``, a new array."""
        raise NotImplementedError

    def position(self) -> Any:
        """Return what the next step's reward compares with, as a copy."""
        return None

    def after_reset(self) -> np.ndarray:
        """Return the observation after some environments were reset."""
        self.previous = self.position()
        return self.observe()

    def after_step(self, action: np.ndarray) -> Outcome:
        """Return what the step that the simulation has just taken with ``action`` ``[B, A]`` led to."""
        raise NotImplementedError

    def info(self, parts: Any, index: int) -> dict[str, Any]:
        """Return the info of environment ``index`` from the ``parts`` of an :class:`Outcome`."""
        raise NotImplementedError

    def reset_info(self, index: int) -> dict[str, Any]:
        """Return the info of environment ``index`` after its reset."""
        return {}


def sum_of_squares(action: np.ndarray) -> np.ndarray:
    """Return ``[B]`` from ``[B, A]``, in the type and order of ``np.sum(np.square(action))`` of one row."""
    return np.add.reduce(np.square(action), axis=1)


def clip(values: np.ndarray, low: Any, high: Any, out: np.ndarray | None = None) -> np.ndarray:
    """Return what ``np.clip`` does, without the microseconds it spends on its arguments."""
    return np.minimum(np.maximum(values, low, out=out), high, out=out)


class Weight:
    """A number that multiplies arrays, with the type that it would give to a scalar of theirs.

    numpy 1 multiplies a Python float with a float32 scalar in float64, but with a float32 array in float32.

    Args:
        weight: a number of any type.
    """

    def __init__(self, weight: Any) -> None:
        self._weight = weight
        self._dtypes: dict[np.dtype, np.dtype] = {}

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return ``weight * values``."""
        dtype = self._dtypes.get(values.dtype)
        if dtype is None:
            dtype = self._dtypes[values.dtype] = np.asarray(self._weight * values.dtype.type(1)).dtype
        return self._weight * (values if values.dtype == dtype else values.astype(dtype))


def within(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return ``[B]``: whether all of ``values`` ``[B, K]`` lie in the open intervals between ``low`` and ``high``.

    These are ``[B, K]`` too: comparing rows with a single one takes numpy longer.
    """
    return np.logical_and.reduce((low < values) & (values < high), axis=1)
