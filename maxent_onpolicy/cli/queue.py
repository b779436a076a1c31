"""A queue of runs, each in a process of its own, so that one that crashes takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.worker import COMPLETED, FAILED, INTERRUPTED, MARK, MISUSED
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
    """One run in the queue.

    Attributes:
        config: what is run.
        path: its run directory.
        prepare: makes the run directory or opens it; called right before each attempt.
        state: where it stands.
        timesteps: how far it is.
        mean_return: of recent training episodes.
        attempts: how often it was started here.
        error: why the last attempt failed, in a line.
        tail: the last lines of its output.
        began: monotonic time at which the running attempt began.
        seconds: how long the finished attempts took.
        done_before: timesteps that were there when it was first started here.
    """

    config: RunConfig
    path: Path
    prepare: Callable[[], RunDirectory]
    state: State = "waiting"
    timesteps: int = 0
    mean_return: float | None = None
    attempts: int = 0
    error: str | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    began: float = 0.0
    seconds: float = 0.0
    done_before: int = 0


class Display(Protocol):
    """What a queue tells while it works; called from several threads, one at a time."""

    def update(self) -> None:
        """Show the state of all jobs."""

    def started(self, job: Job) -> None:
        """``job`` began an attempt."""

    def finished(self, job: Job) -> None:
        """``job`` came to an end, or will be tried again if its state is ``waiting``."""

    def message(self, text: str) -> None:
        """Show a line."""


class Queue:
    """Runs jobs in subprocesses, ``workers`` at a time, failed ones twice.

    Args:
        jobs: in the order in which they start.
        workers: how many run at a time.
        arguments: options of :mod:`maxent_onpolicy.cli.worker`.
        display: told what happens.
    """

    def __init__(self, jobs: list[Job], workers: int, arguments: list[str], display: Display) -> None:
        self.jobs = jobs
        self.workers = workers
        self.arguments = arguments
        self.display = display
        self.stopping = False
        self._asked = self._obeyed = 0
        self._waiting = deque(jobs)
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.RLock()

    def run(self) -> None:
        """Work until every job has come to its end, or until SIGINT or SIGTERM has stopped them all."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(self.workers, len(self.jobs)))]
        with self._signals():
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.1)
                    with self._lock:
                        self._obey()
                        self.display.update()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._attempt(job)
            except Exception as error:
                # such as a full disk when the directory is made; the other runs go on
                job.state, job.error = "failed", f"{type(error).__name__}: {error}"
            with self._lock:
                if job.state == "failed" and job.attempts < ATTEMPTS and not self.stopping:
                    job.state = "waiting"
                    self._waiting.append(job)
                self.display.finished(job)

    def _next(self) -> Job | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting and not self.stopping else None

    def _attempt(self, job: Job) -> None:
        job.attempts += 1
        run = job.prepare()
        job.timesteps = int(run.status["timesteps"])
        if job.attempts == 1:
            job.done_before = job.timesteps
        job.began = time.monotonic()
        job.tail.clear()
        command = [sys.executable, "-m", "maxent_onpolicy.cli.worker", str(run.path), *self.arguments]
        with self._lock:
            if self.stopping:
                job.state = "interrupted"
                return
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1"), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C reaches the queue only, which asks each run to stop
            )
            self._running[id(job)] = process
            job.state = "running"
            self.display.started(job)
        try:
            self._listen(job, process)
        finally:
            with self._lock:
                del self._running[id(job)]
            job.seconds += time.monotonic() - job.began
        self._conclude(job, process.returncode)

    def _listen(self, job: Job, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.startswith(MARK):
                    told = json.loads(line.removeprefix(MARK))
                    job.timesteps, job.mean_return = told["timesteps"], told["return"]
                elif line.strip():
                    job.tail.append(line.rstrip())
        process.wait()

    def _conclude(self, job: Job, code: int) -> None:
        """Decide from exit status and run directory how the attempt ended, and write down what the run could not."""
        if code == COMPLETED:
            job.state, job.timesteps = "completed", max(job.timesteps, job.config.total_timesteps)
            return
        if code == INTERRUPTED or (self.stopping and code < 0):
            job.state = "interrupted"
            return
        job.state = "failed"
        if code == MISUSED:
            job.attempts = ATTEMPTS  # the same again would end the same
        last = job.tail[-1] if job.tail else f"exit status {code}"
        job.error = f"killed by {signal.Signals(-code).name}" if code < 0 else last
        with suppress(RunError, OSError):
            run = RunDirectory(job.path)
            if code == FAILED and run.status["state"] == "failed":
                job.error = str(run.status["error"])
            elif code != MISUSED:
                run.write_status("failed", error=job.error)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM; a handler that did more could interrupt whatever the main thread is doing."""

        def count(number: int, frame: FrameType | None) -> None:
            self._asked += 1

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _obey(self) -> None:
        """First signal: ask every run to stop. Second: kill them."""
        if self._asked == self._obeyed:
            return
        self._obeyed = self._asked
        kill, self.stopping = self._asked > 1, True
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        if not kill and self._running:
            self.display.message("stopping: each run writes a checkpoint after its iteration; Ctrl-C again kills")
