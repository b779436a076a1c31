"""What the peers' scripts share; standard library only, because every peer has a Python environment of its own.

A script is called with a workload as JSON, which ``Workload.message`` made, and ends by printing a line of JSON.
Importing this module first starts the clock of ``startup_s``: from there to the end of the first iteration.
"""

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from statistics import median
from typing import Any

START = time.perf_counter()
PHASES = ("env", "policy", "buffer", "update", "logging")


def read_workload() -> dict[str, Any]:
    """Return the workload named on the command line."""
    return json.loads(sys.argv[1])


class Stopwatch:
    """Seconds of every iteration, and of phases within it.

    Nested phases are exclusive: the time of ``buffer`` inside ``update`` counts as ``buffer`` only.

    Args:
        warmup: iterations at the beginning that are not part of the result.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.marks = [time.perf_counter()]
        self.phases: list[dict[str, float]] = []
        self._current: dict[str, float] = defaultdict(float)
        self._open: list[float] = []

    def begin(self) -> None:
        """Start the first iteration here: what came before was making the model."""
        self.marks = [time.perf_counter()]

    def end_iteration(self) -> None:
        """One iteration ends, the next begins."""
        self.marks.append(time.perf_counter())
        self.phases.append(dict(self._current))
        self._current.clear()

    def timed(self, function: Callable[..., Any], phase: str, *, ends_iteration: bool = False) -> Callable[..., Any]:
        """Return ``function`` with its time added to ``phase``."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            self._open.append(0.0)
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            elapsed = time.perf_counter() - begin
            self._current[phase] += elapsed - self._open.pop()
            if self._open:
                self._open[-1] += elapsed
            if ends_iteration:
                self.end_iteration()
            return result

        return measured

    def wrap(self, owner: Any, names: tuple[str, ...], phase: str) -> None:
        """Time the methods of ``owner`` that exist under ``names``."""
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, self.timed(getattr(owner, name), phase))

    def report(self, steps_an_iteration: int, packages: tuple[str, ...], **extra: Any) -> None:
        """Print the result; ``benchmarks/speed/store.py`` says what each key means."""
        seconds = [end - begin for begin, end in zip(self.marks, self.marks[1:], strict=False)]
        timed = seconds[self.warmup :]
        result: dict[str, Any] = {
            "steps_per_second": steps_an_iteration * len(timed) / sum(timed),
            "iteration_ms": 1e3 * median(timed),
            "iterations_ms": [round(1e3 * value, 3) for value in timed],
            "startup_s": self.marks[1] - START,
        }
        for phase in sorted({name for entry in self.phases for name in entry}):
            result[f"{phase}_ms"] = 1e3 * median(entry.get(phase, 0.0) for entry in self.phases[self.warmup :])
        emit(result | extra, packages)


def emit(result: dict[str, Any], packages: tuple[str, ...]) -> None:
    """Print the line that the runner reads: ``result``, the peak of resident memory and the versions of packages."""
    result["peak_rss_mb"] = peak_rss_mb()
    result["versions"] = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            result["versions"][name] = metadata.version(name)
    print(f"\n{json.dumps(result)}", flush=True)


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
