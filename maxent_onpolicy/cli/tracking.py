"""Where a run of the command line is tracked: what the options say, and the run's part in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.modes import slug
from maxent_onpolicy.evaluation.runs import RunDirectory
from maxent_onpolicy.validation import did_you_mean

if TYPE_CHECKING:
    from stable_baselines3.common.logger import KVWriter

    from maxent_onpolicy.evaluation.protocol import Episodes

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


@dataclass(frozen=True)
class Tracking:
    """Where runs are tracked.

    Attributes:
        trackers: any of :data:`TRACKERS`.
        project: its name there; ``None`` for this package's.
    """

    trackers: tuple[str, ...] = ("tensorboard",)
    project: str | None = None

    def as_arguments(self) -> list[str]:
        """Return it as options of a worker."""
        project = [] if self.project is None else ["--project", self.project]
        return ["--trackers", ",".join(self.trackers), *project]


def read_tracking(trackers: tuple[str, ...], project: str | None, no_tensorboard: bool) -> Tracking | None:
    """Return what the options ask for, or ``None`` if they say nothing.

    Args:
        trackers: ``--tracker``, each.
        project: ``--project``.
        no_tensorboard: ``--no-tensorboard``.

    Raises:
        UsageError: for a tracker that is unknown, not installed, or both wanted and not.
    """
    for name in trackers:
        if name not in TRACKERS:
            known = ", ".join(TRACKERS)
            raise UsageError(f"--tracker must be one of {known}; got {name!r}{did_you_mean(name, TRACKERS)}")
    if "tensorboard" in trackers and no_tensorboard:
        raise UsageError("--tracker tensorboard and --no-tensorboard exclude each other")
    others = tuple(dict.fromkeys(name for name in trackers if name != "tensorboard"))
    if project is not None and not (others and project.strip()):
        needs = "needs a --tracker other than tensorboard" if project.strip() else "must not be empty"
        raise UsageError(f"--project {needs}")
    if others:
        from maxent_onpolicy.tracking import check_trackers

        try:
            check_trackers(others)
        except ImportError as error:
            raise UsageError(f"--tracker: {error}") from None
    if not (others or no_tensorboard or trackers):
        return None
    return Tracking((() if no_tensorboard else ("tensorboard",)) + others, project)


class RunTracker:
    """Tracks one attempt of a run.

    Args:
        run: its directory, where ids and TensorBoard's files are kept.
        tracking: where; ``None`` goes on as the run's first attempt, which is TensorBoard alone by default.
        message: receives lines for the user.
    """

    def __init__(self, run: RunDirectory, tracking: Tracking | None, message: Callable[[str], None]) -> None:
        self.run = run
        self.message = message
        self._asked = tracking
        self._formats: list[KVWriter] = []

    def start(self, timesteps: int) -> "list[KVWriter]":
        """Return the output formats for the model's logger.

        Args:
            timesteps: that the run has behind it.

        Raises:
            UsageError: if a tracker's package is not installed.
        """
        from maxent_onpolicy.tracking.logger import make_format

        tracking = self._remembered()
        described = self._described(tracking)
        try:
            for name in tracking.trackers:
                self._formats.append(make_format(name, described, timesteps, self.message))
        except ImportError as error:
            raise UsageError(f"{self.run.path}: {error}") from error
        return self._formats

    def evaluated(self, timesteps: int, results: "dict[str, Episodes]") -> None:
        """Write the means of an evaluation."""
        row: dict[str, Any] = {}
        for mode, episodes in results.items():
            row[f"eval/{slug(mode)}_return"] = float(episodes.returns.mean())
            row[f"eval/{slug(mode)}_length"] = float(episodes.lengths.mean())
        for output in self._formats:
            output.write(row, dict.fromkeys(row, ()), timesteps)

    def finish(self, state: str) -> None:
        """Say how the attempt ended: ``completed``, ``failed`` or ``interrupted``."""
        from maxent_onpolicy.tracking.base import TrackerFormat

        for output in self._formats:
            if isinstance(output, TrackerFormat):
                output.finish(state)
            else:
                output.close()

    def _remembered(self) -> Tracking:
        from maxent_onpolicy.tracking.run import read_memory, write_memory

        memory = read_memory(self.run.path)
        if self._asked is None:
            return Tracking(tuple(memory.get("trackers", ("tensorboard",))), memory.get("project"))
        project = self._asked.project or memory.get("project")
        tracking = Tracking(self._asked.trackers, project)
        if memory or tracking != Tracking():
            write_memory(self.run.path, trackers=list(tracking.trackers), project=project)
        return tracking

    def _described(self, tracking: Tracking) -> Any:
        from maxent_onpolicy.tracking.run import PROJECT, TrackedRun

        config = self.run.config
        pair = f"{self.run.label} {self.run.env_id}"
        return TrackedRun(
            self.run.path,
            tracking.project or PROJECT,
            name=f"{pair} seed {self.run.seed}",
            group=f"{config['suite']}: {pair}",
            tags=tuple(dict.fromkeys(str(config[key]) for key in ("suite", "algorithm", "env_id"))),
            config=config,
            provenance={key: value for key, value in self.run.provenance.items() if key != "command"},
        )


@contextmanager
def tracked(
    run: RunDirectory,
    tracking: Tracking | None,
    message: Callable[[str], None],
    interruptions: tuple[type[BaseException], ...],
) -> Iterator[RunTracker]:
    """Yield the tracker of one attempt, and tell it how the block ended.

    Args:
        run: see :class:`RunTracker`.
        tracking: see there.
        message: see there.
        interruptions: what is raised in a run that was asked to stop.
    """
    tracker = RunTracker(run, tracking, message)
    try:
        yield tracker
    except BaseException as error:
        tracker.finish("interrupted" if isinstance(error, interruptions) else "failed")
        raise
    tracker.finish("completed")
