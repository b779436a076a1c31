"""``torchrun ... -m maxent_onpolicy train``: several processes, *ranks*, train one run.

Rank 0 does what a single process would do: it reads the settings, owns the run
directory, logs, evaluates and writes checkpoints. The others only train with it.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from maxent_onpolicy.cli.config import RunConfig
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory

_PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>


def rank_and_size() -> tuple[int, int]:
    """Return this process's number and how many ``torchrun`` started; (0, 1) without it. Loads no PyTorch."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def end_with_torchrun() -> None:
    """Stop with a checkpoint when ``torchrun`` is killed: it has put each process into a group of its own.

    On Linux alone; elsewhere the processes go on to the end of the run.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class MistakeOfRank0(Exception):
    """Rank 0 has told the user what is wrong; the others only end."""


def open_together(open_run: Callable[[], RunDirectory]) -> tuple[RunDirectory, bool]:
    """Let rank 0 make or find the run, and the others open it.

    Args:
        open_run: called by rank 0.

    Returns:
        The run, and whether it goes on from a checkpoint.

    Raises:
        UsageError: on rank 0, if ``open_run`` does.
        MistakeOfRank0: on the others, then.
        UsageError: on the others, if they do not see the directory.
    """
    from maxent_onpolicy.engine.distributed import broadcast_object, connect, reporting_failure

    rank = connect().rank
    run, mistake = None, None
    with reporting_failure():
        if rank == 0:
            try:
                run = open_run()
            except UsageError as error:
                mistake = error
        place = None if run is None else (str(run.path.absolute()), run.checkpoint.exists())
        place = broadcast_object(place)
    if mistake is not None:
        raise mistake
    if place is None:
        raise MistakeOfRank0
    path, goes_on = place
    if run is None:
        if not Path(path).exists():
            raise UsageError(f"process {rank} does not see {path}; all machines must share the folder of results")
        run = RunDirectory(Path(path))
    return run, goes_on


def follow(run: RunDirectory, goes_on: bool, threads: int) -> None:
    """Train together with rank 0, and write nothing.

    Args:
        run: its settings and, if it goes on, its checkpoint are read.
        goes_on: whether it goes on from the checkpoint.
        threads: torch's.

    Raises:
        Stopped: if any process was asked to stop.
    """
    from stable_baselines3.common.logger import Logger

    from maxent_onpolicy.cli import runner

    config = RunConfig.from_json(run.config)
    reporter = runner.Reporter(message=lambda text: None)
    with runner.stop_on_signals(insist=False) as stop:
        runner._set_threads(threads)
        model: Any = (
            runner._continued(run, config, reporter)
            if goes_on
            else runner.make_model(config, runner.make_training_env(config))
        )
        model.set_logger(Logger(None, []))
        checkpoint = runner.RunCheckpoint(run, stop, runner.Clock(0.0), 0.0)
        remaining = config.total_timesteps - model.num_timesteps
        model.learn(remaining, callback=[checkpoint], reset_num_timesteps=model.num_timesteps == 0)
        model.get_env().close()


def agree(due: bool, stop: bool) -> tuple[bool, bool]:
    """Return whether rank 0 is due to save, and whether any rank was asked to stop; in a single process, its own."""
    if rank_and_size()[1] == 1:
        return due, stop
    from maxent_onpolicy.engine.distributed import gather_objects

    answers = gather_objects((due, stop))
    return answers[0][0], any(asked for _, asked in answers)


def leave() -> None:
    """Part from the other processes, after training."""
    if rank_and_size()[1] > 1:
        from maxent_onpolicy.engine.distributed import disconnect

        with suppress(RuntimeError):  # another may be gone already
            disconnect()
