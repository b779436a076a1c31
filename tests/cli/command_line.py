"""A suite of seconds, and the command line as a process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TINY: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0],
    "defaults": {
        "total_timesteps": 768,
        "n_envs": 2,
        "hyperparameters": {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "device": "cpu"},
        "evaluation": {"every": 256, "episodes": 2},
    },
    "algorithms": {"PPO": {}},
    "environments": {"CartPole-v1": {}},
}


def write_suite(folder: Path, **changes: Any) -> Path:
    """Write the tiny suite with top-level keys replaced."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "maxent_onpolicy", *map(str, arguments)]


def environment() -> dict[str, str]:
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "80"}


def run_command(*arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, **options
    )
    assert "Traceback (most recent call last)" not in done.stderr, done.stderr
    return done


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
