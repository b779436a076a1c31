"""Loggers with trackers among their formats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger, make_output_format

from maxent_onpolicy.tracking.base import Message, TrackerFormat, check_installed
from maxent_onpolicy.tracking.mlflow_format import MlflowFormat
from maxent_onpolicy.tracking.run import PROJECT, TrackedRun, describe_model, make_provenance
from maxent_onpolicy.tracking.tensorboard_format import TensorBoardFormat
from maxent_onpolicy.tracking.trackio_format import TrackioFormat
from maxent_onpolicy.tracking.wandb_format import WandbFormat
from maxent_onpolicy.validation import check_choice

_FORMATS: dict[str, type[TrackerFormat]] = {cls.name: cls for cls in (WandbFormat, MlflowFormat, TrackioFormat)}
TRACKERS = ("tensorboard", *_FORMATS)
_OF_SB3 = ("stdout", "log", "json", "csv")


class TrackedLogger(Logger):
    """SB3's logger that tells its trackers how the run ended.

    As a context manager it tells what the block came to: ``completed``, ``interrupted``
    (Ctrl-C) or ``failed``. Otherwise :meth:`close` means completed, and if nobody
    calls it the end of the process decides.
    """

    def finish(self, state: str = "completed") -> None:
        """Close every format.

        Args:
            state: ``"completed"``, ``"failed"`` or ``"interrupted"``.
        """
        for output in self.output_formats:
            if isinstance(output, TrackerFormat):
                output.finish(state)
            else:
                output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted = isinstance(error, KeyboardInterrupt)
        self.finish("completed" if error is None else "interrupted" if interrupted else "failed")


def make_logger(
    folder: Path | str,
    formats: Sequence[str] = ("stdout", "csv", "tensorboard"),
    *,
    model: BaseAlgorithm | None = None,
    project: str = PROJECT,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> TrackedLogger:
    """Make a logger for ``model.set_logger``.

    A second logger for the same folder goes on in the same tracked runs.

    Args:
        folder: for the files of the formats, and for the ids of the tracked runs.
        formats: any of ``stdout``, ``log``, ``json``, ``csv`` (SB3's), ``tensorboard``, ``wandb``, ``mlflow``,
            ``trackio``.
        model: whose algorithm, environment, seed and hyperparameters are told to the trackers.
        project: what W&B and Trackio call a project, and MLflow an experiment.
        name: of the run; default is the folder's.
        group: of runs that belong together.
        tags: words to find the run by.
        config: further settings to be told.

    Raises:
        ValueError: for an unknown format.
        ImportError: if a tracker's package is not installed; names what to install.
    """
    for written in formats:
        check_choice("formats", written, (*_OF_SB3, *TRACKERS))
    check_trackers([written for written in formats if written in TRACKERS])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**(describe_model(model) if model is not None else {}), **(config or {})}
    run = TrackedRun(folder, project, name or folder.resolve().name, group, tuple(tags), settings, make_provenance())
    step = 0 if model is None else model.num_timesteps
    outputs = [make_format(each, run, step) if each in TRACKERS else _own(each, folder) for each in formats]
    return TrackedLogger(str(folder), outputs)


def make_format(name: str, run: TrackedRun, step: int, message: Message | None = None) -> KVWriter:
    """Make the output format of one tracker.

    Args:
        name: one of :data:`TRACKERS`.
        run: what is tracked.
        step: environment steps the run has behind it.
        message: receives lines for the user.
    """
    if name == "tensorboard":
        return TensorBoardFormat(run.folder / "tensorboard", run.config, step)
    return _FORMATS[name](run, message)


def check_trackers(names: Sequence[str]) -> None:
    """Raise if a tracker is unknown or its package is not installed.

    Raises:
        ValueError: for an unknown name.
        ImportError: naming what to install.
    """
    for name in names:
        check_choice("tracker", name, TRACKERS)
        if name in _FORMATS:
            check_installed(name, _FORMATS[name].package)


def _own(name: str, folder: Path) -> KVWriter:
    return make_output_format(name, str(folder))
