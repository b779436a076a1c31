"""Runs as jobs of SLURM, through submitit; also in submitit's own processes on this machine, to try it out."""

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from maxent_onpolicy.cli.jobs import Display, Job
from maxent_onpolicy.cli.launchers.base import End, Request
from maxent_onpolicy.cli.launchers.execution import Execution
from maxent_onpolicy.cli.launchers.record import Record, Submission
from maxent_onpolicy.cli.launchers.remote import RemoteQueue, log_name
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.cli.worker import INTERRUPTED
from maxent_onpolicy.cores import available_cores
from maxent_onpolicy.validation import did_you_mean

CLUSTERS = ("slurm", "local")
_CONSTRUCTOR = ("max_num_timeout", "max_pickle_size_gb", "python")
# how long a network file system may take to show a result
_RESULT_SECONDS = 15.0
# what follows the first signal of a preemption comes within SLURM's grace time
_GRACE_SECONDS = 120.0


class SubmititLauncher:
    """Each run is a job; a job that has to leave its machine is queued again and goes on from its checkpoint.

    Args:
        request: what the user asked for; ``extra`` holds ``cluster`` and what submitit's ``AutoExecutor`` knows.

    Raises:
        UsageError: if submitit or SLURM is missing, or submitit does not know an option.
    """

    def __init__(self, request: Request) -> None:
        self.submitit = _import()
        self.request = request
        extra = dict(request.extra)
        self.cluster = extra.pop("cluster", "slurm")
        if self.cluster not in CLUSTERS:
            hint = did_you_mean(self.cluster, CLUSTERS)
            raise UsageError(f"--launcher-option cluster={self.cluster}{hint}: expected {' or '.join(CLUSTERS)}")
        if request.time is None:
            raise UsageError("--launcher submitit needs --time MINUTES; a run that takes longer is queued again")
        if request.gpus is not None and request.gpus != int(request.gpus):
            raise UsageError(f"--gpus {request.gpus}: a cluster gives whole GPUs only")
        self.folder = (request.results / "jobs" / datetime.now().strftime("%Y-%m-%dT%H-%M-%S")).resolve()
        self.executor = self._make_executor(extra)
        self.record = Record(request.results)

    def describe(self) -> str:
        """Return where the jobs go."""
        where = "SLURM" if self.cluster == "slurm" else "submitit on this machine"
        return f"{where}, {self.request.time} min each"

    def run(self, jobs: list[Job], arguments: list[str], display: Display) -> End:
        """Carry out ``jobs``; see :meth:`Launcher.run <maxent_onpolicy.cli.launchers.base.Launcher.run>`.

        Jobs that are with the cluster already are not submitted again; without ``detach`` they are waited for as well.
        """
        held = outstanding(self.request.results, display)
        known = [job for job in jobs if job.path.resolve() in held]
        if known:
            first = held[known[0].path.resolve()]
            count = "1 run is" if len(known) == 1 else f"{len(known)} runs are"
            display.message(f"{count} with the cluster already (job {first.name}: {first.state})")
        if self.request.detach:
            self._detach([job for job in jobs if job not in known], arguments, display)
            return "detached"
        limit = self.request.jobs or (available_cores() if self.cluster == "local" else len(jobs))

        def submit(batch: Sequence[Job]) -> list[ClusterJob]:
            return self._submit(batch, arguments)

        queue = RemoteQueue(jobs, submit, limit, display, lambda job: self.record.remove([job.path]))
        for job in known:
            queue.attach(job, held[job.path.resolve()])
        queue.run()
        return "stopped" if queue.stopping else "ended"

    def _make_executor(self, extra: dict[str, Any]) -> Any:
        constructor = {key: extra.pop(key) for key in list(extra) if key.partition("_")[2] in _CONSTRUCTOR}
        request = self.request
        parameters = {
            "name": request.name,
            "timeout_min": request.time,
            "mem_gb": request.memory,
            "cpus_per_task": request.cpus or 1,
            "gpus_per_node": None if request.gpus is None else int(request.gpus),
            "slurm_partition": request.partition,
            "slurm_array_parallelism": request.jobs,
        }
        try:
            executor = self.submitit.AutoExecutor(self.folder, cluster=self.cluster, **constructor)
            executor.update_parameters(**{key: value for key, value in parameters.items() if value is not None})
            executor.update_parameters(**extra)
        except RuntimeError:
            raise UsageError(
                "--launcher submitit: there is no SLURM here (no `srun`); "
                "--launcher-option cluster=local tries the same on this machine"
            ) from None
        except (NameError, ValueError, TypeError, AssertionError) as error:
            raise UsageError(_explain(str(error), [*constructor, *extra])) from None
        return executor

    def _submit(self, batch: Sequence[Job], arguments: list[str]) -> list["ClusterJob"]:
        place, cores = Path.cwd(), self.request.cpus or 1
        executions = [
            ClusterExecution((job.path.resolve(),), tuple(arguments), self.folder / log_name(job), place, cores)
            for job in batch
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with _without_sigint():
                handles = self.executor.submit_array(executions)
        except (RuntimeError, OSError, TypeError, ValueError, AssertionError) as error:
            raise UsageError(f"the cluster refused the jobs: {str(error).strip()}") from None
        jobs = [ClusterJob(handle, execution.log) for handle, execution in zip(handles, executions, strict=True)]
        self.record.add(
            {
                job.path: Submission(self.cluster, handle.name, str(self.folder), str(handle.log))
                for job, handle in zip(batch, jobs, strict=True)
            }
        )
        return jobs

    def _detach(self, jobs: list[Job], arguments: list[str], display: Display) -> None:
        if not jobs:
            return
        for job in jobs:
            job.begin_attempt()
        names = [handle.name for handle in self._submit(jobs, arguments)]
        what = f"1 run as job {names[0]}" if len(names) == 1 else f"{len(names)} runs as jobs {_listed(names)}"
        display.message(f"submitted {what}; logs in {_shown(self.folder)}")


class ClusterExecution(Execution):
    """An :class:`Execution` that submitit stops and queues again."""

    def __call__(self) -> int:
        """Execute the runs; see :class:`Execution`."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, stop)
        code = super().__call__()
        if code == INTERRUPTED and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            # SLURM asked every process to end; whether it wants the job back is told by what it does next:
            # submitit's signal, whose handler does not return, or a kill. A job that is over cannot come back.
            time.sleep(_GRACE_SECONDS)
        return code

    def checkpoint(self) -> Any:
        """Stop with a checkpoint; return what is to be queued again. Called by submitit in its signal handler."""
        self.stop()
        self._tell(event="stopped")
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(replace(self))


class ClusterJob:
    """A job in a cluster's hands.

    Args:
        job: submitit's.
        log: where the worker's output goes.
    """

    def __init__(self, job: Any, log: Path) -> None:
        self.job = job
        self.log = log
        self._local = type(job).__name__ == "LocalJob"
        self._stopped = False
        self._gone: float | None = None

    @property
    def name(self) -> str:
        """The cluster's name for it."""
        return str(self.job.job_id)

    @property
    def state(self) -> str:
        """What the cluster says about it."""
        if self._local:
            return "RUNNING" if self._alive() else "FINISHED"
        return str(self.job.state)

    def outcome(self) -> int | str | None:
        """Return the worker's exit status, or why there is none; ``None`` as long as the job is not over."""
        if self._alive() if self._local else not self.job.done():
            return None
        if self.job.paths.result_pickle.exists():
            return self._result()
        self._gone = self._gone or time.monotonic()
        if not self._local and not self._stopped and time.monotonic() - self._gone < _RESULT_SECONDS:
            return None
        state = self.state
        if state.startswith("CANCELLED"):
            return INTERRUPTED
        return f"the job ended without a result ({state}); see {_shown(self.job.paths.stderr)}"

    def stop(self, kill: bool) -> None:
        """Ask the job to end with a checkpoint, or end it at once."""
        self._stopped = True
        if self._local:
            with suppress(ProcessLookupError):
                os.kill(int(self.name), signal.SIGKILL if kill else signal.SIGTERM)
        else:
            self.job.cancel(check=False)
            self.job.watcher.clear()  # else it may look at the state every few minutes only

    def _alive(self) -> bool:
        if not self.job.done():
            return True
        # a job that another process submitted is known by its number only
        return self.job.state.startswith("NO PROCESS") and _exists(int(self.name))

    def _result(self) -> int | str:
        try:
            return int(self.job.result())
        except RuntimeError as error:
            lines = re.split("-{22,}", str(error))[1:2] or [str(error)]
            reason = lines[0].strip().splitlines()[-1]
            return reason.rpartition("UncompletedJobError: ")[2]


def outstanding(results: Path, display: Display | None = None) -> dict[Path, ClusterJob]:
    """Return the run directories that are with a cluster.

    Args:
        results: the suite's results.
        display: told which are no longer there and did not complete; without it they are not forgotten.

    Raises:
        UsageError: if runs were submitted, and submitit is not installed here.
    """
    from maxent_onpolicy.evaluation.runs import RunDirectory, RunError

    record = Record(results)
    found: dict[Path, ClusterJob] = {}
    gone: list[Path] = []
    for path, submission in record.read().items():
        submitit = _import()
        cls = submitit.LocalJob if submission.cluster == "local" else submitit.SlurmJob
        handle = ClusterJob(cls(submission.folder, submission.job), Path(submission.log))
        outcome = handle.outcome()
        if outcome is None:
            found[path] = handle
            continue
        gone.append(path)
        with suppress(RunError):
            run = RunDirectory(path)
            if display is not None and not run.completed:
                reason = outcome if isinstance(outcome, str) else run.status["error"] or run.status["state"]
                display.message(f"job {handle.name} did not complete {path.relative_to(record.results)}: {reason}")
    if gone and display is not None:
        record.remove(gone)
    return found


@contextmanager
def _without_sigint() -> Iterator[None]:
    """Let what is started inside ignore Ctrl-C, which a terminal sends to every process; the launcher stops them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _import() -> Any:
    try:
        import submitit
    except ImportError:
        raise UsageError("--launcher submitit needs submitit: pip install 'maxent-onpolicy[slurm]'") from None
    return submitit


def _explain(message: str, given: Sequence[str]) -> str:
    """Return submitit's complaint about an option as ours, with the closest name it knows."""
    first, *_ = message.strip().splitlines()
    what, _, valid = first.partition(" Valid arguments: ")
    name = next((key for key in given if re.search(rf"['\"]{key}['\"]", what)), "")
    cluster = name.partition("_")[0]
    known = [f"{cluster}_{key}" for key in valid.split(", ")] if valid else []
    hint = did_you_mean(name, known) if known else ""
    listed = f"; submitit knows {', '.join(sorted(known))}" if known else ""
    return f"--launcher-option {name}{hint}:".replace(" :", ":") + f" {what.rstrip('. ')}{listed}"


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _listed(names: Sequence[str]) -> str:
    return f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} ... {names[-1]}"


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
