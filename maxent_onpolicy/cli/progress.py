"""How a single training shows its progress: a row an evaluation, and a bar below them in a terminal."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from maxent_onpolicy.cli.runner import Reporter
from maxent_onpolicy.evaluation.modes import split_of
from maxent_onpolicy.evaluation.protocol import Episodes
from maxent_onpolicy.evaluation.tables import number

_ROW = "{:>12}  {}  {:>9}  {:>8}"


class TrainingProgress:
    """Shows one training.

    Args:
        console: where.
        total_timesteps: of the training.

    Attributes:
        reporter: for :func:`~maxent_onpolicy.cli.runner.execute`.
    """

    def __init__(self, console: Console, total_timesteps: int) -> None:
        self.console = console
        self.reporter = Reporter(self._progress, self._evaluated, self._message)
        self._bar = Progress(
            TextColumn("{task.completed:>12,}"),
            BarColumn(None),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total_timesteps)
        self._training_return: float | None = None
        self._at: tuple[int, float] | None = None
        self._columns: tuple[str, ...] = ()

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def _progress(self, timesteps: int, mean_return: float | None) -> None:
        self._training_return = mean_return
        if self._at is None:
            self._at = (timesteps, time.monotonic())
        self._bar.update(self._task, completed=timesteps)

    def _evaluated(self, timesteps: int, results: dict[str, Episodes]) -> None:
        seconds = time.monotonic() - self._at[1] if self._at else 0.0
        steps = timesteps - self._at[0] if self._at else 0
        self._head(tuple(results))
        cells = [f"{_mean(episodes):>20}" for episodes in results.values()]
        training = "" if self._training_return is None else number(self._training_return)
        speed = f"{steps / seconds:,.0f}" if steps and seconds else ""
        self._message(_ROW.format(f"{timesteps:,}", "  ".join(cells), training, speed))
        self._at = (timesteps, time.monotonic())

    def _head(self, names: tuple[str, ...]) -> None:
        """Name the columns above the first row."""
        if names != self._columns:
            self._columns = names
            heads = [name if split_of(name) else f"{name} return" for name in names]
            cells = "  ".join(f"{head:>20}" for head in heads)
            self._message(_ROW.format("steps", cells, "training", "steps/s"))

    def _message(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


def _mean(episodes: Episodes) -> str:
    return f"{number(float(episodes.returns.mean()))} ± {number(float(episodes.returns.std()))}"
