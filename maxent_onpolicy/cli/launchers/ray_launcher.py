"""Runs as tasks of Ray, on this machine or on a cluster."""

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from maxent_onpolicy.cli.jobs import Display, Job
from maxent_onpolicy.cli.launchers.base import End, Request
from maxent_onpolicy.cli.launchers.execution import Execution
from maxent_onpolicy.cli.launchers.remote import RemoteQueue, log_name
from maxent_onpolicy.cli.values import UsageError, check_mapping
from maxent_onpolicy.cli.worker import INTERRUPTED

OPTIONS = ("address",)
_POLL_SECONDS = 0.3
_CONNECT_SECONDS = 5.0


class RayLauncher:
    """Each run is a Ray task with cores, GPUs and memory of its own.

    Args:
        request: what the user asked for; ``extra`` may hold ``address``, which is that of a cluster. Without it
            ``RAY_ADDRESS`` counts, and without that Ray is started on this machine for as long as the runs take.

    Raises:
        UsageError: if Ray is not installed, or an option is not one of Ray's.
    """

    def __init__(self, request: Request) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--launcher ray needs Ray: pip install 'maxent-onpolicy[ray]'") from None
        extra = check_mapping(request.extra, "--launcher-option", OPTIONS)
        for name in ("time", "partition", "detach"):
            if getattr(request, name):
                raise UsageError(f"--{name} is for --launcher submitit, not for ray")
        self.ray: Any = ray
        self.request = request
        self.address = str(extra.get("address") or os.environ.get("RAY_ADDRESS") or "local")
        self.folder = (request.results / "jobs" / datetime.now().strftime("%Y-%m-%dT%H-%M-%S")).resolve()

    def describe(self) -> str:
        """Return where the runs go."""
        return "Ray on this machine" if self.address == "local" else f"Ray at {self.address}"

    def run(self, jobs: list[Job], arguments: list[str], display: Display) -> End:
        """Carry out ``jobs``; see :meth:`Launcher.run <maxent_onpolicy.cli.launchers.base.Launcher.run>`."""
        self._connect()
        try:
            self._check_resources()
            self.folder.mkdir(parents=True, exist_ok=True)

            def submit(batch: Sequence[Job]) -> list[RayTask]:
                return [self._submit(job, arguments) for job in batch]

            limit = self.request.jobs or len(jobs)
            queue = RemoteQueue(jobs, submit, limit, display, poll_seconds=_POLL_SECONDS)
            queue.run()
        finally:
            self.ray.shutdown()
        return "stopped" if queue.stopping else "ended"

    def _connect(self) -> None:
        local = self.address == "local"
        _check_reachable(self.address)
        cores = {"num_cpus": self.request.jobs * self._cpus} if local and self.request.jobs else {}
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        if local:
            quiet["include_dashboard"] = False
        try:
            self.ray.init(address=self.address, **cores, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"cannot connect to Ray at {self.address}: {reason}") from None

    @property
    def _cpus(self) -> int:
        return self.request.cpus or 1

    def _demand(self) -> dict[str, Any]:
        request = self.request
        memory = {} if request.memory is None else {"memory": int(request.memory * 1e9)}
        return {"num_cpus": self._cpus, "num_gpus": request.gpus or 0, **memory}

    def _check_resources(self) -> None:
        """A cluster may grow; this machine does not, and Ray would wait for it for ever."""
        if self.address != "local":
            return
        has = self.ray.cluster_resources()
        names = {"num_cpus": ("CPU", "--cpus"), "num_gpus": ("GPU", "--gpus"), "memory": ("memory", "--memory")}
        for key, wanted in self._demand().items():
            resource, option = names[key]
            if wanted > has.get(resource, 0):
                unit = 1e9 if key == "memory" else 1
                there = has.get(resource, 0) / unit
                raise UsageError(f"{option} {wanted / unit:g} is more than Ray has on this machine: {there:.3g}")

    def _submit(self, job: Job, arguments: list[str]) -> "RayTask":
        log = self.folder / log_name(job)
        execution = Execution((job.path.resolve(),), tuple(arguments), log, Path.cwd(), self._cpus)
        # a retry is the benchmark's business: it counts attempts and says why
        task = self.ray.remote(max_retries=0, **self._demand())(execute).options(name=job.config.name)
        return RayTask(self.ray, task.remote(execution), log)


def _check_reachable(address: str) -> None:
    """Ray tries an address where nobody answers for many minutes.

    Raises:
        UsageError: if ``address`` is of the form ``host:port`` and nobody answers there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot connect to Ray at {address}: {error}") from None


def execute(execution: Execution) -> int:
    """Run an :class:`Execution` in a Ray task; return the worker's exit status."""
    # Ray cancels by SIGINT, which is ignored by whatever was started from a shell's background or by nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return execution()


class RayTask:
    """A run in Ray's hands.

    Args:
        ray: the module.
        reference: of the task's result.
        log: where the worker's output goes.
    """

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self.ray = ray
        self.reference = reference
        self.log = log

    def outcome(self) -> int | str | None:
        """Return the worker's exit status, or why there is none; ``None`` as long as the task is not over."""
        errors = self.ray.exceptions
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self.ray.get(self.reference))
        except errors.TaskCancelledError:
            return INTERRUPTED
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None) or error
            return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
        except errors.RayError as error:
            return f"Ray lost it: {str(error).strip().splitlines()[0]}"

    def stop(self, kill: bool) -> None:
        """Interrupt the task, which then waits for the worker's checkpoint; with ``kill`` end it at once."""
        with suppress(self.ray.exceptions.RayError):
            self.ray.cancel(self.reference, force=kill)
