"""One process a run directory."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maxent_onpolicy.cli.values import UsageError


@contextmanager
def locked(directory: Path, wait: bool = False) -> Iterator[None]:
    """Hold ``directory`` for this process; the system lets go of it however the process ends.

    Windows cannot lock a directory; there, nothing keeps two processes apart.

    Args:
        directory: what is held.
        wait: whether to wait until no other process holds it.

    Raises:
        UsageError: if another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UsageError(f"{directory} is being run by another process") from None
        yield
    finally:
        os.close(descriptor)


def wait_until_free(directory: Path, seconds: float) -> bool:
    """Wait until no process holds ``directory``, for ``seconds`` at most; return whether that came to be."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with locked(directory):
                return True
        except UsageError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
