"""A batch of MuJoCo simulations that also computes contact forces.

``mujoco.batch.Batch`` cannot run ``mj_rnePostConstraint`` after its steps. The library that it is made of can
(``mjbatch.h``), so this calls the library. Python threads over single simulations are no alternative: they wait for the
interpreter's lock far longer than contact forces take.
"""

import ctypes
import sys
from typing import Any

import mujoco
import numpy as np
from mujoco import _batch
from mujoco.batch import Batch

_NO_STAGE = mujoco.mjtStage.mjSTAGE_NONE.value
_ALL_STAGES = mujoco.mjtStage.mjSTAGE_ACC.value
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class _Config(ctypes.Structure):
    """``mjBatchConfig``."""

    _fields_ = (("nthread", ctypes.c_int), ("persistent", ctypes.c_bool))


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "mjb_makeBatch": (_POINTER, [_POINTER, _INT, _POINTER, ctypes.c_char_p, _INT]),
    "mjb_deleteBatch": (None, [_POINTER]),
    "mjb_state": (_POINTER, [_POINTER]),
    "mjb_output": (_POINTER, [_POINTER, ctypes.c_char_p, _POINTER, _POINTER]),
    "mjb_step": (_INT, [_POINTER, _POINTER, _INT, _INT, _INT]),
    "mjb_apply": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT]),
    "mjb_forward": (_INT, [_POINTER, _POINTER, _INT, _INT]),
    "mjb_reset": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _INT]),
    "mjb_getData": (None, [_POINTER, _INT, _POINTER]),
    "mjb_error": (ctypes.c_char_p, [_POINTER, _INT]),
}


def _load() -> Any:
    # On Windows the package has loaded it under this name; elsewhere symbols are also looked up in what a module needs.
    library = ctypes.CDLL("mujoco.dll" if sys.platform == "win32" else _batch.__file__)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_LIBRARY = _load()
_CONTACT_FORCES = ctypes.cast(_LIBRARY.mj_rnePostConstraint, _POINTER)


class _Handle:
    """Owns an ``mjBatch``; every array over its memory keeps it."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_threads: int) -> None:
        self._delete = _LIBRARY.mjb_deleteBatch  # is still there when Python exits
        config, error = _Config(num_threads, persistent=True), ctypes.create_string_buffer(1000)
        self.pointer = _LIBRARY.mjb_makeBatch(model._address, num_envs, ctypes.addressof(config), error, len(error))
        if not self.pointer:
            raise mujoco.FatalError(error.value.decode())

    def __del__(self) -> None:
        if self.pointer:
            self._delete(self.pointer)

    def array(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return a live array over memory of the batch."""
        memory: Any = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
        memory.owner = self
        return np.frombuffer(memory, dtype).reshape(shape)


class ContactForceBatch:
    """What is needed of ``mujoco.batch.Batch``, persistent, with ``mj_rnePostConstraint`` after every step.

    Args:
        model: shared by all simulations.
        num_envs: ``B``.
        num_threads: including the calling one.

    Raises:
        ValueError: if physics callbacks written in Python are installed.
        mujoco.FatalError: if MuJoCo cannot make or step the simulations.
    """

    persistent = True

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_threads: int) -> None:
        self._num_envs = num_envs
        # Says how arrays look and where in a row of the state they are.
        self._template = Batch(model, 1, 1, persistent=True)
        self._template.forward()  # refuses callbacks written in Python, which the library cannot call
        self._handle = _Handle(model, num_envs, num_threads)
        self._pointer = self._handle.pointer
        row = self._template.state
        self.state = self._handle.array(_LIBRARY.mjb_state(self._pointer), (num_envs, row.shape[1]), row.dtype)

    def bind(self, name: str) -> np.ndarray:
        """Return a live array ``[B, ...]`` over a field of ``MjData``."""
        field, row = self._template.bind(name), self._template.state
        shape = (self._num_envs, *field.shape[1:])
        if field.size == 0:
            return np.empty(shape, field.dtype)
        if np.may_share_memory(field, row):
            first = (field.ctypes.data - row.ctypes.data) // row.itemsize
            return self.state[:, first : first + field.size].reshape(shape)
        return self._handle.array(_LIBRARY.mjb_output(self._pointer, name.encode(), None, None), shape, field.dtype)

    def step(self, ids: np.ndarray | None = None, nstep: int = 1) -> None:
        """Advance the simulations ``ids`` (int32; all without them) by ``nstep`` times ``mj_step``."""
        chosen = _choose(ids)
        self._check(_LIBRARY.mjb_step(self._pointer, *chosen, nstep, _NO_STAGE))
        self._check(_LIBRARY.mjb_apply(self._pointer, *chosen, _CONTACT_FORCES, None, 0))
        # Computes nothing, but copies out the fields, which mjb_apply does not.
        self._check(_LIBRARY.mjb_forward(self._pointer, *chosen, _NO_STAGE))

    def forward(self, ids: np.ndarray | None = None) -> None:
        """Run ``mj_forward``."""
        self._check(_LIBRARY.mjb_forward(self._pointer, *_choose(ids), _ALL_STAGES))

    def reset(self, ids: np.ndarray | None = None, stage: int = _ALL_STAGES) -> None:
        """Run ``mj_resetData``, then what ``mj_forward`` does up to ``stage``."""
        self._check(_LIBRARY.mjb_reset(self._pointer, *_choose(ids), None, stage))

    def get_data(self, sim: int, data: mujoco.MjData) -> mujoco.MjData:
        """Copy one simulation to ``data``."""
        _LIBRARY.mjb_getData(self._pointer, sim, data._address)
        return data

    def _check(self, failures: int) -> None:
        if failures:
            messages = (_LIBRARY.mjb_error(self._pointer, sim).decode() for sim in range(self._num_envs))
            raise mujoco.FatalError("; ".join(dict.fromkeys(filter(None, messages))))


def _choose(ids: np.ndarray | None) -> tuple[int | None, int]:
    return (None, 0) if ids is None else (ids.ctypes.data, len(ids))
