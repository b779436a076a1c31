"""Jobs that somebody else runs: handed over, followed through their logs, started again when they are lost."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from maxent_onpolicy.cli.jobs import ATTEMPTS, Display, Job, StopSignals
from maxent_onpolicy.cli.values import UsageError

_PAUSE_SECONDS = 0.1


class Handle(Protocol):
    """A job in somebody else's hands.

    Attributes:
        log: where the worker's output goes.
    """

    log: Path

    def outcome(self) -> int | str | None:
        """Return the worker's exit status, or why there is none; ``None`` as long as the job is not over."""

    def stop(self, kill: bool) -> None:
        """Ask the job to write its checkpoint and end, or end it at once."""


Submit = Callable[[Sequence[Job]], Sequence[Handle]]


@dataclass
class Tail:
    """Reads what is added to a file, in whole lines.

    Args:
        path: the file; it need not exist yet.
    """

    path: Path
    offset: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def lines(self) -> list[str]:
        """Return the lines added since the last call."""
        try:
            # opened anew each time: that makes a network file system look at the server's copy
            with self.path.open("rb") as file:
                file.seek(self.offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


class RemoteQueue:
    """Hands jobs over, follows them, and hands failed ones over a second time.

    Args:
        jobs: in the order in which they start.
        submit: hands jobs over; called with as many as there is room for.
        limit: how many are handed over at a time.
        display: told what happens.
        ended: called with each job that is over.
        poll_seconds: between two looks at the jobs.
    """

    def __init__(
        self,
        jobs: list[Job],
        submit: Submit,
        limit: int,
        display: Display,
        ended: Callable[[Job], None] = lambda job: None,
        poll_seconds: float = 1.0,
    ) -> None:
        self.submit = submit
        self.limit = limit
        self.display = display
        self.ended = ended
        self.poll_seconds = poll_seconds
        self.stopping = False
        self._jobs = {job.path: job for job in jobs}
        self._waiting = deque(jobs)
        self._active: dict[Path, tuple[Handle, Tail]] = {}
        self._tails: dict[Path, Tail] = {}

    def attach(self, job: Job, handle: Handle) -> None:
        """Follow a job that was handed over before."""
        self._waiting.remove(job)
        job.attempts = 1
        tail = Tail(handle.log)
        for line in tail.lines():
            if job.hear(line):
                self._started(job)
        job.done_before = job.timesteps
        self._active[job.path] = (handle, tail)

    def run(self) -> None:
        """Work until every job has come to its end, or until SIGINT or SIGTERM has stopped them all."""
        with StopSignals() as signals:
            while self._active or (self._waiting and not self.stopping):
                self._obey(signals.take())
                if not self.stopping:
                    self._hand_over()
                for path in list(self._active):
                    self._look(self._jobs[path])
                self.display.update()
                self._rest(signals)

    def _rest(self, signals: StopSignals) -> None:
        until = time.monotonic() + self.poll_seconds
        while self._active and not signals.news and time.monotonic() < until:
            time.sleep(_PAUSE_SECONDS)

    def _hand_over(self) -> None:
        room = self.limit - len(self._active)
        batch: list[Job] = []
        while self._waiting and len(batch) < room:
            job = self._waiting.popleft()
            try:
                job.begin_attempt()
            except Exception as error:
                # such as a full disk when the directory is made; the other runs go on
                job.state, job.error = "failed", f"{type(error).__name__}: {error}"
                self._over(job)
            else:
                batch.append(job)
        try:
            handles = self.submit(batch) if batch else ()
        except UsageError as error:
            if not self._active:
                raise
            for job in batch:
                job.state, job.error, job.attempts = "failed", str(error), ATTEMPTS
                self._over(job)
            return
        for job, handle in zip(batch, handles, strict=True):
            # a second attempt adds to the first one's log
            self._active[job.path] = (handle, self._tails.setdefault(handle.log, Tail(handle.log)))

    def _look(self, job: Job) -> None:
        handle, tail = self._active[job.path]
        outcome = handle.outcome()
        for line in tail.lines():
            told = job.hear(line)
            if told.get("event") == "stopped":
                job.state = "waiting"
                self.display.message(f"queued again {job.config.name}: its machine is needed for something else")
            elif told and job.state == "waiting":
                self._started(job)
                self.display.started(job)
        if outcome is None:
            return
        del self._active[job.path]
        job.seconds += time.monotonic() - job.began if job.began else 0.0
        queued = job.state == "waiting"
        job.conclude(outcome, self.stopping)
        if not (queued and job.state == "interrupted"):
            self._over(job)
        self.ended(job)

    def _over(self, job: Job) -> None:
        if job.state == "failed" and job.attempts < ATTEMPTS and not self.stopping:
            job.state = "waiting"
            self._waiting.append(job)
        self.display.finished(job)

    def _started(self, job: Job) -> None:
        job.state, job.began = "running", time.monotonic()

    def _obey(self, asked: int) -> None:
        """First signal: ask every job to stop. Second: end them."""
        if not asked:
            return
        kill, self.stopping = asked > 1, True
        if not kill and self._active:
            self.display.message("stopping: each run writes a checkpoint after its iteration; Ctrl-C again kills")
        for handle, _ in self._active.values():
            handle.stop(kill)


def log_name(job: Job) -> str:
    """Return the name of the file that a job's output goes to."""
    return ".".join(job.path.parts[-3:]) + ".log"
