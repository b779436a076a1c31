"""A queue of runs, each in a process of its own unless they go together, so that a crash takes nothing else with it."""

import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress

from maxent_onpolicy.cli.jobs import ATTEMPTS, Display, Job, StopSignals, hear, start_worker
from maxent_onpolicy.cli.lock import wait_until_free
from maxent_onpolicy.cores import available_cores

_SOON, _LEFTOVER_SECONDS = 1.0, 300.0


class Queue:
    """Runs jobs in subprocesses, ``workers`` of these at a time, failed jobs twice, the second time alone.

    Args:
        jobs: in the order in which they start.
        workers: how many processes run at a time.
        arguments: options of :mod:`maxent_onpolicy.cli.worker`.
        display: told what happens.
    """

    def __init__(self, jobs: list[Job], workers: int, arguments: list[str], display: Display) -> None:
        self.jobs = jobs
        self.workers = min(workers, len({job.together or id(job) for job in jobs}))
        self.cores = max(1, available_cores() // max(1, self.workers))
        self.arguments = arguments
        self.display = display
        self.stopping = False
        self._waiting = deque(jobs)
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.RLock()

    def run(self) -> None:
        """Work until every job has come to its end, or until SIGINT or SIGTERM has stopped them all."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.workers)]
        with StopSignals() as signals:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.1)
                    with self._lock:
                        self._obey(signals.take())
                        self.display.update()

    def _work(self) -> None:
        while jobs := self._next():
            started = []
            for job in jobs:
                try:
                    job.begin_attempt()
                    started.append(job)
                except Exception as error:
                    # such as a full disk when the directory is made; the other runs go on
                    self._fail(job, error)
            try:
                if started:
                    self._attempt(started)
            except Exception as error:
                for job in started:
                    self._fail(job, error)
            with self._lock:
                for job in jobs:
                    if job.state == "failed" and job.attempts < ATTEMPTS and not self.stopping:
                        job.state, job.together = "waiting", None
                        self._waiting.append(job)
                    self.display.finished(job)

    def _fail(self, job: Job, error: Exception) -> None:
        job.state, job.error = "failed", f"{type(error).__name__}: {error}"

    def _next(self) -> list[Job]:
        """Take the next job, with all that go together with it."""
        with self._lock:
            if not self._waiting or self.stopping:
                return []
            first = self._waiting[0]
            jobs = [job for job in self._waiting if job is first or (job.together and job.together == first.together)]
            for job in jobs:
                self._waiting.remove(job)
            return jobs

    def _attempt(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._wait_for_leftovers(job)
        began = time.monotonic()
        with self._lock:
            if self.stopping:
                for job in jobs:
                    job.state = "interrupted"
                return
            process = start_worker([job.path for job in jobs], self.arguments, self.cores)
            self._running[id(process)] = process
            for job in jobs:
                job.began, job.state = began, "running"
                self.display.started(job)
        try:
            self._listen(jobs, process)
        finally:
            with self._lock:
                del self._running[id(process)]
            for job in jobs:
                job.seconds += time.monotonic() - began
        for job in jobs:
            job.conclude(process.returncode if job.outcome is None else job.outcome, self.stopping)

    def _wait_for_leftovers(self, job: Job) -> None:
        """Let a worker end that a killed benchmark left behind: it does so, with a checkpoint, after its iteration."""
        if wait_until_free(job.path, _SOON):
            return
        with self._lock:
            self.display.message(f"{job.path}: waiting for the process that still runs it")
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while not self.stopping and time.monotonic() < deadline and not wait_until_free(job.path, _SOON):
            pass

    def _listen(self, jobs: list[Job], process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                hear(jobs, line)
        process.wait()

    def _obey(self, asked: int) -> None:
        """First signal: ask every run to stop. Second: kill them."""
        if not asked:
            return
        kill, self.stopping = asked > 1, True
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        if not kill and self._running:
            self.display.message("stopping: each run writes a checkpoint after its iteration; Ctrl-C again kills")
