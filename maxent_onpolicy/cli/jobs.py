"""What all launchers share: a run and where it stands, its worker process, and how the end of one is understood."""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.worker import COMPLETED, FAILED, INTERRUPTED, MARK, MISUSED
from maxent_onpolicy.cores import CORES
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError

ATTEMPTS = 2
_TAIL_LINES = 12
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
State = Literal["waiting", "running", "completed", "failed", "interrupted"]


@dataclass
class Job:
    """One run of a benchmark.

    Attributes:
        config: what is run.
        path: its run directory.
        prepare: makes the run directory or opens it; called right before each attempt.
        together: jobs with the same are executed by one process; ``None``: by one of its own.
        state: where it stands.
        timesteps: how far it is.
        mean_return: of recent training episodes.
        attempts: how often it was started here.
        error: why the last attempt failed, in a line.
        tail: the last lines of its output.
        began: monotonic time at which the running attempt began.
        seconds: how long the finished attempts took.
        done_before: timesteps that were there when it was first started here.
        outcome: exit status of this run, where the process has several.
    """

    config: RunConfig
    path: Path
    prepare: Callable[[], RunDirectory]
    together: tuple[str, ...] | None = None
    state: State = "waiting"
    timesteps: int = 0
    mean_return: float | None = None
    attempts: int = 0
    error: str | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    began: float = 0.0
    seconds: float = 0.0
    done_before: int = field(init=False)
    outcome: int | None = None

    def __post_init__(self) -> None:
        self.done_before = self.timesteps if self.state == "waiting" else 0

    def begin_attempt(self) -> RunDirectory:
        """Count an attempt and prepare the run directory for it.

        Raises:
            OSError: if the directory cannot be made.
        """
        self.attempts += 1
        self.outcome = None
        run = self.prepare()
        # Runs are merged and committed without checkpoints: an unfinished one begins anew, whatever its status says.
        timesteps = int(run.status["timesteps"]) if run.checkpoint.exists() else 0
        if self.attempts == 1:
            self.done_before = timesteps  # first: the display may look between the two
        self.timesteps = timesteps
        self.tail.clear()
        return run

    def hear(self, line: str) -> dict[str, Any]:
        """Take in a line of the worker's output; return what it told if it was no message."""
        if line.startswith(MARK):
            told: dict[str, Any] = json.loads(line.removeprefix(MARK))
            self.timesteps = told.get("timesteps", self.timesteps)
            self.mean_return = told.get("return", self.mean_return)
            self.outcome = told.get("outcome", self.outcome)
            if "line" in told:
                self.tail.append(told["line"])
            return told
        if line.strip():
            self.tail.append(line.rstrip())
        return {}

    def conclude(self, outcome: int | str, stopping: bool) -> None:
        """Decide from outcome and run directory how the attempt ended, and write down what the run could not.

        Args:
            outcome: the worker's exit status, or why there is none.
            stopping: whether the benchmark is being stopped.
        """
        lost = isinstance(outcome, str) or outcome < 0
        if outcome == COMPLETED:
            self.state, self.timesteps = "completed", max(self.timesteps, self.config.total_timesteps)
            return
        if outcome == INTERRUPTED or (stopping and lost):
            self.state = "interrupted"
            return
        self.state = "failed"
        if outcome == MISUSED:
            self.attempts = ATTEMPTS  # the same again would end the same
        self.error = self._reason(outcome)
        with suppress(RunError, OSError):
            run = RunDirectory(self.path)
            if outcome == FAILED and run.status["state"] == "failed":
                self.error = str(run.status["error"])
            elif outcome != MISUSED:
                run.write_status("failed", error=self.error)

    def _reason(self, outcome: int | str) -> str:
        if isinstance(outcome, str):
            return outcome
        if outcome < 0:
            return f"killed by {signal.Signals(-outcome).name}"
        return self.tail[-1] if self.tail else f"exit status {outcome}"


def hear(jobs: Sequence[Job], line: str) -> None:
    """Take in a line of the output of the worker that has several jobs; what is nobody's own goes to all."""
    own = json.loads(line.removeprefix(MARK)).get("run") if line.startswith(MARK) else None
    for job in jobs if own is None else (jobs[own],):
        job.hear(line)


class Display(Protocol):
    """What a launcher tells while it works; called from several threads, one at a time."""

    def update(self) -> None:
        """Show the state of all jobs."""

    def started(self, job: Job) -> None:
        """``job`` began an attempt."""

    def finished(self, job: Job) -> None:
        """``job`` came to an end, or will be tried again if its state is ``waiting``."""

    def message(self, text: str) -> None:
        """Show a line."""


def start_worker(
    runs: Sequence[Path], arguments: Sequence[str], cores: int, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start the process that executes ``runs``; its output is one stream of lines.

    Args:
        runs: run directories.
        arguments: options of :mod:`maxent_onpolicy.cli.worker`.
        cores: how many its environments may keep busy; it computes with one thread.
        cwd: where it works; default is here.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "maxent_onpolicy.cli.worker", *map(str, runs), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=cwd,
        env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1"), CORES: str(cores), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C reaches the launcher only, which asks each run to stop
    )


class StopSignals:
    """Counts SIGINT and SIGTERM while entered; a handler that did more could interrupt whatever is being done.

    Attributes:
        asked: how many there were.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._obeyed = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._count) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def news(self) -> bool:
        """Whether there was one since the last :meth:`take`."""
        return self.asked > self._obeyed

    def take(self) -> int:
        """Return how many there were if there is one that is new, else 0."""
        new, self._obeyed = self.news, self.asked
        return self.asked if new else 0

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
