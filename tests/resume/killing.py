"""Kill training runs by SIGKILL, resume them, and compare what is left with runs that were left alone."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from stable_baselines3.common.save_util import load_from_zip_file

from maxent_onpolicy.evaluation.runs import RunDirectory

HERE = Path(__file__).parent
MISUSE = 2
# the clock, what holds it (Monitor's start of an episode is state of the environment), where a call of learn() began
CLOCK = ("start_time", "_num_timesteps_at_start", "env", "_training_state", "ep_info_buffer")


class Child:
    """A command that runs in a process group of its own.

    Args:
        server: that started it.
        pid: of the process and its group.
    """

    def __init__(self, server: "KillServer", pid: int) -> None:
        self._server = server
        self.pid = pid

    def kill(self) -> None:
        """End all its processes at once, unless it has ended already."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert self.running is False, "a process without its group"

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def wait(self) -> tuple[int, int]:
        """Return its exit status, negative for a signal, and how many files it has touched."""
        answer = self._server.answer()
        return os.waitstatus_to_exitcode(answer["status"]), answer["touched"]


class KillServer:
    """Starts ``maxent-onpolicy`` commands one after another; see ``kill_server.py``."""

    def __init__(self) -> None:
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "kill_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(300)

    def start(self, folder: Path, *argv: object, cut: int | None = None) -> Child:
        """Start a command that works in ``folder``; it is killed at the ``cut``-th file it touches there."""
        assert self._process.stdin is not None
        folder.mkdir(parents=True, exist_ok=True)
        request = {"argv": [*map(str, argv)], "folder": str(folder), "cut": cut}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Child(self, self.answer()["pid"])

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Training:
    """One run in a folder, started and resumed as a user would after each kill.

    Args:
        server: starts its processes.
        folder: its results go below it.
        arguments: of ``maxent-onpolicy train``, but for those about files.
        every: seconds between checkpoints where :meth:`start` does not say; 0 writes one at every iteration.
    """

    def __init__(self, server: KillServer, folder: Path, arguments: tuple[str, ...], every: float = 0) -> None:
        self.server = server
        self.folder = folder
        self.arguments = arguments
        self.every = every

    @property
    def path(self) -> Path | None:
        """The run directory, if it is there."""
        found = list(self.folder.glob("results/local/runs/*/*/seed_*"))
        assert len(found) < 2
        return found[0] if found else None

    def start(self, cut: int | None = None, every: float | None = None) -> Child:
        """Start the run, or go on with it."""
        checkpoints = ("--checkpoint-seconds", str(self.every if every is None else every))
        if self.path is None:
            results = ("--results", self.folder / "results")
            return self.server.start(self.folder, "train", *self.arguments, *results, *checkpoints, cut=cut)
        return self.server.start(self.folder, "train", "--resume", self.path, *checkpoints, cut=cut)

    def finish(self) -> int:
        """Go on to the end; return how many files were touched."""
        status, touched = self.start().wait()
        assert status == 0, (self.folder / "log.txt").read_text()
        return touched

    def completed(self) -> bool:
        """Whether it has come to its end."""
        return self.path is not None and RunDirectory(self.path).completed


def assert_ends_like(training: Training, expected: dict[str, Any]) -> None:
    """Let ``training`` come to its end, and compare what it leaves behind."""
    if training.completed():
        assert training.start().wait()[0] == MISUSE, "there is nothing to resume"
    else:
        training.finish()
    assert training.path is not None
    assert differences(expected, leavings(training.path)) == []
    assert not list(training.path.parent.glob(".*")), "a temporary directory was left"


def kill_at_random(training: Training, rng: np.random.Generator, seconds: float, kills: int) -> int:
    """Kill ``training`` at ``kills`` random moments, ``seconds`` apart in the mean; return how many hit a live process.

    Checkpoints are written at random too: at every iteration, or now and then.
    """
    hits = 0
    for _ in range(kills):
        if training.completed():
            break
        child = training.start(every=float(rng.choice([0.0, 0.1, 0.5])))
        time.sleep(rng.exponential(seconds))
        child.kill()
        status, _ = child.wait()
        assert status in (0, -signal.SIGKILL), (training.folder / "log.txt").read_text()
        hits += status != 0
    return hits


def leavings(path: Path) -> dict[str, Any]:
    """Everything a completed run directory holds that does not depend on the clock, as comparable values."""
    found: dict[str, Any] = {
        "files": sorted(entry.name for entry in path.iterdir()),
        "eval.csv": (path / "eval.csv").read_bytes(),
        "train.csv": _learning(RunDirectory(path).read_train()),
        **contents(path / "model.zip"),
    }
    if (path / "normalization.npz").exists():
        with np.load(path / "normalization.npz") as file:
            found["normalization"] = {name: file[name].tobytes() for name in file.files}
    return found


def contents(path: Path) -> dict[str, Any]:
    """Everything in a model's file that does not depend on the clock, as comparable values."""
    data, parameters, variables = load_from_zip_file(path, device="cpu")
    assert data is not None
    state = data["_training_state"]
    return {
        "episodes": [(info["r"], info["l"]) for info in data["ep_info_buffer"]],
        "generators": flat({name: state[name] for name in ("python", "numpy", "torch", "normalization")}),
        "parameters": flat(parameters),
        "variables": flat(variables or {}),
        "data": {name: repr(value) for name, value in sorted(data.items()) if _comparable(name, value)},
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name what differs between two :func:`leavings`."""
    wrong = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    lines = []
    for name in wrong:
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            lines += [f"{name}: {key}" for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
        else:
            lines.append(f"{name}: {first!r:.300} and {second!r:.300}")
    return lines


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every number in nested containers, as bytes under its path."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return {name: (value.dtype.str, value.shape, value.tobytes())}
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {name: repr(value)}
    return {path: leaf for key, item in items for path, leaf in flat(item, f"{name}.{key}").items()}


def _comparable(name: str, value: Any) -> bool:
    return name not in CLOCK and " at 0x" not in repr(value)


def _learning(frame: pd.DataFrame) -> str:
    clock = [name for name in frame if name == "wall_seconds" or name.startswith("time/")]
    text = io.StringIO()
    frame.drop(columns=clock).to_csv(text)
    return text.getvalue()
