"""``B`` copies of one MuJoCo model, stepped together.

Two ways with the same results, bit for bit, because each environment's ``mj_step`` sees the same numbers:
one ``MjData`` (one environment), and MuJoCo's own thread pool.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Protocol

import mujoco
import numpy as np
from mujoco.batch import Batch

from maxent_onpolicy.envs.mujoco_batch.forces import ContactForceBatch
from maxent_onpolicy.envs.mujoco_batch.threads import FasterWay, forget_threads_when_forked

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
# So many resets are done before a thread is awake.
_FEW = 3


InitialState = tuple[np.ndarray, np.ndarray]
"""``qpos`` ``[nq]`` and ``qvel`` ``[nv]`` of one environment."""


class Simulation(Protocol):
    """What tasks and the ``VecEnv`` need of the physics."""

    model: mujoco.MjModel
    num_envs: int
    num_threads: int

    def field(self, name: str) -> np.ndarray:
        """Return a live array ``[B, ...]`` over a field of ``MjData``, current after every call."""
        ...

    def step(self, action: np.ndarray) -> None:
        """Set ``ctrl`` to ``action`` ``[B, nu]`` and advance by one environment step."""
        ...

    def reset(self, indices: Sequence[int], states: Sequence[InitialState]) -> None:
        """Reset the environments ``indices``, in increasing order, to ``states`` and run ``mj_forward``."""
        ...

    def data(self, index: int) -> mujoco.MjData:
        """Return environment ``index`` as an ``MjData`` to look at, not to change."""
        ...

    def get_state(self) -> np.ndarray:
        """Return everything that determines the physics, ``[B, nstate]``."""
        ...

    def set_state(self, state: np.ndarray) -> None:
        """Continue from what ``get_state`` returned.

        Derived fields are current after the next step only; those of ``data`` always.
        """
        ...


def make_simulation(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    num_envs: int,
    frame_skip: int,
    num_threads: int,
    contact_forces: bool,
    fields: Sequence[str],
) -> Simulation:
    """Return the fastest simulation for the purpose.

    Args:
        model: shared by all environments.
        data: of ``model``; may be used for an environment.
        num_envs: ``B``.
        frame_skip: physics steps in one environment step.
        num_threads: upper bound, including the calling thread.
        contact_forces: whether ``mj_rnePostConstraint`` runs after each step, for ``cfrc_ext`` and the like.
        fields: those that ``field`` will be asked for.
    """
    num_threads = min(num_threads, num_envs)
    if num_envs == 1:
        return SingleSimulation(model, data, frame_skip, contact_forces)
    if contact_forces:
        batch: Batch | ContactForceBatch = ContactForceBatch(model, num_envs, num_threads)
    else:
        # Sleeping bodies and plugins keep memory outside of the state.
        sleeps = bool(model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP)
        batch = Batch(model, num_envs, num_threads, persistent=sleeps or model.nplugin > 0)
    return BatchSimulation(batch, model, num_threads, frame_skip, fields)


class SingleSimulation:
    """One environment, stepped by the calling thread."""

    num_envs = 1
    num_threads = 1

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, frame_skip: int, contact_forces: bool) -> None:
        self.model = model
        self._data = data
        self._frame_skip = frame_skip
        self._contact_forces = contact_forces
        self._ctrl = data.ctrl[None]
        self._stale = False

    def field(self, name: str) -> np.ndarray:
        """See :class:`Simulation`."""
        return getattr(self._data, name)[None]

    def step(self, action: np.ndarray) -> None:
        """See :class:`Simulation`."""
        self._ctrl[:] = action
        self._stale = False
        mujoco.mj_step(self.model, self._data, self._frame_skip)
        if self._contact_forces:
            mujoco.mj_rnePostConstraint(self.model, self._data)

    def reset(self, indices: Sequence[int], states: Sequence[InitialState]) -> None:
        """See :class:`Simulation`."""
        self._stale = False
        for state in states:
            _reset(self.model, self._data, state)

    def data(self, index: int) -> mujoco.MjData:
        """See :class:`Simulation`."""
        if self._stale:
            self._stale = False
            state = self.get_state()
            mujoco.mj_forward(self.model, self._data)
            # mj_forward starts the next step's solver from another place
            mujoco.mj_setState(self.model, self._data, state[0], _STATE)
        return self._data

    def get_state(self) -> np.ndarray:
        """See :class:`Simulation`."""
        return _get_states(self.model, [self._data])

    def set_state(self, state: np.ndarray) -> None:
        """See :class:`Simulation`."""
        _set_states(self.model, [self._data], state)
        self._stale = True


class BatchSimulation:
    """Many environments on MuJoCo's thread pool.

    Args:
        batch: the simulations. One that is not persistent shares ``MjData`` among them: only their state and the fields
            that a call computes are then kept.
        model: shared by all environments.
        num_threads: those of ``batch``.
        frame_skip: physics steps in one environment step.
        fields: those that ``field`` will be asked for.
    """

    def __init__(
        self,
        batch: Batch | ContactForceBatch,
        model: mujoco.MjModel,
        num_threads: int,
        frame_skip: int,
        fields: Sequence[str],
    ) -> None:
        self.model = model
        self.num_envs = len(batch.state)
        self.num_threads = num_threads
        self._frame_skip = frame_skip
        self._batch = batch
        self._ctrl, self._qpos, self._qvel = (batch.bind(name) for name in ("ctrl", "qpos", "qvel"))
        # The rest of the next step's input and output does not depend on mj_forward after a reset. A batch that is
        # persistent shows what was computed last.
        derived = (not np.may_share_memory(batch.bind(name), batch.state) for name in fields)
        self._derives = batch.persistent or any(derived)
        self._views: dict[int, mujoco.MjData] = {}
        # One environment in a call never leaves the calling thread.
        self._single = [np.array([index], dtype=np.int32) for index in range(self.num_envs)]
        self._initial = batch.state[0].copy()
        self._stale = np.zeros(self.num_envs, dtype=bool)
        # Functions, not bound methods, which would keep each other and the threads alive.
        ways = (BatchSimulation._step_on_pool, BatchSimulation._step_here)
        self._step: Callable[[BatchSimulation], None] = FasterWay(*ways) if num_threads > 1 else ways[0]
        self._few = _FEW
        forget_threads_when_forked(self)

    def forget_threads(self) -> None:
        """Step in the calling thread from now on."""
        self._step, self._few = BatchSimulation._step_here, self.num_envs
        # Freeing it, even when Python exits, would wait for its threads: give it a reference that is never dropped.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._batch))

    def field(self, name: str) -> np.ndarray:
        """See :class:`Simulation`."""
        return self._batch.bind(name)

    def step(self, action: np.ndarray) -> None:
        """See :class:`Simulation`."""
        self._ctrl[:] = action
        self._stale[:] = False
        self._step(self)

    def _step_on_pool(self) -> None:
        self._batch.step(nstep=self._frame_skip)

    def _step_here(self) -> None:
        for ids in self._single:
            self._batch.step(ids, self._frame_skip)

    def reset(self, indices: Sequence[int], states: Sequence[InitialState]) -> None:
        """See :class:`Simulation`."""
        groups = self._groups(indices)
        self._stale[indices] = False
        if self._batch.persistent:
            for ids in groups:
                self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for index, (qpos, qvel) in zip(indices, states, strict=True):
            self._batch.state[index] = self._initial
            self._qpos[index] = qpos
            self._qvel[index] = qvel
        if self._derives:
            for ids in groups:
                self._batch.forward(ids)

    def data(self, index: int) -> mujoco.MjData:
        """See :class:`Simulation`."""
        if index not in self._views:
            self._views[index] = mujoco.MjData(self.model)
        data = self._batch.get_data(index, self._views[index])
        if self._stale[index] or not self._batch.persistent:
            mujoco.mj_forward(self.model, data)
        return data

    def get_state(self) -> np.ndarray:
        """See :class:`Simulation`."""
        return self._batch.state.copy()

    def set_state(self, state: np.ndarray) -> None:
        """See :class:`Simulation`."""
        if self._batch.persistent:
            for ids in self._groups(range(self.num_envs)):
                self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._batch.state[:] = state
        self._stale[:] = True

    def _groups(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return the environments of each call: all at once only where threads are there and worth it."""
        return [np.array(indices, np.int32)] if len(indices) > self._few else [self._single[i] for i in indices]


def _reset(model: mujoco.MjModel, data: mujoco.MjData, state: InitialState) -> None:
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[:] = state
    mujoco.mj_forward(model, data)


def _get_states(model: mujoco.MjModel, datas: Sequence[mujoco.MjData]) -> np.ndarray:
    states = np.empty((len(datas), mujoco.mj_stateSize(model, _STATE)))
    for state, data in zip(states, datas, strict=True):
        mujoco.mj_getState(model, data, state, _STATE)
    return states


def _set_states(model: mujoco.MjModel, datas: Sequence[mujoco.MjData], states: np.ndarray) -> None:
    for state, data in zip(states, datas, strict=True):
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, state, _STATE)
