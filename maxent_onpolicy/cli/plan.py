"""What a benchmark has to do: compare the runs of a suite with what lies in its results directory."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal
from zipfile import is_zipfile

from maxent_onpolicy.cli.config import RunConfig, differences
from maxent_onpolicy.cli.lock import locked
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.evaluation.runs import RunDirectory, RunError, run_path
from maxent_onpolicy.validation import did_you_mean

Action = Literal["start", "resume", "skip", "conflict", "corrupt"]
_MOST_NAMES = 20  # that an error lists


@dataclass(frozen=True)
class PlannedRun:
    """One run of a suite, and what is to be done about it.

    Attributes:
        config: the run.
        path: its directory.
        action: ``start`` from the beginning, ``resume``, ``skip`` because it is completed, or why nothing can be done:
            ``conflict`` (the directory was made with other settings), ``corrupt``.
        detail: what differs, or what is wrong with the directory.
        timesteps: how far it is.
    """

    config: RunConfig
    path: Path
    action: Action
    detail: str = ""
    timesteps: int = 0


def plan_run(config: RunConfig, results: Path) -> PlannedRun:
    """Look at the directory of one run.

    Args:
        config: the run.
        results: ``<results>/<suite>``.
    """
    path = run_path(results, config.label, config.env_id, config.seed)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return PlannedRun(config, path, "start")
    try:
        run = RunDirectory(path)
        run.read_eval()
        run.read_train()
    except RunError as error:
        return PlannedRun(config, path, "corrupt", str(error).replace(f"{path}/", ""))
    changed = differences(run.config, config.to_json())
    if changed:
        return PlannedRun(config, path, "conflict", "; ".join(changed))
    if run.completed:
        return PlannedRun(config, path, "skip", timesteps=config.total_timesteps)
    if not run.checkpoint.exists():
        return PlannedRun(config, path, "start")
    if not is_zipfile(run.checkpoint):
        return PlannedRun(config, path, "corrupt", "checkpoint.zip is damaged")
    return PlannedRun(config, path, "resume", timesteps=int(run.status["timesteps"]))


def select(runs: tuple[RunConfig, ...], patterns: tuple[str, ...]) -> list[RunConfig]:
    """Return the runs that match any of ``patterns``; all of them if there are none.

    A pattern names a label, an environment, ``seed_N`` or ``label/environment/seed_N``; ``*`` stands for anything.

    Raises:
        UsageError: if a pattern matches nothing, with the closest name.
    """
    if not patterns:
        return list(runs)
    chosen: list[RunConfig] = []
    for pattern in patterns:
        found = [run for run in runs if any(fnmatchcase(name, pattern) for name in _names(run))]
        if not found:
            known = list(dict.fromkeys(name for run in runs for name in _names(run)[:3]))
            hint = did_you_mean(pattern, known)
            listed = f"there are: {', '.join(known)}" if len(known) <= _MOST_NAMES else "--dry-run shows what there is"
            raise UsageError(f"--only {pattern!r} matches no run{hint}; {listed}")
        chosen += found
    return [run for run in runs if run in chosen]


def shard(runs: list[RunConfig], part: str | None, by_cell: bool) -> list[RunConfig]:
    """Return the runs of one machine of several, which together have all, whatever is completed already.

    Args:
        runs: of the suite that were selected.
        part: ``i/n``, the i-th of n machines; ``None`` for all runs.
        by_cell: whether all seeds of an algorithm in an environment stay together.

    Raises:
        UsageError: if ``part`` is not of that form.
    """
    if part is None:
        return runs
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard must be i/n with i from 1 to n, got {part!r}")
    keys = [(run.label, run.env_id, 0 if by_cell else run.seed) for run in runs]
    # dealt out in this order, every algorithm is shared out evenly: some take many times as long as others
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return [run for run, key in zip(runs, keys, strict=True) if places[key] % count == number - 1]


def _names(run: RunConfig) -> tuple[str, str, str, str, str]:
    seed = f"seed_{run.seed}"
    pair = f"{run.label}/{run.env_id}"
    return run.label, run.env_id, seed, pair, f"{pair}/{seed}"


def preparation(planned: PlannedRun, provenance: dict[str, Any], restart: bool) -> Callable[[], RunDirectory]:
    """Return a function that makes the run's directory, or opens it; to be called before each attempt.

    Args:
        planned: the run.
        provenance: goes into a new directory.
        restart: whether a directory that is corrupt or was made with other settings is removed, once.
    """
    discard = restart and planned.action in ("conflict", "corrupt")

    def prepare() -> RunDirectory:
        nonlocal discard
        if discard:
            discard_run(planned.path)
            discard = False
        if planned.path.exists() and any(planned.path.iterdir()):
            return RunDirectory(planned.path)
        return RunDirectory.create(planned.path, planned.config.to_json(), provenance)

    return prepare


def discard_run(path: Path) -> None:
    """Remove a run directory, unless another process is running it.

    Raises:
        UsageError: if it is being run.
    """
    with locked(path):
        shutil.rmtree(path)
