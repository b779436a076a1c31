"""Run directories: the truth about one training run, as plain files.

A run directory holds ``config.json``, ``provenance.json``, ``status.json``,
``train.csv`` and ``eval.csv``. Everything that is reported is derived from
these files, so they survive kills, full disks and half-written lines, and a
directory that does not is named instead of taking the others down with it.
What trackers keep beside them, such as TensorBoard's files, is not read here.
"""

import csv
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from maxent_onpolicy.evaluation.files import sync, write_atomic
from maxent_onpolicy.validation import check_choice

STATES = ("running", "completed", "failed", "interrupted")
EVAL_COLUMNS = ("timesteps", "mode", "episode", "return", "length")
TRAIN_COLUMNS = ("timesteps", "wall_seconds")
CONFIG_KEYS = ("suite", "label", "algorithm", "env_id", "seed", "total_timesteps", "hyperparameters", "evaluation")
STATUS_DEFAULTS: dict[str, Any] = {
    "state": "running",
    "timesteps": 0,
    "attempts": 0,
    "error": None,
    "started": None,
    "finished": None,
    "wall_seconds": 0.0,
}


class RunError(ValueError):
    """A run directory that cannot be read; the message says which file and why."""


@dataclass(frozen=True)
class CorruptRun:
    """A directory that looks like a run but cannot be read.

    Attributes:
        path: the directory.
        reason: which file is wrong, and how.
    """

    path: Path
    reason: str


class CsvLog:
    """Appends rows to a CSV file such that a kill costs at most the last line.

    Every line is handed to the operating system at once. A line without its
    newline is what a kill left behind: it is dropped on opening and on reading.

    Args:
        path: the file; created with the first row.
        columns: columns that come first. A row with an unseen key adds a column,
            for which the file is rewritten once (atomically).
    """

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self.path = path
        self.columns = list(columns)
        text = _complete_lines(path)
        if text:
            self.columns = next(csv.reader(StringIO(text)))
        if path.exists() and text != path.read_text(encoding="utf-8"):
            write_atomic(path, text)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``rows``; keys a row lacks become empty cells.

        Raises:
            OSError: if the line cannot be written.
        """
        rows = list(rows)
        new = [key for row in rows for key in row if key not in self.columns]
        if new:
            self._add_columns(list(dict.fromkeys(new)))
        text = StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if not self.path.exists() or self.path.stat().st_size == 0:
            writer.writeheader()
        writer.writerows(rows)
        _append(self.path, text.getvalue())

    def truncate(self, timesteps: int) -> None:
        """Drop rows beyond ``timesteps``: what a killed run logged after its last checkpoint."""
        text = _complete_lines(self.path)
        if not text:
            return
        lines = text.splitlines(keepends=True)
        column = self.columns.index("timesteps")
        kept = [line for line in lines[1:] if int(next(csv.reader([line]))[column]) <= timesteps]
        if len(kept) < len(lines) - 1:
            write_atomic(self.path, "".join([lines[0], *kept]))

    def last(self, column: str) -> float | None:
        """Return the number in the last row of a column, or ``None`` without rows."""
        lines = _complete_lines(self.path).splitlines()
        return float(next(csv.reader([lines[-1]]))[self.columns.index(column)]) if len(lines) > 1 else None

    def sync(self) -> None:
        """Wait until all rows are on the disk, where they outlive the machine's memory."""
        if self.path.exists():
            sync(self.path)

    def _add_columns(self, new: list[str]) -> None:
        text = _complete_lines(self.path)
        self.columns += new
        if text:
            lines = text.splitlines()
            header = StringIO()
            csv.writer(header, lineterminator="\n").writerow(self.columns)
            write_atomic(self.path, header.getvalue() + "".join(f"{line}{',' * len(new)}\n" for line in lines[1:]))


class RunDirectory:
    """One run, read from its files.

    Args:
        path: the directory.

    Raises:
        RunError: if a file that must be there is missing or cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = _read_json(self.path / "config.json")
        missing = [key for key in CONFIG_KEYS if key not in self.config]
        if missing:
            raise RunError(f"{self.path / 'config.json'} lacks {', '.join(missing)}")
        if not isinstance(self.config["seed"], int):
            raise RunError(f"{self.path / 'config.json'} has a seed that is no integer: {self.config['seed']!r}")
        self.status = {**STATUS_DEFAULTS, **_read_json(self.path / "status.json")}
        if self.status["state"] not in STATES:
            raise RunError(f"{self.path / 'status.json'} has the unknown state {self.status['state']!r}")
        self.provenance = _read_json(self.path / "provenance.json")

    @classmethod
    def create(cls, path: Path | str, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> "RunDirectory":
        """Make the directory with its configuration, all at once.

        Args:
            path: where; nothing but an empty directory may be there.
            config: what is run, see :data:`CONFIG_KEYS` for what must be in it.
            provenance: with what it is run, see :func:`~maxent_onpolicy.evaluation.provenance.collect_provenance`.

        Raises:
            FileExistsError: if something is there already.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(errno.EEXIST, "the run directory exists already", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-", ignore_cleanup_errors=True) as name:
            staged = Path(name) / path.name
            staged.mkdir()
            write_atomic(staged / "config.json", _to_json(config))
            write_atomic(staged / "provenance.json", _to_json(provenance))
            write_atomic(staged / "status.json", _to_json({**STATUS_DEFAULTS, "state": "interrupted"}))
            os.replace(staged, path)
        return cls(path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r}, {self.status['state']})"

    @property
    def label(self) -> str:
        """What the algorithm with its settings is called in tables."""
        return str(self.config["label"])

    @property
    def env_id(self) -> str:
        """The environment."""
        return str(self.config["env_id"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.config["seed"])

    @property
    def completed(self) -> bool:
        """Whether training and the last evaluation came to their end."""
        return bool(self.status["state"] == "completed")

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished run keeps what it needs to go on."""
        return self.path / "checkpoint.zip"

    @property
    def model(self) -> Path:
        """Where a completed run keeps its model."""
        return self.path / "model.zip"

    @property
    def newest_model(self) -> Path | None:
        """The model of a completed run, else the checkpoint; ``None`` if neither is kept."""
        return next((path for path in (self.model, self.checkpoint) if path.exists()), None)

    @property
    def normalization(self) -> Path:
        """Where the normalisation statistics that belong to the checkpoint or the model are kept."""
        return self.path / "normalization.npz"

    def train_log(self) -> CsvLog:
        """Open ``train.csv`` for appending."""
        return CsvLog(self.path / "train.csv", TRAIN_COLUMNS)

    def eval_log(self) -> CsvLog:
        """Open ``eval.csv`` for appending."""
        return CsvLog(self.path / "eval.csv", EVAL_COLUMNS)

    def read_train(self) -> pd.DataFrame:
        """Return ``timesteps``, ``wall_seconds`` and one column a logged quantity; a row an iteration.

        Raises:
            RunError: if the file cannot be parsed.
        """
        return _read_csv(self.path / "train.csv", TRAIN_COLUMNS)

    def read_eval(self) -> pd.DataFrame:
        """Return ``timesteps, mode, episode, return, length``; a row an episode, in raw reward.

        Raises:
            RunError: if the file cannot be parsed.
        """
        return _read_csv(self.path / "eval.csv", EVAL_COLUMNS)

    def write_status(self, state: str, **fields: Any) -> None:
        """Set the state, and any other field of ``status.json``; the rest keeps its value.

        Raises:
            ValueError: if ``state`` or a field is unknown.
        """
        check_choice("state", state, STATES)
        for name in fields:
            check_choice("status field", name, tuple(STATUS_DEFAULTS))
        self.status = {**self.status, "state": state, **fields}
        write_atomic(self.path / "status.json", _to_json(self.status))

    def discard_checkpoint(self) -> None:
        """Remove the checkpoint of a completed run; a kill may have left it."""
        assert self.completed
        self.checkpoint.unlink(missing_ok=True)

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Replace ``provenance.json``."""
        self.provenance = dict(provenance)
        write_atomic(self.path / "provenance.json", _to_json(self.provenance))


def run_path(results: Path, label: str, env_id: str, seed: int) -> Path:
    """Return the directory of one run below ``<results>/<suite>``, by names that every file system takes."""
    return results / "runs" / _folder(label) / _folder(env_id) / f"seed_{seed}"


def _folder(name: str) -> str:
    return re.sub(r'[<>:"/\\|?*]', "_", name)


def find_runs(root: Path | str) -> tuple[list[RunDirectory], list[CorruptRun]]:
    """Find every run below ``root``.

    Args:
        root: a results directory, or anything above or below one.

    Returns:
        The runs sorted by label, environment and seed, and the directories that
        look like a run but cannot be read, each with the reason.

    Raises:
        FileNotFoundError: if ``root`` is no directory.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such results directory", str(root))
    runs: list[RunDirectory] = []
    corrupt: list[CorruptRun] = []
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        path = Path(directory)
        if not (path.name.startswith("seed_") or {"config.json", "status.json"} & set(files)):
            continue
        folders.clear()
        try:
            run = RunDirectory(path)
            run.read_eval()
            run.read_train()
        except RunError as error:
            corrupt.append(CorruptRun(path, str(error)))
        else:
            runs.append(run)
    runs.sort(key=lambda run: (run.label, run.env_id, run.seed))
    return runs, corrupt


def _to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} holds a {type(value).__name__}, not an object")
    return value


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        text = _complete_lines(path)
        frame = pd.read_csv(StringIO(text)) if text else pd.DataFrame(columns=list(columns))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise RunError(f"{path} lacks the column {', '.join(missing)}")
    if not all(pd.api.types.is_numeric_dtype(frame[name]) for name in columns if name != "mode") and len(frame):
        raise RunError(f"{path} holds text where numbers belong")
    return frame


def _complete_lines(path: Path) -> str:
    """Return the text up to the last newline; empty if there is no file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    return text[: text.rfind("\n") + 1]


def _append(path: Path, text: str) -> None:
    """Append in one system call where possible, so that a kill tears no line in two."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        data = text.encode("utf-8")
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
