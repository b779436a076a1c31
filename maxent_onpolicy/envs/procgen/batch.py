"""One handle of Procgen's C library: games that are stepped together, and the memory they are read from."""

import ctypes
import os
import weakref
from typing import Any

import numpy as np

from maxent_onpolicy.envs.procgen.library import (
    ACTION_SPACE,
    DTYPES,
    INFO_SPACE,
    OBSERVATION_SPACE,
    c_options,
    load_library,
)

_ALIGNMENT = 64  # bytes: a cache line
_MAX_STATE_BYTES = 2**20  # of one game; the library ends the process if it needs more


class GameBatch:
    """``B`` games of one kind in the C library; threads of its own step them.

    The arrays are the library's own memory: it writes them between :meth:`act` and the end of :meth:`observe`.
    Nothing is checked here: what the library does not expect ends the process.

    Args:
        num_envs: ``B``.
        options: what the library is given, by its own names.

    Attributes:
        observation: ``[B, 64, 64, 3]`` uint8.
        reward: ``[B]`` float32.
        first: ``[B]`` bool; whether the observation begins an episode.
        info: ``prev_level_seed``, ``prev_level_complete``, ``level_seed``, each ``[B]``, and with the option
            ``render_human`` the picture ``rgb`` ``[B, 512, 512, 3]``.
    """

    def __init__(self, num_envs: int, options: dict[str, bool | int | str]) -> None:
        library = load_library()
        self._functions, self._interface = library.functions, library.interface
        assets = f"{library.assets}{os.sep}"
        c_struct, alive = c_options({**options, "num_actions": 15, "resource_root": assets})
        self._handle = self._functions.libenv_make(num_envs, c_struct)
        del alive  # the library has copied what it needs
        observations, observation_pointers = self._allocate(OBSERVATION_SPACE, num_envs)
        actions, action_pointers = self._allocate(ACTION_SPACE, num_envs)
        self.info, info_pointers = self._allocate(INFO_SPACE, num_envs)
        self.observation, self._action = observations["rgb"], actions["action"]
        # The library writes 0 or 1.
        self.reward, self.first = _aligned((num_envs,), "float32"), _aligned((num_envs,), "bool")
        buffers = self._interface.buffers(
            ob=ctypes.addressof(observation_pointers),
            rew=self.reward.ctypes.data,
            first=self.first.ctypes.data,
            info=ctypes.addressof(info_pointers),
            ac=ctypes.addressof(action_pointers),
        )
        self._functions.libenv_set_buffers(self._handle, ctypes.byref(buffers))
        # Its threads write until it is closed: the memory must live as long.
        memory = (self.observation, self._action, self.reward, self.first, *self.info.values())
        self._finalizer = weakref.finalize(self, _close, self._functions, self._handle, os.getpid(), memory)
        self._state_buffer: Any = None

    def act(self, actions: np.ndarray | int) -> None:
        """Begin a step with ``actions`` ``[B]``; -1 plays the game's default action and then ends the episode."""
        self._action[:] = actions
        self._functions.libenv_act(self._handle)

    def observe(self) -> None:
        """Wait until the step is done."""
        self._functions.libenv_observe(self._handle)

    def get_state(self, index: int) -> bytes:
        """Return everything that determines the future of one game."""
        if self._state_buffer is None:
            self._state_buffer = ctypes.create_string_buffer(_MAX_STATE_BYTES)
        length = self._functions.get_state(self._handle, index, self._state_buffer, _MAX_STATE_BYTES)
        return ctypes.string_at(self._state_buffer, length)

    def set_state(self, index: int, state: bytes) -> None:
        """Continue one game from ``state``; its observation, reward and infos become those of that time."""
        self._functions.set_state(self._handle, index, state, len(state))

    def close(self) -> None:
        """Wait for the step in progress, end the threads and free the games; a second call does nothing."""
        self._finalizer()

    def _allocate(self, space: int, num_envs: int) -> tuple[dict[str, np.ndarray], Any]:
        """Return the arrays of one of the library's spaces by name, and a C array of pointers to their rows."""
        count = self._functions.libenv_get_tensortypes(self._handle, space, None)
        types = (self._interface.tensor_type * count)()
        self._functions.libenv_get_tensortypes(self._handle, space, types)
        arrays = {
            each.name.decode(): _aligned((num_envs, *each.shape[: each.ndim]), DTYPES[each.dtype]) for each in types
        }
        rows = [array.ctypes.data + row * array.strides[0] for array in arrays.values() for row in range(num_envs)]
        return arrays, (ctypes.c_void_p * len(rows))(*rows)


def _aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _close(functions: Any, handle: int, owner: int, memory: Any) -> None:
    # In a forked child there are no threads that could be waited for.
    if os.getpid() == owner:
        functions.libenv_close(handle)
