"""How a benchmark shows its progress: bars in a terminal, lines in a log."""

import time
from collections import defaultdict

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from maxent_onpolicy.cli.jobs import Job
from maxent_onpolicy.evaluation.modes import MODES
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError
from maxent_onpolicy.evaluation.tables import duration, number


def make_display(jobs: list[Job], console: Console) -> "LogDisplay":
    """Return bars if ``console`` is a terminal, else lines."""
    return BarDisplay(jobs, console) if console.is_terminal else LogDisplay(jobs, console)


class LogDisplay:
    """One line when a run starts and ends, and one on the whole every half minute.

    Args:
        jobs: all that the queue will run.
        console: where to write.
        every_seconds: between lines on the whole.
    """

    def __init__(self, jobs: list[Job], console: Console, every_seconds: float = 30.0) -> None:
        self.jobs = jobs
        self.console = console
        self.every_seconds = every_seconds
        self.began = time.monotonic()
        self._last = self.began

    def __enter__(self) -> "LogDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self) -> None:
        """Write a line on the whole if it is time for one."""
        if time.monotonic() - self._last >= self.every_seconds:
            self._last = time.monotonic()
            self._print(Text(self.summary()))

    def started(self, job: Job) -> None:
        """Write that ``job`` starts, and from where."""
        origin = f" from step {job.timesteps:,}" if job.timesteps else ""
        again = f" (attempt {job.attempts})" if job.attempts > 1 else ""
        self._print(Text(f"started      {job.config.name}{origin}{again}"))

    def finished(self, job: Job) -> None:
        """Write how ``job`` ended, and why if it failed."""
        took = f"in {duration(job.seconds)}"
        if job.state == "completed":
            self._print(Text(f"completed    {job.config.name}: {_final_return(job)}{took}"))
        elif job.state == "interrupted":
            self._print(Text(f"interrupted  {job.config.name}"))
        else:
            verdict = "will retry  " if job.state == "waiting" else "failed      "
            self._print(Text(f"{verdict} {job.config.name}: {job.error}"))

    def message(self, text: str) -> None:
        """Write a line."""
        self._print(Text(text))

    def summary(self) -> str:
        """Return how far the whole is, in a line."""
        ended = sum(job.state in ("completed", "failed") for job in self.jobs)
        running = sum(job.state == "running" for job in self.jobs)
        left = self.seconds_left()
        eta = "" if left is None else f", about {duration(left)} left"
        return f"{self.share():4.0%}  {ended} of {len(self.jobs)} runs done, {running} running{eta}"

    def share(self) -> float:
        """Return which part of all timesteps is done, but those that a failed run leaves undone."""
        jobs = [job for job in self.jobs if job.state != "failed"]
        return sum(map(_done, jobs)) / sum(job.config.total_timesteps for job in jobs) if jobs else 1.0

    def seconds_left(self) -> float | None:
        """Return the time left at the speed so far; ``None`` before there is one.

        A step of one algorithm in one environment can take a hundred times as long as another's, so each has its own
        speed. A run of what has not been tried yet is taken to be as long as the others are in the mean.
        """
        now = time.monotonic()
        spent: dict[tuple[str, str], float] = defaultdict(float)
        steps: dict[tuple[str, str], int] = defaultdict(int)
        for job in self.jobs:
            spent[_kind(job)] += job.seconds + (now - job.began if job.state == "running" else 0.0)
            steps[_kind(job)] += _done(job) - min(job.done_before, _done(job))
        a_step = {kind: spent[kind] / done for kind, done in steps.items() if done > 0}
        if not a_step or now - self.began < 2:
            return None
        a_run = {_kind(job): a_step.get(_kind(job), 0.0) * job.config.total_timesteps for job in self.jobs}
        mean = sum(a_run.values()) / len(a_step)
        jobs = [job for job in self.jobs if job.state != "failed"]
        ahead = sum((a_run[_kind(job)] or mean) * (1 - _done(job) / job.config.total_timesteps) for job in jobs)
        at_a_time = sum(spent[kind] for kind in a_step) / (now - self.began)
        return ahead / at_a_time

    def _print(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)


class BarDisplay(LogDisplay):
    """A bar for the whole and one for each run in progress, below the lines of what ended."""

    def __init__(self, jobs: list[Job], console: Console) -> None:
        super().__init__(jobs, console)
        self._live = Live(console=console, refresh_per_second=5, transient=True, get_renderable=self.render)

    def __enter__(self) -> "BarDisplay":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def update(self) -> None:
        """The bars refresh themselves."""

    def started(self, job: Job) -> None:
        """A bar appears; only a second attempt needs words."""
        if job.attempts > 1:
            super().started(job)

    def _print(self, line: Text) -> None:
        self.console.print(line, highlight=False)

    def render(self) -> Group:
        """Return the bars as they are now."""
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=5, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=3)
        table.add_column(justify="right", no_wrap=True, min_width=4)
        table.add_column(justify="right", no_wrap=True, min_width=13)
        for job in self.jobs:
            if job.state != "running":
                continue
            share = _done(job) / job.config.total_timesteps
            seen = "starting" if job.mean_return is None else f"return {number(job.mean_return)}"
            bar = ProgressBar(total=1.0, completed=share)
            table.add_row(f"{job.config.label} {job.config.env_id} #{job.config.seed}", bar, f"{share:.0%}", seen)
        ended = sum(job.state in ("completed", "failed") for job in self.jobs)
        left = self.seconds_left()
        eta = "" if left is None else f"{duration(left)} left"
        whole = ProgressBar(total=1.0, completed=self.share())
        table.add_row(Text(f"{ended} of {len(self.jobs)} runs", style="bold"), whole, f"{self.share():.0%}", eta)
        return Group(table)


def _kind(job: Job) -> tuple[str, str]:
    return job.config.label, job.config.env_id


def _done(job: Job) -> int:
    return min(job.timesteps, job.config.total_timesteps)


def _final_return(job: Job) -> str:
    try:
        frame = RunDirectory(job.path).read_eval()
    except (RunError, OSError):
        return ""
    if frame.empty:
        return ""
    last = frame[frame["timesteps"] == frame["timesteps"].max()]
    last = last[last["mode"] == next(mode for mode in MODES if mode in set(last["mode"]))]
    if "split" not in last:
        return f"return {number(last['return'].mean())} "
    means = last.groupby("split")["return"].mean()
    return f"return {number(means['train'])}, test {number(means['test'])} "
