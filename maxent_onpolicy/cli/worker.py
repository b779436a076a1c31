"""The process behind runs of a benchmark: ``python -m maxent_onpolicy.cli.worker RUN_DIRECTORY [RUN_DIRECTORY ...]``.

Several runs are trained together, on stacked parameters where that is possible.

It speaks to whoever started it in lines on its standard output: those that begin
with :data:`MARK` are progress as JSON, all others are messages. If there are several
runs, ``run`` says which of them is meant, and ``outcome`` what would be the exit
status of that run alone; the process's own is then the worst. If nobody listens
any more it writes its checkpoint and ends, so that no orphan keeps computing.
SIGINT and SIGTERM ask it to do the same, however often they come: a cluster sends
them to every process of a job, and so does whoever watches this one. Only SIGKILL
ends it at once.
"""

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maxent_onpolicy.cli.tracking import Tracking
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError

MARK = "@@ "
COMPLETED, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
# with these a cluster announces that a job has to leave; their default is to end the process
_WARNINGS = ("SIGUSR1", "SIGUSR2")


def main() -> int:
    """Execute the runs in the directories given on the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m maxent_onpolicy.cli.worker", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--no-model", action="store_true")
    parser.add_argument("--trackers", type=lambda text: tuple(filter(None, text.split(","))))
    parser.add_argument("--project")
    options = parser.parse_args()
    for name in _WARNINGS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    settings = {"checkpoint_seconds": options.checkpoint_seconds, "keep_model": not options.no_model, "threads": 1}
    if options.trackers is not None:
        settings["tracking"] = Tracking(options.trackers, options.project)
    if len(options.runs) > 1:
        return _execute_together(options.runs, settings)
    from maxent_onpolicy.cli.runner import Reporter

    return _execute(options.runs[0], {**settings, "insist": False, "reporter": Reporter(progress=_tell)})


def _execute(path: Path, settings: dict[str, Any]) -> int:
    from maxent_onpolicy.cli.runner import Stopped, execute

    try:
        run = RunDirectory(path)
        if run.completed:  # while this process waited in a cluster's queue
            run.discard_checkpoint()
            return COMPLETED
        execute(run, **settings)
    except Stopped:
        return INTERRUPTED
    except (UsageError, RunError) as error:
        print(error, file=sys.stderr)
        return MISUSED
    return COMPLETED


def _execute_together(paths: list[Path], settings: dict[str, Any]) -> int:
    from maxent_onpolicy.algorithms.train_seeds import Join, train_together
    from maxent_onpolicy.cli.runner import Reporter, stop_on_signals

    def training(index: int, stop: Any) -> Callable[[Join], int]:
        def train(join: Join) -> int:
            reporter = Reporter(progress=lambda timesteps, value: _tell(timesteps, value, run=index))
            try:
                code = _execute(paths[index], {**settings, "reporter": reporter, "stop": stop, "join": join})
            except Exception:
                # The others go on; what went wrong is told as the last words of this run alone.
                code = FAILED
                for line in traceback.format_exc().splitlines():
                    _say(run=index, line=line)
            _say(run=index, outcome=code)
            return code

        return train

    with stop_on_signals(insist=False) as stop:
        members = train_together([training(index, stop) for index in range(len(paths))])
    codes = [member.result if member.error is None else FAILED for member in members]
    return next((code for code in (FAILED, MISUSED, INTERRUPTED) if code in codes), COMPLETED)


def _tell(timesteps: int, mean_return: float | None, **which: int) -> None:
    _say(timesteps=timesteps, **{"return": mean_return}, **which)


def _say(**what: Any) -> None:
    try:
        print(MARK + json.dumps(what), flush=True)
    except BrokenPipeError:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (it is the process's output from now on)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
