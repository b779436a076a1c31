"""One run, from its directory to its end: train, evaluate, checkpoint, stop when asked, go on where it stopped."""

import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from maxent_onpolicy.algorithms.train_seeds import Join
from maxent_onpolicy.callbacks import CheckpointCallback, write_checkpoint
from maxent_onpolicy.cli.build import device_of, make_evaluation_env, make_model, make_training_env
from maxent_onpolicy.cli.config import RunConfig, has_test
from maxent_onpolicy.cli.lock import locked
from maxent_onpolicy.cli.ranks import agree
from maxent_onpolicy.cli.registry import is_stock, load_class
from maxent_onpolicy.cli.stock import continue_stock
from maxent_onpolicy.cli.tracking import RunTracker, Tracking, tracked
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.engine.rollout import steps_on_tensors
from maxent_onpolicy.env_ids import is_text
from maxent_onpolicy.envs.normalize import VecNormalize
from maxent_onpolicy.envs.state import StateNotRestorableError
from maxent_onpolicy.evaluation.files import remove_temporaries, replacing
from maxent_onpolicy.evaluation.protocol import CsvFormat, Episodes, EvaluationCallback
from maxent_onpolicy.evaluation.provenance import collect_provenance
from maxent_onpolicy.evaluation.runs import CsvLog, RunDirectory

_ROWS = 100  # of train.csv, at most; trackers get every row
# what SB3's zip reader raises for a file that is no model, or half of one
_UNREADABLE = (zipfile.BadZipFile, EOFError, KeyError, ValueError, RuntimeError)


class Stopped(Exception):
    """The run was asked to stop, and has written what it needs to go on."""


@dataclass
class Reporter:
    """Where a run tells what it is doing.

    Attributes:
        progress: called now and then with the timesteps and the mean return of recent training episodes.
        evaluated: called after each evaluation with the timesteps and its episodes, by the name of the mode.
        message: called with a line for the user.
    """

    progress: Callable[[int, float | None], None] = lambda timesteps, mean_return: None
    evaluated: Callable[[int, dict[str, Episodes]], None] = lambda timesteps, results: None
    message: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)


@dataclass
class StopRequest:
    """Set by a signal; looked at between iterations."""

    requested: bool = False


@dataclass
class Clock:
    """Wall time of a run over all its attempts, in seconds.

    Attributes:
        before: what earlier attempts took.
    """

    before: float
    started: float = field(default_factory=time.monotonic)

    def __call__(self) -> float:
        """Return the seconds so far."""
        return self.before + time.monotonic() - self.started


@dataclass
class Attempt:
    """What an attempt at a run is made with.

    Attributes:
        run: its directory.
        reporter: receives progress.
        stop: when requested, a last checkpoint is written and training ends.
        clock: the run's wall time.
        checkpoint_seconds: wall time between checkpoints.
        keep_model: whether ``model.zip`` is written at the end.
        tracker: where it is tracked.
        join: called with the model before it is trained.
    """

    run: RunDirectory
    reporter: Reporter
    stop: StopRequest
    clock: Clock
    checkpoint_seconds: float
    keep_model: bool
    tracker: RunTracker
    join: Join | None = None

    def open_logs(self, timesteps: int) -> tuple[CsvLog, CsvLog, list[KVWriter]]:
        """Return both logs, without rows beyond ``timesteps``, and what a row of training is written to."""
        logs = self.run.train_log(), self.run.eval_log()
        for log in logs:
            log.truncate(timesteps or -1)
        # a kill between the checkpoint and the status leaves rows that are younger than the status
        self.clock.before = max(self.clock.before, logs[0].last("wall_seconds") or 0.0)
        rows = CsvFormat(logs[0], self.clock, self.run.config["total_timesteps"] // _ROWS)
        return *logs, [rows, *self.tracker.start(timesteps)]


def execute(
    run: RunDirectory,
    *,
    reporter: Reporter | None = None,
    checkpoint_seconds: float = 60.0,
    keep_model: bool = True,
    threads: int | None = None,
    insist: bool = True,
    stop: StopRequest | None = None,
    join: Join | None = None,
    tracking: Tracking | None = None,
) -> None:
    """Train the run in ``run`` from its checkpoint, or from the start if there is none, to its end.

    Afterwards the status is ``completed``. After SIGINT or SIGTERM it is
    ``interrupted``, with a checkpoint from which training goes on bit for bit where
    the environment's state can be restored. After an exception it is ``failed``.

    Args:
        run: the directory.
        reporter: receives progress.
        checkpoint_seconds: wall time between checkpoints.
        keep_model: whether ``model.zip`` is written at the end.
        threads: torch's threads; ``None`` leaves them as they are.
        insist: whether a second SIGINT or SIGTERM ends the process at once.
        stop: set by whoever listens to signals, if that is not to be this function.
        join: called with the model before it is trained; see
            :func:`~maxent_onpolicy.algorithms.train_seeds.train_together`.
        tracking: where it is tracked; ``None`` as before, which is TensorBoard alone by default.

    Raises:
        Stopped: if the run was asked to stop.
        UsageError: if another process is running this directory.
    """
    reporter = reporter or Reporter()
    listening = stop_on_signals(insist) if stop is None else nullcontext(stop)
    with locked(run.path), listening as stop:
        _set_threads(threads)
        remove_temporaries(run.path)
        began = {"attempts": run.status["attempts"] + 1, "started": run.status["started"] or _now()}
        run.write_status("running", error=None, finished=None, **began)
        _note_changed_provenance(run, threads)
        clock = Clock(float(run.status["wall_seconds"]))
        try:
            with tracked(run, tracking, reporter.message, (Stopped, KeyboardInterrupt)) as tracker:
                attempt = Attempt(run, reporter, stop, clock, checkpoint_seconds, keep_model, tracker, join)
                timesteps = _trainer_of(run)(attempt)
        except Stopped:
            run.write_status("interrupted", finished=_now())
            raise
        except BaseException as error:
            # a full disk may refuse this too; whoever started the run then finds it unfinished
            with suppress(OSError):
                run.write_status("failed", error=describe(error), finished=_now())
            raise
        run.eval_log().sync()  # "completed" must not outlive the last evaluation when the machine stops
        run.write_status("completed", timesteps=timesteps, finished=_now(), wall_seconds=round(clock(), 3))
        run.discard_checkpoint()


def _trainer_of(run: RunDirectory) -> Callable[[Attempt], int]:
    """Return what trains a run; it returns the timesteps at the end."""
    if not is_text(run.env_id):
        return _train
    from maxent_onpolicy.cli.llm.training import train

    return train


def _train(attempt: Attempt) -> int:
    run, reporter, tracker, clock = attempt.run, attempt.reporter, attempt.tracker, attempt.clock
    config = RunConfig.from_json(run.config)
    checkpoint = RunCheckpoint(run, attempt.stop, clock, attempt.checkpoint_seconds)
    if run.checkpoint.exists():
        model = _continued(run, config, reporter)
    else:
        clock.before = 0.0
        model = make_model(config, make_training_env(config))
    evaluation_env = make_evaluation_env(config)
    test_env = make_evaluation_env(config, split="test") if has_test(config) else None
    train_log, eval_log, outputs = attempt.open_logs(model.num_timesteps)
    checkpoint.logs = train_log, eval_log
    model.set_logger(Logger(None, outputs))

    def evaluated(timesteps: int, results: dict[str, Episodes]) -> None:
        tracker.evaluated(timesteps, results)
        reporter.evaluated(timesteps, results)

    known = {key: value for key, value in config.evaluation.items() if key in ("every", "episodes", "seed", "modes")}
    callbacks: list[BaseCallback] = [
        EvaluationCallback(evaluation_env, eval_log, **known, test_env=test_env, on_result=evaluated),
        checkpoint,
        ProgressCallback(reporter),
    ]
    if attempt.join is not None and (reason := attempt.join(model)) is not None:
        reporter.message(f"{config.name}: trained by itself because of {reason}")
    remaining = config.total_timesteps - model.num_timesteps
    model.learn(remaining, callback=callbacks, reset_num_timesteps=model.num_timesteps == 0)
    if attempt.keep_model:
        save_model(model, run, run.model)
    else:
        run.normalization.unlink(missing_ok=True)
    for env in (model.get_env(), evaluation_env, test_env):
        if env is not None:
            env.close()
    return model.num_timesteps


def _continued(run: RunDirectory, config: RunConfig, reporter: Reporter) -> BaseAlgorithm:
    """Return the model at its checkpoint, ready to go on."""
    cls: Any = load_class(config.algorithm)
    env, device = make_training_env(config), device_of(config)
    try:
        if is_stock(cls):
            stock, reason = continue_stock(cls, run, config, env)
            reporter.message(f"{config.name}: goes on with new episodes, not bit for bit: {reason}")
            return stock
        try:
            model: BaseAlgorithm = cls.load(run.checkpoint, env, device, resume=True)
        except StateNotRestorableError as error:
            reporter.message(f"{config.name}: goes on with new episodes, not bit for bit: {error}")
            model = cls.load(run.checkpoint, env, device, resume="new_episodes")
    except _UNREADABLE as error:
        env.close()
        raise UsageError(f"{run.checkpoint} cannot be loaded ({error}); `--restart` starts the run over") from error
    return model


def save_model(model: BaseAlgorithm, run: RunDirectory, path: Path, checkpoint: bool = False) -> None:
    """Write the model to ``path`` and the normalisation statistics beside it, each all or nothing.

    Args:
        model: the model.
        run: its directory.
        path: the file.
        checkpoint: whether training is to go on from there, which may take more.

    Raises:
        OSError: if the disk is full.
    """
    env = model.get_vec_normalize_env()
    if isinstance(env, VecNormalize):
        # for whoever only evaluates; a checkpoint holds its own, so that no kill between the two files does harm
        with replacing(run.normalization) as temporary:
            env.save(temporary)
    write = write_checkpoint if checkpoint else type(model).save
    with replacing(path) as temporary:
        write(model, temporary)


class RunCheckpoint(CheckpointCallback):
    """Writes a run's checkpoint at intervals of wall time and on request to stop.

    Args:
        run: receives ``checkpoint.zip``.
        stop: when requested, a last checkpoint is written and training ends.
        clock: the run's wall time.
        every_seconds: wall time between checkpoints.

    Attributes:
        logs: are on the disk before a checkpoint is.
    """

    def __init__(self, run: RunDirectory, stop: StopRequest, clock: Clock, every_seconds: float) -> None:
        super().__init__(run.checkpoint, every_seconds=every_seconds)
        self.run = run
        self.stop = stop
        self.clock = clock
        self.logs: tuple[CsvLog, ...] = ()

    def _on_rollout_start(self) -> None:
        due, stop = agree(self.is_due(), self.stop.requested)
        if due or stop:
            self.save()
        if stop:
            raise Stopped

    def _on_training_end(self) -> None:
        """The run's model is what is left then."""

    def _write(self, timesteps: int) -> None:
        # rows that are lost with the machine's memory would be missing for good once the checkpoint lies beyond them
        for log in self.logs:
            log.sync()
        save_model(self.model, self.run, self.run.checkpoint, checkpoint=True)
        self.run.write_status("running", timesteps=timesteps, wall_seconds=round(self.clock(), 3))


class ProgressCallback(BaseCallback):
    """Tells the reporter how far training is, a few times a second at most."""

    def __init__(self, reporter: Reporter, every_seconds: float = 0.25) -> None:
        super().__init__()
        self.reporter = reporter
        self.every_seconds = every_seconds
        self.every_step = self._may_listen = True
        self._last = self._rollout_began = 0.0

    def _on_training_start(self) -> None:
        # where steps are tensors a model's own loop tells of each; whoever asks for that is left out of common ones
        self.every_step = self._may_listen = not steps_on_tensors(self.training_env)
        self._report()

    def _on_rollout_start(self) -> None:
        self._rollout_began = time.monotonic()

    def _on_step(self) -> bool:
        if time.monotonic() - self._last >= self.every_seconds:
            self._report()
        return True

    def _on_rollout_end(self) -> None:
        # as long as rollouts are short, one report for each is enough
        self.every_step = self._may_listen and time.monotonic() - self._rollout_began > self.every_seconds
        self._on_step()

    def _on_training_end(self) -> None:
        self._report()

    def _report(self) -> None:
        self._last = time.monotonic()
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        self.reporter.progress(self.num_timesteps, float(np.mean(recent)) if recent else None)


@contextmanager
def stop_on_signals(insist: bool = True) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop; with ``insist`` the second one ends the process at once."""
    stop = StopRequest()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        for other in signals if insist else ():
            signal.signal(other, signal.SIG_DFL)

    for number in signals:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(error: BaseException) -> str:
    """Return an exception as a line, with the place it was raised in."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _note_changed_provenance(run: RunDirectory, threads: int | None) -> None:
    """If this attempt uses other code or another machine than the first, say so in ``provenance.json``.

    What was written when the directory was made counts for nothing until something ran:
    a run may wait in a cluster's queue and start on another machine, with code changed since.
    """
    now = collect_provenance(threads=threads)
    if run.status["attempts"] == 1:
        run.write_provenance({**run.provenance, **now, "command": run.provenance.get("command", now["command"])})
        return
    same = ("git", "packages", "python", "cpu", "gpu")
    attempts = [run.provenance, *run.provenance.get("resumed_with", [])]
    if any(attempts[-1].get(key) != now[key] for key in same):
        run.write_provenance({**run.provenance, "resumed_with": [*attempts[1:], now]})
