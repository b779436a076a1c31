"""Exchange of small arrays between the processes of one machine through shared memory.

Sockets wake several threads for every message, which takes a tenth of a
millisecond on an idle machine and ten times that on a busy one: more than a step
of an environment or a small minibatch. Here a process writes its part, raises its
counter, and looks at the others' until all have done so.
"""

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_FOLDER = Path("/dev/shm")
_LINE = 64  # bytes; counters in cache lines of their own
_CAPACITY = 4 << 20
_LOOKS, _YIELDS = 50, 5000  # before a waiting process yields its core, and before it sleeps
_SLEEP = 1e-4


class HostExchange:
    """Memory that ``size`` processes share.

    Args:
        path: of a file of :meth:`file_size` bytes of zeros, the same for all.
        rank: number of this process.
        size: how many there are.
        check: called ten times a second while waiting; raises if another process is gone.
    """

    def __init__(self, path: Path, rank: int, size: int, check: Callable[[], None]) -> None:
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), self.file_size(size))
        self._rank = rank
        self._check = check
        self._counts = np.frombuffer(memory, np.int64, size * _LINE // 8)[:: _LINE // 8]
        # Two, in turn: whoever writes to one again knows that all have left it, as they have written to the other.
        self._slots = np.frombuffer(memory, np.uint8, offset=size * _LINE).reshape(2, size, _CAPACITY)
        self._count = 0

    @staticmethod
    def file_size(size: int) -> int:
        """Return the bytes that ``size`` processes need."""
        return size * (_LINE + 2 * _CAPACITY)

    @staticmethod
    def fits(array: np.ndarray) -> bool:
        """Whether an array is small enough."""
        return array.nbytes <= _CAPACITY

    def exchange(self, own: np.ndarray) -> np.ndarray:
        """Return all processes' arrays ``[size, *shape]``, in memory that the next call but one overwrites.

        Args:
            own: this process's, of the same shape and type everywhere.
        """
        self._count += 1
        parts = self._slots[self._count % 2, :, : own.nbytes].view(own.dtype).reshape(-1, *own.shape)
        parts[self._rank] = own
        # After the data: x86 shows stores to others in the order in which they were made.
        self._counts[self._rank] = self._count
        self._wait()
        return parts

    def _wait(self) -> None:
        looks, asked = 0, time.monotonic()
        while self._counts.min() < self._count:
            looks += 1
            if looks > _YIELDS:
                time.sleep(_SLEEP)
                if time.monotonic() - asked > 0.1:
                    self._check()
                    asked = time.monotonic()
            elif looks > _LOOKS:
                os.sched_yield()


def make_file(size: int) -> Path | None:
    """Return a new file in memory for ``size`` processes, or ``None`` where that is not possible or not safe."""
    if platform.machine() not in ("x86_64", "AMD64") or not _FOLDER.is_dir() or not hasattr(os, "sched_yield"):
        return None
    try:
        descriptor, name = tempfile.mkstemp(prefix="maxent_onpolicy_", dir=_FOLDER)
        with open(descriptor, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, HostExchange.file_size(size))
    except OSError:  # too little room, as in containers
        return None
    return Path(name)
