"""What runs on another machine: it starts the worker there, and writes what it says to a log on the shared disk."""

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maxent_onpolicy.cli.jobs import start_worker
from maxent_onpolicy.cli.lock import wait_until_free
from maxent_onpolicy.cli.worker import INTERRUPTED, MARK
from maxent_onpolicy.evaluation.runs import RunDirectory

_POLL_SECONDS = 0.1
_LEFTOVER_SECONDS = 60.0


@dataclass
class Execution:
    """Executes runs in a worker process of this machine; calling it returns the worker's exit status.

    It is what is pickled and sent: paths and options, no model.

    Args:
        runs: absolute paths of the run directories.
        arguments: options of :mod:`maxent_onpolicy.cli.worker`.
        log: absolute path of the file that the output is added to.
        cwd: where to work, so that a suite's own modules are found as they were at the start.
        cores: how many the environments may keep busy.
    """

    runs: tuple[Path, ...]
    arguments: tuple[str, ...]
    log: Path
    cwd: Path
    cores: int = 1
    _process: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)
    _stopped: bool = field(default=False, init=False, repr=False)

    def __call__(self) -> int:
        """Execute the runs.

        Raises:
            FileNotFoundError: if this machine does not see the run directories.
        """
        for run in self.runs:
            if not run.is_dir():
                raise FileNotFoundError(f"{run} is not on this machine; --results must be on a disk all machines share")
        self._tell(event="started", timesteps=int(RunDirectory(self.runs[0]).status["timesteps"]))
        for run in self.runs:
            # what a killed job leaves behind needs a moment to see that nobody listens any more
            wait_until_free(run, _LEFTOVER_SECONDS)
        if self._stopped:
            return INTERRUPTED
        self._process = start_worker(self.runs, self.arguments, self.cores, self.cwd if self.cwd.is_dir() else None)
        listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        listener.start()
        try:
            while listener.is_alive():
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            self.stop()
        code = self._process.wait()
        return INTERRUPTED if self._stopped and code < 0 else code

    def stop(self) -> None:
        """Ask the worker to end with a checkpoint, and wait until it has; may be called in a signal handler."""
        self._stopped = True
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        while self._process.poll() is None:
            time.sleep(_POLL_SECONDS)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout, self.log.open("a", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
        process.wait()

    def _tell(self, **what: Any) -> None:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{MARK}{json.dumps(what)}\n".encode())
        finally:
            os.close(descriptor)
