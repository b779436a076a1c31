"""``B`` copies of one MuJoCo model, stepped together.

Three ways with the same results, bit for bit, because each environment's ``mj_step`` sees the same numbers:
one ``MjData`` without a pool (one environment), MuJoCo's own thread pool (:class:`BatchSimulation`), and Python
threads over one ``MjData`` each, where something must be computed after the step that the pool does not offer.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Protocol

import mujoco
import numpy as np
from mujoco.batch import Batch

from maxent_onpolicy.envs.mujoco_batch.threads import FasterWay, ThreadPool, forget_threads_when_forked

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
        """Continue from what ``get_state`` returned. Derived fields are current after the next step only."""
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
    # Sleeping bodies and plugins keep memory outside of the state that MuJoCo's pool moves between its threads.
    if contact_forces or model.nplugin or model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP:
        return ThreadedSimulation(model, num_envs, frame_skip, num_threads, contact_forces, fields)
    return BatchSimulation(model, num_envs, frame_skip, num_threads)


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

    def field(self, name: str) -> np.ndarray:
        """See :class:`Simulation`."""
        return getattr(self._data, name)[None]

    def step(self, action: np.ndarray) -> None:
        """See :class:`Simulation`."""
        self._ctrl[:] = action
        mujoco.mj_step(self.model, self._data, self._frame_skip)
        if self._contact_forces:
            mujoco.mj_rnePostConstraint(self.model, self._data)

    def reset(self, indices: Sequence[int], states: Sequence[InitialState]) -> None:
        """See :class:`Simulation`."""
        for state in states:
            _reset(self.model, self._data, state)

    def data(self, index: int) -> mujoco.MjData:
        """See :class:`Simulation`."""
        return self._data

    def get_state(self) -> np.ndarray:
        """See :class:`Simulation`."""
        return _get_states(self.model, [self._data])

    def set_state(self, state: np.ndarray) -> None:
        """See :class:`Simulation`."""
        _set_states(self.model, [self._data], state)


class BatchSimulation:
    """Many environments on the thread pool of ``mujoco.batch``."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, frame_skip: int, num_threads: int) -> None:
        self.model = model
        self.num_envs = num_envs
        self.num_threads = num_threads
        self._frame_skip = frame_skip
        self._batch = Batch(model, num_envs, num_threads)
        self._ctrl, self._qpos, self._qvel = (self._batch.bind(name) for name in ("ctrl", "qpos", "qvel"))
        self._views: dict[int, mujoco.MjData] = {}
        # One environment in a call never leaves the calling thread.
        self._single = [np.array([index], dtype=np.int32) for index in range(num_envs)]
        self._initial = self._batch.state[0].copy()
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
        self._step(self)

    def _step_on_pool(self) -> None:
        self._batch.step(nstep=self._frame_skip)

    def _step_here(self) -> None:
        for ids in self._single:
            self._batch.step(ids, self._frame_skip)

    def reset(self, indices: Sequence[int], states: Sequence[InitialState]) -> None:
        """See :class:`Simulation`."""
        for index, (qpos, qvel) in zip(indices, states, strict=True):
            self._batch.state[index] = self._initial
            self._qpos[index] = qpos
            self._qvel[index] = qvel
        if len(indices) > self._few:
            self._batch.forward(indices)
        else:
            for index in indices:
                self._batch.forward(self._single[index])

    def data(self, index: int) -> mujoco.MjData:
        """See :class:`Simulation`."""
        if index not in self._views:
            self._views[index] = mujoco.MjData(self.model)
        data = self._batch.get_data(index, self._views[index])
        mujoco.mj_forward(self.model, data)
        return data

    def get_state(self) -> np.ndarray:
        """See :class:`Simulation`."""
        return self._batch.state.copy()

    def set_state(self, state: np.ndarray) -> None:
        """See :class:`Simulation`."""
        self._batch.state[:] = state


class ThreadedSimulation:
    """Many environments with an ``MjData`` each, on Python threads: ``mj_step`` releases the interpreter's lock."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        frame_skip: int,
        num_threads: int,
        contact_forces: bool,
        fields: Sequence[str],
    ) -> None:
        self.model = model
        self.num_envs = num_envs
        self.num_threads = num_threads
        self._frame_skip = frame_skip
        self._contact_forces = contact_forces
        self._datas = [mujoco.MjData(model) for _ in range(num_envs)]
        self._fields = {name: np.stack([getattr(data, name) for data in self._datas]) for name in fields}
        self._copies = [
            [(self._fields[name][index], getattr(data, name)) for name in fields]
            for index, data in enumerate(self._datas)
        ]
        self._pool = ThreadPool(num_threads)
        # Functions, not bound methods, which would keep each other and the threads alive.
        ways = (ThreadedSimulation._step_on_pool, ThreadedSimulation._step_here)
        self._step: Callable[[ThreadedSimulation], None] = FasterWay(*ways) if num_threads > 1 else ways[1]
        forget_threads_when_forked(self)

    def forget_threads(self) -> None:
        """Step in the calling thread from now on."""
        self._step, self._pool = ThreadedSimulation._step_here, ThreadPool(1)

    def field(self, name: str) -> np.ndarray:
        """See :class:`Simulation`."""
        return self._fields[name]

    def step(self, action: np.ndarray) -> None:
        """See :class:`Simulation`."""
        self._action = action
        self._step(self)

    def _step_on_pool(self) -> None:
        self._pool.run(self._step_one, self.num_envs)

    def _step_here(self) -> None:
        for index in range(self.num_envs):
            self._step_one(index)

    def _step_one(self, index: int) -> None:
        data = self._datas[index]
        data.ctrl[:] = self._action[index]
        mujoco.mj_step(self.model, data, self._frame_skip)
        if self._contact_forces:
            mujoco.mj_rnePostConstraint(self.model, data)
        for target, source in self._copies[index]:
            target[...] = source

    def reset(self, indices: Sequence[int], states: Sequence[InitialState]) -> None:
        """See :class:`Simulation`."""

        def reset_one(position: int) -> None:
            index = indices[position]
            _reset(self.model, self._datas[index], states[position])
            for target, source in self._copies[index]:
                target[...] = source

        if len(indices) > _FEW:
            self._pool.run(reset_one, len(indices))
        else:
            for position in range(len(indices)):
                reset_one(position)

    def data(self, index: int) -> mujoco.MjData:
        """See :class:`Simulation`."""
        return self._datas[index]

    def get_state(self) -> np.ndarray:
        """See :class:`Simulation`."""
        return _get_states(self.model, self._datas)

    def set_state(self, state: np.ndarray) -> None:
        """See :class:`Simulation`."""
        _set_states(self.model, self._datas, state)
        for copies in self._copies:
            for target, source in copies:
                target[...] = source


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
