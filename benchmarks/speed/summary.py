"""Medians, spreads and ratios of what ``runs.csv`` holds."""

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from benchmarks.speed.store import Row


class Summary(NamedTuple):
    """A number with its spread over rounds.

    Attributes:
        median: over rounds; of ratios, the ratio of the medians.
        low: smallest in any round.
        high: largest in any round.
        rounds: how many.
    """

    median: float
    low: float
    high: float
    rounds: int


class Measurements:
    """Looks up rows.

    Args:
        rows: of ``runs.csv``.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def values(self, workload: str, contender: str, column: str) -> dict[int, float]:
        """Return a column by round."""
        return {
            row["round"]: row[column]
            for row in self.rows
            if (row["workload"], row["contender"]) == (workload, contender)
            and row["status"] == "ok"
            and row[column] is not None
        }

    def failed(self, workload: str, contender: str) -> bool:
        """Return whether there is a failure, and no measurement."""
        states = {row["status"] for row in self.rows if (row["workload"], row["contender"]) == (workload, contender)}
        return states == {"failed"}

    def summary(self, workload: str, contender: str, column: str = "steps_per_second") -> Summary | None:
        """Return the median over rounds and the spread; ``None`` where nothing was measured."""
        return summarise(self.values(workload, contender, column).values())

    def fastest(self, workload: str, contenders: Iterable[str]) -> str | None:
        """Return whom of ``contenders`` has the most steps a second; ``None`` if none was measured."""
        found = {name: self.summary(workload, name) for name in contenders}
        measured = {name: summary.median for name, summary in found.items() if summary is not None}
        return max(measured, key=lambda name: measured[name]) if measured else None

    def ratio(self, workload: str, upper: str, lower: str, column: str = "steps_per_second") -> Summary | None:
        """Return ``upper`` divided by ``lower``: of the medians, with the spread of the ratios within rounds."""
        return ratio(self.values(workload, upper, column), self.values(workload, lower, column))


def summarise(values: Iterable[float]) -> Summary | None:
    """Return median, smallest and largest; ``None`` of nothing."""
    found = list(values)
    return Summary(median(found), min(found), max(found), len(found)) if found else None


def ratio(upper: dict[int, float], lower: dict[int, float]) -> Summary | None:
    """Return the ratio of the medians; its spread is that of the ratios within the rounds that both have.

    Args:
        upper: numerators by round.
        lower: denominators by round.
    """
    within = [upper[number] / lower[number] for number in sorted(upper.keys() & lower.keys())]
    if not within:
        return None
    return Summary(median(upper.values()) / median(lower.values()), min(within), max(within), len(within))


def break_even(start: float, speed: float, other_start: float, other_speed: float, rollout: int) -> float:
    """Return after how many environment steps the first has overtaken the second; infinite if it never does.

    A run of ``n`` steps takes ``start + (n - rollout) / speed``, because ``start`` includes the first rollout.

    Args:
        start: seconds from the first import to the end of the first iteration.
        speed: steps a second from there on.
        other_start: the same of the other.
        other_speed: the same of the other.
        rollout: steps of the first iteration.
    """
    if start <= other_start:
        return 0.0
    gained = 1 / other_speed - 1 / speed
    return rollout + (start - other_start) / gained if gained > 0 else float("inf")
