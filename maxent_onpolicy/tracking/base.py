"""What output formats of trackers share: a tracker that fails never ends a training, and loses as little as possible.

A tracker may be out of reach: no network, a server that restarts, a full disk. Then
its rows are kept, it is tried again now and then, and the user is told once. At the
end it is tried a last time. Whatever happens, ``train.csv`` has everything.
"""

import atexit
import random
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from maxent_onpolicy.tracking.media import Media, to_media
from maxent_onpolicy.tracking.run import TrackedRun

STATES = ("completed", "failed", "interrupted")
_RETRY_SECONDS = 60.0
_PENDING_ROWS = 10_000
_ROWS_AT_ONCE = 50
Message = Callable[[str], None]


class Row(NamedTuple):
    """What was logged at one step.

    Attributes:
        step: environment steps.
        numbers: by key.
        media: by key.
    """

    step: int
    numbers: dict[str, float]
    media: dict[str, Media]


class TrackerFormat(KVWriter):
    """An output format that sends what is logged to a tracker.

    Rows have the environment step as their axis. A value that the tracker cannot show is left out. Keys that were
    recorded with ``exclude=name`` are left out, too.

    Args:
        run: what is tracked.
        message: receives lines for the user; default is a warning.

    Raises:
        ImportError: if the tracker's package is not installed; names what to install.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    # what is logged meanwhile is sent in one go, where every call is expensive
    every_seconds: ClassVar[float] = 0.0

    def __init__(self, run: TrackedRun, message: Message | None = None) -> None:
        check_installed(self.name, self.package)
        self.run = run
        run.folder.mkdir(parents=True, exist_ok=True)
        self.message = message or (lambda text: warnings.warn(text, stacklevel=4))
        self.failed_before = self.open = self.finished = False
        self._pending: deque[Row] = deque(maxlen=_PENDING_ROWS)
        self._send_at = -float("inf")
        self._has_until = -1
        self._send()
        atexit.register(self._finish_at_exit)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Send one row.

        Args:
            key_values: what was recorded.
            key_excluded: formats that must not have a key.
            step: environment steps so far.
        """
        numbers: dict[str, float] = {}
        media: dict[str, Media] = {}
        for key, value in sorted(filter_excluded_keys(key_values, key_excluded, self.name).items()):
            if (number := as_number(value)) is not None:
                numbers[key] = number
            elif (medium := to_media(value)) is not None:
                media[key] = medium
        if numbers or media:
            self._pending.append(Row(step, numbers, media))
        if time.monotonic() >= self._send_at:
            self._send()

    def finish(self, state: str = "completed") -> None:
        """Say how the run ended, after which nothing more can be written.

        Args:
            state: ``"completed"``, ``"failed"`` or ``"interrupted"``.
        """
        if self.finished:
            return
        self.finished = True
        atexit.unregister(self._finish_at_exit)
        self._send()
        if self._pending:
            rows = f"{len(self._pending)} row{'s' * (len(self._pending) != 1)}"
            self.message(f"{self.name} could not be given the last {rows}; the run's other logs have them")
        if self.open:
            self._guarded(lambda: self._end(state))

    def close(self) -> None:
        """Say that the run is completed."""
        self.finish()

    def _send(self) -> None:
        """Send what is pending; if that fails, keep it for the next time."""

        def send() -> None:
            if not self.open:
                identity, self._has_until = self._begin(self.run.known_id(self.name))
                self.open = True
                self.run.remember_id(self.name, identity)
            while self._pending:
                rows = list(islice(self._pending, _ROWS_AT_ONCE))
                # a killed run repeats what it did after its last checkpoint
                self._log([row for row in rows if row.step >= self._has_until])
                for _ in rows:
                    self._pending.popleft()

        self._send_at = time.monotonic() + (self.every_seconds if self._guarded(send) else _RETRY_SECONDS)

    def _guarded(self, action: Callable[[], None]) -> bool:
        """Do something that may fail; return whether it did not. Whoever trains sees the same random numbers."""
        try:
            with _own_random_state():
                action()
        except Exception as error:
            if not self.failed_before:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                self.message(f"{self.name} is out of reach, and will be tried again while training goes on: {reason}")
            self.failed_before = True
            return False
        return True

    def _finish_at_exit(self) -> None:
        error = getattr(sys, "last_value", None)
        interrupted = isinstance(error, KeyboardInterrupt)
        self.finish("completed" if error is None else "interrupted" if interrupted else "failed")

    def _begin(self, known: str | None) -> tuple[str, int]:
        """Open the run at the tracker.

        Args:
            known: its id, if an earlier attempt began it.

        Returns:
            Its id, and the last step that the tracker has of it, or -1.
        """
        raise NotImplementedError

    def _log(self, rows: list[Row]) -> None:
        """Send rows, at most fifty."""
        raise NotImplementedError

    def _end(self, state: str) -> None:
        """Close the run at the tracker."""
        raise NotImplementedError


def check_installed(name: str, package: str) -> None:
    """Raise if a tracker's package is not installed.

    Raises:
        ImportError: naming what to install.
    """
    if find_spec(package) is None:
        raise ImportError(
            f"{name} needs a package that is not installed; install it with: pip install 'maxent-onpolicy[tracking]', "
            f"or only: pip install {package}"
        )


def as_number(value: Any) -> float | None:
    """Return a number, or an array or tensor of one, as a float; ``None`` for anything else."""
    if isinstance(value, int | float | np.number | np.bool_):
        return float(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.item())
    if isinstance(value, np.ndarray) and value.size == 1 and np.issubdtype(value.dtype, np.number):
        return float(value.item())
    return None


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Restore Python's and numpy's random state on leaving the block: trackers draw names and delays from them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
