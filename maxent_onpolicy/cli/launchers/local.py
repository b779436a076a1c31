"""Runs as processes of this machine."""

from maxent_onpolicy.cli.jobs import Display, Job
from maxent_onpolicy.cli.launchers.base import End, Request
from maxent_onpolicy.cli.queue import Queue
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.cores import available_cores


class LocalLauncher:
    """Each run is a process here.

    Args:
        request: what the user asked for.

    Raises:
        UsageError: if that is something only a cluster can do.
    """

    def __init__(self, request: Request) -> None:
        for name in ("cpus", "gpus", "memory", "time", "partition", "detach"):
            if getattr(request, name):
                raise UsageError(f"--{name} is for --launcher submitit or ray, not for local")
        if request.extra:
            raise UsageError(f"--launcher local has no options, got {', '.join(request.extra)}")
        self.workers = request.jobs or available_cores()

    def describe(self) -> str:
        """Return how many run at a time."""
        return f"{self.workers} at a time"

    def run(self, jobs: list[Job], arguments: list[str], display: Display) -> End:
        """Carry out ``jobs``; see :meth:`Launcher.run <maxent_onpolicy.cli.launchers.base.Launcher.run>`."""
        queue = Queue(jobs, self.workers, arguments, display)
        queue.run()
        return "stopped" if queue.stopping else "ended"
