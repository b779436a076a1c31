"""Which runs are in a cluster's hands, written down so that no later command starts them a second time."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from maxent_onpolicy.evaluation.files import write_atomic


@dataclass(frozen=True)
class Submission:
    """A run in a cluster's hands.

    Attributes:
        cluster: ``slurm`` or ``local``.
        job: its id there.
        folder: what submitit keeps about it.
        log: the worker's output.
    """

    cluster: str
    job: str
    folder: str
    log: str


class Record:
    """The submissions of one results directory, in ``jobs/submitted.json``.

    Args:
        results: the suite's results.
    """

    def __init__(self, results: Path) -> None:
        self.results = results.resolve()
        self.path = self.results / "jobs" / "submitted.json"

    def read(self) -> dict[Path, Submission]:
        """Return the submission of each run directory; empty where the file says nothing that can be understood."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return {self.results / run: Submission(**fields) for run, fields in content.items()}
        return {}

    def add(self, submissions: Mapping[Path, Submission]) -> None:
        """Write down that runs were submitted.

        Raises:
            OSError: if the file cannot be written.
        """
        self._write({**self.read(), **{path.resolve(): value for path, value in submissions.items()}})

    def remove(self, runs: Iterable[Path]) -> None:
        """Write down that runs are in nobody's hands any more.

        Raises:
            OSError: if the file cannot be written.
        """
        gone = {path.resolve() for path in runs}
        self._write({path: value for path, value in self.read().items() if path not in gone})

    def _write(self, submissions: Mapping[Path, Submission]) -> None:
        content = {str(path.relative_to(self.results)): asdict(value) for path, value in submissions.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(content, indent=2) + "\n")
