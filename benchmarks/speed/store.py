"""``runs.csv``, one row a process, and ``machine.json``: all that tables and figures are made from.

Columns of ``runs.csv``: ``workload``, ``contender``, ``round``, ``status`` ("ok" or "failed"), ``steps_per_second``
(environment steps over the timed iterations), ``iteration_ms`` (their median), ``env_ms`` ... ``logging_ms`` (medians
of the parts, where they were timed), ``startup_s`` (from the first import to the end of the first iteration),
``peak_rss_mb``, ``warmup``, ``iterations``, ``threads``, ``load`` (the machine's load average over the minute before),
``iterations_ms`` (every timed iteration), ``error``.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from benchmarks.speed.workloads import Job
from maxent_onpolicy.evaluation.files import write_atomic

NUMBERS = (
    "steps_per_second",
    "iteration_ms",
    "update_ms",
    "env_ms",
    "policy_ms",
    "buffer_ms",
    "logging_ms",
    "startup_s",
    "peak_rss_mb",
    "load",
)
COLUMNS = (
    "workload",
    "contender",
    "round",
    "status",
    *NUMBERS,
    "warmup",
    "iterations",
    "threads",
    "iterations_ms",
    "error",
)
Row = dict[str, Any]


class Store:
    """The measurements in a folder; every change is written at once and atomically.

    Args:
        folder: where ``runs.csv`` and ``machine.json`` are, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self.machine: dict[str, Any] = {}
        if (folder / "runs.csv").is_file():
            self.rows = parse((folder / "runs.csv").read_text(encoding="utf-8"))
        if (folder / "machine.json").is_file():
            self.machine = json.loads((folder / "machine.json").read_text(encoding="utf-8"))

    def clear(self) -> None:
        """Forget everything, here and on disk."""
        self.rows, self.machine = [], {}
        for name in ("runs.csv", "machine.json"):
            (self.folder / name).unlink(missing_ok=True)

    def has(self, job: Job) -> bool:
        """Return whether the job has been measured, with as many iterations and threads as now."""
        wanted = (*job.key, job.contender.warmup, job.contender.iterations, job.contender.threads)
        keys = ("workload", "contender", "round", "warmup", "iterations", "threads")
        return any(row["status"] == "ok" and tuple(row[key] for key in keys) == wanted for row in self.rows)

    def add(self, job: Job, result: dict[str, Any], error: str = "") -> Row:
        """Replace what is known of the job, and write it down."""
        row: Row = {"workload": job.workload.name, "contender": job.contender.name, "round": job.round}
        row |= {key: result.get(key) for key in NUMBERS}
        row |= {key: getattr(job.contender, key) for key in ("warmup", "iterations", "threads")}
        row |= {"status": "failed" if error else "ok", "error": without_places(error)}
        row["iterations_ms"] = " ".join(f"{value:.3f}" for value in result.get("iterations_ms", ()))
        self.rows = [old for old in self.rows if (old["workload"], old["contender"], old["round"]) != job.key]
        self.rows.append(row)
        if result.get("versions"):
            self.machine.setdefault("libraries", {})[job.contender.label] = result["versions"]
        self.write()
        return row

    def write(self) -> None:
        """Write both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "runs.csv", render(self.rows))
        write_atomic(self.folder / "machine.json", json.dumps(self.machine, indent=2, sort_keys=True) + "\n")


def without_places(text: str) -> str:
    """Return a message of at most 200 characters without addresses and folders: results name nobody's machine."""
    words = ("(address)" if "://" in word else word for word in text.split())
    return " ".join(Path(word).name if word.strip("'\"(").startswith("/") else word for word in words)[:200]


def render(rows: list[Row]) -> str:
    """Return rows as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _text(row[key]) for key in COLUMNS})
    return stream.getvalue()


def parse(text: str) -> list[Row]:
    """Return the rows of a CSV that :func:`render` wrote."""
    rows: list[Row] = []
    for line in csv.DictReader(io.StringIO(text)):
        row: Row = dict(line)
        row |= {key: float(line[key]) if line[key] else None for key in NUMBERS}
        row |= {key: int(line[key]) for key in ("round", "warmup", "iterations", "threads")}
        rows.append(row)
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
