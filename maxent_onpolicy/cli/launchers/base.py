"""What a launcher is asked for, and what it is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from maxent_onpolicy.cli.jobs import Display, Job

End = Literal["ended", "stopped", "detached"]


@dataclass(frozen=True)
class Request:
    """How a benchmark is to be launched; ``None`` is the launcher's default.

    Attributes:
        name: of the suite.
        results: the suite's results.
        jobs: how many runs at a time.
        cpus: cores of a run.
        gpus: GPUs of a run, or a part of one.
        memory: of a run, in GB.
        time: limit of a run's job in minutes.
        partition: of the cluster.
        detach: whether to return once everything is submitted.
        extra: further options, as the launcher's own package names them.
    """

    name: str
    results: Path
    jobs: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    memory: float | None = None
    time: int | None = None
    partition: str | None = None
    detach: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class Launcher(Protocol):
    """Carries out the jobs of a benchmark."""

    def describe(self) -> str:
        """Return where and how the jobs run, in a few words."""

    def run(self, jobs: list[Job], arguments: list[str], display: Display) -> End:
        """Carry out ``jobs``; afterwards their states say how they ended.

        Args:
            jobs: in the order in which they start.
            arguments: options of :mod:`maxent_onpolicy.cli.worker`.
            display: told what happens.

        Returns:
            ``stopped`` after SIGINT or SIGTERM, ``detached`` if the jobs go on without this process.

        Raises:
            UsageError: if the jobs cannot be started with these options.
        """
