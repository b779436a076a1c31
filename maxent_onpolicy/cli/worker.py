"""The process behind one run of a benchmark: ``python -m maxent_onpolicy.cli.worker RUN_DIRECTORY``.

It speaks to whoever started it in lines on its standard output: those that begin
with :data:`MARK` are progress as JSON, all others are messages. If nobody listens
any more it writes its checkpoint and ends, so that no orphan keeps computing.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError

MARK = "@@ "
COMPLETED, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main() -> int:
    """Execute the run in the directory given on the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m maxent_onpolicy.cli.worker", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--no-model", action="store_true")
    options = parser.parse_args()

    from maxent_onpolicy.cli.runner import Reporter, Stopped, execute

    reporter = Reporter(progress=_tell)
    try:
        execute(
            RunDirectory(options.run),
            reporter=reporter,
            checkpoint_seconds=options.checkpoint_seconds,
            keep_model=not options.no_model,
            threads=1,
        )
    except Stopped:
        return INTERRUPTED
    except (UsageError, RunError) as error:
        print(error, file=sys.stderr)
        return MISUSED
    return COMPLETED


def _tell(timesteps: int, mean_return: float | None) -> None:
    try:
        print(MARK + json.dumps({"timesteps": timesteps, "return": mean_return}), flush=True)
    except BrokenPipeError:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (it is the process's output from now on)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
